// SPDX-License-Identifier: AGPL-3.0-only
//! What is stored and then damaged: it is set aside with a warning, and the service works as after a fresh start.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use holdfast_simulator::{Fault, FaultKind, Traffic};
use serde_json::Value;

use crate::support::{Client, Holdfast, discord, until};

/// What befalls a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Empty,
    Half,
    Garbage,
    /// One bit in the middle.
    Bit,
    Gone,
}

const ALL: [Damage; 5] = [Damage::Empty, Damage::Half, Damage::Garbage, Damage::Bit, Damage::Gone];

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_session_is_no_reason_not_to_start() {
    each("shards/0-of-1/session", &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_client_sessions_are_no_reason_not_to_start() {
    each("shards/0-of-1/clients", &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_costs_no_guild() {
    each("shards/0-of-1/guilds", &[Damage::Empty, Damage::Half, Damage::Garbage, Damage::Bit]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_no_reason_not_to_start() {
    each("shards/0-of-1/log", &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_version_or_of_others_is_set_aside() {
    each("version", &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_permits_are_no_reason_not_to_start() {
    each("permits", &ALL).await;
}

/// Killed again before Discord has given a new session: the former one isn't gone on with, whose guilds are set aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_there_is_a_new_session_costs_no_guild() {
    let discord = discord(1, 4).await;
    let mut holdfast = Holdfast::start(&discord, "checkpoint_age = \"1s\"").await;
    holdfast.live().await;
    let (_, before) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(400));
    discord.finish_traffic().await;
    until("a checkpoint of each guild", async || {
        holdfast.metric("holdfast_ws_checkpoints_total").await >= 4.0
    })
    .await;
    assert_eq!(holdfast.terminate().await.code(), Some(0));
    for file in files(&holdfast.state().join("shards/0-of-1/guilds")) {
        hurt(&file, Damage::Garbage);
    }
    discord.fault(&Fault::everywhere(FaultKind::Refuse));
    holdfast.restart().await;
    until("an attempt", async || holdfast.metric("holdfast_ws_connect_failures_total").await >= 1.0).await;
    holdfast.kill();
    discord.clear_faults();
    holdfast.restart().await;
    holdfast.live().await;
    let (_, after) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(names(&after.guilds), names(&before.guilds));
}

/// Damages all files at or below `path` in each way, all at the same time in processes of their own.
async fn each(path: &'static str, ways: &[Damage]) {
    futures_util::future::join_all(ways.iter().map(|damage| survives(path, *damage))).await;
}

async fn survives(path: &str, damage: Damage) {
    let what = format!("{path}: {damage:?}");
    let discord = discord(1, 4).await;
    // Checkpoints at once, so that there are some to be damaged.
    let mut holdfast = Holdfast::start(&discord, "checkpoint_age = \"1s\"").await;
    holdfast.live().await;
    let (mut client, before) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(400));
    client.until_last(&discord.finish_traffic().await.sent).await;
    until("a checkpoint of each guild", async || {
        holdfast.metric("holdfast_ws_checkpoints_total").await >= 4.0
    })
    .await;
    assert_eq!(holdfast.terminate().await.code(), Some(0), "{what}");
    let said = holdfast.output().len();
    let files = files(&holdfast.state().join(path));
    assert!(!files.is_empty(), "{what}: nothing there in {:?}", self::files(&holdfast.state()));
    for file in &files {
        hurt(file, damage);
    }
    // More happens while nobody is there.
    discord.traffic(Traffic::burst(40));
    discord.finish_traffic().await;
    holdfast.restart().await;
    holdfast.live().await;
    let (mut again, after) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(names(&after.guilds), names(&before.guilds), "{what}");
    let whole = |guilds: &[Value]| {
        guilds.iter().map(|guild| guild["members"].as_array().map(Vec::len)).collect::<Vec<_>>()
    };
    assert_eq!(whole(&after.guilds), whole(&before.guilds), "{what}");
    let from = discord.sent().sent;
    discord.traffic(Traffic::burst(40));
    let sent = discord.finish_traffic().await.sent;
    again.until_last(&sent).await;
    again.ledger.assert_tail(&sent, &from, &what);
    let said = holdfast.output().split_off(said);
    assert!(!said.contains("panic"), "{what}: {said}");
    // A log that ends early is what a crash leaves: Discord replays the rest.
    if !matches!(damage, Damage::Gone) && !path.ends_with("/log") {
        assert!(said.contains("WARN"), "{what}: {said}");
    }
    // And what is stored from now on can be used again.
    holdfast.kill_and_restart().await;
    holdfast.live().await;
    let (_, third) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(names(&third.guilds), names(&before.guilds), "{what}: once more");
}

fn hurt(file: &Path, damage: Damage) {
    let mut bytes = fs::read(file).expect("the file is read");
    match damage {
        Damage::Gone => return fs::remove_file(file).expect("the file is removed"),
        Damage::Empty => bytes.clear(),
        Damage::Half => bytes.truncate(bytes.len() / 2),
        Damage::Garbage => {
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = at.to_le_bytes()[0] ^ 0x5a)
        }
        Damage::Bit => {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 4;
            }
        }
    }
    fs::write(file, bytes).expect("the file is written");
}

/// A file, or all files below a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect()
}

fn names(guilds: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    guilds.iter().map(|guild| (text(&guild["id"]), text(&guild["name"]))).collect()
}
