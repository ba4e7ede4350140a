// SPDX-License-Identifier: AGPL-3.0-only
//! Gateway close codes and what to do after each
//! ("Opcodes and Status Codes", section "Gateway Close Event Codes").
//! In: the code of a close frame, if there was one. Out: resume, a new session, or the end.

/// Namespace of the gateway's close codes, and of the WebSocket codes that matter to a session.
#[derive(Debug)]
pub enum CloseCode {}

/// What to do with the session after a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClose {
    /// Connect to the resume URL and resume.
    Resume,
    /// The session is gone: connect to the gateway's URL and identify.
    NewSession,
    /// Trying again would be refused again; the text tells the operator what to do.
    Fatal(&'static str),
}

impl CloseCode {
    /// Normal closure. Sent by us, it ends the session: the bot goes offline.
    pub const NORMAL: u16 = 1000;
    /// Going away. Sent by us, it ends the session like [`CloseCode::NORMAL`].
    pub const GOING_AWAY: u16 = 1001;
    /// Something went wrong.
    pub const UNKNOWN_ERROR: u16 = 4000;
    /// An opcode that doesn't exist, or a payload that doesn't fit it.
    pub const UNKNOWN_OPCODE: u16 = 4001;
    /// A payload that could not be decoded, or of more than 4096 bytes.
    pub const DECODE_ERROR: u16 = 4002;
    /// A payload before identifying, or the session has been invalidated.
    pub const NOT_AUTHENTICATED: u16 = 4003;
    /// The token is wrong.
    pub const AUTHENTICATION_FAILED: u16 = 4004;
    /// A second IDENTIFY.
    pub const ALREADY_AUTHENTICATED: u16 = 4005;
    /// The sequence of a RESUME was invalid.
    pub const INVALID_SEQ: u16 = 4007;
    /// More than 120 payloads in 60 seconds.
    pub const RATE_LIMITED: u16 = 4008;
    /// The session timed out.
    pub const SESSION_TIMED_OUT: u16 = 4009;
    /// The pair of shard and shard count is invalid.
    pub const INVALID_SHARD: u16 = 4010;
    /// The session would have handled too many guilds.
    pub const SHARDING_REQUIRED: u16 = 4011;
    /// The gateway's version is invalid.
    pub const INVALID_API_VERSION: u16 = 4012;
    /// An intent that doesn't exist.
    pub const INVALID_INTENTS: u16 = 4013;
    /// A privileged intent that the application may not use.
    pub const DISALLOWED_INTENTS: u16 = 4014;

    /// What to do after Discord closed a connection with `code` (`None`: without a close frame).
    ///
    /// Codes that Discord doesn't document count as resumable: if the session is gone after all, the answer
    /// to the RESUME says so, at the price of one round trip.
    #[must_use]
    pub fn after(code: Option<u16>) -> AfterClose {
        match code {
            Some(Self::INVALID_SEQ | Self::SESSION_TIMED_OUT) => AfterClose::NewSession,
            Some(Self::AUTHENTICATION_FAILED) => AfterClose::Fatal(
                "Discord refused the token: copy the bot's token again from the Developer Portal, page Bot",
            ),
            Some(Self::INVALID_SHARD) => AfterClose::Fatal(
                "Discord refused the shard: the shard id must be below the shard count, and a large bot's count must \
                 be a multiple of the number that Discord assigned; leave the count unset to use Discord's own",
            ),
            Some(Self::SHARDING_REQUIRED) => AfterClose::Fatal(
                "Discord requires more shards: a shard holds 2,500 guilds at most; raise the shard count or leave it \
                 unset to use Discord's own",
            ),
            Some(Self::INVALID_API_VERSION) => AfterClose::Fatal(
                "Discord refused the gateway's version: a newer release of this program is needed",
            ),
            Some(Self::INVALID_INTENTS) => {
                AfterClose::Fatal("Discord does not know one of the intents: check the list of intents")
            }
            Some(Self::DISALLOWED_INTENTS) => AfterClose::Fatal(
                "the application may not use one of the privileged intents (GUILD_MEMBERS, GUILD_PRESENCES, \
                 MESSAGE_CONTENT): enable them in the Developer Portal, page Bot, or take them out of the list",
            ),
            _ => AfterClose::Resume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AfterClose, CloseCode};

    #[test]
    fn reconnectable_codes_resume() {
        for code in [4000, 4001, 4002, 4003, 4005, 4008] {
            assert_eq!(CloseCode::after(Some(code)), AfterClose::Resume, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_and_unknown_codes_resume() {
        for code in [None, Some(1000), Some(1001), Some(1006), Some(4006), Some(4999)] {
            assert_eq!(CloseCode::after(code), AfterClose::Resume, "{code:?}");
        }
    }

    #[test]
    fn an_invalid_sequence_and_a_timed_out_session_need_a_new_session() {
        for code in [4007, 4009] {
            assert_eq!(CloseCode::after(Some(code)), AfterClose::NewSession, "{code}");
        }
    }

    #[test]
    fn what_would_be_refused_again_is_fatal_and_says_what_to_do() {
        for code in [4004, 4010, 4011, 4012, 4013, 4014] {
            let AfterClose::Fatal(advice) = CloseCode::after(Some(code)) else {
                panic!("{code} is not fatal")
            };
            assert!(advice.len() > 40 && !advice.contains("  "), "{advice}");
        }
    }
}
