// SPDX-License-Identifier: AGPL-3.0-only
//! What can go wrong with a request, each with what to do about it. No variant can hold the token.

use std::time::Duration;

/// A request to Discord failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// 401.
    #[error(
        "Discord does not know this token: copy it anew from the Developer Portal (Bot, Reset Token) into \
         DISCORD_TOKEN or discord.token"
    )]
    Unauthorized,
    /// 403.
    #[error("Discord forbids {path} to this bot, or this address is banned for a while")]
    Forbidden {
        /// The path that was asked for.
        path: String,
    },
    /// 429.
    #[error("Discord asks to wait {retry_after:?} before the next request for {path}")]
    RateLimited {
        /// The path that was asked for.
        path: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// Any other status that isn't a success.
    #[error("{path} was answered with status {status}: check discord.api_url, and Discord's status page")]
    Status {
        /// The path that was asked for.
        path: String,
        /// The status.
        status: u16,
    },
    /// No answer.
    #[error("cannot reach {api_url}: {reason}")]
    Unreachable {
        /// Base of the API.
        api_url: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("{api_url} did not answer within {after:?}")]
    TimedOut {
        /// Base of the API.
        api_url: String,
        /// How long we waited.
        after: Duration,
    },
    /// An answer that isn't what was asked for.
    #[error(
        "{path} was answered with something else than Discord's API would: is discord.api_url right? {reason}"
    )]
    NotDiscord {
        /// The path that was asked for.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The gateway's address is our own front.
    #[error(
        "the gateway's address, {url}, is Holdfast's own (ws.public_url): it would connect to itself. \
         Point discord.api_url at Discord, not at a proxy that answers with Holdfast's address"
    )]
    OwnGateway {
        /// The address.
        url: String,
    },
    /// The base of the API is no address.
    #[error("discord.api_url is no address that can be asked: {reason}")]
    Address {
        /// Why not.
        reason: String,
    },
    /// The token can't be sent in a header.
    #[error("the token holds characters that no token has: copy it anew")]
    Token,
}

impl RestError {
    /// Whether asking again without a change can't help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::OwnGateway { .. } | Self::Address { .. } | Self::Token)
    }

    /// How long Discord asked to wait, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
