// SPDX-License-Identifier: AGPL-3.0-only
//! Clients that don't read: memory stays bounded, and others get theirs in time.

use std::collections::BTreeMap;

use holdfast_simulator::{Sent, Simulator, Traffic};

use crate::support::{Client, Ended, Holdfast, discord};

/// 20,000 messages of 4 KB: 80 MB, which nobody may hold for a client.
const MESSAGES: u64 = 20_000;
const BYTES: usize = 4_000;
const STEP: u64 = 500;
/// Log in memory, a guild or two on their way, and what an allocator keeps.
const MAY_GROW_MIB: u64 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_gets_everything_later_and_harms_nobody() {
    let discord = discord(1, 4).await;
    let settings = "[ws.log]\nmemory = \"4 MiB\"\ndisk = \"512 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let sent = flow(&discord, &holdfast, &mut good).await.sent;
    // All of it has come and gone; now the slow one reads.
    slow.until_last(&sent).await;
    slow.ledger.assert_each_once(&sent, &BTreeMap::new());
    assert_eq!(holdfast.metric("holdfast_ws_client_fell_behind_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_log_no_longer_reaches_is_told_so() {
    let discord = discord(1, 4).await;
    let settings = "[ws.log]\nmemory = \"4 MiB\"\ndisk = \"16 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    // Slowly enough for the disk, more than log and sockets hold.
    discord.traffic(Traffic { rate: 1_600.0, seconds: Some(7.0), bytes: BYTES, ..Traffic::default() });
    let (sent, ()) = tokio::join!(discord.finish_traffic(), good.until_messages(11_200));
    let sent = sent.sent;
    good.ledger.assert_each_once(&sent, &BTreeMap::new());
    assert_eq!(slow.until_end().await, Ended::Closed(4009));
    assert!(slow.ledger.count() < 11_200, "it can't have got all");
    assert_eq!(holdfast.metric("holdfast_ws_client_fell_behind_total").await, 1.0);
    // Nothing that it got is out of order, and what it can't get it is told.
    let got = slow.ledger.last();
    slow.ledger.assert_each_once(&got, &BTreeMap::new());
    slow.cut();
    assert_eq!(slow.resume(&holdfast.url).await["op"], 9);
    slow.cut();
    let opened = slow.identify(&holdfast.url).await;
    assert_eq!(opened.guilds.len(), 4);
    // What is new would push out more of what it is being caught up with.
    slow.until_last(&sent).await;
    discord.traffic(Traffic::burst(20));
    let after = discord.finish_traffic().await.sent;
    slow.until_last(&after).await;
    // Catch-up begins where the log does, and says what is missing before it.
    assert_eq!(holdfast.metric("holdfast_ws_log_dropped_unstored").await, 0.0);
    assert_eq!(slow.seen.get("HOLDFAST_GAP"), Some(&1));
    slow.ledger.assert_tail(&after, &sent, "after the gap");
    assert!(after.values().sum::<u64>() > sent.values().sum());
}

/// All messages, read by one client while another doesn't; memory is looked at throughout.
async fn flow(discord: &Simulator, holdfast: &Holdfast, good: &mut Client) -> Sent {
    let before = holdfast.resident_mib();
    let mut most = before;
    // In steps, each awaited by the client that reads: it keeps up however slow the machine is.
    for _ in 0..MESSAGES / STEP {
        discord.traffic(Traffic { burst: STEP, bytes: BYTES, ..Traffic::default() });
        let sent = discord.finish_traffic().await.sent;
        good.until_last(&sent).await;
        most = most.max(holdfast.resident_mib());
    }
    let sent = discord.sent();
    assert_eq!(sent.sent.values().sum::<u64>(), MESSAGES);
    good.ledger.assert_each_once(&sent.sent, &BTreeMap::new());
    assert!(most < before + MAY_GROW_MIB, "from {before} MiB to {most} MiB");
    sent
}
