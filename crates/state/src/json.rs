// SPDX-License-Identifier: AGPL-3.0-only
//! JSON by its top level only. In: bytes of an object or array. Out: its fields or elements as slices of these
//! bytes, untouched, and objects put together again from such slices. Nothing is parsed deeper than one level,
//! but all of it is checked to be JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::section::{IdAt, Section};

/// The bytes are not the JSON that was expected.
pub(crate) type Error = serde_json::Error;

/// An object's fields in their order; of fields of the same name the last one's value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn set(&mut self, key: impl Into<Cow<'a, str>>, value: &'a str) {
        let key = key.into();
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some(field) => field.1 = value,
            None => self.0.push((key, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn snowflake(&self, key: &str) -> Option<u64> {
        snowflake(self.get(key)?)
    }

    /// `{"a":1,"b":2}`
    pub(crate) fn object(&self) -> Vec<u8> {
        let size = self.0.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>();
        let mut out = Vec::with_capacity(size + 2);
        out.push(b'{');
        self.write_bare(&mut out);
        out.push(b'}');
        out
    }

    /// `"a":1,"b":2`
    pub(crate) fn write_bare(&self, out: &mut Vec<u8>) {
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_key(key, out);
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// `"key":`, escaped where needed.
pub(crate) fn write_key(key: &str, out: &mut Vec<u8>) {
    if key.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(serde_json::Value::from(key).to_string().as_bytes());
    } else {
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
    }
    out.push(b':');
}

/// The elements of an array.
pub(crate) fn elements(bytes: &[u8]) -> Result<Vec<&str>, Error> {
    let raw: Vec<&RawValue> = serde_json::from_slice(bytes)?;
    Ok(raw.into_iter().map(RawValue::get).collect())
}

/// `"123"` or `123`.
pub(crate) fn snowflake(raw: &str) -> Option<u64> {
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw).parse().ok()
}

/// The number whose digits begin at `at`.
pub(crate) fn digits(bytes: &[u8], at: usize) -> Option<u64> {
    let digits = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    digits.take(20).try_fold(None, |value: Option<u64>, byte| {
        let value = value.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        Some(Some(value))
    })?
}

/// What there is to know of an entity without looking deeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Where the id's digits begin, if it has an id.
    pub(crate) id_at: Option<usize>,
    pub(crate) id: Option<u64>,
    /// A member with a role or a nickname; a presence that isn't offline.
    pub(crate) notable: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Known<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    sound_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    roles: Option<&'a RawValue>,
    #[serde(borrow)]
    nick: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

/// Looks at one element of a list. Something that isn't an object, or has no id, has no traits.
pub(crate) fn traits(section: Section, entity: &str) -> Traits {
    let Ok(known) = serde_json::from_str::<Known<'_>>(entity) else { return Traits::default() };
    let raw = match section.id_at() {
        IdAt::Id => known.id.map(RawValue::get),
        IdAt::SoundId => known.sound_id.map(RawValue::get),
        IdAt::UserId => known.user_id.map(RawValue::get),
        IdAt::User => known.user.and_then(|user| inner_id(user.get())),
    };
    let notable = match section {
        Section::Members => {
            known.roles.is_some_and(|roles| !is_empty_array(roles.get()))
                || known.nick.is_some_and(|nick| nick.get() != "null")
        }
        Section::Presences => known.status.is_none_or(|status| !is_text(status.get(), "offline")),
        _ => false,
    };
    let Some((raw, id)) = raw.and_then(|raw| Some((raw, snowflake(raw)?))) else {
        return Traits { notable, ..Traits::default() };
    };
    let at = raw.as_ptr() as usize - entity.as_ptr() as usize + usize::from(raw.starts_with('"'));
    Traits { id_at: Some(at), id: Some(id), notable }
}

fn inner_id(user: &str) -> Option<&str> {
    serde_json::from_str::<Known<'_>>(user).ok()?.id.map(RawValue::get)
}

fn is_empty_array(raw: &str) -> bool {
    raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|inner| inner.trim().is_empty())
}

/// Whether a raw value is this string, however it is escaped.
pub(crate) fn is_text(raw: &str, text: &str) -> bool {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => inner == text,
        Some(_) => serde_json::from_str::<String>(raw).is_ok_and(|value| value == text),
        None => false,
    }
}

/// Whether a raw value is `true`.
pub(crate) fn is_true(raw: Option<&str>) -> bool {
    raw == Some("true")
}

/// Whether a raw value is `null`.
pub(crate) fn is_null(raw: Option<&str>) -> bool {
    raw == Some("null")
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = Fields(Vec::with_capacity(16));
        while let Some(Key(key)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            fields.set(key, value.get());
        }
        Ok(fields)
    }
}

/// A key, borrowed unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}
