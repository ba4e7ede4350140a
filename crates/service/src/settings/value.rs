// SPDX-License-Identifier: AGPL-3.0-only
//! What the user wrote, before anybody has asked what it means: values with the place where each was written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of settings by key.
pub type Table = BTreeMap<String, Node>;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string; from the environment it may stand for any other kind.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a settings file.
    File {
        /// The file's name as the user gave it.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
    },
    /// A key of a file in a foreign form that was translated.
    Key {
        /// The file's name as the user gave it.
        name: Arc<str>,
        /// The key in that file.
        key: String,
    },
    /// An environment variable.
    Environment(String),
    /// A command-line argument.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}, line {line}"),
            Self::Key { name, key } => write!(f, "{name}, key {key}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

impl Value {
    /// What kind of value this is, as a noun with its article.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The value as JSON; numbers that JSON can't hold become null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Flag(value) => (*value).into(),
            Self::Integer(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.clone().into(),
            Self::List(nodes) => nodes.iter().map(|node| node.value.to_json()).collect(),
            Self::Table(table) => {
                let members = table.iter().map(|(key, node)| (key.clone(), node.value.to_json()));
                serde_json::Value::Object(members.collect())
            }
        }
    }

    /// A value from JSON, everything in it written at `origin`. Null has no counterpart and is left out.
    #[must_use]
    pub fn from_json(json: &serde_json::Value, origin: &Origin) -> Option<Self> {
        use serde_json::Value as Json;
        let node = |json| Self::from_json(json, origin).map(|value| Node { value, origin: origin.clone() });
        Some(match json {
            Json::Null => return None,
            Json::Bool(value) => Self::Flag(*value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Float(number.as_f64()?),
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().filter_map(node).collect()),
            Json::Object(members) => Self::Table(
                members.iter().filter_map(|(key, json)| Some((key.clone(), node(json)?))).collect(),
            ),
        })
    }
}

/// Writes a value as TOML on one line, strings quoted.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{}", toml::Value::String(value.clone())),
            Self::List(nodes) => {
                let items: Vec<_> = nodes.iter().map(|node| node.value.to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Table(table) => {
                let members: Vec<_> =
                    table.iter().map(|(key, node)| format!("{key} = {}", node.value)).collect();
                write!(f, "{{ {} }}", members.join(", "))
            }
        }
    }
}

/// Turns parsed TOML into nodes; `origin` says where a byte offset is.
pub(super) fn from_toml(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Table {
    table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), node_from_toml(value, key.span().start, origin)))
        .collect()
}

fn node_from_toml(value: &Spanned<DeValue<'_>>, at: usize, origin: &dyn Fn(usize) -> Origin) -> Node {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| Value::Text(digits.as_str().to_owned()), Value::Integer),
        DeValue::Float(digits) => {
            digits.as_str().parse().map_or_else(|_| Value::Text(digits.as_str().to_owned()), Value::Float)
        }
        DeValue::Datetime(datetime) => Value::Text(datetime.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| node_from_toml(item, item.span().start, origin)).collect())
        }
        DeValue::Table(table) => Value::Table(from_toml(table, origin)),
    };
    Node { value: converted, origin: origin(at) }
}
