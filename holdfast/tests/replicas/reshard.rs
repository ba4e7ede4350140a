// SPDX-License-Identifier: AGPL-3.0-only
//! The bot gets another count of shards while it runs.

use std::process::{Command, Stdio};

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::support::{Fleet, Holdfast, Server, until};

/// Lines of `[ws]`: long enough for an event to come over both connections of this machine.
const OVERLAP: &str = "[ws.reshard]\noverlap = \"2s\"";

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_are_resharded_under_traffic_and_nothing_is_lost() {
    let mut fleet = fleet(4).await;
    let replicas = [fleet.replica().await, fleet.replica().await, fleet.replica().await];
    let all = replicas.each_ref();
    fleet.settled(&all).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(200).await;
    assert_resharded(&mut fleet, &all, 8).await;
    assert_eq!(fleet.discord.records(2).len(), 4 + 8, "IDENTIFYs");
    // Back to what it had: nothing of the time before is in the way, or is taken away by it.
    assert_resharded(&mut fleet, &all, 4).await;
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    assert_eq!(fleet.worker.account().gaps, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_alone_is_resharded_and_keeps_its_shards_over_a_restart() {
    let mut fleet = fleet(4).await;
    fleet.ws = "session_expiry = \"3s\"\n[ws.reshard]\noverlap = \"2s\"";
    let mut process = fleet.alone().await;
    fleet.settled(&[&process]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    assert_resharded(&mut fleet, &[&process], 8).await;
    assert_resharded(&mut fleet, &[&process], 4).await;
    // The old shards' time is over: what is stored of them goes, and of those that have their number stays.
    until("the eight shards' files are gone", async || !process.state().join("shards/0-of-8").exists()).await;
    process.terminate_and_restart().await;
    fleet.settled(&[&process]).await;
    fleet.worker.until_more(100).await;
    process.kill_and_restart().await;
    fleet.settled(&[&process]).await;
    fleet.worker.until_more(100).await;
    fleet.assert_whole().await;
    assert_eq!(fleet.discord.records(2).len(), 4 + 8 + 4, "IDENTIFYs");
    assert_eq!(fleet.worker.account().gaps, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_follows_what_discord_recommends_when_that_is_wanted() {
    let mut fleet = fleet(6).await;
    fleet.ws = "[ws.reshard]\nautomatic = true\noverlap = \"1s\"";
    // It had fewer when Discord last was asked.
    let state = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(state.path().join("shard-count"), "4\n").expect("the count is written");
    let process = fleet.alone_at(state.path().to_str()).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.settled(&[&process]).await;
    assert_eq!(fleet.discord.records(2).len(), 4 + 6, "IDENTIFYs");
    fleet.worker.until_more(100).await;
    drop(process);
    fleet.end().await;
}

/// Discord closes a shard that would have too many guilds with 4011.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_discord_refuses_leaves_the_bot_as_it_is() {
    for shared in [false, true] {
        let change = |limits: &mut holdfast_simulator::Limits| {
            (limits.max_concurrency, limits.guilds_per_shard) = (16, 20);
        };
        let mut fleet = Fleet::at(crate::support::REDIS, 4, 48, change).await;
        fleet.ws = OVERLAP;
        let process = if shared { fleet.replica().await } else { fleet.alone().await };
        fleet.settled(&[&process]).await;
        fleet.discord.traffic(Traffic::mixed(20.0));
        let (code, said) = command(&process, &["--shards", "2"]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("abandoned"), "{said}");
        assert!(process.output().contains("4011"), "{}", process.output());
        fleet.settled(&[&process]).await;
        fleet.worker.until_more(50).await;
        fleet.assert_whole().await;
        fleet.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_shards_is_not_resharded() {
    let mut fleet = fleet(4).await;
    fleet.ws = "shards = { total = 4, end = 2 }";
    let part = fleet.alone().await;
    part.live().await;
    let (status, said) = post(&part, "shards=8").await;
    assert_eq!((status, said.contains("only a part")), (409, true), "{said}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_while_the_new_shards_gather_is_replaced() {
    let mut fleet = fleet(4).await;
    let mut replicas = vec![fleet.replica().await, fleet.replica().await, fleet.replica().await];
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let asked = post(&replicas[0], "shards=8").await;
    assert_eq!(asked.0, 202, "{}", asked.1);
    let mut dead = replicas.remove(2);
    until("some of the new shards are live", async || fleet.discord.records(2).len() >= 8).await;
    dead.kill();
    fleet.shards = 8;
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    fleet.end().await;
}

/// Its old shards are resumed and cut by others, its new ones resumed from their gates.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_while_the_old_shards_are_cut_is_waited_for_and_nothing_is_lost() {
    let mut fleet = fleet(4).await;
    let mut replicas = vec![fleet.replica().await, fleet.replica().await, fleet.replica().await];
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    assert_eq!(post(&replicas[0], "shards=8").await.0, 202);
    let cutting = async || replicas[0].page("/reshard").await.contains("cutting");
    until("the old shards are being cut", cutting).await;
    replicas.remove(2).kill();
    fleet.shards = 8;
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.worker.until_more(200).await;
    let sent = fleet.discord.stop_traffic().await.sent;
    fleet.worker.until_last(&sent).await;
    // What the dead one had given is known to nobody: it comes again.
    fleet.worker.account().ledger.assert_none_lost(&sent);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_meanwhile_takes_its_part() {
    let mut fleet = fleet(4).await;
    let mut replicas = vec![fleet.replica().await, fleet.replica().await];
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    assert_eq!(post(&replicas[0], "shards=8").await.0, 202);
    fleet.discord.wait_for_records(2, 8).await.expect("some of the new shards identify");
    replicas.push(fleet.replica().await);
    fleet.shards = 8;
    fleet.settled(&replicas.iter().collect::<Vec<_>>()).await;
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    assert_eq!(fleet.worker.account().gaps, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_while_delays_it() {
    let store = Server::start();
    let mut fleet = Fleet::at(&store.url(), 4, 48, |limits| limits.max_concurrency = 16).await;
    fleet.ws = OVERLAP;
    let replicas = [fleet.replica().await, fleet.replica().await];
    let all = replicas.each_ref();
    fleet.settled(&all).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    assert_eq!(post(&replicas[0], "shards=8").await.0, 202);
    fleet.discord.wait_for_records(2, 8).await.expect("some of the new shards identify");
    store.freeze();
    // Events come all the same.
    fleet.worker.until_more(100).await;
    store.thaw();
    until("the old shards are being cut", async || replicas[0].page("/reshard").await.contains("cutting"))
        .await;
    store.freeze();
    until("the store is missed", async || replicas[0].answer("/readyz").await.0 == 503).await;
    store.thaw();
    fleet.shards = 8;
    fleet.settled(&all).await;
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    fleet.end().await;
}

/// Discord ends connections while two counts stand beside each other.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_discord_ends_meanwhile_are_resumed_first() {
    let mut fleet = fleet(4).await;
    let replicas = [fleet.replica().await, fleet.replica().await];
    let all = replicas.each_ref();
    fleet.settled(&all).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    assert_eq!(post(&replicas[1], "shards=8").await.0, 202);
    fleet.discord.wait_for_records(2, 12).await.expect("the new shards identify");
    for kind in [FaultKind::Op7, FaultKind::Rst, FaultKind::Close] {
        fleet.discord.fault(&Fault::everywhere(kind).code(4000));
        fleet.worker.until_more(50).await;
    }
    fleet.shards = 8;
    fleet.settled(&all).await;
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    assert_eq!(fleet.worker.account().gaps, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused_with_the_reason() {
    let fleet = Fleet::at(crate::support::REDIS, 2, 4, |limits| limits.identifies_remaining = 20).await;
    let replica = fleet.replica().await;
    fleet.settled(&[&replica]).await;
    for (query, status, reason) in [
        ("shards=2", 409, "has 2 shards already"),
        ("shards=64", 409, "64 shards need as many IDENTIFYs"),
        ("shards=0", 400, "a number of shards from 1"),
        ("shards=many", 400, "a number of shards from 1"),
        ("abandon", 409, "not being resharded"),
    ] {
        let (got, said) = post(&replica, query).await;
        assert_eq!(got, status, "{query}: {said}");
        assert!(said.contains(reason), "{query}: {said}");
    }
    let (status, said) = ask(&replica, "POST", "shards=4", "wrong").await;
    assert_eq!(status, 401, "{said}");
    assert!(replica.page("/reshard").await.contains("\"phase\":null"));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_is_abandoned_and_begun_again() {
    let mut fleet = fleet(2).await;
    fleet.ws = "[ws.reshard]\noverlap = \"30s\"";
    let replicas = [fleet.replica().await, fleet.replica().await];
    let all = replicas.each_ref();
    fleet.settled(&all).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(50).await;
    assert_eq!(post(&replicas[0], "shards=4").await.0, 202);
    fleet.discord.wait_for_records(2, 6).await.expect("the new shards identify");
    let (status, said) = post(&replicas[1], "shards=8").await;
    assert_eq!((status, said.contains("being resharded to 4")), (409, true), "{said}");
    assert_eq!(post(&replicas[1], "abandon").await.0, 202);
    for replica in &replicas {
        until("it is over", async || replica.page("/reshard").await.contains("\"phase\":null")).await;
        assert!(replica.page("/reshard").await.contains("was abandoned"));
    }
    fleet.worker.until_more(50).await;
    fleet.assert_whole().await;
    fleet.end().await;
}

/// A bot whose shards may all identify at once.
async fn fleet(shards: u32) -> Fleet {
    let mut fleet = Fleet::at(crate::support::REDIS, shards, 48, |limits| limits.max_concurrency = 16).await;
    fleet.ws = OVERLAP;
    fleet
}

/// Reshards by the command, and waits until the new shards are where they should be.
async fn assert_resharded(fleet: &mut Fleet, replicas: &[&Holdfast], to: u32) {
    let (code, said) = command(replicas[0], &["--shards", &to.to_string()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("to {to} shards")), "{said}");
    fleet.shards = to;
    fleet.settled(replicas).await;
    fleet.worker.until_more(200).await;
}

/// Runs `holdfast reshard` against a replica: how it ended, and what it said.
async fn command(replica: &Holdfast, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = replica.admin.trim_start_matches("http://");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.arg("reshard").args(["--config".as_ref(), replica.settings().as_os_str()]);
    command.args(["--admin", admin]).args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it runs to its end");
    let output = output.expect("the command runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn post(replica: &Holdfast, query: &str) -> (u16, String) {
    ask(replica, "POST", query, crate::support::TOKEN).await
}

async fn ask(replica: &Holdfast, method: &str, query: &str, token: &str) -> (u16, String) {
    replica.request(&format!("{method} /reshard?{query} HTTP/1.1\r\nauthorization: Bot {token}")).await
}
