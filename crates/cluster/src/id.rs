// SPDX-License-Identifier: AGPL-3.0-only
//! Names that are 64 random bits: of upstream sessions in public, of replicas. In: randomness, or 16 hexadecimal
//! digits. Out: the same. Plain values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that isn't 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of 16 hexadecimal digits was expected")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// A name that no other has, by chance of 1 in 2⁶⁴.
            #[must_use]
            pub fn random() -> Self {
                Self(fastrand::u64(1..))
            }

            /// The one of this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                Self(number)
            }

            /// Its number.
            #[must_use]
            pub fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names one upstream session in public; the session id itself stays secret.
    StreamId
}

id! {
    /// Names a replica for as long as its process lives.
    ReplicaId
}

fn parse(text: &str) -> Result<u64, NotAnId> {
    if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotAnId);
    }
    u64::from_str_radix(text, 16).map_err(|_| NotAnId)
}

#[cfg(test)]
mod tests {
    use super::{ReplicaId, StreamId};

    #[test]
    fn a_name_reads_back_what_it_shows() {
        for stream in [StreamId::from_number(0x0a), StreamId::random(), StreamId::from_number(u64::MAX)] {
            assert_eq!(stream.to_string().parse(), Ok(stream));
            let json = serde_json::to_string(&stream).unwrap();
            assert_eq!(json, format!("\"{stream}\""));
            assert_eq!(serde_json::from_str::<StreamId>(&json).unwrap(), stream);
        }
        assert_eq!(format!("{:?}", ReplicaId::from_number(10)), "ReplicaId(000000000000000a)");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0a", "000000000000000g", "+00000000000000a", "00000000000000000a"] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }
}
