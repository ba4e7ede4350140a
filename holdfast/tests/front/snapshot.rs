// SPDX-License-Identifier: AGPL-3.0-only
//! What a client sees after IDENTIFY equals what Discord would have sent it now.

use holdfast_simulator::{Simulator, Traffic};
use serde_json::Value;

use crate::support::{ALL, Client, Holdfast, discord};

#[tokio::test(flavor = "multi_thread")]
async fn guilds_are_as_discord_has_them() {
    let discord = discord(1, 8).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (_, opened) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(opened.guilds.len(), 8);
    assert_same(&discord, &opened.guilds, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn guilds_are_as_discord_has_them_after_changes_of_all_kinds() {
    let discord = discord(1, 8).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    for restart in [false, true] {
        discord.traffic(Traffic { rate: 2_000.0, seconds: Some(1.0), ..Traffic::mixed(0.0) });
        discord.finish_traffic().await;
        if restart {
            holdfast.kill_and_restart().await;
            holdfast.live().await;
        }
        // A last message behind all changes: when it is there, they are too.
        let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
        discord.traffic(Traffic::burst(8));
        client.until_last(&discord.finish_traffic().await.sent).await;
        client.cut();
        let (_, opened) = Client::identified(&holdfast.url, [0, 1]).await;
        assert_eq!(opened.guilds.len(), 8);
        assert_same(&discord, &opened.guilds, &[]);
    }
}

/// The guilds are as Discord would send them now, but for what isn't kept.
pub(crate) fn assert_same(discord: &Simulator, guilds: &[Value], not_kept: &[&str]) {
    for guild in guilds {
        let id: u64 = guild["id"].as_str().and_then(|id| id.parse().ok()).expect("a guild id");
        let mut expected = discord.guild_as_seen(id, ALL, 50).expect("a guild of the world");
        not_kept.iter().for_each(|list| expected[list] = Value::Array(Vec::new()));
        difference("", &sorted(guild), &sorted(&expected));
    }
}

/// Lists of entities have no order of meaning: sorted by what names them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(|item| {
                let id = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
                id("/id").or_else(|| id("/user/id")).or_else(|| id("/user_id")).or_else(|| id("/sound_id"))
            });
            Value::Array(items)
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect(),
        other => other.clone(),
    }
}

/// Fails at the first place where two values differ, and names it.
fn difference(path: &str, got: &Value, expected: &Value) {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            for name in got.keys().chain(expected.keys()) {
                let value = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
                match (value(got), value(expected)) {
                    (Some(got), Some(expected)) => difference(&format!("{path}/{name}"), &got, &expected),
                    (got, expected) => panic!("{path}/{name}: got {got:?}, Discord has {expected:?}"),
                }
            }
        }
        (Value::Array(got), Value::Array(expected)) => {
            let ids = |items: &[Value]| items.iter().map(|item| item["id"].to_string()).collect::<Vec<_>>();
            let (length, both) = (got.len(), (ids(got), ids(expected)));
            assert_eq!(length, expected.len(), "{path}: got, and Discord has: {both:?}");
            for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                difference(&format!("{path}/{index}"), got, expected);
            }
        }
        _ => assert_eq!(got, expected, "{path}"),
    }
}
