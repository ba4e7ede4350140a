// SPDX-License-Identifier: AGPL-3.0-only
//! The id of an event as text: `stream:position`.

use std::{fmt, str::FromStr};

/// Names an event for good: a repetition has the same id, another event another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The stream; not empty, without a colon.
    pub stream: String,
    /// The position.
    pub position: u64,
}

/// A text that isn't the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is stream:position, such as 00c0ffee00c0ffee:17")]
pub struct NotAnId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.position)
    }
}

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (stream, digits) = text.split_once(':').ok_or(NotAnId)?;
        let position: u64 = digits.parse().map_err(|_| NotAnId)?;
        let id = Self { stream: stream.to_owned(), position };
        // One event, one text: a sign or a leading zero would name it a second time.
        if stream.is_empty() || position.to_string() != digits { Err(NotAnId) } else { Ok(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = EventId { stream: "00c0ffee00c0ffee".to_owned(), position: u64::MAX };
        assert_eq!(id.to_string(), "00c0ffee00c0ffee:18446744073709551615");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn an_event_has_one_text_only() {
        for text in
            ["", ":", "a", "a:", ":1", "a:b:1", "a:+1", "a:01", "a:-1", "a:1 ", "a:18446744073709551616"]
        {
            assert_eq!(text.parse::<EventId>(), Err(NotAnId), "{text}");
        }
    }

    #[test]
    fn the_id_of_a_gap_is_none_of_an_event() {
        assert_eq!("00c0ffee00c0ffee:30-31".parse::<EventId>(), Err(NotAnId));
    }
}
