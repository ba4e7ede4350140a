// SPDX-License-Identifier: AGPL-3.0-only
//! Clients that reach another replica than the one that runs their shard: they notice nothing.

use std::collections::BTreeMap;

use futures_util::SinkExt;
use holdfast_simulator::{Simulator, Traffic};
use serde_json::{Value, json};
use tokio::{select, sync::watch};
use tokio_websockets::Message;

use crate::{
    encodings::Reader,
    support::{
        ALL, BINARY, CLOSE, Client, Ended, Fleet, Holdfast, Ledger, TEXT, TOKEN, Wire, back, discord, frame,
        of_shard, request, try_back, until, within,
    },
};

/// Enough that each of a few replicas has some.
const SHARDS: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn every_form_reaches_the_shards_owner() {
    let discord = discord(SHARDS, 3 * SHARDS).await;
    let fleet = Fleet::start(&discord, SHARDS, 2, "").await;
    let shard = fleet.shard_of(1).await;
    let mut readers = Vec::new();
    for encoding in ["json", "etf"] {
        for transport in ["", "zlib-stream", "zstd-stream"] {
            let mut reader = Reader::open(&fleet.replicas[0].url, encoding, transport).await;
            // What comes before IDENTIFY is in the compressed stream as well.
            reader.say(&json!({ "op": 1, "d": null })).await;
            assert_eq!(reader.next().await["op"], 11, "{}", reader.form);
            reader.say(&identify(shard)).await;
            let ready = reader.next().await;
            assert_eq!(ready["t"], "READY", "{}", reader.form);
            let guilds = ready["d"]["guilds"].as_array().map_or(0, Vec::len);
            assert!(guilds > 0);
            for _ in 0..guilds {
                assert_eq!(reader.next().await["t"], "GUILD_CREATE", "{}", reader.form);
            }
            readers.push(reader);
        }
    }
    assert_eq!(fleet.replicas[0].metric("holdfast_ws_splices").await, 6.0);
    discord.traffic(Traffic::burst(3_000));
    let sent = discord.finish_traffic().await.sent;
    let mine = of_shard(&discord, &sent, shard, SHARDS);
    for mut reader in readers {
        let mut ledger = Ledger::default();
        while !ledger.has_last(&mine) {
            ledger.note(&reader.next().await);
        }
        ledger.assert_each_once(&mine, &BTreeMap::new());
        commands_pass(&discord, &mut reader, shard).await;
        let opcode = if reader.form.starts_with("etf") { BINARY } else { TEXT };
        reader.wire.write(&frame(opcode, b"?")).await;
        assert_eq!(reader.wire.closed().await.0, 4002, "{}", reader.form);
    }
    let gone = async || fleet.replicas[0].metric("holdfast_ws_splices").await == 0.0;
    until("the splices are over", gone).await;
}

/// A heartbeat is acknowledged, members come with the client's own nonce.
async fn commands_pass(discord: &Simulator, reader: &mut Reader, shard: u32) {
    reader.say(&json!({ "op": 1, "d": 1 })).await;
    while reader.next().await["op"] != 11 {}
    let guild = discord.guilds(shard, SHARDS)[0].to_string();
    let wanted = json!({ "guild_id": guild, "query": "", "limit": 0, "nonce": "mine" });
    reader.say(&json!({ "op": 8, "d": wanted })).await;
    loop {
        let payload = reader.next().await;
        if payload["t"] == "GUILD_MEMBERS_CHUNK" {
            assert_eq!(payload["d"]["nonce"], "mine", "{}", reader.form);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_through_either_replica() {
    let discord = discord(SHARDS, 2 * SHARDS).await;
    let fleet = Fleet::start(&discord, SHARDS, 2, "").await;
    let shard = fleet.shard_of(1).await;
    let (wrong, right) = (fleet.replicas[0].url.as_str(), fleet.replicas[1].url.as_str());
    let (mut client, _) = Client::identified(right, [shard, SHARDS]).await;
    for url in [wrong, right, wrong] {
        client.cut();
        discord.traffic(Traffic::burst(400));
        let sent = discord.finish_traffic().await.sent;
        assert_eq!(client.resume(url).await["t"], "RESUMED");
        client.until_last(&of_shard(&discord, &sent, shard, SHARDS)).await;
    }
    let sent = discord.sent().sent;
    client.ledger.assert_each_once(&of_shard(&discord, &sent, shard, SHARDS), &BTreeMap::new());
    // What can't be resumed is refused as anywhere, and the connection stays for an IDENTIFY: for a shard of either.
    client.session.replace_range(0..4, "0000");
    assert_eq!(client.resume(wrong).await["op"], 9);
    for shard in [shard, fleet.shard_of(0).await] {
        client.shard = [shard, SHARDS];
        client.send_identify().await;
        while client.next().await.expect("READY comes")["t"] != "READY" {}
        client.send(&client.resume_payload()).await;
        assert_eq!(client.until_end().await, Ended::Closed(4005));
        client.session.replace_range(0..4, "0000");
        client.sequence = 0;
        assert_eq!(client.resume(wrong).await["op"], 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_pass_both_ways() {
    let discord = discord(SHARDS, SHARDS).await;
    let fleet = Fleet::start(&discord, SHARDS, 2, "max_clients_per_shard = 1").await;
    let shard = fleet.shard_of(1).await;
    let wrong = &fleet.replicas[0];
    // The owner refuses a second client, the other replica a wrong token, either in Discord's words.
    let (client, _) = Client::identified(&wrong.url, [shard, SHARDS]).await;
    let mut second = Wire::open(&wrong.url).await;
    second.say(&identify(shard)).await;
    let (code, reason) = second.closed().await;
    assert_eq!(code, 4008);
    assert!(reason.contains("max_clients_per_shard"), "{reason}");
    let mut stranger = Wire::open(&wrong.url).await;
    let data = json!({ "token": "x", "intents": ALL, "shard": [shard, SHARDS], "properties": {} });
    stranger.say(&json!({ "op": 2, "d": data })).await;
    assert_eq!(stranger.closed().await.0, 4004);
    drop(client);
    // 4000 keeps a session, 1000 ends it.
    for (code, kept) in [(4000_u16, true), (1000, false)] {
        let mut client = Client::new([shard, SHARDS]);
        let mut wire = Wire::open(&wrong.url).await;
        until("the place is free", async || {
            wire.say(&identify(shard)).await;
            let Some((TEXT, ready)) = wire.frame().await else {
                wire = Wire::open(&wrong.url).await;
                return false;
            };
            let ready: Value = serde_json::from_slice(&ready).expect("READY is JSON");
            client.session = ready["d"]["session_id"].as_str().expect("a session").to_owned();
            true
        })
        .await;
        let guild = wire.frame().await.expect("its guild comes").1;
        let guild: Value = serde_json::from_slice(&guild).expect("a guild is JSON");
        client.sequence = guild["s"].as_u64().expect("a sequence");
        wire.write(&frame(CLOSE, &code.to_be_bytes())).await;
        wire.ended().await;
        let answer = client.resume(&wrong.url).await;
        assert_eq!(answer["t"] == "RESUMED", kept, "{code}: {answer}");
        client.cut();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owners_clients_resume_after_the_takeover() {
    let discord = discord(SHARDS, 2 * SHARDS).await;
    let mut fleet = Fleet::start(&discord, SHARDS, 3, "").await;
    let mut clients = Vec::new();
    for shard in 0..SHARDS {
        clients.push(Client::identified(&fleet.replicas[0].url, [shard, SHARDS]).await.0);
    }
    // A second's worth: sessions are in the store four times a second.
    discord.traffic(Traffic::messages(100.0));
    for client in &mut clients {
        while client.ledger.count() < 100 {
            // Some shard may still be on its way to the third replica.
            if client.next().await.is_err() {
                client.cut();
                back(client, &fleet.replicas[0].url).await;
            }
        }
    }
    let theirs = fleet.shards(2).await;
    fleet.replicas[2].kill();
    let (told, end) = watch::channel(None);
    let mut following = Vec::new();
    for (shard, mut client) in (0..SHARDS).zip(clients) {
        // Through either of those that are left.
        let url = fleet.replicas[(shard % 2) as usize].url.clone();
        if theirs.contains(&shard) {
            assert_eq!(client.until_end().await, Ended::Closed(4000));
            if shard == theirs[0] {
                // Nobody has it for now: the client isn't left hanging.
                let early = within("an answer", try_back(&mut client, &url)).await;
                assert_eq!(early, Err(Ended::Closed(4000)));
            }
            back(&mut client, &url).await;
        }
        following.push(tokio::spawn(follow(client, url, discord.guilds(shard, SHARDS), end.clone())));
    }
    let sent = discord.stop_traffic().await.sent;
    told.send(Some(sent.clone())).expect("the clients listen");
    for following in following {
        let (client, _) = within("a client", following).await.expect("it has all");
        let [shard, count] = client.shard;
        client.ledger.assert_none_lost(&of_shard(&discord, &sent, shard, count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_replica_comes_clients_follow_their_shards_from_where_they_are() {
    let discord = discord(SHARDS, 2 * SHARDS).await;
    let mut fleet = Fleet::start(&discord, SHARDS, 2, "").await;
    discord.traffic(Traffic::messages(400.0));
    let (told, end) = watch::channel(None);
    let mut following = Vec::new();
    for shard in 0..SHARDS {
        let url = fleet.replicas[(shard % 2) as usize].url.clone();
        let (client, _) = Client::identified(&url, [shard, SHARDS]).await;
        following.push(tokio::spawn(follow(client, url, discord.guilds(shard, SHARDS), end.clone())));
    }
    fleet.add(&discord, "").await;
    until("the third replica has shards", async || !fleet.shards(2).await.is_empty()).await;
    let sent = discord.stop_traffic().await.sent;
    told.send(Some(sent.clone())).expect("the clients listen");
    let mut moves = 0;
    for following in following {
        let (client, moved) = within("a client", following).await.expect("it has all");
        moves += moved;
        let mine = of_shard(&discord, &sent, client.shard[0], SHARDS);
        // The messages before its IDENTIFY aren't its own.
        let from = client.ledger.got().iter().map(|(guild, got)| (guild.clone(), got[0] - 1)).collect();
        client.ledger.assert_each_once(&mine, &from);
    }
    assert!(moves > 0, "nobody had to move");
}

/// What was sent in all, once that is known.
type End = watch::Receiver<Option<BTreeMap<String, u64>>>;

/// Reads until everything is there, and comes back through the same replica whenever it is told to. Gives how often.
async fn follow(mut client: Client, url: String, guilds: Vec<u64>, mut end: End) -> (Client, usize) {
    let guilds: Vec<String> = guilds.iter().map(u64::to_string).collect();
    let mut moves = 0;
    loop {
        let sent = end.borrow_and_update().clone();
        let mine = sent.map(|sent| sent.into_iter().filter(|(guild, _)| guilds.contains(guild)).collect());
        if mine.is_some_and(|mine| client.ledger.has_last(&mine)) {
            return (client, moves);
        }
        let next = select! {
            next = client.next() => next,
            Ok(()) = end.changed() => continue,
        };
        match next {
            Ok(payload) if payload["op"] == 1 => {
                let beat = json!({ "op": 1, "d": client.sequence });
                let _ = client.try_send(&beat).await;
            }
            Ok(_) => {}
            Err(ended) => {
                assert_eq!(ended, Ended::Closed(4000), "shard {:?}", client.shard);
                client.cut();
                back(&mut client, &url).await;
                moves += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_says_that_it_is_a_replica_is_refused() {
    let (single, discord) = (discord(1, 1).await, discord(SHARDS, SHARDS).await);
    let fleet = Fleet::start(&discord, SHARDS, 2, "").await;
    let alone = Holdfast::start(&single, "").await;
    let forged = format!("0/8 0000000000000001 192.0.2.1:1 1 {:032x} {:064x}", 1, 2);
    for holdfast in [&fleet.replicas[0], &alone] {
        for (refused, ticket) in [forged.as_str(), "", "x"].into_iter().enumerate() {
            let mut wire = Wire::tcp(&holdfast.url).await;
            let request =
                request("/?v=10").replace("\r\n\r\n", &format!("\r\nholdfast-splice: {ticket}\r\n\r\n"));
            wire.write(request.as_bytes()).await;
            let head = wire.head().await;
            assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
            assert_eq!(holdfast.metric("holdfast_ws_splices_refused_total").await, refused as f64 + 1.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_a_certificate_splice_over_tls() {
    let discord = discord(SHARDS, SHARDS).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let connector = crate::tls::certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", file("cert.pem"), file("key.pem"));
    let fleet = Fleet::start(&discord, SHARDS, 2, &tls).await;
    let shard = fleet.shard_of(1).await;
    let mut socket = crate::tls::connect(&fleet.replicas[0], &connector).await;
    assert_eq!(crate::tls::next(&mut socket).await["op"], 10);
    socket.send(Message::text(identify(shard).to_string())).await.expect("IDENTIFY is sent");
    assert_eq!(crate::tls::next(&mut socket).await["t"], "READY");
    assert_eq!(fleet.replicas[0].metric("holdfast_ws_splices").await, 1.0);
}

/// IDENTIFY for one of the shards.
fn identify(shard: u32) -> Value {
    json!({ "op": 2, "d": { "token": TOKEN, "intents": ALL, "shard": [shard, SHARDS], "properties": {} } })
}
