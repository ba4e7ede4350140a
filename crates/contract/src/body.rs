// SPDX-License-Identifier: AGPL-3.0-only
//! Messages that are the whole body of an AMQP message, and what names them there.

use prost::Name;

use crate::v1::{
    Command, CommandReply, Event, Gap, GetGuild, Guild, Interaction, InteractionReceipt, InteractionReply,
    RestReply, RestRequest, WebhookEvent, WebhookMessage, WebhookReply,
};

/// Revision of the contract that this crate holds: what we write into `schema`.
pub const SCHEMA: u32 = 1;

/// The AMQP property `content_type` of every body.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// A message that is sent on its own; the others are parts of such.
pub trait Body: Name {
    /// The AMQP property `type`: the message's full name.
    const TYPE: &'static str;
}

macro_rules! bodies {
    ($($message:ident),*) => {
        $(impl Body for $message {
            const TYPE: &'static str = concat!("holdfast.v1.", stringify!($message));
        })*

        #[cfg(test)]
        #[test]
        fn a_type_is_the_name_in_the_proto_file() {
            $(assert_eq!($message::TYPE, $message::full_name());)*
        }
    };
}

bodies!(
    Event,
    Gap,
    Command,
    CommandReply,
    GetGuild,
    Guild,
    Interaction,
    InteractionReply,
    InteractionReceipt,
    WebhookEvent,
    RestRequest,
    RestReply,
    WebhookMessage,
    WebhookReply
);
