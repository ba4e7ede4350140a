// SPDX-License-Identifier: AGPL-3.0-only
//! Members on request: from the state where that is complete, from Discord otherwise, always to who asked alone.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_simulator::{Fault, FaultKind, Simulator, Traffic, WorldSpec};
use serde_json::{Value, json};

use crate::support::{Client, Holdfast, Setup, discord, discord_of};

const CACHES: [&str; 2] = ["members = true, presences = true", "members = false"];

#[tokio::test(flavor = "multi_thread")]
async fn members_come_to_who_asked_under_their_nonce() {
    for cache in CACHES {
        let discord = discord(1, 4).await;
        let holdfast = Holdfast::start_with(&discord, &Setup { cache, ..Setup::default() }).await;
        let (mut asker, _) = Client::identified(&holdfast.url, [0, 1]).await;
        let (mut other, _) = Client::identified(&holdfast.url, [0, 1]).await;
        let guild = discord.guilds(0, 1)[0];
        let known = members_of(&discord, guild);
        let ids: Vec<&String> = known.iter().take(3).collect();
        let one = ids[0];

        let all = ask(&mut asker, guild, json!({ "query": "", "limit": 0, "nonce": "all" })).await;
        assert_eq!(ids_of(&all), known, "{cache}: all");
        assert_eq!(all[0]["nonce"], "all");

        let some = ask(&mut asker, guild, json!({ "user_ids": ids, "nonce": "some" })).await;
        assert_eq!(ids_of(&some), ids.iter().map(|id| (*id).clone()).collect(), "{cache}: by ids");

        let wanted = json!({ "user_ids": [one, "17"], "presences": true, "nonce": "\"}\\ä" });
        let missing = ask(&mut asker, guild, wanted).await;
        assert_eq!(missing[0]["not_found"], json!(["17"]), "{cache}");
        assert_eq!(ids_of(&missing).len(), 1);
        assert!(missing[0]["presences"].is_array(), "{cache}: {}", missing[0]);
        assert_eq!(missing[0]["nonce"], "\"}\\ä");

        let single = ask(&mut asker, guild, json!({ "user_ids": one })).await;
        assert_eq!(ids_of(&single).len(), 1, "{cache}: an id that is no list");
        assert!(single[0].get("nonce").is_none(), "{cache}: {}", single[0]);

        let name = name_of(&discord, guild, one);
        let found = ask(&mut asker, guild, json!({ "query": name, "limit": 5, "nonce": "q" })).await;
        assert!(ids_of(&found).contains(one), "{cache}: by name");
        let nobody =
            ask(&mut asker, guild, json!({ "query": "no such name", "limit": 5, "nonce": "n" })).await;
        assert_eq!((ids_of(&nobody).len(), nobody[0]["nonce"].as_str()), (0, Some("n")), "{cache}: nobody");

        asker.heartbeat().await;
        discord.traffic(Traffic::burst(20));
        let sent = discord.finish_traffic().await.sent;
        other.until_last(&sent).await;
        assert_eq!(other.seen.get("GUILD_MEMBERS_CHUNK"), None, "{cache}: chunks reach the asker alone");
        let upstream = discord.records(8).len();
        let from_state = holdfast.metric("holdfast_ws_members_from_state_total").await;
        if cache == CACHES[0] {
            assert_eq!((upstream, from_state), (0, 6.0), "from the state");
        } else {
            assert_eq!((upstream, from_state), (6, 0.0), "from Discord");
            assert!(discord.records(8).iter().all(|record| record.d["nonce"] != "all"));
        }
        assert!(discord.violations().is_empty(), "{:?}", discord.violations());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_ask_the_same_both_get_it() {
    for cache in CACHES {
        let world = WorldSpec { guilds: 2, members: 2_300, ..WorldSpec::default() };
        let discord = discord_of(1, world, |_| {}).await;
        let holdfast = Holdfast::start_with(&discord, &Setup { cache, ..Setup::default() }).await;
        let guild = discord.guilds(0, 1)[0];
        let mut clients = Vec::new();
        for nonce in ["first", "second"] {
            clients.push((Client::identified(&holdfast.url, [0, 1]).await.0, nonce));
        }
        // Discord takes its time: both ask before either is answered.
        discord.fault(&Fault::new(0, FaultKind::SlowRead));
        for (client, nonce) in &mut clients {
            let wanted = json!({ "guild_id": guild.to_string(), "query": "", "limit": 0, "nonce": nonce });
            client.send(&json!({ "op": 8, "d": wanted })).await;
            client.heartbeat().await;
        }
        discord.clear_faults();
        for (client, nonce) in &mut clients {
            let chunks = chunks(client).await;
            assert_eq!(chunks.len(), 3, "{cache}");
            assert!(chunks.iter().all(|chunk| chunk["nonce"] == *nonce), "{cache}");
            assert_eq!(ids_of(&chunks), members_of(&discord, guild), "{cache}");
        }
        assert_eq!(discord.records(8).len(), 1, "{cache}: Discord is asked once");
        // Nothing of it is left over for either.
        discord.traffic(Traffic::burst(20));
        let sent = discord.finish_traffic().await.sent;
        for (client, _) in &mut clients {
            client.until_last(&sent).await;
            assert_eq!(client.seen["GUILD_MEMBERS_CHUNK"], 3, "{cache}");
            client.ledger.assert_each_once(&sent, &BTreeMap::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_told_to_who_asked() {
    let discord = discord(1, 2).await;
    let setup = Setup { cache: CACHES[1], ..Setup::default() };
    let holdfast = Holdfast::start_with(&discord, &setup).await;
    let (mut asker, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut other, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0];
    let wanted = |nonce: &str| json!({ "query": "", "limit": 0, "nonce": nonce });
    ask(&mut asker, guild, wanted("once")).await;
    // All members of a guild may be asked for every 30 s: the second answer says when.
    let mut data = wanted("twice");
    data["guild_id"] = json!(guild.to_string());
    asker.send(&json!({ "op": 8, "d": data })).await;
    let limited = asker.until("RATE_LIMITED").await;
    assert_eq!(limited["d"]["meta"]["nonce"], "twice", "{limited}");
    discord.traffic(Traffic::burst(20));
    let sent = discord.finish_traffic().await.sent;
    other.until_last(&sent).await;
    assert_eq!(other.seen.get("RATE_LIMITED"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_while_the_asker_is_away_reaches_it() {
    let discord = discord(1, 2).await;
    let setup = Setup { cache: CACHES[1], ..Setup::default() };
    let holdfast = Holdfast::start_with(&discord, &setup).await;
    let (mut asker, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0];
    let wanted = json!({ "guild_id": guild.to_string(), "query": "", "limit": 0, "nonce": "mine" });
    asker.send(&json!({ "op": 8, "d": wanted })).await;
    discord.wait_for_records(8, 1).await.unwrap();
    asker.cut();
    assert_eq!(asker.resume(&holdfast.url).await["t"], "RESUMED");
    discord.traffic(Traffic::burst(20));
    asker.until_last(&discord.finish_traffic().await.sent).await;
    assert_eq!(asker.seen.get("GUILD_MEMBERS_CHUNK"), Some(&1));
}

/// Asks for members of a guild, and gives the chunks' data.
async fn ask(client: &mut Client, guild: u64, mut wanted: Value) -> Vec<Value> {
    wanted["guild_id"] = json!(guild.to_string());
    client.send(&json!({ "op": 8, "d": wanted })).await;
    chunks(client).await
}

/// All chunks of one answer.
async fn chunks(client: &mut Client) -> Vec<Value> {
    let mut chunks: Vec<Value> = Vec::new();
    loop {
        let chunk = client.until("GUILD_MEMBERS_CHUNK").await["d"].clone();
        assert_eq!(chunk["chunk_index"], chunks.len());
        let count = usize::try_from(chunk["chunk_count"].as_u64().expect("a count")).expect("small");
        chunks.push(chunk);
        if chunks.len() == count {
            return chunks;
        }
    }
}

fn ids_of(chunks: &[Value]) -> BTreeSet<String> {
    let members = chunks.iter().flat_map(|chunk| chunk["members"].as_array().expect("members"));
    members.map(|member| member["user"]["id"].as_str().expect("an id").to_owned()).collect()
}

fn members_of(discord: &Simulator, guild: u64) -> BTreeSet<String> {
    ids_of(&[discord.guild(guild).expect("a guild")])
}

fn name_of(discord: &Simulator, guild: u64, user: &str) -> String {
    let guild = discord.guild(guild).expect("a guild");
    let members = guild["members"].as_array().expect("members");
    let member = members.iter().find(|member| member["user"]["id"] == user).expect("the member");
    member["user"]["username"].as_str().expect("a name").to_owned()
}
