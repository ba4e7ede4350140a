// SPDX-License-Identifier: AGPL-3.0-only
//! The little that the client wants to know of a payload, without parsing it.
//! In: a payload's bytes. Out: opcode, name, sequence, and the numbers a generated message carries.

use std::sync::LazyLock;

use memchr::memmem::{Finder, find};
use serde::{Deserialize, de::IgnoredAny};

static NONCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""nonce":"#));
static CONTENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""content":"sim "#));

/// Where Discord's own order of keys has `d` at the latest: after the longest name and sequence.
const HEAD: usize = 160;

/// A payload without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) op: u8,
    pub(super) name: Option<&'a str>,
    pub(super) sequence: Option<u64>,
}

impl<'a> Head<'a> {
    /// Reads what stands before `d`; where that is not all, parses the payload.
    pub(super) fn of(payload: &'a [u8]) -> Option<Self> {
        Self::quick(payload).or_else(|| Self::parsed(payload))
    }

    fn quick(payload: &'a [u8]) -> Option<Self> {
        let start = &payload[..payload.len().min(HEAD)];
        let head = std::str::from_utf8(&start[..find(start, br#""d":"#)?]).ok()?;
        let value = |key: &str| Some(head[head.find(key)? + key.len()..].trim_start());
        let name = value(r#""t":"#)?;
        let name = name.strip_prefix('"').and_then(|rest| rest.split('"').next());
        Some(Self {
            op: number(value(r#""op":"#)?.as_bytes())? as u8,
            name,
            sequence: number(value(r#""s":"#)?.as_bytes()),
        })
    }

    fn parsed(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Whole<'a> {
            op: u8,
            t: Option<&'a str>,
            s: Option<u64>,
            #[serde(rename = "d")]
            _d: Option<IgnoredAny>,
        }
        let whole: Whole<'a> = serde_json::from_slice(payload).ok()?;
        Some(Self { op: whole.op, name: whole.t, sequence: whole.s })
    }
}

/// When the message was sent, in microseconds since 1970: its nonce, as a number or a string of digits.
pub(crate) fn sent_at(payload: &[u8]) -> Option<u64> {
    let rest = payload.get(NONCE.find(payload)? + NONCE.needle().len()..)?.trim_ascii_start();
    number(rest.strip_prefix(b"\"").unwrap_or(rest))
}

/// Guild and number of a generated message, from its content `sim <guild id> <n>`.
pub(crate) fn numbered(payload: &[u8]) -> Option<(u64, u64)> {
    let rest = &payload[CONTENT.find(payload)? + CONTENT.needle().len()..];
    let guild = number(rest)?;
    let space = memchr::memchr(b' ', rest)?;
    Some((guild, number(&rest[space + 1..])?))
}

/// The digits at the start of `text`, at least one.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = None;
    for digit in digits {
        value = Some(value.unwrap_or(0u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    value
}

/// What READY tells: how many guilds will follow.
pub(super) fn guilds_listed(ready: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Ready {
        d: Listed,
    }
    #[derive(Deserialize)]
    struct Listed {
        guilds: Vec<IgnoredAny>,
    }
    Some(serde_json::from_slice::<Ready>(ready).ok()?.d.guilds.len())
}

/// The heartbeat interval of HELLO, in milliseconds.
pub(super) fn heartbeat_interval(hello: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Hello {
        d: Interval,
    }
    #[derive(Deserialize)]
    struct Interval {
        heartbeat_interval: u64,
    }
    Some(serde_json::from_slice::<Hello>(hello).ok()?.d.heartbeat_interval).filter(|&millis| millis > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_read_in_discords_order_and_in_any_other() {
        let expected = Head { op: 0, name: Some("MESSAGE_CREATE"), sequence: Some(42) };
        for payload in [
            r#"{"t":"MESSAGE_CREATE","s":42,"op":0,"d":{"s":1,"t":"no"}}"#,
            r#"{ "op": 0, "s": 42, "t": "MESSAGE_CREATE", "d": {} }"#,
            r#"{"d":{"t":"no","op":9},"op":0,"t":"MESSAGE_CREATE","s":42}"#,
            r#"{"op":0,"d":{"s":7},"s":42,"t":"MESSAGE_CREATE"}"#,
        ] {
            assert_eq!(Head::of(payload.as_bytes()), Some(expected), "{payload}");
        }
    }

    #[test]
    fn payloads_without_name_and_sequence_have_none() {
        let none = |op| Some(Head { op, name: None, sequence: None });
        assert_eq!(Head::of(br#"{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}"#), none(10));
        assert_eq!(Head::of(br#"{"op":11}"#), none(11));
        assert_eq!(Head::of(b"not json"), None);
    }

    #[test]
    fn the_nonce_may_be_a_string_or_a_number() {
        assert_eq!(sent_at(br#"{"d":{"nonce":"1700000000000001","x":1}}"#), Some(1_700_000_000_000_001));
        assert_eq!(sent_at(br#"{"d":{"nonce": 17}}"#), Some(17));
        assert_eq!(sent_at(br#"{"d":{"nonce":null}}"#), None);
        assert_eq!(sent_at(br#"{"d":{}}"#), None);
    }

    #[test]
    fn a_generated_message_tells_its_guild_and_number() {
        assert_eq!(
            numbered(br#"{"content":"sim 81384788765712384 17 padding"}"#),
            Some((81384788765712384, 17))
        );
        assert_eq!(numbered(br#"{"content":"sim 81384788765712384 9"}"#), Some((81384788765712384, 9)));
        assert_eq!(numbered(br#"{"content":"hello"}"#), None);
    }

    #[test]
    fn ready_and_hello_are_read() {
        let ready = br#"{"t":"READY","s":1,"op":0,"d":{"v":10,"guilds":[{"id":"1"},{"id":"2"}]}}"#;
        assert_eq!(guilds_listed(ready), Some(2));
        assert_eq!(heartbeat_interval(br#"{"op":10,"d":{"heartbeat_interval":41250}}"#), Some(41250));
        assert_eq!(heartbeat_interval(br#"{"op":10,"d":{"heartbeat_interval":0}}"#), None);
    }
}
