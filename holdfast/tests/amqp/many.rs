// SPDX-License-Identifier: AGPL-3.0-only
//! Many shards, many guilds, many events at once: each shard's in order, each guild's in one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::contract::no_lag;
use crate::stage::{Front, Stage};
use crate::support::discord;

const NONE: BTreeMap<String, u64> = BTreeMap::new();

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_shards_come_in_order_each() {
    let discord = discord(16, 32).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front::default()).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::mixed(40.0).lasting(Duration::from_secs(4)));
    let sent = discord.finish_traffic().await.sent;
    inbox.until_last(&sent).await;
    no_lag(&holdfast).await;
    inbox.ledger.assert_each_once(&sent, &NONE);
    inbox.assert_unbroken();
    let shards: BTreeSet<u32> = inbox.events().map(|event| event.shard).collect();
    assert_eq!(shards.len(), 16);
    for event in inbox.events().filter(|event| event.guild_id != 0) {
        assert_eq!((event.guild_id >> 22) % 16, u64::from(event.shard));
        assert_eq!(event.shard_count, 16);
    }
    assert_eq!((inbox.repeated, inbox.gaps().len()), (0, 0));
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_5000_on_each_of_16_shards_arrives_whole() {
    let discord = discord(16, 32).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front { queues: "", ..Front::default() }).await;
    holdfast.live().await;
    no_lag(&holdfast).await;
    // The cheapest kind of queue: what is tried is what comes before it.
    let events = stage.broker.names().events();
    let mut inbox = stage.queue("own", &events, "MESSAGE_CREATE.#").await;
    discord.traffic(Traffic { bytes: 700, ..Traffic::burst(5_000) });
    let sent = discord.finish_traffic().await.sent;
    inbox.until_messages(80_000).await;
    inbox.ledger.assert_each_once(&sent, &NONE);
    inbox.assert_unbroken();
    assert_eq!((inbox.repeated, inbox.gaps().len()), (0, 0));
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_guild_is_in_one_partition_in_order_and_each_partition_hears_of_a_gap() {
    const PARTITIONS: usize = 4;
    let discord = discord(2, 32).await;
    let mut stage = Stage::new().await;
    let amqp = format!("partitions = {PARTITIONS}");
    let holdfast = stage.holdfast(&discord, &Front { amqp: &amqp, queues: "", ..Front::default() }).await;
    holdfast.live().await;
    let mut inboxes: Vec<_> = (0..PARTITIONS).map(|n| stage.inbox(&format!("partition.{n}"))).collect();
    discord.traffic(Traffic::mixed(300.0).lasting(Duration::from_secs(2)));
    discord.finish_traffic().await;
    no_lag(&holdfast).await;
    discord.fault(&Fault::new(1, FaultKind::Op9).resumable(false));
    discord.wait_for_identify(1).await.expect("a new session");
    holdfast.live().await;
    discord.traffic(Traffic::burst(200));
    let sent = discord.finish_traffic().await.sent;
    no_lag(&holdfast).await;
    let (mut homes, mut guilds_of) = (BTreeMap::new(), Vec::new());
    for (number, inbox) in inboxes.iter_mut().enumerate() {
        let gap = inbox.until_gap().await;
        assert_eq!((gap.shard, gap.reason().as_str_name()), (1, "GAP_REASON_NEW_SESSION"));
        // Which guilds are here is known by now: all had traffic before the gap, or a GUILD_CREATE.
        let guilds: BTreeSet<u64> =
            inbox.events().map(|event| event.guild_id).filter(|id| *id != 0).collect();
        for guild in &guilds {
            assert_eq!(homes.insert(*guild, number), None, "guild {guild} is in one partition");
        }
        let here =
            |(guild, n): (&String, &u64)| guilds.contains(&guild.parse().ok()?).then(|| (guild.clone(), *n));
        let sent: BTreeMap<String, u64> = sent.iter().filter_map(here).collect();
        inbox.until_last(&sent).await;
        inbox.ledger.assert_each_once(&sent, &NONE);
        assert_eq!((inbox.gaps().len(), inbox.repeated), (1, 0));
        for event in inbox.events() {
            assert!(event.guild_id == 0 || guilds.contains(&event.guild_id), "it stays in its partition");
        }
        guilds_of.push(guilds.len());
    }
    assert_eq!(homes.len(), 32, "{guilds_of:?}");
    assert!(guilds_of.iter().all(|guilds| *guilds > 0), "{guilds_of:?}");
    drop(holdfast);
    stage.end().await;
}
