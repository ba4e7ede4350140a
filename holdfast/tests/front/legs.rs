// SPDX-License-Identifier: AGPL-3.0-only
//! Clients whose shards are at several replicas: any of them can be reached, and what happens to one is no loss.

use std::collections::BTreeMap;

use holdfast_simulator::{Simulator, Traffic};
use serde_json::{Value, json};
use tokio::{select, sync::watch, task::JoinHandle};

use crate::{
    reshard::{own, total},
    support::{ALL, Client, Ended, Fleet, back, discord, discord_with, until, within},
};

#[tokio::test(flavor = "multi_thread")]
async fn one_client_gets_everything_of_shards_at_three_replicas() {
    let discord = discord(6, 18).await;
    let fleet = apart(&discord, 6).await;
    let mut clients = Vec::new();
    for replica in &fleet.replicas {
        let (client, opened) = Client::identified(&replica.url, [0, 1]).await;
        assert_eq!(opened.ready["d"]["shard"], json!([0, 1]));
        for guild in &opened.guilds {
            let id = guild["id"].as_str().unwrap().parse().unwrap();
            let expected = discord.guild_as_seen(id, ALL, 50).unwrap();
            for field in ["name", "member_count", "owner_id"] {
                assert_eq!(guild[field], expected[field]);
            }
        }
        assert_eq!(opened.guilds.len(), 18);
        clients.push(client);
    }
    discord.traffic(Traffic::burst(500));
    let sent = discord.finish_traffic().await.sent;
    for client in &mut clients {
        client.until_last(&sent).await;
        client.ledger.assert_each_once(&sent, &BTreeMap::new());
        // Its sequences are its own: READY, guilds, messages.
        assert_eq!(client.sequence, 1 + 18 + sent.values().sum::<u64>());
    }
    for guild in discord.guilds(0, 1) {
        let wanted = json!({ "guild_id": guild.to_string(), "query": "", "limit": 0, "nonce": "mine" });
        clients[0].send(&json!({ "op": 8, "d": wanted })).await;
        let chunk = clients[0].until("GUILD_MEMBERS_CHUNK").await;
        assert_eq!((&chunk["d"]["nonce"], &chunk["d"]["guild_id"]), (&json!("mine"), &wanted["guild_id"]));
        let wanted = json!({ "guild_id": guild.to_string(), "fields": ["status"] });
        clients[0].send(&json!({ "op": 43, "d": wanted })).await;
        assert_eq!(clients[0].until("CHANNEL_INFO").await["d"]["guild_id"], wanted["guild_id"]);
    }
    discord.clear_records();
    clients[1].send(&json!({ "op": 3, "d": { "status": "idle" } })).await;
    let told = discord.wait_for_records(3, 6).await.expect("every shard's");
    let mut told: Vec<_> = told.iter().filter_map(|record| Some(record.shard?[0])).collect();
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3, 4, 5]);
    // What Discord would close a client for closes it, whichever replica finds that.
    for guild in discord.guilds(0, 1).into_iter().take(6) {
        let (mut wrong, _) = Client::identified(&fleet.replicas[1].url, [0, 1]).await;
        wrong.send(&json!({ "op": 4, "d": { "guild_id": guild.to_string(), "channel_id": "x" } })).await;
        assert_eq!(wrong.until_end().await, Ended::Closed(4002));
    }
    for client in &mut clients {
        client.heartbeat().await;
    }
    assert_eq!(discord.violations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_members_before_all_guilds_are_there_gets_both() {
    let discord = discord(6, 18).await;
    let fleet = apart(&discord, 6).await;
    let asked: Vec<Value> = discord.guilds(0, 1).iter().map(|guild| members_of(*guild)).collect();
    for replica in &fleet.replicas {
        let mut client = Client::new([0, 1]);
        client.connect(&replica.url).await;
        // Once before READY, once before all guilds may have come.
        let mut first = vec![client.identify_payload()];
        first.extend(asked.iter().cloned());
        client.send_together(&first).await;
        client.session = client.until("READY").await["d"]["session_id"].as_str().unwrap().to_owned();
        for ask in &asked {
            client.send(ask).await;
        }
        let count = |client: &Client, name| client.seen.get(name).copied().unwrap_or(0);
        while count(&client, "GUILD_CREATE") < 18 || count(&client, "GUILD_MEMBERS_CHUNK") < 36 {
            client.next().await.expect("guilds and members come");
        }
        discord.traffic(Traffic::burst(50));
        client.until_last(&discord.finish_traffic().await.sent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_other_counts_get_everything_once_together() {
    for (ours, count) in [(4, 16), (6, 4), (6, 3)] {
        let discord = discord(ours, 48).await;
        let fleet = apart(&discord, ours).await;
        let mut clients = Vec::new();
        for shard in 0..count {
            let url = &fleet.replicas[shard as usize % 3].url;
            clients.push(Client::identified(url, [shard, count]).await.0);
        }
        discord.traffic(Traffic::burst(200));
        let sent = discord.finish_traffic().await.sent;
        for client in &mut clients {
            let own = own(&sent, client.shard);
            client.until_last(&own).await;
            client.ledger.assert_each_once(&own, &BTreeMap::new());
            assert_eq!(client.ledger.last().len(), own.len(), "no other's guilds");
        }
        assert_eq!(discord.violations().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_through_any_replica_from_where_the_client_is() {
    let discord = discord(6, 18).await;
    let fleet = apart(&discord, 6).await;
    let (mut client, _) = Client::identified(&fleet.replicas[0].url, [0, 1]).await;
    discord.traffic(Traffic::messages(300.0));
    for replica in [1, 2, 0, 1, 2, 0] {
        // Cut in the middle: what was on its way comes again, what it had doesn't.
        client.until_messages(client.ledger.count() + 150).await;
        client.cut();
        assert_eq!(client.resume(&fleet.replicas[replica].url).await["t"], "RESUMED");
    }
    let sent = discord.stop_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &BTreeMap::new());
    client.cut();
    // Of what it has confirmed it can't go on from before.
    client.connect(&fleet.replicas[1].url).await;
    client.send(&client.resume_payload()).await;
    client.until("RESUMED").await;
    client.heartbeat().await;
    client.cut();
    client.sequence = 30;
    assert_eq!(client.resume(&fleet.replicas[2].url).await["op"], 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_is_caught_up_from_all_replicas() {
    let discord = discord(6, 18).await;
    let fleet = apart(&discord, 6).await;
    let (mut client, _) = Client::identified(&fleet.replicas[0].url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    let had = discord.finish_traffic().await.sent;
    client.until_last(&had).await;
    client.heartbeat().await;
    client.cut();
    for replica in &fleet.replicas {
        replica.nobody().await;
    }
    discord.traffic(Traffic::burst(100));
    discord.finish_traffic().await;
    let (mut client, opened) = Client::identified(&fleet.replicas[1].url, [0, 1]).await;
    assert_eq!(opened.guilds.len(), 18);
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &had);
    // 1000 ends a session, at all of them.
    client.heartbeat().await;
    client.close(1000).await;
    for replica in &fleet.replicas {
        replica.nobody().await;
    }
    assert_eq!(client.resume(&fleet.replicas[2].url).await["op"], 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_handed_over_and_their_clients_go_on() {
    let discord = discord(6, 18).await;
    let mut fleet = Fleet::with_bound(&discord, 6, 3, 4, "").await;
    let (followers, end) = follow_all(&fleet, &[[0, 1], [0, 2], [1, 2], [1, 3]], &[0, 1]).await;
    discord.traffic(Traffic::messages(300.0));
    until("messages before", async || total(&discord) > 300).await;
    assert_eq!(fleet.replicas[2].terminate().await.code(), Some(0));
    let then = total(&discord);
    until("messages afterwards", async || total(&discord) > then + 300).await;
    fleet.replicas.truncate(2);
    fleet.add(&discord, "").await;
    let then = total(&discord);
    until("messages at three again", async || total(&discord) > then + 600).await;
    for client in finished(&discord, followers, end).await {
        client.ledger.assert_each_once(&own(&discord.sent().sent, client.shard), &BTreeMap::new());
        assert_eq!(client.seen.get("READY"), Some(&1), "{:?}", client.shard);
    }
    assert_eq!(discord.violations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_replica_is_killed_its_clients_are_sent_away_and_lose_nothing() {
    let discord = discord(6, 18).await;
    let mut fleet = Fleet::with_bound(&discord, 6, 3, 4, "").await;
    let (followers, end) = follow_all(&fleet, &[[0, 1], [0, 2], [1, 2], [1, 3]], &[0, 1]).await;
    discord.traffic(Traffic::messages(300.0));
    until("messages before", async || total(&discord) > 1_500).await;
    fleet.replicas[2].kill();
    let then = total(&discord);
    until("messages afterwards", async || total(&discord) > then + 3_000).await;
    for client in finished(&discord, followers, end).await {
        let repeated = client.ledger.assert_none_lost(&own(&discord.sent().sent, client.shard));
        println!("{:?}: {repeated} repeated of {}", client.shard, client.ledger.count());
        assert_eq!(client.seen.get("READY"), Some(&1), "{:?}", client.shard);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_sent_away_while_a_replica_with_a_shard_of_it_stands_still() {
    let discord = discord(6, 18).await;
    let fleet = apart(&discord, 6).await;
    let (mut home, mut other) = (0, 0);
    for replica in 0..3 {
        let at = if fleet.shards(replica).await.contains(&0) { &mut home } else { &mut other };
        *at = replica;
    }
    fleet.replicas[other].signal("-STOP");
    let url = &fleet.replicas[home].url;
    let mut client = Client::new([0, 1]);
    client.connect(url).await;
    client.send_identify().await;
    assert_eq!(client.until_end().await, Ended::Closed(4000));
    fleet.replicas[other].signal("-CONT");
    within("READY", async {
        loop {
            client.connect(url).await;
            client.send_identify().await;
            match client.next().await {
                Ok(ready) if ready["t"] == "READY" => return,
                ended => assert!(matches!(ended, Err(Ended::Closed(4000))), "{ended:?}"),
            }
            client.cut();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_any_count_do_not_notice_that_three_replicas_are_resharded() {
    let discord = discord_with(4, 24, |limits| limits.max_concurrency = 16).await;
    let fleet = Fleet::with_bound(&discord, 4, 3, 3, "[ws.reshard]\noverlap = \"1s\"").await;
    let mut shards = vec![[0, 1], [0, 2], [1, 2]];
    shards.extend((0..4).map(|shard| [shard, 4]));
    shards.extend((0..8).map(|shard| [shard, 8]));
    let (followers, end) = follow_all(&fleet, &shards, &[0, 1, 2]).await;
    discord.traffic(Traffic::messages(200.0));
    until("messages before", async || total(&discord) > 500).await;
    for to in [8, 4] {
        reshard(&fleet, to).await;
        let then = total(&discord);
        until("messages afterwards", async || total(&discord) > then + 1_000).await;
    }
    for client in finished(&discord, followers, end).await {
        let own = own(&discord.sent().sent, client.shard);
        client.ledger.assert_each_once(&own, &BTreeMap::new());
        assert_eq!(client.seen.get("READY"), Some(&1), "{:?} didn't notice", client.shard);
        assert!(client.seen.contains_key("RESUMED"), "{:?} came back", client.shard);
    }
    assert_eq!(discord.violations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_meanwhile_goes_on_from_where_it_was() {
    let discord = discord_with(4, 24, |limits| limits.max_concurrency = 16).await;
    let fleet = Fleet::with_bound(&discord, 4, 3, 3, "[ws.reshard]\noverlap = \"1s\"").await;
    let mut clients = Vec::new();
    for shard in [[0, 1], [1, 4], [5, 8], [2, 3], [1, 2]] {
        clients.push(Client::identified(&fleet.replicas[0].url, shard).await.0);
    }
    discord.traffic(Traffic::messages(200.0));
    for client in &mut clients {
        // Nothing is confirmed.
        client.until_messages(100).await;
        client.cut();
    }
    for (index, replica) in fleet.replicas.iter().enumerate() {
        if !fleet.shards(index).await.is_empty() {
            replica.nobody().await;
        }
    }
    reshard(&fleet, 8).await;
    let then = total(&discord);
    until("messages afterwards", async || total(&discord) > then + 500).await;
    for (number, client) in clients.iter_mut().enumerate() {
        // Cut in the middle of what it missed, and once more behind it.
        for more in [50, 400] {
            client.connect(&fleet.replicas[(number + more) % 3].url).await;
            client.send(&client.resume_payload()).await;
            client.until_messages(client.ledger.count() + more).await;
            client.cut();
        }
        assert_eq!(client.resume(&fleet.replicas[number % 3].url).await["t"], "RESUMED");
    }
    let sent = discord.stop_traffic().await.sent;
    for client in &mut clients {
        let own = own(&sent, client.shard);
        client.until_last(&own).await;
        client.ledger.assert_each_once(&own, &BTreeMap::new());
        assert_eq!(client.seen.get("READY"), Some(&1));
    }
    assert_eq!(discord.violations().len(), 0);
}

/// Asks for all members of a guild.
fn members_of(guild: u64) -> Value {
    json!({ "op": 8, "d": { "guild_id": guild.to_string(), "query": "", "limit": 0 } })
}

/// Three replicas, none of which has more than its part of the shards.
async fn apart(discord: &Simulator, shards: u32) -> Fleet {
    Fleet::with_bound(discord, shards, 3, shards.div_ceil(3), "").await
}

/// What was sent in all, once that is known.
type End = watch::Receiver<Option<BTreeMap<String, u64>>>;
type Followers = Vec<JoinHandle<Client>>;

/// Clients that come back through one of these replicas after the other, whenever they are sent away.
async fn follow_all(
    fleet: &Fleet,
    shards: &[[u32; 2]],
    through: &[usize],
) -> (Followers, watch::Sender<Option<BTreeMap<String, u64>>>) {
    let (say, end) = watch::channel(None);
    let urls: Vec<String> = through.iter().map(|replica| fleet.replicas[*replica].url.clone()).collect();
    let mut followers = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        let (client, _) = Client::identified(&urls[number % urls.len()], *shard).await;
        followers.push(tokio::spawn(follow(client, urls.clone(), number, end.clone())));
    }
    (followers, say)
}

/// Ends the traffic, and waits until the clients have all of it.
async fn finished(
    discord: &Simulator,
    followers: Followers,
    end: watch::Sender<Option<BTreeMap<String, u64>>>,
) -> Vec<Client> {
    let sent = discord.stop_traffic().await.sent;
    end.send(Some(sent)).expect("the clients listen");
    let mut clients = Vec::new();
    for follower in followers {
        clients.push(within("a client has everything", follower).await.expect("it is well"));
    }
    clients
}

/// What a library does: it confirms when asked, comes back when told, and resumes. Until all that was sent is here.
async fn follow(mut client: Client, urls: Vec<String>, mut turn: usize, mut end: End) -> Client {
    loop {
        let sent = end.borrow_and_update().as_ref().map(|sent| own(sent, client.shard));
        if sent.is_some_and(|sent| client.ledger.has_last(&sent)) {
            return client;
        }
        let next = select! {
            next = client.next() => next,
            Ok(()) = end.changed() => continue,
        };
        match next {
            Ok(payload) if payload["op"] == 1 => {
                // The connection may be over.
                let _ = client.try_send(&json!({ "op": 1, "d": client.sequence })).await;
            }
            Ok(payload) => assert_ne!(payload["op"], 9, "{:?}: the session is lost", client.shard),
            Err(ended) => {
                assert!(matches!(ended, Ended::Closed(4000) | Ended::Cut), "{:?}: {ended:?}", client.shard);
                client.cut();
                turn += 1;
                back(&mut client, &urls[turn % urls.len()]).await;
            }
        }
    }
}

/// Has the bot's shards changed to so many, and waits until they are.
async fn reshard(fleet: &Fleet, shards: u32) {
    let head =
        format!("POST /reshard?shards={shards} HTTP/1.1\r\nauthorization: Bot {}", crate::support::TOKEN);
    let (status, said) = fleet.replicas[0].request(&format!("{head}\r\ncontent-length: 0")).await;
    assert_eq!(status, 202, "{said}");
    for replica in &fleet.replicas {
        until("the new shards", async || {
            let answer: Value = serde_json::from_str(&replica.page("/reshard").await).unwrap_or_default();
            answer["phase"].is_null() && answer["shards"] == shards
        })
        .await;
    }
}
