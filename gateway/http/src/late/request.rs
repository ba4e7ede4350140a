// SPDX-License-Identifier: AGPL-3.0-only
//! The request to Discord that a late reply becomes. In: a reply and its ticket. Out: what Discord made of it.

use std::time::Duration;

use bytes::Bytes;
use holdfast_contract::v1::{Error, ErrorCode};
use holdfast_discord::interaction::CallbackKind;
use holdfast_rest::{Body, Call, CallError, Caller, Forwarder, Payload, Priority, Refusal, UpstreamError};
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::ticket::{Deferral, Ticket};

const AGENT: &str = concat!("DiscordBot (holdfast-http, ", env!("CARGO_PKG_VERSION"), ")");
/// How often what Discord may have had is sent again.
const ATTEMPTS: u32 = 5;
/// Where Discord couldn't be reached it is asked again, after a second more each time, up to so many.
const LONGEST_PAUSE: u32 = 30;
/// So much of an error of Discord's is read.
const MAX_ERROR: usize = 16 << 10;

/// How a reply gets into the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// An edit of the deferred message, or of the component's own.
    Edit,
    /// A message of its own that follows.
    FollowUp,
}

/// How an attempt failed.
struct Failed {
    error: Error,
    /// When it makes sense to try again, if it does.
    again: Option<Duration>,
    /// Discord has had none of it.
    unsent: bool,
}

/// The message that a late response becomes; none, if Discord knows what it says.
pub(super) fn becomes(callback: CallbackKind, deferral: Deferral) -> Result<Option<Becomes>, Error> {
    match (callback, deferral) {
        (CallbackKind::DeferredMessage | CallbackKind::DeferredUpdate, _) => Ok(None),
        (CallbackKind::Message, Deferral::Message { .. }) | (CallbackKind::Update, Deferral::Update) => {
            Ok(Some(Becomes::Edit))
        }
        (CallbackKind::Message, Deferral::Update) => Ok(Some(Becomes::FollowUp)),
        (CallbackKind::Update, Deferral::Message { .. }) => {
            let text =
                "Discord was told that a message follows: the component's own can't be edited so any more";
            Err(Error::new(ErrorCode::TooLate, text))
        }
        _ => Err(Error::new(ErrorCode::TooLate, "such a response has to come in time")),
    }
}

/// Sends it, until it is with Discord or can't be.
pub(super) async fn send(
    forwarder: &Forwarder,
    ticket: &Ticket,
    becomes: Becomes,
    (content_type, body): (String, Bytes),
    deadline: Instant,
) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let call = call(forwarder, ticket, becomes, (&content_type, body.clone()), deadline)?;
        let failed = match forwarder.send(call).await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => answered(response, becomes).await,
            Err(CallError::Refused(refusal)) => refused(&refusal),
            Err(CallError::Upstream(error)) => unanswered(&error, becomes),
        };
        let Some(pause) = failed.again else { return Err(failed.error) };
        let then = Instant::now() + pause.max(Duration::from_secs(1) * attempt);
        if then >= deadline || (!failed.unsent && attempt >= ATTEMPTS) {
            return Err(failed.error);
        }
        attempt = LONGEST_PAUSE.min(attempt + 1);
        sleep_until(then).await;
    }
}

fn call(
    forwarder: &Forwarder,
    ticket: &Ticket,
    becomes: Becomes,
    (content_type, body): (&str, Bytes),
    deadline: Instant,
) -> Result<Call, Error> {
    let base = forwarder.upstream().base();
    let (application, token) = (ticket.application, &ticket.token);
    let (method, original) = match becomes {
        Becomes::Edit => (Method::PATCH, "/messages/@original"),
        Becomes::FollowUp => (Method::POST, ""),
    };
    let target = format!("{base}/webhooks/{application}/{token}{original}");
    let malformed = || Error::new(ErrorCode::Malformed, "the ticket isn't one of ours");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).map_err(|_| malformed())?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    Ok(Call {
        method,
        target: target.parse().map_err(|_| malformed())?,
        below: base.len(),
        headers,
        payload: Payload::Whole(body),
        priority: Some(Priority::High),
        caller: Caller(0),
        deadline,
        stop: None,
    })
}

/// An error of Discord's.
#[derive(Deserialize)]
struct Said {
    code: u64,
    message: String,
}

async fn answered(response: Response<Body>, becomes: Becomes) -> Failed {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = match serde_json::from_slice(&body) {
        Ok(Said { code, message }) => format!("Discord answers {status}: {message} ({code})"),
        Err(_) => format!("Discord answers {status}"),
    };
    if !status.is_server_error() {
        return Failed { error: Error::new(ErrorCode::RefusedByDiscord, text), again: None, unsent: false };
    }
    // A message that follows may have been taken all the same.
    let again = (becomes == Becomes::Edit).then_some(Duration::ZERO);
    Failed { error: Error::new(ErrorCode::NoAnswer, text), again, unsent: false }
}

fn refused(refusal: &Refusal) -> Failed {
    let (code, again) = match *refusal {
        Refusal::Full { retry_after } => (ErrorCode::QueueFull, Some(retry_after)),
        Refusal::Guarded { retry_after } | Refusal::Banned { retry_after } => {
            (ErrorCode::Guarded, Some(retry_after))
        }
        Refusal::Late { .. } => (ErrorCode::DeadlineExceeded, None),
        Refusal::Stopped => (ErrorCode::Interrupted, None),
        Refusal::Webhook => (ErrorCode::WebhookGone, None),
        Refusal::Token => (ErrorCode::TokenRefused, None),
    };
    Failed { error: Error::new(code, refusal.to_string()), again, unsent: true }
}

fn unanswered(error: &UpstreamError, becomes: Becomes) -> Failed {
    let unsent = matches!(error, UpstreamError::Unreachable(_));
    let code = if unsent { ErrorCode::Unreachable } else { ErrorCode::NoAnswer };
    let again = (unsent || becomes == Becomes::Edit).then_some(Duration::ZERO);
    Failed { error: Error::new(code, error.to_string()), again, unsent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_response_becomes_an_edit_a_message_or_nothing() {
        let message = Deferral::Message { ephemeral: false };
        let of = |callback, deferral| becomes(callback, deferral).map_err(|error| error.code());
        assert_eq!(of(CallbackKind::Message, message), Ok(Some(Becomes::Edit)));
        assert_eq!(of(CallbackKind::Update, Deferral::Update), Ok(Some(Becomes::Edit)));
        assert_eq!(of(CallbackKind::Message, Deferral::Update), Ok(Some(Becomes::FollowUp)));
        assert_eq!(of(CallbackKind::DeferredMessage, message), Ok(None));
        assert_eq!(of(CallbackKind::DeferredUpdate, Deferral::Update), Ok(None));
        for (callback, deferral) in [
            (CallbackKind::Update, message),
            (CallbackKind::Modal, message),
            (CallbackKind::Modal, Deferral::Update),
            (CallbackKind::Choices, message),
        ] {
            assert_eq!(of(callback, deferral), Err(ErrorCode::TooLate), "{callback:?}");
        }
    }

    #[test]
    fn only_what_can_not_have_been_done_is_sent_again() {
        let lost = UpstreamError::Lost { reason: "cut".to_owned() };
        let away = UpstreamError::Unreachable("away".to_owned());
        assert!(unanswered(&lost, Becomes::FollowUp).again.is_none());
        assert!(unanswered(&lost, Becomes::Edit).again.is_some());
        assert!(unanswered(&away, Becomes::FollowUp).again.is_some());
        assert_eq!(unanswered(&lost, Becomes::FollowUp).error.code(), ErrorCode::NoAnswer);
        assert_eq!(unanswered(&away, Becomes::Edit).error.code(), ErrorCode::Unreachable);
    }
}
