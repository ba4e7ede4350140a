// SPDX-License-Identifier: AGPL-3.0-only
//! Bodies: of requests, whole or as they come within bounds; of answers, as they come or made here.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Frame, Incoming as Arriving, SizeHint};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, Sleep, sleep};

/// What a body may fail with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body.
#[derive(Debug)]
pub enum Payload {
    /// All of it; it can be sent again.
    Whole(Bytes),
    /// As it arrives.
    Stream(Stream),
    /// As somebody makes it, once.
    Made(UnsyncBoxBody<Bytes, BodyError>),
}

/// A request's body as it arrives, within bounds.
#[derive(Debug)]
pub struct Stream {
    body: Arriving,
    left: u64,
    pause: Duration,
    /// When the next piece has to be there.
    patience: Pin<Box<Sleep>>,
}

/// A request's body is longer than it may be, or stands still.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body stood still for too long")]
    Stalled,
}

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// As it arrives.
    Stream(Arriving),
    /// As somebody makes it.
    Made(UnsyncBoxBody<Bytes, BodyError>),
}

#[derive(Deserialize)]
struct Change {
    #[serde(default, deserialize_with = "there")]
    name: bool,
    #[serde(default, deserialize_with = "there")]
    topic: bool,
}

/// Whatever it says, `null` too.
fn there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

impl Payload {
    /// The body, if it can be sent again.
    pub(super) fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Whole(body) => Some(body.clone()),
            Self::Stream(_) | Self::Made(_) => None,
        }
    }

    /// Whether it changes a channel's name or topic, if it is sent to a channel.
    pub(super) fn changes_name_or_topic(&self, method: &Method) -> bool {
        match self {
            Self::Whole(body) if *method == Method::PATCH => {
                serde_json::from_slice(body).is_ok_and(|Change { name, topic }| name || topic)
            }
            _ => false,
        }
    }
}

impl Stream {
    /// At most `most` bytes, with no pause longer than `pause`.
    #[must_use]
    pub fn new(body: Arriving, most: u64, pause: Duration) -> Self {
        Self { body, left: most, pause, patience: Box::pin(sleep(pause)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return match self.patience.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Unfit::Stalled.into()))),
                Poll::Pending => Poll::Pending,
            };
        };
        self.patience.as_mut().reset(Instant::now() + self.pause);
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame.map(|failed| failed.map_err(Into::into)));
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(Unfit::TooLarge.into()))),
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body {
    /// A body that is there already.
    #[must_use]
    pub fn whole(body: Bytes) -> Self {
        Self::Whole((!body.is_empty()).then_some(body))
    }
}

impl HttpBody for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Self::Stream(stream) => stream.poll(cx),
            Self::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Stream(stream) => stream.body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Stream(stream) => stream.body.size_hint(),
            Self::Made(body) => body.size_hint(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Stream(body) => body.size_hint(),
            Self::Made(body) => body.size_hint(),
        }
    }
}
