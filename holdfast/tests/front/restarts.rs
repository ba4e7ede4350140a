// SPDX-License-Identifier: AGPL-3.0-only
//! Processes that end, ours and the bot's, while events flow.

use std::collections::BTreeMap;

use holdfast_simulator::{Fault, FaultKind, Simulator, Traffic, Trim};

use crate::support::{ALL, Client, Holdfast, discord, discord_with, until};

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_killed_under_traffic_loses_nothing() {
    for trim in [Trim::None, Trim::Count, Trim::Heartbeat] {
        let discord = discord_with(1, 4, |limits| {
            limits.resume_trim = trim;
            // Often enough that heartbeats acknowledge in the middle of the traffic.
            limits.heartbeat_interval_ms = 300;
        })
        .await;
        let mut holdfast = Holdfast::start(&discord, "").await;
        holdfast.live().await;
        let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
        discord.traffic(Traffic::messages(400.0));
        for _ in 0..3 {
            client.until_messages(client.ledger.count() + 300).await;
            holdfast.kill_and_restart().await;
            client.until_end().await;
            let resumed = client.resume(&holdfast.url).await;
            assert_eq!(resumed["t"], "RESUMED", "{trim:?}: {resumed}");
        }
        finish(&discord, &mut client).await;
        assert_eq!(discord.records(2).len(), 1, "{trim:?}: Holdfast resumes instead of identifying");
        let violations = discord.violations();
        assert!(violations.is_empty(), "{trim:?}: {violations:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_restarted_by_sigterm_loses_nothing() {
    let discord = discord(1, 4).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::messages(400.0));
    for _ in 0..3 {
        client.until_messages(client.ledger.count() + 300).await;
        let (ended, ()) = tokio::join!(client.until_end(), holdfast.terminate_and_restart());
        assert_ne!(ended, crate::support::Ended::Closed(1000));
        let resumed = client.resume(&holdfast.url).await;
        assert_eq!(resumed["t"], "RESUMED", "{resumed}");
    }
    finish(&discord, &mut client).await;
    assert_eq!(discord.records(2).len(), 1, "Holdfast resumes instead of identifying");
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_new_client_still_gets_the_full_state() {
    let discord = discord(2, 8).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (_, before) = Client::identified(&holdfast.url, [1, 2]).await;
    for kill in [true, false] {
        if kill {
            holdfast.kill_and_restart().await;
        } else {
            holdfast.terminate_and_restart().await;
        }
        let (_, after) = Client::identified(&holdfast.url, [1, 2]).await;
        assert_eq!(by_id(&after.guilds), by_id(&before.guilds));
        assert_eq!(after.ready["d"]["user"], before.ready["d"]["user"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guilds_that_change_all_the_time_are_checkpointed_all_the_same() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "checkpoint_age = \"1s\"").await;
    holdfast.live().await;
    // Enough to keep the compaction of their state busy without a pause.
    discord.traffic(Traffic::mixed(400.0));
    until("checkpoints of each guild", async || {
        holdfast.metric("holdfast_ws_checkpoints_total").await >= 8.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_intents_begin_a_new_session_at_the_restart() {
    let discord = discord(1, 4).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    holdfast.change_settings(&format!("intents = {ALL}"), "intents = 513");
    holdfast.terminate_and_restart().await;
    holdfast.live().await;
    let identified: Vec<_> = discord.records(2).iter().map(|record| record.d["intents"].clone()).collect();
    assert_eq!(identified, [ALL, 513]);
    let (_, opened) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(opened.guilds.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_upstream_is_not_resumed_after_a_restart_either() {
    let discord = discord(1, 4).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut bot, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    bot.until_last(&discord.finish_traffic().await.sent).await;
    bot.cut();
    holdfast.detached(1).await;
    let ended = holdfast.stored_stream();
    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(false));
    discord.wait_for_identify(0).await.expect("a new session");
    // A kill in the moments before the record is stored loses the session.
    until("the new session is stored", async || holdfast.stored_stream() != ended).await;
    holdfast.kill_and_restart().await;
    assert_eq!(bot.resume(&holdfast.url).await["op"], 9);
    // Its next IDENTIFY takes over what it missed all the same.
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    bot.cut();
    bot.session.clear();
    bot.sequence = 0;
    bot.identify(&holdfast.url).await;
    bot.until_last(&sent).await;
    bot.ledger.assert_each_once(&sent, &BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_identifies_again_gets_what_came_while_it_was_away() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut old, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    old.until_last(&discord.finish_traffic().await.sent).await;
    old.cut();
    holdfast.detached(1).await;
    discord.traffic(Traffic::burst(500));
    discord.finish_traffic().await;
    let (mut new, opened) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(opened.guilds.len(), 4);
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    new.until_last(&sent).await;
    new.ledger.assert_each_once(&sent, &old.ledger.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn catch_up_can_go_from_the_last_confirmation() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "catch_up_from = \"confirmed\"").await;
    holdfast.live().await;
    let (mut old, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    old.until_last(&discord.finish_traffic().await.sent).await;
    old.heartbeat().await;
    let confirmed = old.ledger.last();
    discord.traffic(Traffic::burst(50));
    old.until_last(&discord.finish_traffic().await.sent).await;
    old.cut();
    holdfast.detached(1).await;
    let (mut new, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    new.until_last(&sent).await;
    new.ledger.assert_each_once(&sent, &confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_that_is_cut_is_not_lost() {
    let discord = discord(1, 4).await;
    // What the sockets' buffers swallow counts as written; only a heartbeat tells that it was read.
    let holdfast = Holdfast::start(&discord, "catch_up_from = \"confirmed\"").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    client.cut();
    holdfast.detached(1).await;
    discord.traffic(Traffic::burst(2_000));
    discord.finish_traffic().await;
    // Reads READY and nothing more.
    let mut cut = Client::new([0, 1]);
    cut.connect(&holdfast.url).await;
    cut.send_identify().await;
    let ready = cut.next().await.expect("READY comes");
    cut.session = ready["d"]["session_id"].as_str().unwrap().to_owned();
    cut.cut();
    holdfast.detached(1).await;
    assert_eq!(cut.resume(&holdfast.url).await["op"], 9, "a cut snapshot is not resumed");
    cut.cut();
    let (mut new, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    new.until_last(&sent).await;
    cut.ledger.extend(&new.ledger);
    cut.ledger.assert_none_lost(&sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_that_a_crash_cuts_goes_on_where_the_client_was() {
    let discord = discord(1, 4).await;
    // What comes after the first batch is not on disk when the crash comes.
    let rarely = "[ws.log]\nbatch_interval = \"10s\"\nbatch_events = 65536";
    let mut holdfast = Holdfast::start(&discord, rarely).await;
    holdfast.live().await;
    let (mut old, _) = Client::identified(&holdfast.url, [0, 1]).await;
    old.cut();
    holdfast.detached(1).await;
    discord.traffic(Traffic::burst(2_000));
    discord.finish_traffic().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    client.until_messages(300).await;
    client.cut();
    // The session that the client has is stored, as it is at once.
    holdfast.detached(1).await;
    until("the session is stored", async || {
        let stored = std::fs::read(holdfast.state().join("shards/0-of-1/clients")).unwrap_or_default();
        stored.windows(client.session.len()).any(|bytes| bytes == client.session.as_bytes())
    })
    .await;
    holdfast.kill_and_restart().await;
    let resumed = client.resume(&holdfast.url).await;
    assert_eq!(resumed["t"], "RESUMED", "{resumed}");
    finish(&discord, &mut client).await;
}

async fn finish(discord: &Simulator, client: &mut Client) {
    let sent = discord.stop_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &BTreeMap::new());
}

fn by_id(guilds: &[serde_json::Value]) -> BTreeMap<String, &serde_json::Value> {
    guilds.iter().map(|guild| (guild["id"].as_str().unwrap_or_default().to_owned(), guild)).collect()
}
