// SPDX-License-Identifier: AGPL-3.0-only
//! What of a caller's request goes to Discord. In: path and headers as they came. Out: the path at Discord and where in
//! it the API's version ends, headers without those of one connection; or what is wrong with them. Pure.

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

/// Headers of one connection (RFC 9110, 7.6.1), besides those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What begins so is between callers and us.
const OURS: &str = "holdfast-";

/// The path at Discord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: PathAndQuery,
    /// Where the API's version ends.
    pub(crate) below: usize,
}

/// A path that would lead somewhere else than it seems to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misleading;

/// Turns a caller's path into the one at Discord: `/api/v9/x`, `/v9/x` and `/x` are all understood; `base` is what
/// Discord's own begins with, such as `/api/v10`.
pub(crate) fn target(uri: &Uri, base: &str) -> Result<Target, Misleading> {
    let path = uri.path();
    if !path.starts_with('/') || path.split('/').any(is_misleading) {
        return Err(Misleading);
    }
    let (version, rest) = split(path);
    let own = base.rsplit_once('/').filter(|(_, last)| is_version(last));
    let mut text = String::with_capacity(base.len() + path.len());
    match (version, own) {
        (Some(version), Some((before, _))) => {
            text.push_str(before);
            text.push('/');
            text.push_str(version);
        }
        (Some(version), None) => {
            text.push_str(base);
            text.push('/');
            text.push_str(version);
        }
        (None, _) => text.push_str(base),
    }
    let below = text.len();
    text.push_str(rest);
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    Ok(Target { path: text.parse().map_err(|_| Misleading)?, below })
}

/// The version that a path names, and what stands behind it. What stands before `/api` is the caller's own affair.
fn split(path: &str) -> (Option<&str>, &str) {
    let mut rest = path;
    for (at, _) in path.match_indices("/api/").take(1) {
        // Deeper in a path it may be anything.
        if path[..at].matches('/').count() <= 1 {
            rest = &path[at + 4..];
        }
    }
    let end = rest[1..].find('/').map_or(rest.len(), |at| at + 1);
    if is_version(&rest[1..end]) { (Some(&rest[1..end]), &rest[end..]) } else { (None, rest) }
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a piece of a path leads up, or hides a piece of another path.
fn is_misleading(part: &str) -> bool {
    let plain = |part: &str| part == "." || part == "..";
    if !part.contains('%') {
        return plain(part) || part.contains('\\');
    }
    let lower = part.to_ascii_lowercase();
    let hidden = ["%2f", "%5c", "%00", "%0a", "%0d"].iter().any(|code| lower.contains(code));
    hidden || plain(&lower.replace("%2e", ".")) || part.contains('\\')
}

/// Takes the headers out that aren't for the other side.
pub(crate) fn strip(headers: &mut HeaderMap) {
    // Most have none of them: one look instead of a search for each.
    if headers.keys().any(|name| is_of_a_connection(name.as_str())) {
        take_out(headers);
    }
}

fn is_of_a_connection(name: &str) -> bool {
    OF_A_CONNECTION.iter().any(|other| name == other.as_str())
        || matches!(name, "keep-alive" | "proxy-connection")
}

fn take_out(headers: &mut HeaderMap) {
    if let Some(named) = headers.get(CONNECTION) {
        let named = named.to_str().unwrap_or_default().to_owned();
        for name in named.split(',') {
            headers.remove(name.trim());
        }
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Takes out of a request's headers what is for us, too.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(HOST);
    // It was answered here.
    headers.remove(EXPECT);
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with(OURS)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_versions_are_understood() {
        for (path, expected, below) in [
            ("/api/v10/users/@me", "/api/v10/users/@me", "/users/@me"),
            (
                "/api/v9/channels/1/messages?limit=5",
                "/api/v9/channels/1/messages?limit=5",
                "/channels/1/messages",
            ),
            ("/v8/gateway", "/api/v8/gateway", "/gateway"),
            ("/users/@me", "/api/v10/users/@me", "/users/@me"),
            ("/api/users/@me", "/api/v10/users/@me", "/users/@me"),
            ("/proxy/api/v10/gateway", "/api/v10/gateway", "/gateway"),
            (
                "/channels/1/messages/2/reactions/%F0%9F%94%A5/@me",
                "/api/v10/channels/1/messages/2/reactions/%F0%9F%94%A5/@me",
                "/channels/1/messages/2/reactions/%F0%9F%94%A5/@me",
            ),
            ("/guilds/1/api/x", "/api/v10/guilds/1/api/x", "/guilds/1/api/x"),
            ("/", "/api/v10/", "/"),
            ("/v10", "/api/v10", ""),
        ] {
            let target = target(&path.parse().expect("a path"), "/api/v10").expect(path);
            assert_eq!((target.path.as_str(), &target.path.path()[target.below..]), (expected, below));
        }
        let bare = target(&"/api/v9/users/@me".parse().expect("a path"), "").expect("fine");
        assert_eq!(bare.path, "/v9/users/@me");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in [
            "/api/v10/../../x",
            "/api/v10/./x",
            "/api/v10/%2e%2e/x",
            "/api/v10/.%2E/x",
            "/api/v10/channels%2f1",
            "/api/v10/a%5Cb",
            "/api/v10/a%0d%0ab",
            "/..",
        ] {
            assert_eq!(target(&path.parse().expect("a path"), "/api/v10"), Err(Misleading), "{path}");
        }
        assert_eq!(target(&"*".parse().expect("a path"), "/api/v10"), Err(Misleading));
    }

    #[test]
    fn headers_of_a_connection_and_ours_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("host", "here"),
            ("holdfast-priority", "low"),
            ("x-audit-log-reason", "a"),
            ("authorization", "Bot t"),
        ] {
            headers.append(name, value.parse().expect("a value"));
        }
        headers.append("x-audit-log-reason", "b".parse().expect("a value"));
        strip_request(&mut headers);
        let left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(
            left,
            [("x-audit-log-reason", "a"), ("x-audit-log-reason", "b"), ("authorization", "Bot t")]
        );
    }
}
