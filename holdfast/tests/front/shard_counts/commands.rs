// SPDX-License-Identifier: AGPL-3.0-only
//! What such a client sends goes to the shard that it is for, and the answers come to who asked.

use std::collections::BTreeMap;

use holdfast_simulator::Traffic;
use serde_json::json;

use super::{finish, sorted};
use crate::support::{Client, Holdfast, Setup, discord};

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_shard_that_has_the_guild() {
    let discord = discord(4, 16).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::identified(&holdfast.url, [1, 2]).await;
    // [1, 2] is shards 1 and 3 of four.
    let shards = |op: u64| sorted(discord.records(op).iter().map(|record| shard_of(record.shard)).collect());
    client.send(&json!({ "op": 3, "d": { "status": "idle" } })).await;
    discord.wait_for_records(3, 2).await.unwrap();
    assert_eq!(shards(3), [1, 3]);
    let guild = discord.guilds(3, 4)[0];
    let id = guild.to_string();
    let channels = discord.guild(guild).unwrap()["channels"].clone();
    let channel =
        channels.as_array().unwrap().iter().find(|channel| channel["type"] == 2).unwrap()["id"].clone();
    let voice = json!({ "guild_id": id, "channel_id": channel, "self_mute": false, "self_deaf": true });
    client.send(&json!({ "op": 4, "d": voice })).await;
    let server = client.until("VOICE_SERVER_UPDATE").await;
    assert_eq!((&server["d"]["guild_id"], shards(4)), (&json!(id), vec![3]));
    let info = json!({ "guild_id": id, "fields": ["status"] });
    client.send(&json!({ "op": 43, "d": info })).await;
    assert_eq!(client.until("CHANNEL_INFO").await["d"]["guild_id"], id);
    assert_eq!(shards(43), [3]);
    let both = [discord.guilds(1, 4)[0], guild].map(|guild| guild.to_string());
    client.send(&json!({ "op": 31, "d": { "guild_ids": both } })).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(client.until("SOUNDBOARD_SOUNDS").await["d"]["guild_id"].as_str().unwrap().to_owned());
    }
    answered.sort_unstable();
    assert_eq!(answered, both);
    let asked: Vec<_> = discord.records(31).iter().map(|record| record.d["guild_ids"].clone()).collect();
    assert!(asked.contains(&json!([both[0]])) && asked.contains(&json!([both[1]])), "{asked:?}");
    assert_eq!(shards(31), [1, 3]);
    // An identify by the dead session's client brings the voice connection back to it.
    client.cut();
    holdfast.nobody().await;
    let (mut again, _) = Client::identified(&holdfast.url, [1, 2]).await;
    let restored = again.until("VOICE_SERVER_UPDATE").await;
    assert_eq!(restored["d"]["token"], server["d"]["token"]);
    assert_eq!(discord.violations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_asked_for_at_the_guilds_shard_and_come_to_who_asked() {
    for (cache, asked) in [("members = true", 0), ("members = false", 1)] {
        let discord = discord(4, 16).await;
        let setup = Setup { cache, ..Setup::default() };
        let holdfast = Holdfast::start_with(&discord, &setup).await;
        let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
        let (mut other, _) = Client::identified(&holdfast.url, [0, 1]).await;
        let guild = discord.guilds(2, 4)[1].to_string();
        let wanted = json!({ "guild_id": guild, "query": "", "limit": 0, "nonce": "mine" });
        client.send(&json!({ "op": 8, "d": wanted })).await;
        let chunk = client.until("GUILD_MEMBERS_CHUNK").await;
        assert_eq!((&chunk["d"]["guild_id"], &chunk["d"]["nonce"]), (&json!(guild), &json!("mine")));
        assert_eq!(chunk["d"]["members"].as_array().map(Vec::len), Some(40));
        let records = discord.records(8);
        assert_eq!(records.len(), asked, "{cache}");
        assert!(records.iter().all(|record| shard_of(record.shard) == 2));
        discord.traffic(Traffic::burst(8));
        let sent = discord.finish_traffic().await.sent;
        finish(&discord, &mut client, &sent, &BTreeMap::new()).await;
        finish(&discord, &mut other, &sent, &BTreeMap::new()).await;
        assert_eq!(other.seen.get("GUILD_MEMBERS_CHUNK"), None);
    }
}

fn shard_of(shard: Option<[u32; 2]>) -> u64 {
    shard.map_or(u64::MAX, |[shard, _]| u64::from(shard))
}
