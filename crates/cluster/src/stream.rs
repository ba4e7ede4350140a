// SPDX-License-Identifier: AGPL-3.0-only
//! The public name of an upstream session. In: randomness, or 16 hexadecimal digits. Out: the same.
//! A plain value; the session id itself stays secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names one upstream session in public: 64 random bits, shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

/// A text that isn't 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream is named by 16 hexadecimal digits")]
pub struct NotAStream;

impl StreamId {
    /// A name that no other stream has, by chance of 1 in 2⁶⁴.
    #[must_use]
    pub fn random() -> StreamId {
        StreamId(fastrand::u64(1..))
    }

    /// The stream of this number.
    #[must_use]
    pub const fn from_number(number: u64) -> StreamId {
        StreamId(number)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl FromStr for StreamId {
    type Err = NotAStream;

    fn from_str(text: &str) -> Result<StreamId, NotAStream> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAStream);
        }
        u64::from_str_radix(text, 16).map(StreamId).map_err(|_| NotAStream)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StreamId, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::StreamId;

    #[test]
    fn a_stream_reads_back_what_it_shows() {
        for stream in [StreamId::from_number(0x0a), StreamId::random(), StreamId::from_number(u64::MAX)] {
            assert_eq!(stream.to_string().parse(), Ok(stream));
            let json = serde_json::to_string(&stream).unwrap();
            assert_eq!(json, format!("\"{stream}\""));
            assert_eq!(serde_json::from_str::<StreamId>(&json).unwrap(), stream);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0a", "000000000000000g", "+00000000000000a", "00000000000000000a"] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }
}
