// SPDX-License-Identifier: AGPL-3.0-only
//! The header scanner against a full parser: whatever order, spacing and spelling the keys come in, both agree.
//! In: payloads by hand and at random. Out: headers, compared with what serde_json reads.

use holdfast_discord::{EventKind, Header, ScanError, scan};
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn a_message_as_discord_sends_it() {
    let payload = br#"{"t":"MESSAGE_CREATE","s":42,"op":0,"d":{"author":{"id":"1"},"id":"2","channel_id":"3","guild_id":"4"}}"#;
    let header = scan(payload).unwrap();
    assert_eq!((header.op, header.name, header.kind), (0, Some("MESSAGE_CREATE"), EventKind::MessageCreate));
    assert_eq!((header.id, header.channel, header.guild), (Some(2), Some(3), Some(4)));
    assert_eq!(header.sequence, Some(42));
    assert_eq!(&payload[header.sequence_range.unwrap()], b"42");
    assert_eq!(
        &payload[header.data.unwrap()],
        br#"{"author":{"id":"1"},"id":"2","channel_id":"3","guild_id":"4"}"#
    );
}

#[test]
fn hello_and_heartbeats_have_no_name_and_no_sequence() {
    let payload =
        br#"{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250,"_trace":["[\"gateway\"]"]}}"#;
    let header = scan(payload).unwrap();
    assert_eq!((header.op, header.name, header.kind), (10, None, EventKind::Unknown));
    assert_eq!((header.sequence, header.sequence_range, header.guild), (None, None, None));

    let header = scan(br#"{"op":1,"d":251}"#).unwrap();
    assert_eq!((header.op, header.data), (1, Some(12..15)));
    assert_eq!(scan(br#"{"op":11}"#).unwrap().data, None);
    assert_eq!(scan(br#"{"op":7,"d":null}"#).unwrap().data, Some(12..16));
}

#[test]
fn a_guild_is_its_own_guild() {
    for name in ["GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"] {
        let payload = format!(
            r#"{{"t":"{name}","s":1,"op":0,"d":{{"guild_id":"9","roles":[{{"id":"8"}}],"id":"7"}}}}"#
        );
        assert_eq!(scan(payload.as_bytes()).unwrap().guild, Some(7));
    }
    let payload = br#"{"t":"GUILD_ROLE_CREATE","s":1,"op":0,"d":{"guild_id":"9","id":"7"}}"#;
    assert_eq!(scan(payload).unwrap().guild, Some(9));
}

#[test]
fn the_rule_for_the_guild_waits_for_a_name_that_comes_last() {
    let payload = br#"{"d":{"id":"7","guild_id":"9"},"op":0,"s":1,"t":"GUILD_CREATE"}"#;
    assert_eq!(scan(payload).unwrap().guild, Some(7));
}

#[test]
fn a_guild_that_is_null_absent_or_no_number_is_none() {
    for d in [
        r#"{"guild_id":null}"#,
        "{}",
        "[]",
        "null",
        r#""guild_id""#,
        r#"{"guild_id":"x"}"#,
        r#"{"guild_id":""}"#,
        r#"{"guild_id":"-1"}"#,
        r#"{"guild_id":"18446744073709551616"}"#,
        r#"{"guild_id":{"guild_id":"1"}}"#,
        r#"{"guild":{"guild_id":"1"}}"#,
        r#"[{"guild_id":"1"}]"#,
        r#"{"a":"\"guild_id\":\"1\""}"#,
        r#"{"xguild_id":"1"}"#,
        r#"{"\"guild_id":"1"}"#,
        r#"{"guild_id\\":"1"}"#,
    ] {
        let payload = format!(r#"{{"t":"MESSAGE_CREATE","s":1,"op":0,"d":{d}}}"#);
        assert_eq!(scan(payload.as_bytes()).unwrap().guild, None, "{d}");
    }
}

#[test]
fn a_guild_outside_of_d_is_not_the_payloads() {
    for payload in [
        r#"{"guild_id":"1","op":0,"d":{}}"#,
        r#"{"x":{"guild_id":"1"},"op":0,"d":{}}"#,
        r#"{"d":{},"x":{"guild_id":"1"},"op":0}"#,
        r#"{"op":0,"d":[],"D":{"guild_id":"1"}}"#,
    ] {
        assert_eq!(scan(payload.as_bytes()).unwrap().guild, None, "{payload}");
    }
}

#[test]
fn chunks_of_members_belong_to_their_guild() {
    let members = r#"{"user":{"id":"5"},"guild_id":"6"},"#.repeat(40);
    let payload = format!(
        r#"{{"t":"GUILD_MEMBERS_CHUNK","s":3,"op":0,"d":{{"members":[{members}null],"guild_id":"4","chunk_index":0}}}}"#
    );
    let header = scan(payload.as_bytes()).unwrap();
    assert_eq!((header.kind, header.guild, header.id), (EventKind::GuildMembersChunk, Some(4), None));
}

#[test]
fn keys_are_found_at_every_offset() {
    for padding in 0..260 {
        for (space, guild_key) in [("", "guild_id"), (" ", "guild_id"), ("", r"guild_i\u0064")] {
            let payload = format!(
                r#"{{"t":"TYPING_START","s":1,"op":0,"d":{{"x":"{}","{guild_key}"{space}:"4","channel_id"{space}:"3","user":{{"id":"9"}},"id"{space}:"2"}}}}"#,
                "x".repeat(padding)
            );
            let header = scan(payload.as_bytes()).unwrap();
            assert_eq!((header.guild, header.channel, header.id), (Some(4), Some(3), Some(2)), "{payload}");
        }
    }
}

#[test]
fn keys_and_values_may_be_spelt_with_escapes() {
    let payload = br#"{"\u0074":"MESSAGE\u005fCREATE","\u0073":5,"o\u0070":0,"\u0064":{"\u0067uild_id":"\u00312","i\u0064":"3"}}"#;
    let header = scan(payload).unwrap();
    assert_eq!((header.op, header.sequence), (0, Some(5)));
    assert_eq!((header.name, header.kind), (Some("MESSAGE_CREATE"), EventKind::MessageCreate));
    assert_eq!((header.guild, header.id), (Some(12), Some(3)));
}

#[test]
fn an_unknown_event_keeps_its_name() {
    let header = scan(br#"{"t":"SOMETHING_NEW","s":1,"op":0,"d":{"guild_id":"1"}}"#).unwrap();
    assert_eq!(
        (header.name, header.kind, header.guild),
        (Some("SOMETHING_NEW"), EventKind::Unknown, Some(1))
    );
    assert_eq!(scan(br#"{"t":"NEW\n","op":0}"#).unwrap().name, Some(r"NEW\n"));
}

#[test]
fn of_keys_that_stand_twice_the_last_counts() {
    let payload = br#"{"t":"READY","t":"RESUMED","s":1,"s":2,"op":3,"op":0,"d":{"guild_id":"1","id":"5"},"d":{"guild_id":"2","guild_id":"3"}}"#;
    let header = scan(payload).unwrap();
    assert_eq!((header.op, header.sequence, header.kind), (0, Some(2), EventKind::Resumed));
    assert_eq!((header.guild, header.id), (Some(3), None));
    let header =
        scan(br#"{"op":0,"s":1,"s":null,"t":"READY","t":null,"d":{"guild_id":"1"},"d":null}"#).unwrap();
    assert_eq!((header.sequence, header.name, header.guild), (None, None, None));
}

#[test]
fn what_is_no_object_is_refused() {
    for payload in ["", " ", "null", "[]", "[{}]", "0", "\"{}\"", "x{}", "\u{feff}{}"] {
        assert_eq!(scan(payload.as_bytes()), Err(ScanError::NotAnObject), "{payload}");
    }
}

#[test]
fn a_payload_that_is_cut_off_anywhere_is_refused() {
    let payload = br#" {"t":"MESSAGE_CREATE","s":42,"op":0,"d":{"content":"a } b \\","author":{"id":"1"},"guild_id":"4"}} "#;
    for length in 0..payload.len() - 1 {
        assert!(scan(&payload[..length]).is_err(), "{length}");
    }
    assert!(scan(payload).is_ok());
}

#[test]
fn a_malformed_top_level_is_refused() {
    for payload in [
        r#"{"op":0}}"#,
        r#"{"op":0}x"#,
        r#"{"op":0}{"op":0}"#,
        r#"{"op":0]"#,
        r#"{"op":0,}"#,
        r#"{,"op":0}"#,
        r#"{"op"}"#,
        r#"{"op":}"#,
        r#"{op:0}"#,
        r#"{"op":0:1}"#,
        r#"{"op":0,"d":{}{}}"#,
        r#"{"op":0,"d":1{}}"#,
        r#"{"op":0,"d":{}1}"#,
        r#"{"op":0,{}}"#,
        r#"{"op":0,"d"{}}"#,
    ] {
        assert!(matches!(scan(payload.as_bytes()), Err(ScanError::Malformed(_))), "{payload}");
    }
}

#[test]
fn opcode_sequence_and_name_must_be_what_they_are() {
    for op in [
        "",
        "{}",
        r#"{"op":null}"#,
        r#"{"op":-1}"#,
        r#"{"op":256}"#,
        r#"{"op":"0"}"#,
        r#"{"op":1.0}"#,
        r#"{"op":00}"#,
    ] {
        let error = scan(if op.is_empty() { b"{}" } else { op.as_bytes() });
        assert_eq!(error, Err(ScanError::Opcode), "{op}");
    }
    for s in [r#""1""#, "-1", "1.5", "1e3", "true", "[1]", "01", "18446744073709551616"] {
        let payload = format!(r#"{{"op":0,"s":{s}}}"#);
        assert_eq!(scan(payload.as_bytes()), Err(ScanError::Sequence), "{s}");
    }
    for t in ["1", "READY", r#"["READY"]"#, "{}", "true", r#""READY" "X""#] {
        let payload = format!(r#"{{"op":0,"t":{t}}}"#);
        assert_eq!(scan(payload.as_bytes()), Err(ScanError::Name), "{t}");
    }
    assert_eq!(scan(b"{\"op\":0,\"t\":\"\xff\"}"), Err(ScanError::Name));
    assert_eq!(scan(br#"{"op":0,"t":"\x"}"#), Err(ScanError::Name));
}

#[test]
fn deep_nesting_is_only_counted() {
    let deep = 1_000_000;
    let payload = format!(r#"{{"op":0,"d":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
    assert_eq!(scan(payload.as_bytes()).unwrap().data, Some(12..12 + 2 * deep));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_scanner_reads_what_a_parser_reads(payload in payload()) {
        let text = payload.as_bytes();
        let full: Value = serde_json::from_str(&payload).unwrap();
        let header = scan(text).unwrap();
        let expected = Expected::read(&full);
        prop_assert_eq!(&Expected::of(&header), &expected, "{}", payload);
        if let Some(range) = header.sequence_range {
            prop_assert_eq!(str::from_utf8(&text[range]).unwrap(), full["s"].to_string());
        }
        match header.data {
            Some(range) => prop_assert_eq!(&serde_json::from_slice::<Value>(&text[range]).unwrap(), &full["d"]),
            None => prop_assert!(full.get("d").is_none()),
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes);
    }

    #[test]
    fn what_looks_like_json_never_panics(text in "[\\[\\]{}:,\"\\\\ optsdu01n]{0,150}") {
        let _ = scan(text.as_bytes());
        let _ = scan(format!("{{\"op\":0,\"d\":{text}}}").as_bytes());
    }

    #[test]
    fn whatever_a_parser_takes_the_scanner_takes(text in "\\{(\"(op|s|t|d|x)\":(0|1|null|\"READY\"|\\{\\}|\\[\\]),? ?){0,5}\\}") {
        if let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(&text) {
            let valid = fields.get("op").is_some_and(Value::is_u64)
                && fields.get("s").is_none_or(|s| s.is_null() || s.is_u64())
                && fields.get("t").is_none_or(|t| t.is_null() || t.is_string());
            prop_assert_eq!(scan(text.as_bytes()).is_ok(), valid, "{}", text);
        }
    }
}

/// A header as a full parse gives it.
#[derive(Debug, PartialEq)]
struct Expected {
    op: u64,
    name: Option<String>,
    sequence: Option<u64>,
    guild: Option<u64>,
    id: Option<u64>,
    channel: Option<u64>,
}

impl Expected {
    fn read(full: &Value) -> Expected {
        let name = full.get("t").and_then(Value::as_str).map(str::to_owned);
        let field =
            |key: &str| full.get("d").and_then(Value::as_object).and_then(|d| d.get(key)).and_then(snowflake);
        let guild = match name.as_deref() {
            Some("GUILD_CREATE" | "GUILD_UPDATE" | "GUILD_DELETE") => field("id"),
            _ => field("guild_id"),
        };
        let (op, sequence) =
            (full["op"].as_u64().expect("payloads have an opcode"), full.get("s").and_then(Value::as_u64));
        Expected { op, name, sequence, guild, id: field("id"), channel: field("channel_id") }
    }

    fn of(header: &Header<'_>) -> Expected {
        // An unknown name with escapes keeps them: undo that to compare.
        let name = header
            .name
            .map(|name| serde_json::from_str(&format!("\"{name}\"")).expect("names are valid strings"));
        let Header { op, sequence, guild, id, channel, .. } = *header;
        Expected { op: u64::from(op), name, sequence, guild, id, channel }
    }
}

fn snowflake(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

/// A payload's text: keys of note and others, once or twice, in any order, spaced and spelt in any way.
fn payload() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => proptest::sample::select(EventKind::ALL).prop_map(|kind| Value::from(kind.name())),
        1 => Just(Value::Null),
        1 => ".{0,12}".prop_map(Value::from),
    ];
    let sequence =
        prop_oneof![any::<u64>().prop_map(Value::from), (0_u64..9).prop_map(Value::from), Just(Value::Null)];
    let member = prop_oneof![
        (Just("op"), any::<u8>().prop_map(Value::from)),
        (Just("t"), name),
        (Just("s"), sequence),
        (Just("d"), json()),
        (proptest::sample::select(&["x", "D", "guild_id", "id", "tt", ""][..]), json()),
    ];
    let members = proptest::collection::vec(member, 0..9);
    (members, any::<u8>(), any::<usize>(), any::<u64>()).prop_map(|(mut members, op, place, seed)| {
        // Without an opcode there is no header.
        members.insert(place % (members.len() + 1), ("op", Value::from(op)));
        let mut writer = Writer { out: String::new(), random: seed };
        writer.object(members.iter().map(|(key, value)| (*key, value)));
        writer.out
    })
}

fn json() -> impl Strategy<Value = Value> {
    let key = || {
        proptest::sample::select(
            &["guild_id", "id", "channel_id", "t", "s", "op", "d", "user", "a\"b", "x\\", "\"id", "{"][..],
        )
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(|id| Value::from(id.to_string())),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[\\[\\]{}:,\"\\\\]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            3 => proptest::collection::vec((key(), inner.clone()), 0..8)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            1 => proptest::collection::vec(inner, 0..8).prop_map(Value::Array),
        ]
    })
}

/// Writes JSON with spaces and escapes thrown in at random.
struct Writer {
    out: String,
    random: u64,
}

impl Writer {
    fn chance(&mut self, one_in: u64) -> bool {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33).is_multiple_of(one_in)
    }

    fn space(&mut self) {
        while self.chance(6) {
            self.out.push([' ', '\n', '\t', '\r'][(self.random >> 40) as usize % 4]);
        }
    }

    fn string(&mut self, text: &str) {
        let escape = self.chance(5);
        self.out.push('"');
        for c in text.chars() {
            if (escape && self.chance(3)) || c < ' ' {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                if c == '"' || c == '\\' {
                    self.out.push('\\');
                }
                self.out.push(c);
            }
        }
        self.out.push('"');
    }

    fn object<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a Value)>) {
        self.space();
        self.out.push('{');
        for (at, (key, value)) in fields.enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.space();
            self.string(key);
            self.space();
            self.out.push(':');
            self.value(value);
        }
        self.space();
        self.out.push('}');
        self.space();
    }

    fn value(&mut self, value: &Value) {
        self.space();
        match value {
            Value::String(text) => self.string(text),
            Value::Object(fields) => self.object(fields.iter().map(|(key, value)| (key.as_str(), value))),
            Value::Array(items) => {
                self.out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.out.push(',');
                    }
                    self.value(item);
                }
                self.space();
                self.out.push(']');
            }
            other => self.out.push_str(&other.to_string()),
        }
        self.space();
    }
}
