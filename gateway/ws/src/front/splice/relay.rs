// SPDX-License-Identifier: AGPL-3.0-only
//! A client between us and the owner of its shard. In: payloads of both. Out: the same to the other, until one of them
//! ends it; then the close that is the other's.
//!
//! Encoding and compression are ours, as with our own clients: the compressed stream belongs to the connection, and has
//! begun with HELLO. To the owner we speak plain JSON, whole messages at a time, so that a close fits in between when the
//! owner is lost. Nothing is queued: the owner isn't read while the client doesn't, nor the client while the owner doesn't.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use serde_json::json;
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;
use tokio_websockets::{CloseCode, Message};

use super::{
    super::{
        link::{Ended, Link, Payload, Reading, Writing},
        query::Refused,
    },
    dial::Socket,
};

/// Gathered before it is written, unless there is no more: as much as the front writes for its own clients.
const TURN_BYTES: usize = 64 * 1024;
/// The owner may take this long to hear of the end.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// How INVALID_SESSION begins, which the owner writes so.
const INVALID_SESSION: &[u8] = br#"{"t":null,"s":null,"op":9,"#;

/// How it ended.
#[derive(Debug)]
pub(super) enum Over {
    /// The client's session is invalid, and it knows: it may open anew.
    Invalid,
    /// The owner closes the client.
    Closed(Refused),
    /// The owner is lost.
    Lost,
    /// The client is gone, or is to be closed for what it did.
    Client(Ended),
    /// The service stops.
    Stopping,
}

/// Carries payloads both ways.
pub(super) async fn carry(
    link: &mut Link,
    owner: Socket,
    first: String,
    stopping: &CancellationToken,
) -> Over {
    let (mut to_owner, mut from_owner) = owner.split();
    let over = {
        let Link { reading, writing, .. } = link;
        let down = poll_fn(|cx| poll_down(writing, &mut from_owner, cx));
        select! { biased;
            () = stopping.cancelled() => Over::Stopping,
            over = up(reading, &mut to_owner, first) => over,
            over = down => over,
        }
    };
    match &over {
        Over::Invalid => {
            let _ = timeout(FAREWELL_WITHIN, link.writing.flush()).await;
        }
        Over::Client(Ended::Gone(Some(code))) => tell(*code, to_owner, from_owner).await,
        _ => {}
    }
    over
}

/// From the client to the owner.
async fn up(reading: &mut Reading, owner: &mut SplitSink<Socket, Message>, first: String) -> Over {
    let mut message = first;
    loop {
        if owner.send(Message::text(message)).await.is_err() {
            // What it said last is still to be read.
            std::future::pending::<()>().await;
        }
        let Payload { op, data } = match reading.next().await {
            Ok(payload) => payload,
            Err(ended) => return Over::Client(ended),
        };
        message = json!({ "op": op, "d": data }).to_string();
    }
}

/// From the owner to the client: everything that is there.
fn poll_down(writing: &mut Writing, owner: &mut SplitStream<Socket>, cx: &mut Context<'_>) -> Poll<Over> {
    let gone = |_| Over::Client(Ended::Gone(None));
    loop {
        if let Err(error) = ready!(writing.poll_out(cx, &mut 0)) {
            return Poll::Ready(gone(error));
        }
        while writing.out.rest().len() < TURN_BYTES {
            match owner.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(over) = take(writing, &message) {
                        return Poll::Ready(over);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Over::Lost),
                Poll::Pending if writing.out.is_empty() => {
                    return match writing.writer.poll_flush(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(gone(error)),
                        _ => Poll::Pending,
                    };
                }
                Poll::Pending => break,
            }
        }
    }
}

fn take(writing: &mut Writing, message: &Message) -> Option<Over> {
    if let Some((code, reason)) = message.as_close() {
        return Some(Over::Closed(Refused::new(code.into(), reason)));
    }
    let payload = message.as_text()?.as_bytes();
    writing.out.payload(payload);
    payload.starts_with(INVALID_SESSION).then_some(Over::Invalid)
}

/// Tells the owner how the client has closed: 1000 and 1001 end the session there. What the owner still has to say is
/// read, or the close could be lost with the connection.
async fn tell(code: u16, mut owner: SplitSink<Socket, Message>, mut rest: SplitStream<Socket>) {
    let Ok(code) = CloseCode::try_from(code) else { return };
    let told = async {
        owner.send(Message::close(Some(code), "")).await.ok()?;
        while let Some(Ok(_)) = rest.next().await {}
        Some(())
    };
    let _ = timeout(FAREWELL_WITHIN, told).await;
}
