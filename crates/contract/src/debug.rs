// SPDX-License-Identifier: AGPL-3.0-only
//! What `{:?}` shows of messages that hold users' content or secrets: everything but these. Payloads show their
//! length. Which messages these are is a list in `build.rs`.

use std::fmt;

use crate::v1::{
    ChannelInfo, DeliverInteraction, EditWebhookMessage, Event, ExecuteWebhook, Guild, Interaction,
    InteractionReply, MembersChunk, Raw, RestHeader, RestRequest, RestResponse, SoundboardSounds,
    VoiceConnection, WebhookEvent, WebhookFile, WebhookMessage, guild, webhook_file, webhook_message,
};

/// Stands for bytes that aren't shown.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// Shows the fields named, then the length of those named behind the semicolon. Destructured, so that a field
/// that is added must be put on one side.
macro_rules! debug {
    ($message:ident { $($shown:ident),* ; $($hidden:ident),* }) => {
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($hidden,)* } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Length($hidden.len())))*
                    .finish()
            }
        }
    };
}

debug!(Event {
    schema, application, shard, shard_count, stream, position, sequence, generation, received_at_us, name,
    guild_id, trace, possible_duplicate; data
});
debug!(Guild { schema, application, guild_id, shard, shard_count, stream, position, found; });
debug!(Raw { opcode; data });
debug!(VoiceConnection { guild_id, channel_id, user_id, endpoint; session_id, token });
debug!(MembersChunk { guild_id, chunk_index, chunk_count; data });
debug!(SoundboardSounds { guild_id; data });
debug!(ChannelInfo { guild_id; data });
debug!(DeliverInteraction { guild_id; data });
debug!(Interaction {
    schema, application, id, kind, name, guild_id, received_at_us, answer_by_ms, late_until_ms, trace, signature,
    timestamp; ticket, body
});
debug!(InteractionReply { schema, content_type, deferred_with; ticket, body });
debug!(WebhookEvent { schema, application, name, received_at_us, hash, trace; body });
debug!(RestRequest { schema, method, headers, priority, deadline_ms; path, body, idempotency_key });
debug!(RestHeader { name; value });
debug!(RestResponse { status, headers; body });
debug!(WebhookMessage { schema, webhook_id, thread_id, deadline_ms, operation; token, idempotency_key });
debug!(ExecuteWebhook { files, wait, with_components; body });
debug!(EditWebhookMessage { message_id, files, with_components; body });
debug!(WebhookFile { content_type, content; name });

impl fmt::Debug for guild::Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => f.debug_tuple("Data").field(&Length(data.len())).finish(),
            Self::Error(error) => f.debug_tuple("Error").field(error).finish(),
        }
    }
}

impl fmt::Debug for webhook_message::Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execute(execute) => execute.fmt(f),
            Self::Edit(edit) => edit.fmt(f),
            Self::Delete(delete) => delete.fmt(f),
        }
    }
}

impl fmt::Debug for webhook_file::Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => f.debug_tuple("Data").field(&Length(data.len())).finish(),
            // Whoever knows the address can have the file.
            Self::Upload(upload) => f.debug_tuple("Upload").field(&Length(upload.len())).finish(),
        }
    }
}
