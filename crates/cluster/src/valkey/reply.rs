// SPDX-License-Identifier: AGPL-3.0-only
//! Replies of scripts, read. In: values of the protocol. Out: texts, numbers, bytes, or that a reply is none of ours'.
//! Pure.

use std::str::FromStr;

use redis::Value;

use crate::unavailable::Cause;
use crate::{Owner, Unavailable};

/// A reply that is a list, being read from its front.
pub(super) struct Reply {
    parts: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(super) fn list(value: Value) -> Result<Reply, Unavailable> {
        match value {
            Value::Array(parts) | Value::Set(parts) => Ok(Reply { parts: parts.into_iter() }),
            _ => Err(strange()),
        }
    }

    /// A list of pairs, as a hash comes in either version of the protocol.
    pub(super) fn pairs(value: Value) -> Result<Vec<(Value, Value)>, Unavailable> {
        let parts = match value {
            Value::Map(pairs) => return Ok(pairs),
            Value::Array(parts) => parts,
            _ => return Err(strange()),
        };
        let mut parts = parts.into_iter();
        let pair = || Some((parts.next()?, parts.next()?));
        Ok(std::iter::from_fn(pair).collect())
    }

    pub(super) fn value(&mut self) -> Result<Value, Unavailable> {
        self.parts.next().ok_or_else(strange)
    }

    pub(super) fn text(&mut self) -> Result<String, Unavailable> {
        text(self.value()?)
    }

    pub(super) fn parsed<T: FromStr>(&mut self) -> Result<T, Unavailable> {
        self.text()?.parse().map_err(|_| strange())
    }

    /// What follows, if anything does.
    pub(super) fn optional<T: FromStr>(&mut self) -> Result<Option<T>, Unavailable> {
        match self.parts.next() {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => text(value)?.parse().map(Some).map_err(|_| strange()),
        }
    }

    /// Owner, address, generation; `None` where the first is absent.
    pub(super) fn owner(&mut self) -> Result<Option<Owner>, Unavailable> {
        let Some(replica) = self.optional()? else { return Ok(None) };
        Ok(Some(Owner { replica, address: self.text()?, generation: self.parsed()? }))
    }
}

pub(super) fn text(value: Value) -> Result<String, Unavailable> {
    match value {
        Value::Int(number) => Ok(number.to_string()),
        value => String::from_utf8(bytes(value)?).map_err(|_| strange()),
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, Unavailable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(strange()),
    }
}

/// The key holds something that isn't ours, or another version's script answered.
pub(super) fn strange() -> Unavailable {
    Cause::Failed("it gave a reply of another form".to_owned()).into()
}
