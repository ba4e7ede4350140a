// SPDX-License-Identifier: AGPL-3.0-only
//! What a written value is worth as another kind: values from the environment are strings, whatever they stand for.

use super::value::Value;

pub(super) fn quoted(text: impl AsRef<str>) -> String {
    Value::Text(text.as_ref().to_owned()).to_string()
}

pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn integer_of(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn strings_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Text(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
        Value::List(nodes) => nodes.iter().map(|node| text_of(&node.value)).collect(),
        _ => None,
    }
}
