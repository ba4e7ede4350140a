// SPDX-License-Identifier: AGPL-3.0-only
//! The presence that a shard shows, from one template for all shards.
//! In: the template from the settings and a shard's number. Out: the presence for IDENTIFY or opcode 3.

use serde_json::Value;

/// The template with `{{shard}}` replaced by the shard's number in every string value.
#[must_use]
pub fn render(template: &Value, shard: u32) -> Value {
    match template {
        Value::String(text) => Value::String(text.replace("{{shard}}", &shard.to_string())),
        Value::Array(items) => items.iter().map(|item| render(item, shard)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), render(value, shard))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use serde_json::json;

    #[test]
    fn the_shard_is_filled_in_wherever_it_stands() {
        let template = json!({
            "status": "online", "since": null, "afk": false,
            "activities": [{"name": "shard {{shard}} of {{shard}}", "type": 0, "{{shard}}": 1.5}],
        });
        let expected = json!({
            "status": "online", "since": null, "afk": false,
            "activities": [{"name": "shard 12 of 12", "type": 0, "{{shard}}": 1.5}],
        });
        assert_eq!(render(&template, 12), expected);
    }
}
