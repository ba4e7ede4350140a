// SPDX-License-Identifier: AGPL-3.0-only
//! JSON to terms, in one pass and without a tree in between.
//! In: JSON as bytes or as a value. Out: one term, appended to a buffer of the caller's.
//! Keys and strings become binaries, as every library's unpacker expects.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{VERSION, tag};

/// Appends a value as one term.
pub fn encode(json: &Value, out: &mut Vec<u8>) {
    out.push(VERSION);
    Term(out).deserialize(json).expect("every JSON value has a term");
}

/// Appends one JSON text as one term. A key that stands twice in an object stands twice in the map.
///
/// # Errors
/// The text isn't JSON, or nested deeper than 127 levels; `out` is then as it was before.
pub fn from_json_bytes(json: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let before = out.len();
    out.push(VERSION);
    let mut source = serde_json::Deserializer::from_slice(json);
    let done = Term(out).deserialize(&mut source).and_then(|()| source.end());
    if done.is_err() {
        out.truncate(before);
    }
    done
}

/// Writes whatever it is given.
struct Term<'a>(&'a mut Vec<u8>);

impl Term<'_> {
    fn atom(self, name: &str) {
        self.0.extend_from_slice(&[tag::SMALL_ATOM, name.len() as u8]);
        self.0.extend_from_slice(name.as_bytes());
    }

    fn binary(self, text: &str) {
        self.0.push(tag::BINARY);
        self.0.extend_from_slice(&length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn big(self, negative: bool, magnitude: u64) {
        let bytes = magnitude.to_le_bytes();
        let used = bytes.len() - magnitude.leading_zeros() as usize / 8;
        self.0.extend_from_slice(&[tag::SMALL_BIG, used as u8, u8::from(negative)]);
        self.0.extend_from_slice(&bytes[..used]);
    }

    /// Writes the tag of a collection and a length to be filled in later; gives its place.
    fn open(&mut self, tag: u8) -> usize {
        self.0.push(tag);
        self.0.extend_from_slice(&[0; 4]);
        self.0.len() - 4
    }

    fn fill(&mut self, at: usize, count: usize) {
        self.0[at..at + 4].copy_from_slice(&length(count));
    }
}

/// A length as terms have it: no payload of Discord's comes near 4 GiB.
fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("payloads are smaller than 4 GiB").to_be_bytes()
}

impl<'de> DeserializeSeed<'de> for Term<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Term<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.atom("nil");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.atom(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        if let Ok(byte) = u8::try_from(value) {
            self.0.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
        } else if let Ok(number) = i32::try_from(value) {
            self.0.push(tag::INTEGER);
            self.0.extend_from_slice(&number.to_be_bytes());
        } else {
            self.big(false, value);
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        if let Ok(value) = u64::try_from(value) {
            return self.visit_u64(value);
        }
        if let Ok(number) = i32::try_from(value) {
            self.0.push(tag::INTEGER);
            self.0.extend_from_slice(&number.to_be_bytes());
        } else {
            self.big(true, value.unsigned_abs());
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(tag::NEW_FLOAT);
        self.0.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.binary(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let start = self.0.len();
        let at = self.open(tag::LIST);
        let mut count = 0;
        while items.next_element_seed(Term(self.0))?.is_some() {
            count += 1;
        }
        if count == 0 {
            // The empty list is its own term.
            self.0.truncate(start);
        } else {
            self.fill(at, count);
        }
        self.0.push(tag::NIL);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let at = self.open(tag::MAP);
        let mut count = 0;
        while entries.next_key_seed(Term(self.0))?.is_some() {
            entries.next_value_seed(Term(self.0))?;
            count += 1;
        }
        self.fill(at, count);
        Ok(())
    }
}
