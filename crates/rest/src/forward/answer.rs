// SPDX-License-Identifier: AGPL-3.0-only
//! What an answer says about limits, tokens and webhooks. In: Discord's answer. Out: a verdict, and the answer with its
//! body as it was. Only bodies that decide something are read.

use std::time::Duration;

use bytes::Bytes;
use holdfast_discord::rest::{Route, Scope, Told};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VIA};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited as AtMost};
use serde::Deserialize;
use tokio::time::timeout;

use super::{Body, SMALL, UNSAID, UpstreamError};
use crate::limits::Limited;

/// JSON error codes that mean that a webhook is no more, or its token another ("JSON Error Codes").
const UNKNOWN_WEBHOOK: u64 = 10_015;
const INVALID_WEBHOOK_TOKEN: u64 = 50_027;

/// Short bodies come at once, or not any more.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Bans last for up to a day. What says more is no time.
const LONGEST: Duration = Duration::from_secs(2 * 86_400);

/// What follows from an answer.
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// It is a 429, or a ban.
    Limited(Limited),
    /// Discord doesn't know the token.
    TokenRefused,
    /// Discord doesn't know the webhook.
    WebhookGone,
}

#[derive(Default, Deserialize)]
struct Said {
    retry_after: Option<f64>,
    #[serde(default)]
    global: bool,
    #[serde(default)]
    code: u64,
}

/// Whether the body of an error says that the webhook is no more, or its token another.
#[must_use]
pub fn webhook_is_gone(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|said: Said| said.names_no_webhook())
}

impl Said {
    fn names_no_webhook(&self) -> bool {
        matches!(self.code, UNKNOWN_WEBHOOK | INVALID_WEBHOOK_TOKEN)
    }
}

/// Judges an answer.
pub(super) async fn judge(
    response: Response<Body>,
    route: &Route,
) -> Result<(Verdict, Response<Body>), UpstreamError> {
    let status = response.status();
    let decisive = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => is_page(response.headers()),
        StatusCode::NOT_FOUND => route.name.contains("{webhook_id}"),
        _ => false,
    };
    if !decisive {
        return Ok((Verdict::Fine, response));
    }
    let (mut head, body) = response.into_parts();
    // Longer ones say nothing that is looked for; what was read of them is lost, and so is the answer.
    let body = match timeout(READ_WITHIN, AtMost::new(body, SMALL).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        // What a limit's headers say holds all the same.
        _ if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN) => {
            head.headers.remove(CONTENT_LENGTH);
            Bytes::new()
        }
        _ => return Err(UpstreamError::Unreadable),
    };
    let said: Said = serde_json::from_slice(&body).unwrap_or_default();
    let verdict = match status {
        StatusCode::TOO_MANY_REQUESTS => Verdict::Limited(limited(&head.headers, &said)),
        StatusCode::FORBIDDEN => Verdict::Limited(limited(&head.headers, &Said::default())),
        _ if said.names_no_webhook() && route.exempt => Verdict::WebhookGone,
        StatusCode::UNAUTHORIZED if !route.exempt => Verdict::TokenRefused,
        _ => Verdict::Fine,
    };
    Ok((verdict, Response::from_parts(head, Body::whole(body))))
}

/// The bucket's figures and name.
pub(super) fn told(headers: &HeaderMap) -> (Option<Told>, Option<&str>) {
    let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
    (Told::read(text), text("x-ratelimit-bucket"))
}

fn limited(headers: &HeaderMap, said: &Said) -> Limited {
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(|time| time.min(LONGEST));
    // The body has the decimals. Where they are far apart, the longer time is the right one.
    let retry_after = match (said.retry_after, header) {
        (Some(exact), Some(whole)) if whole > exact + 1.0 => seconds(whole),
        (Some(exact), _) => seconds(exact),
        (None, header) => header.and_then(seconds),
    };
    let named = headers.get("x-ratelimit-scope").and_then(|value| Scope::read(value.to_str().ok()?));
    let global = said.global || headers.contains_key("x-ratelimit-global");
    let scope = match named {
        _ if global => Some(Scope::Global),
        None if said.retry_after.is_none() && !from_discord(headers) => None,
        named => Some(named.unwrap_or(Scope::User)),
    };
    // A ban that doesn't say how long it lasts is asked about once a minute.
    let unsaid = if scope.is_none() { UNSAID * 60 } else { UNSAID };
    Limited { scope, retry_after: retry_after.unwrap_or(unsaid), told: told(headers).0 }
}

/// What stands before Discord answers with a page of its own when it has banned an address.
fn is_page(headers: &HeaderMap) -> bool {
    let json =
        headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    !json && !from_discord(headers)
}

fn from_discord(headers: &HeaderMap) -> bool {
    headers.get(VIA).is_some_and(|via| via.as_bytes().ends_with(b"google"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_far_apart_times_counts_and_the_exact_one_otherwise() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        let said = |retry_after| Said { retry_after, ..Said::default() };
        let shared = headers(&[("retry-after", "1337"), ("x-ratelimit-scope", "shared")]);
        let verdict = limited(&shared, &said(Some(64.57)));
        assert_eq!((verdict.scope, verdict.retry_after), (Some(Scope::Shared), Duration::from_secs(1_337)));
        let verdict = limited(&headers(&[("retry-after", "2")]), &said(Some(1.25)));
        assert_eq!((verdict.scope, verdict.retry_after), (Some(Scope::User), Duration::from_millis(1_250)));
        let verdict = limited(&headers(&[]), &Said { global: true, ..said(Some(0.5)) });
        assert_eq!(verdict.scope, Some(Scope::Global));
    }

    #[test]
    fn a_ban_is_known_by_who_answers() {
        let page: HeaderMap = [("content-type", "text/html")]
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect();
        let verdict = limited(&page, &Said::default());
        assert_eq!((verdict.scope, verdict.retry_after), (None, Duration::from_secs(60)));
        assert!(is_page(&page));
        let mut discord = page.clone();
        discord.insert(VIA, "1.1 google".parse().unwrap());
        assert!(!is_page(&discord) && limited(&discord, &Said::default()).scope == Some(Scope::User));
    }
}
