// SPDX-License-Identifier: AGPL-3.0-only
//! The process as its operator sees it: how it ends, what it says, what its pages show.

use std::time::Duration;

use holdfast_simulator::{Fault, FaultKind, Options, Simulator, Traffic};
use serde_json::{Value, json};

use crate::support::{ALL, Client, Ended, Holdfast, Setup, TOKEN, Wire, discord, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn what_trying_again_cannot_mend_ends_the_process_and_says_what_to_do() {
    for (code, advice) in [
        (4004, "token"),
        (4010, "shard"),
        (4011, "shards"),
        (4012, "release"),
        (4013, "intents"),
        (4014, "Developer Portal"),
    ] {
        let discord = discord(1, 2).await;
        let mut holdfast = Holdfast::start(&discord, "").await;
        holdfast.live().await;
        let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
        discord.fault(&Fault::new(0, FaultKind::Close).code(code));
        let (status, ended) = tokio::join!(holdfast.ended(), client.until_end());
        assert_eq!(status.code(), Some(3), "{code}: {}", holdfast.output());
        let said = holdfast.output();
        let line = said.lines().find(|line| line.contains("ERROR") && line.contains(&code.to_string()));
        let line = line.unwrap_or_else(|| panic!("{code}: no error in {said}"));
        assert!(line.contains(advice), "{code}: {line}");
        assert_ne!(ended, Ended::Closed(1000), "{code}: clients may resume");
        assert_eq!(discord.records(2).len(), 1, "{code}: it is not tried again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() {
    let discord = discord(1, 2).await;
    let setup = Setup { log: "trace", ..Setup::default() };
    let mut holdfast = Holdfast::start_with(&discord, &setup).await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let upstream = session_of_discord(&holdfast);
    let mut wrong = Client::new([0, 1]);
    (wrong.session, wrong.sequence) = ("nobody".to_owned(), 7);
    assert_eq!(wrong.resume(&holdfast.url).await["op"], 9);
    let mut refused = Wire::open(&holdfast.url).await;
    let data = json!({ "token": "another-secret", "intents": ALL, "properties": {} });
    refused.say(&json!({ "op": 2, "d": data })).await;
    refused.closed().await;
    for kind in [FaultKind::Fin, FaultKind::Op7, FaultKind::Garbage] {
        discord.fault(&Fault::new(0, kind));
        discord.wait_for_resume(0).await.unwrap();
    }
    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(false));
    while client.next().await.expect("INVALID_SESSION comes")["op"] != 9 {}
    let mut shown = String::new();
    for page in ["/metrics", "/shards", "/healthz", "/readyz", "/shard-count", "/"] {
        shown += &holdfast.page(page).await;
    }
    holdfast.terminate().await;
    shown += &holdfast.output();
    assert!(shown.contains("resumed"), "{shown}");
    for secret in [TOKEN, "another-secret", &client.session, &upstream] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_state_is_refused() {
    let discord = discord(1, 2).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (code, said) = holdfast.second().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("state_dir") && said.contains("in use"), "{said}");
    // The first one doesn't notice.
    discord.traffic(Traffic::burst(20));
    client.until_last(&discord.finish_traffic().await.sent).await;
    assert_eq!(discord.records(2).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_discord_and_clients_resume() {
    let discord = discord(2, 4).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 2]).await;
    let mut wire = Wire::open(&holdfast.url).await;
    let ending = async {
        let mut ops = Vec::new();
        loop {
            match client.next().await {
                Ok(payload) => ops.push(payload["op"].as_u64().unwrap_or_default()),
                Err(ended) => return (ops, ended),
            }
        }
    };
    let (status, (ops, ended), idle) = tokio::join!(holdfast.terminate(), ending, wire.closed());
    assert_eq!(status.code(), Some(0), "{}", holdfast.output());
    assert_eq!(
        (ops.as_slice(), ended),
        ([1, 7].as_slice(), Ended::Closed(4000)),
        "asked to confirm, then to reconnect"
    );
    assert_eq!(idle.0, 4000, "who had not identified yet is told too");
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
    let state = discord.state();
    let sessions = state["sessions"].as_array().expect("sessions");
    assert_eq!(sessions.len(), 2, "Discord keeps both sessions");
    assert!(sessions.iter().all(|session| session["connected"] == false), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discord_out_of_reach_is_waited_for_without_spinning() {
    let discord = discord(2, 4).await;
    discord.fault(&Fault::everywhere(FaultKind::Refuse));
    let holdfast = Holdfast::start(&discord, "").await;
    until("a second failure", async || holdfast.metric("holdfast_ws_connect_failures_total").await >= 2.0)
        .await;
    assert_eq!(holdfast.answer("/healthz").await.0, 200, "the process itself is well");
    assert_eq!(holdfast.answer("/readyz").await.0, 503);
    let (cpu, began) = (holdfast.cpu(), std::time::Instant::now());
    let failures = holdfast.metric("holdfast_ws_connect_failures_total").await;
    // Time has to pass for what is measured here.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (spent, passed) = (holdfast.cpu() - cpu, began.elapsed());
    let failures = holdfast.metric("holdfast_ws_connect_failures_total").await - failures;
    assert!(failures <= 12.0, "{failures} attempts of two shards in {passed:?}");
    assert!(spent < passed / 10, "{spent:?} of {passed:?}");
    discord.clear_faults();
    holdfast.live().await;
    until("readiness", async || holdfast.answer("/readyz").await.0 == 200).await;
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
    Client::identified(&holdfast.url, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_established_shard_that_cannot_connect_comes_back_by_itself() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.fault(&Fault::everywhere(FaultKind::Refuse).lasting(Duration::from_secs(3)));
    discord.traffic(Traffic::messages(100.0));
    discord.fault(&Fault::new(0, FaultKind::FinRst));
    until("a failure", async || holdfast.metric("holdfast_ws_connect_failures_total").await >= 1.0).await;
    holdfast.live().await;
    // Even a client that comes and goes meanwhile is served from the state.
    let sent = discord.stop_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &std::collections::BTreeMap::new());
    assert_eq!(discord.records(2).len(), 1, "resumed, not identified anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_out_of_reach_is_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let api_url = format!("http://127.0.0.1:{port}/api/v10");
    let setup = Setup::default();
    let (holdfast, discord) = tokio::join!(Holdfast::start_at(&api_url, &setup), async {
        // Whoever answers first is no Discord: it hangs up.
        drop(within("a request", listener.accept()).await.unwrap());
        drop(listener);
        Simulator::start(Options { http_port: port, ..Options::default() }).await.unwrap()
    });
    holdfast.live().await;
    assert!(holdfast.output().contains("WARN"), "{}", holdfast.output());
    assert_eq!(discord.records(2).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_shards_is_that_range_and_no_other() {
    let discord = discord(4, 8).await;
    let holdfast = Holdfast::start(&discord, "shards = { total = 4, start = 2, end = 4 }").await;
    holdfast.live().await;
    let shards: Value = serde_json::from_str(&holdfast.page("/shards").await).unwrap();
    let numbers: Vec<_> = shards.as_array().unwrap().iter().map(|shard| shard["shard"].clone()).collect();
    assert_eq!(numbers, [2, 3]);
    assert!(shards.as_array().unwrap().iter().all(|shard| shard["total"] == 4));
    assert_eq!(holdfast.page("/shard-count").await.trim(), "4");
    discord.traffic(Traffic::burst(50));
    for shard in [2, 3] {
        let (_, opened) = Client::identified(&holdfast.url, [shard, 4]).await;
        let ids: Vec<u64> =
            opened.guilds.iter().map(|guild| guild["id"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(ids.len(), 2);
        assert!(ids.iter().all(|id| discord.guilds(shard, 4).contains(id)));
    }
    for shard in [0, 1] {
        let mut client = Client::new([shard, 4]);
        client.connect(&holdfast.url).await;
        client.send_identify().await;
        assert_eq!(client.until_end().await, Ended::Closed(4010));
    }
    let mut identified: Vec<_> = discord.records(2).iter().map(|record| record.d["shard"].clone()).collect();
    identified.sort_by_key(|shard| shard[0].as_u64());
    assert_eq!(identified, [json!([2, 4]), json!([3, 4])]);
}

/// The id of the session at Discord, from where it is kept.
fn session_of_discord(holdfast: &Holdfast) -> String {
    let stored =
        std::fs::read(holdfast.state().join("shards/0-of-1/session")).expect("the session is stored");
    let begin = stored.windows(2).position(|bytes| bytes == b"{\"").expect("JSON behind the header");
    let record: Value = serde_json::from_slice(&stored[begin..]).expect("a record");
    record["session_id"].as_str().expect("a session id").to_owned()
}
