// SPDX-License-Identifier: AGPL-3.0-only
//! Terms to JSON values.
//! In: one term of a client's. Out: the value that the same payload would be in JSON, or why there is none.
//! Depth is bounded by the caller; what is allocated, by the length of the input.

use serde_json::{Map, Number, Value};

use super::{VERSION, tag};

/// Why a term is no JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtfError {
    /// Not a term of version 131.
    #[error("not an ETF term")]
    Version,
    /// The term ends too early.
    #[error("the term is cut off")]
    CutOff,
    /// Something follows the term.
    #[error("bytes follow the term")]
    Trailing,
    /// Nested deeper than allowed.
    #[error("the term is nested too deeply")]
    TooDeep,
    /// A term that has no place in a payload (compressed, a process, a function, an improper list, …).
    #[error("a term of type {0} has no place in a payload")]
    Unsupported(u8),
    /// A text that isn't UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A number that JSON can't hold: infinite, or beyond 64 bits.
    #[error("a number is out of range")]
    Number,
    /// A map's key that is neither binary nor atom.
    #[error("a map's key is not a text")]
    Key,
}

/// Reads one term, nested at most `max_depth` levels.
///
/// Atoms other than `nil`, `null`, `true` and `false` become strings. Tuples become arrays, and so does Erlang's
/// STRING_EXT, which is how it writes a list of bytes such as `[0, 1]`. The value takes some 32 times the input's
/// length at most: bound that before.
///
/// # Errors
/// See [`EtfError`].
pub fn decode(term: &[u8], max_depth: usize) -> Result<Value, EtfError> {
    let Some((&VERSION, rest)) = term.split_first() else { return Err(EtfError::Version) };
    let mut reader = Reader { rest };
    let value = reader.value(max_depth)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(EtfError::Trailing) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, EtfError> {
        let tag = self.byte()?;
        match tag {
            tag::SMALL_INTEGER => Ok(Value::from(self.byte()?)),
            tag::INTEGER => Ok(Value::from(i32::from_be_bytes(self.array()?))),
            tag::NEW_FLOAT => float(f64::from_be_bytes(self.array()?)),
            tag::FLOAT => self.old_float(),
            tag::SMALL_BIG => self.big(1),
            tag::LARGE_BIG => self.big(4),
            tag::ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => {
                Ok(match self.atom(tag)? {
                    "nil" | "null" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    name => Value::from(name),
                })
            }
            tag::BINARY => Ok(Value::from(self.binary()?)),
            tag::STRING => {
                let length = self.length(2)?;
                Ok(self.take(length)?.iter().copied().map(Value::from).collect())
            }
            tag::NIL => Ok(Value::Array(Vec::new())),
            tag::LIST => self.list(depth),
            tag::SMALL_TUPLE => self.length(1).and_then(|count| self.items(count, depth)),
            tag::LARGE_TUPLE => self.length(4).and_then(|count| self.items(count, depth)),
            tag::MAP => self.map(depth),
            other => Err(EtfError::Unsupported(other)),
        }
    }

    fn items(&mut self, count: usize, depth: usize) -> Result<Value, EtfError> {
        let depth = depth.checked_sub(1).ok_or(EtfError::TooDeep)?;
        // An item takes a byte at least: a count beyond what is left is a lie.
        if count > self.rest.len() {
            return Err(EtfError::CutOff);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.value(depth)?);
        }
        Ok(Value::Array(items))
    }

    fn list(&mut self, depth: usize) -> Result<Value, EtfError> {
        let count = self.length(4)?;
        let items = self.items(count, depth)?;
        // A proper list ends with the empty list.
        match self.byte()? {
            tag::NIL => Ok(items),
            _ => Err(EtfError::Unsupported(tag::LIST)),
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, EtfError> {
        let count = self.length(4)?;
        let depth = depth.checked_sub(1).ok_or(EtfError::TooDeep)?;
        if count > self.rest.len() / 2 {
            return Err(EtfError::CutOff);
        }
        let mut fields = Map::new();
        for _ in 0..count {
            let key = match self.byte()? {
                tag::BINARY => self.binary()?,
                tag @ (tag::ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8) => {
                    self.atom(tag)?
                }
                _ => return Err(EtfError::Key),
            };
            let value = self.value(depth)?;
            fields.insert(key.to_owned(), value);
        }
        Ok(Value::Object(fields))
    }

    fn atom(&mut self, tag: u8) -> Result<&'a str, EtfError> {
        let width = if matches!(tag, tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8) { 1 } else { 2 };
        let length = self.length(width)?;
        str::from_utf8(self.take(length)?).map_err(|_| EtfError::Text)
    }

    fn binary(&mut self) -> Result<&'a str, EtfError> {
        let length = self.length(4)?;
        str::from_utf8(self.take(length)?).map_err(|_| EtfError::Text)
    }

    fn big(&mut self, width: usize) -> Result<Value, EtfError> {
        let length = self.length(width)?;
        let negative = self.byte()? != 0;
        let mut magnitude = 0_u64;
        for (at, byte) in self.take(length)?.iter().enumerate() {
            match (*byte, at) {
                (0, 8..) => {}
                (byte, 0..8) => magnitude |= u64::from(byte) << (8 * at),
                _ => return Err(EtfError::Number),
            }
        }
        if !negative {
            return Ok(Value::from(magnitude));
        }
        0_i64.checked_sub_unsigned(magnitude).map(Value::from).ok_or(EtfError::Number)
    }

    /// The float of old: 31 characters of text, padded with zero bytes.
    fn old_float(&mut self) -> Result<Value, EtfError> {
        let text = str::from_utf8(self.take(31)?).map_err(|_| EtfError::Text)?;
        float(text.trim_end_matches('\0').trim().parse().map_err(|_| EtfError::Number)?)
    }

    fn length(&mut self, width: usize) -> Result<usize, EtfError> {
        Ok(self.take(width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, EtfError> {
        let (first, rest) = self.rest.split_first().ok_or(EtfError::CutOff)?;
        self.rest = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(EtfError::CutOff)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], EtfError> {
        let (first, rest) = self.rest.split_at_checked(length).ok_or(EtfError::CutOff)?;
        self.rest = rest;
        Ok(first)
    }
}

fn float(value: f64) -> Result<Value, EtfError> {
    Number::from_f64(value).map(Value::Number).ok_or(EtfError::Number)
}
