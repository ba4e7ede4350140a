// SPDX-License-Identifier: AGPL-3.0-only
//! A client's HTTP request before it is a WebSocket: its head, and what its query asks for.
//!
//! In: bytes. Out: a [`Head`]; a [`Query`], or the close code that Discord would give. Pure.

use super::{
    outgoing::{Encoding, Transport},
    splice,
};

/// The first line of a request, and whether it wants a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) websocket: bool,
    /// A ticket of another replica's.
    pub(crate) ticket: Option<String>,
}

/// What a connection's query asks for ("Connecting", gateway URL query string parameters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) encoding: Encoding,
    pub(crate) transport: Transport,
    /// Our own: the client's name, by which it is known again after a restart.
    pub(crate) name: Option<String>,
}

/// A close with its code and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Refused {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// A name longer than this is none.
const MAX_NAME: usize = 64;

impl Head {
    /// Reads a whole head (up to its empty line).
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.split("\r\n");
        let target = lines.next()?.strip_prefix("GET ")?.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self { path: path.into(), query: query.into(), websocket: false, ticket: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.trim(), value.trim());
            head.websocket |= name.eq_ignore_ascii_case("upgrade") && value.eq_ignore_ascii_case("websocket");
            if name.eq_ignore_ascii_case(splice::HEADER) {
                head.ticket = Some(value.to_owned());
            }
        }
        Some(head)
    }
}

impl Query {
    /// JSON without compression.
    pub(crate) fn plain() -> Self {
        Self { encoding: Encoding::Json, transport: Transport::Plain, name: None }
    }

    /// Reads a query string.
    pub(crate) fn parse(query: &str) -> Result<Self, Refused> {
        let mut parsed = Self::plain();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, value) {
                ("v", "10") | ("encoding", "json") | ("compress", "" | "none") => {}
                ("v", other) => {
                    return Err(Refused::new(4012, format!("version {other} is not served, 10 is")));
                }
                ("encoding", "etf") => parsed.encoding = Encoding::Etf,
                ("encoding", _) => return Err(Refused::new(4002, "encoding must be json or etf")),
                ("compress", "zlib-stream") => parsed.transport = Transport::ZlibStream,
                ("compress", "zstd-stream") => parsed.transport = Transport::ZstdStream,
                ("compress", _) => {
                    return Err(Refused::new(4002, "compress must be zlib-stream or zstd-stream"));
                }
                ("name", name) if !name.is_empty() && name.len() <= MAX_NAME => {
                    parsed.name = Some(name.to_owned());
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_path_query_and_upgrade() {
        let head = Head::parse(b"GET /?v=10 HTTP/1.1\r\nHost: x\r\nUPGRADE: WebSocket\r\n\r\n").unwrap();
        let plain = Head { path: "/".into(), query: "v=10".into(), websocket: true, ticket: None };
        assert_eq!(head, plain);
        let head = b"GET /?v=10 HTTP/1.1\r\nUpgrade: websocket\r\nHoldfast-Splice: 3/16 x\r\n\r\n";
        assert_eq!(Head::parse(head), Some(Head { ticket: Some("3/16 x".into()), ..plain }));
        let head = Head::parse(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((head.path.as_str(), head.query.as_str(), head.websocket), ("/metrics", "", false));
        assert_eq!(Head::parse(b"POST / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(Head::parse(b"\xff\r\n\r\n"), None);
    }

    #[test]
    fn a_query_gets_what_it_asks_for_and_no_more() {
        assert_eq!(Query::parse(""), Ok(Query::plain()));
        assert_eq!(Query::parse("v=10&encoding=json&unknown=1"), Ok(Query::plain()));
        let asked = Query::parse("v=10&encoding=etf&compress=zstd-stream&name=worker").unwrap();
        assert_eq!(
            asked,
            Query { encoding: Encoding::Etf, transport: Transport::ZstdStream, name: Some("worker".into()) }
        );
    }

    #[test]
    fn what_is_not_served_is_refused_with_discords_code() {
        let code = |query| Query::parse(query).unwrap_err().code;
        assert_eq!(code("v=6"), 4012);
        assert_eq!(code("encoding=xml"), 4002);
        assert_eq!(code("compress=gzip"), 4002);
    }
}
