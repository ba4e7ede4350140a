// SPDX-License-Identifier: AGPL-3.0-only
//! Erlang's external term format, as far as Discord's gateway uses it.
//!
//! In: JSON values or a client's bytes. Out: the other. Written from Erlang's description of the format, on its
//! own: the services' codec is judged by this one.
use serde_json::{Map, Number, Value};

const VERSION: u8 = 131;
const NEW_FLOAT: u8 = 70;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const FLOAT: u8 = 99;
const ATOM: u8 = 100;
const SMALL_TUPLE: u8 = 104;
const LARGE_TUPLE: u8 = 105;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;
const SMALL_ATOM: u8 = 115;
const MAP: u8 = 116;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// Deeper terms than this are refused: nobody sends them in good faith.
const MAX_DEPTH: usize = 64;

/// A term that isn't what a client may send.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EtfError {
    #[error("the term ends early")]
    Short,
    #[error("tag {0} is not one of the gateway's")]
    Tag(u8),
    #[error("the term is nested too deeply")]
    Deep,
    #[error("a map's key is neither a binary nor an atom")]
    Key,
    #[error("a binary is not UTF-8")]
    Utf8,
    #[error("an integer is too large")]
    Integer,
    #[error("bytes follow the term")]
    Trailing,
}

/// Appends `value` as one complete term with its version byte.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) {
    out.push(VERSION);
    term(value, out);
}

fn length(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

fn atom(name: &str, out: &mut Vec<u8>) {
    out.push(SMALL_ATOM);
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}

fn binary(text: &str, out: &mut Vec<u8>) {
    out.push(BINARY);
    length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn term(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => atom("nil", out),
        Value::Bool(true) => atom("true", out),
        Value::Bool(false) => atom("false", out),
        Value::Number(number) => integer_or_float(number, out),
        Value::String(text) => binary(text, out),
        Value::Array(items) if items.is_empty() => out.push(NIL),
        Value::Array(items) => {
            out.push(LIST);
            length(items.len(), out);
            items.iter().for_each(|item| term(item, out));
            out.push(NIL);
        }
        Value::Object(map) => {
            out.push(MAP);
            length(map.len(), out);
            for (key, item) in map {
                binary(key, out);
                term(item, out);
            }
        }
    }
}

fn integer_or_float(number: &Number, out: &mut Vec<u8>) {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let Some(whole) = whole else {
        out.push(NEW_FLOAT);
        out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
        return;
    };
    if let Ok(byte) = u8::try_from(whole) {
        out.extend_from_slice(&[SMALL_INTEGER, byte]);
    } else if let Ok(small) = i32::try_from(whole) {
        out.push(INTEGER);
        out.extend_from_slice(&small.to_be_bytes());
    } else {
        let bytes = u64::try_from(whole.unsigned_abs()).unwrap_or(u64::MAX).to_le_bytes();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        out.extend_from_slice(&[SMALL_BIG, u8::try_from(used).unwrap_or(8), u8::from(whole < 0)]);
        out.extend_from_slice(&bytes[..used]);
    }
}

/// Reads one complete term.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, EtfError> {
    let mut reader = Reader { bytes };
    match reader.byte()? {
        VERSION => {}
        other => return Err(EtfError::Tag(other)),
    }
    let value = reader.term(0)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err(EtfError::Trailing) }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EtfError> {
        let (head, tail) = self.bytes.split_at_checked(len).ok_or(EtfError::Short)?;
        self.bytes = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, EtfError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        self.take(N)?.try_into().map_err(|_| EtfError::Short)
    }

    fn short(&mut self) -> Result<usize, EtfError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn long(&mut self) -> Result<usize, EtfError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| EtfError::Integer)
    }

    fn text(&mut self, len: usize) -> Result<String, EtfError> {
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| EtfError::Utf8)
    }

    fn term(&mut self, depth: usize) -> Result<Value, EtfError> {
        if depth > MAX_DEPTH {
            return Err(EtfError::Deep);
        }
        Ok(match self.byte()? {
            SMALL_INTEGER => Value::from(self.byte()?),
            INTEGER => Value::from(i32::from_be_bytes(self.array()?)),
            NEW_FLOAT => Value::from(f64::from_be_bytes(self.array()?)),
            FLOAT => {
                let text = self.text(31)?;
                Value::from(text.trim_end_matches('\0').parse::<f64>().map_err(|_| EtfError::Utf8)?)
            }
            tag @ (ATOM | ATOM_UTF8 | SMALL_ATOM | SMALL_ATOM_UTF8) => named(self.atom(tag)?),
            BINARY => {
                let len = self.long()?;
                Value::String(self.text(len)?)
            }
            STRING => {
                let len = self.short()?;
                Value::Array(self.take(len)?.iter().map(|byte| Value::from(*byte)).collect())
            }
            NIL => Value::Array(Vec::new()),
            SMALL_TUPLE => {
                let len = usize::from(self.byte()?);
                self.items(len, depth)?
            }
            LARGE_TUPLE => {
                let len = self.long()?;
                self.items(len, depth)?
            }
            LIST => self.list(depth)?,
            SMALL_BIG => {
                let len = usize::from(self.byte()?);
                self.big(len)?
            }
            LARGE_BIG => {
                let len = self.long()?;
                self.big(len)?
            }
            MAP => self.map(depth)?,
            other => return Err(EtfError::Tag(other)),
        })
    }

    fn atom(&mut self, tag: u8) -> Result<String, EtfError> {
        let len = if matches!(tag, ATOM | ATOM_UTF8) { self.short()? } else { usize::from(self.byte()?) };
        self.text(len)
    }

    fn items(&mut self, len: usize, depth: usize) -> Result<Value, EtfError> {
        (0..len).map(|_| self.term(depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn list(&mut self, depth: usize) -> Result<Value, EtfError> {
        let len = self.long()?;
        let items = self.items(len, depth)?;
        match self.byte()? {
            NIL => Ok(items),
            other => Err(EtfError::Tag(other)),
        }
    }

    fn big(&mut self, len: usize) -> Result<Value, EtfError> {
        let negative = self.byte()? != 0;
        if len > 8 {
            return Err(EtfError::Integer);
        }
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(self.take(len)?);
        let size = u64::from_le_bytes(bytes);
        if !negative {
            return Ok(Value::from(size));
        }
        i64::try_from(-i128::from(size)).map(Value::from).map_err(|_| EtfError::Integer)
    }

    fn map(&mut self, depth: usize) -> Result<Value, EtfError> {
        let len = self.long()?;
        let mut map = Map::new();
        for _ in 0..len {
            let key = match self.byte()? {
                BINARY => {
                    let len = self.long()?;
                    self.text(len)?
                }
                tag @ (ATOM | ATOM_UTF8 | SMALL_ATOM | SMALL_ATOM_UTF8) => self.atom(tag)?,
                _ => return Err(EtfError::Key),
            };
            map.insert(key, self.term(depth + 1)?);
        }
        Ok(Value::Object(map))
    }
}

fn named(atom: String) -> Value {
    match atom.as_str() {
        "nil" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(atom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let value = json!({"op": 0, "d": {"id": "197038439483310086", "n": null, "list": [1, -5, 70000, 2.5],
            "big": 9007199254740993u64, "small": -9007199254740993i64, "yes": true, "empty": []}});
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        assert_eq!(decode(&bytes), Ok(value));
    }

    #[test]
    fn bytes_written_by_hand_from_erlangs_description_are_read() {
        // #{<<"op">> => 1, d => nil}
        let bytes = [
            131, 116, 0, 0, 0, 2, 109, 0, 0, 0, 2, b'o', b'p', 97, 1, 119, 1, b'd', 115, 3, b'n', b'i', b'l',
        ];
        assert_eq!(decode(&bytes), Ok(json!({"op": 1, "d": null})));
    }

    #[test]
    fn truncated_deep_and_foreign_terms_are_refused() {
        assert_eq!(decode(&[131, 109, 0, 0, 0, 9, 1]), Err(EtfError::Short));
        assert_eq!(decode(&[131, 103]), Err(EtfError::Tag(103)));
        assert_eq!(decode(&[131, 97, 1, 0]), Err(EtfError::Trailing));
        let mut deep = vec![131];
        for _ in 0..100 {
            deep.extend_from_slice(&[104, 1]);
        }
        assert_eq!(decode(&deep), Err(EtfError::Deep));
    }
}
