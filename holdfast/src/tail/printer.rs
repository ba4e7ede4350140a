// SPDX-License-Identifier: AGPL-3.0-only
//! Events as text. In: events. Out: one line each on standard output, cut to the terminal's width, or whole as JSON.
//! Tokens are masked, and what a terminal would take as a command is escaped.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::Duration;

use terminal_size::{Width, terminal_size};

use super::event::Event;

/// Columns where there is no terminal, as behind a pipe.
const COLUMNS: usize = 160;

/// Keys whose values let somebody act as the bot or join its calls, as they stand in JSON: VOICE_SERVER_UPDATE's and
/// INTERACTION_CREATE's tokens, and the session that goes with the former.
const SECRETS: [&str; 2] = ["\"token\"", "\"session_id\""];

/// What stands instead of a secret.
const MASK: &str = "\"[redacted]\"";

/// From here on characters are counted as two columns, the widest that terminals draw (Hangul Jamo are the first that
/// are).
const WIDE: char = '\u{1100}';

/// See the module.
pub(super) struct Printer {
    json: bool,
    secrets: bool,
}

impl Printer {
    /// `json`: whole payloads. `secrets`: with their tokens.
    pub(super) fn new(json: bool, secrets: bool) -> Self {
        Self { json, secrets: json && secrets }
    }

    /// Writes one line.
    pub(super) fn print(&mut self, event: &Event) -> io::Result<()> {
        let mut line = if self.json { self.whole(event) } else { short(event, columns()) };
        line.push('\n');
        io::stdout().lock().write_all(line.as_bytes())
    }

    /// The event as a JSON object, with the names of the contract's Event.
    fn whole(&self, event: &Event) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let or_null = |text: Option<String>| text.map_or("null".to_owned(), |text| quoted(&text));
        let data = tidy(&event.data);
        format!(
            r#"{{"received_at_us":{},"shard":{},"stream":{},"position":{},"name":{},"guild_id":{},"data":{}}}"#,
            event.received.as_micros(),
            event.shard.map_or("null".to_owned(), |shard| shard.to_string()),
            or_null(event.stream.clone()),
            event.position,
            quoted(&event.name),
            or_null((event.guild != 0).then(|| event.guild.to_string())),
            if self.secrets { data } else { masked(&data).into_owned() },
        )
    }
}

fn columns() -> usize {
    terminal_size().map_or(COLUMNS, |(Width(width), _)| usize::from(width))
}

/// Time, shard, name, guild, size, and as much of the payload as there is room for.
fn short(event: &Event, columns: usize) -> String {
    let none = || "-".to_owned();
    let shard = event.shard.map_or_else(none, |shard| shard.to_string());
    let guild = if event.guild == 0 { none() } else { event.guild.to_string() };
    let name = tidy(event.name.as_bytes());
    let mut line =
        format!("{}  {shard:>3}  {name:<24}  {guild:<19}  {:>7}  ", clock(event.received), event.data.len());
    let room = columns.saturating_sub(line.chars().count());
    // No character has more than four bytes: what is behind them can't be shown.
    let start = &event.data[..event.data.len().min(4 * room)];
    let text = tidy(start);
    let mut used = 0;
    line.extend(masked(&text).chars().take_while(|character| {
        used += if *character < WIDE { 1 } else { 2 };
        used <= room
    }));
    line
}

/// The time of day, in UTC.
fn clock(since_1970: Duration) -> String {
    let second = since_1970.as_secs() % 86_400;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", since_1970.subsec_millis())
}

/// JSON as one line that no terminal takes as a command. Between values it has spaces and line ends only; all other
/// control characters stand in strings, where an escape means the same.
fn tidy(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    if !text.contains(char::is_control) {
        return text.into_owned();
    }
    let mut tidy = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => tidy.push(' '),
            control if control.is_control() => tidy.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => tidy.push(other),
        }
    }
    tidy
}

/// The same without the values of [`SECRETS`]; also where it is cut off within one. A quotation mark within a string
/// is escaped, so what looks like a key is one, or a value that no colon follows.
fn masked(json: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = json;
    while let Some(key_end) = next_key(rest) {
        let (head, tail) = rest.split_at(key_end);
        out.push_str(head);
        let value = tail.trim_start().strip_prefix(':').map(str::trim_start);
        rest = match value.and_then(|value| value.strip_prefix('"')) {
            Some(secret) => {
                out.push(':');
                out.push_str(MASK);
                &secret[end_of_string(secret)..]
            }
            None => tail,
        };
    }
    if out.is_empty() {
        return Cow::Borrowed(json);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Where the first of the keys ends.
fn next_key(json: &str) -> Option<usize> {
    SECRETS.iter().filter_map(|key| Some(json.find(key)? + key.len())).min()
}

/// The place behind a string's closing quotation mark, of a string that has begun.
fn end_of_string(json: &str) -> usize {
    let mut escaped = false;
    let closing = json.bytes().position(|byte| {
        let closing = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closing
    });
    closing.map_or(json.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(name: &str, data: &'static str) -> Event {
        Event {
            received: Duration::from_millis(1_700_000_000_123),
            shard: Some(3),
            stream: Some("5a".to_owned()),
            position: 9,
            name: name.to_owned(),
            guild: 81_384_788_765_712_384,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    #[test]
    fn a_line_has_all_columns_and_ends_at_the_terminals_edge() {
        let line = short(&event("MESSAGE_CREATE", r#"{"content":"hello there"}"#), 100);
        assert_eq!(
            line,
            "22:13:20.123    3  MESSAGE_CREATE            81384788765712384         25  {\"content\":\"hello there\"}"
                .chars()
                .take(100)
                .collect::<String>()
        );
        let wide = short(&event("MESSAGE_CREATE", r#"{"content":"漢字漢字漢字漢字漢字"}"#), 100);
        let columns: usize = wide.chars().map(|character| if character < WIDE { 1 } else { 2 }).sum();
        assert!((99..=100).contains(&columns), "{columns}: {wide}");
        assert!(short(&event("MESSAGE_CREATE", "{}"), 10).ends_with("  "), "too narrow for a payload");
    }

    #[test]
    fn a_json_line_is_the_whole_event() {
        let event = event("MESSAGE_CREATE", "{\"content\":\"a\",\n \"id\":\"1\"}");
        let line = Printer::new(true, false).whole(&event);
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["name"], "MESSAGE_CREATE");
        assert_eq!(value["guild_id"], "81384788765712384");
        assert_eq!((&value["shard"], &value["position"]), (&3.into(), &9.into()));
        assert_eq!(value["stream"], "5a");
        assert_eq!(value["received_at_us"], 1_700_000_000_123_000_u64);
        assert_eq!(value["data"], serde_json::json!({ "content": "a", "id": "1" }));
        let nowhere =
            Printer::new(true, false).whole(&Event { guild: 0, stream: None, shard: None, ..event });
        let value: serde_json::Value = serde_json::from_str(&nowhere).expect("JSON");
        assert!(value["guild_id"].is_null() && value["stream"].is_null() && value["shard"].is_null());
    }

    #[test]
    fn tokens_are_shown_only_where_they_are_asked_for() {
        let voice = event(
            "VOICE_SERVER_UPDATE",
            r#"{"token":"s3cr\"et","endpoint":"e","member":{ "session_id" : "s3cr" }}"#,
        );
        for line in [
            short(&voice, 200),
            Printer::new(true, false).whole(&voice),
            // Without --json there are no secrets.
            if Printer::new(false, true).secrets { String::from("s3cr") } else { String::new() },
        ] {
            assert!(!line.contains("s3cr") && !line.contains("et\""), "{line}");
        }
        let masked = Printer::new(true, false).whole(&voice);
        let value: serde_json::Value = serde_json::from_str(&masked).expect("still JSON");
        assert_eq!(value["data"]["token"], "[redacted]");
        assert_eq!(value["data"]["endpoint"], "e");
        assert_eq!(value["data"]["member"]["session_id"], "[redacted]");
        assert!(Printer::new(true, true).whole(&voice).contains(r#"s3cr\"et"#));
    }

    #[test]
    fn a_token_at_the_edge_of_the_line_is_masked_too() {
        for width in 70..130 {
            let line = short(
                &event("INTERACTION_CREATE", r#"{"id":"1","token":"sssssssssssssssssssssssss"}"#),
                width,
            );
            assert!(!line.contains("sss"), "{width}: {line}");
        }
    }

    #[test]
    fn what_only_looks_like_a_key_stays() {
        for json in
            [r#"{"content":"\"token\":\"x\""}"#, r#"{"name":"token","value":"x"}"#, r#"{"token":null}"#]
        {
            assert_eq!(masked(json), json);
        }
    }

    #[test]
    fn control_characters_are_escaped_and_mean_the_same() {
        let json = "{\n\"content\":\"\u{9b}31m\u{7f}\"}";
        let tidied = tidy(json.as_bytes());
        assert!(!tidied.contains(char::is_control), "{tidied:?}");
        let value: serde_json::Value = serde_json::from_str(&tidied).expect("JSON");
        assert_eq!(value["content"], "\u{9b}31m\u{7f}");
    }
}
