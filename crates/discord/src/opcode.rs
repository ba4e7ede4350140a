// SPDX-License-Identifier: AGPL-3.0-only
//! Gateway opcodes by their documented names ("Opcodes and Status Codes", section "Gateway Opcodes").
//! Plain numbers, because an opcode that we don't know is passed on like any other.

/// Namespace of the gateway's opcodes.
#[derive(Debug)]
pub enum Opcode {}

impl Opcode {
    /// An event; received.
    pub const DISPATCH: u8 = 0;
    /// Keeps the connection alive; sent, and received as a request to send one at once.
    pub const HEARTBEAT: u8 = 1;
    /// Starts a session; sent.
    pub const IDENTIFY: u8 = 2;
    /// Sets the bot's presence; sent.
    pub const PRESENCE_UPDATE: u8 = 3;
    /// Joins, leaves or moves between voice channels; sent.
    pub const VOICE_STATE_UPDATE: u8 = 4;
    /// Continues a session; sent.
    pub const RESUME: u8 = 6;
    /// Asks to reconnect and resume; received.
    pub const RECONNECT: u8 = 7;
    /// Asks for members of a guild; sent.
    pub const REQUEST_GUILD_MEMBERS: u8 = 8;
    /// The session is invalid; `d` says whether it may be resumed; received.
    pub const INVALID_SESSION: u8 = 9;
    /// First payload of a connection, with the heartbeat interval; received.
    pub const HELLO: u8 = 10;
    /// Answer to a heartbeat; received.
    pub const HEARTBEAT_ACK: u8 = 11;
    /// Asks for the soundboard sounds of guilds; sent.
    pub const REQUEST_SOUNDBOARD_SOUNDS: u8 = 31;
    /// Asks for ephemeral data of a guild's channels; sent.
    pub const REQUEST_CHANNEL_INFO: u8 = 43;
}
