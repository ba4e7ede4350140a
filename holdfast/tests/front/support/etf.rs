// SPDX-License-Identifier: AGPL-3.0-only
//! Erlang's external term format, as a client reads and writes it; written from its specification and sharing
//! nothing with the code under test.

use serde_json::{Map, Value};

/// Reads one term and everything in it; what follows it is an error.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader { rest: bytes };
    if reader.byte()? != 131 {
        return Err("no version byte".into());
    }
    let value = reader.term()?;
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("{} bytes too many", reader.rest.len())) }
}

/// Writes a value as Discord's libraries do: text as binaries, maps with binaries as keys.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut out = vec![131];
    write(value, &mut out);
    out
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn length(&mut self) -> Result<usize, String> {
        let bytes: [u8; 4] = self.take(4)?.try_into().expect("four bytes");
        usize::try_from(u32::from_be_bytes(bytes)).map_err(|error| error.to_string())
    }

    fn text(&mut self, count: usize) -> Result<String, String> {
        String::from_utf8(self.take(count)?.to_vec()).map_err(|error| error.to_string())
    }

    fn term(&mut self) -> Result<Value, String> {
        match self.byte()? {
            70 => {
                let bits: [u8; 8] = self.take(8)?.try_into().expect("eight bytes");
                Ok(Value::from(f64::from_be_bytes(bits)))
            }
            97 => Ok(Value::from(self.byte()?)),
            98 => {
                let bytes: [u8; 4] = self.take(4)?.try_into().expect("four bytes");
                Ok(Value::from(i32::from_be_bytes(bytes)))
            }
            100 | 118 => {
                let count = u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes"));
                self.atom(usize::from(count))
            }
            115 | 119 => {
                let count = self.byte()?;
                self.atom(usize::from(count))
            }
            106 => Ok(Value::Array(Vec::new())),
            107 => {
                let count = u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes"));
                Ok(self.take(usize::from(count))?.iter().map(|byte| Value::from(*byte)).collect())
            }
            108 => {
                let count = self.length()?;
                let items: Result<Vec<Value>, String> = (0..count).map(|_| self.term()).collect();
                if self.byte()? != 106 {
                    return Err("a list without its end".into());
                }
                Ok(Value::Array(items?))
            }
            109 => {
                let count = self.length()?;
                Ok(Value::from(self.text(count)?))
            }
            110 => self.big(),
            116 => self.map(),
            tag => Err(format!("tag {tag} is none that Discord writes")),
        }
    }

    fn atom(&mut self, count: usize) -> Result<Value, String> {
        Ok(match self.text(count)?.as_str() {
            "nil" | "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            name => Value::from(name),
        })
    }

    fn big(&mut self) -> Result<Value, String> {
        let (count, sign) = (self.byte()?, self.byte()?);
        if count > 8 {
            return Err("a number beyond 64 bits".into());
        }
        let digits = self.take(usize::from(count))?;
        let number = digits.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        match sign {
            0 => Ok(Value::from(number)),
            _ => i64::try_from(number).map(|number| Value::from(-number)).map_err(|error| error.to_string()),
        }
    }

    fn map(&mut self) -> Result<Value, String> {
        let mut fields = Map::new();
        for _ in 0..self.length()? {
            let Value::String(name) = self.term()? else { return Err("a key that isn't text".into()) };
            let value = self.term()?;
            if fields.insert(name.clone(), value).is_some() {
                return Err(format!("{name} twice"));
            }
        }
        Ok(Value::Object(fields))
    }
}

fn write(value: &Value, out: &mut Vec<u8>) {
    let atom = |name: &str, out: &mut Vec<u8>| {
        out.extend([115, u8::try_from(name.len()).expect("short")]);
        out.extend(name.as_bytes());
    };
    let count = |tag: u8, count: usize, out: &mut Vec<u8>| {
        out.push(tag);
        out.extend(u32::try_from(count).expect("short").to_be_bytes());
    };
    match value {
        Value::Null => atom("nil", out),
        Value::Bool(value) => atom(if *value { "true" } else { "false" }, out),
        Value::Number(number) => {
            let number = number.as_u64().expect("tests send no other numbers");
            match u8::try_from(number) {
                Ok(small) => out.extend([97, small]),
                Err(_) => {
                    out.extend([110, 8, 0]);
                    out.extend(number.to_le_bytes());
                }
            }
        }
        Value::String(text) => {
            count(109, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            if !items.is_empty() {
                count(108, items.len(), out);
                items.iter().for_each(|item| write(item, out));
            }
            out.push(106);
        }
        Value::Object(fields) => {
            count(116, fields.len(), out);
            for (name, value) in fields {
                write(&Value::from(name.as_str()), out);
                write(value, out);
            }
        }
    }
}
