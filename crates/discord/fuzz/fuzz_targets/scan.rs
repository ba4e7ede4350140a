// SPDX-License-Identifier: AGPL-3.0-only
//! Whatever a full parser reads, the scanner reads the same; whatever it doesn't, no panic.
#![no_main]

use holdfast_discord::{EventKind, scan};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|payload: &[u8]| {
    let header = scan(payload);
    let Ok(Value::Object(full)) = serde_json::from_slice(payload) else { return };
    let op = full.get("op").and_then(Value::as_u64).and_then(|op| u8::try_from(op).ok());
    let Ok(header) = header else {
        let name = full.get("t").is_none_or(|t| t.is_null() || t.is_string());
        let sequence = full.get("s").is_none_or(|s| s.is_null() || s.is_u64());
        assert!(op.is_none() || !name || !sequence, "refused although valid");
        return;
    };
    assert_eq!(Some(header.op), op);
    assert_eq!(header.sequence, full.get("s").and_then(Value::as_u64));
    let name = full.get("t").and_then(Value::as_str);
    assert_eq!(header.kind, name.map_or(EventKind::Unknown, EventKind::from_name));
    let data = header.data.map(|range| serde_json::from_slice::<Value>(&payload[range]).expect("valid in whole"));
    assert_eq!(data.as_ref(), full.get("d"));
    let field = |key| full.get("d").and_then(Value::as_object).and_then(|d| d.get(key)).and_then(snowflake);
    let guild = match header.kind {
        EventKind::GuildCreate | EventKind::GuildUpdate | EventKind::GuildDelete => field("id"),
        _ => field("guild_id"),
    };
    assert_eq!((header.guild, header.id, header.channel), (guild, field("id"), field("channel_id")));
});

fn snowflake(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}
