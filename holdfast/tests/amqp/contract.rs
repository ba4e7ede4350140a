// SPDX-License-Identifier: AGPL-3.0-only
//! What is published is what docs/contract.md says, and nothing else.

use std::time::Duration;

use holdfast_broker::{DeadLetter, Queue, QueueKind, Topology};
use holdfast_contract::SCHEMA;
use holdfast_discord::EventKind;
use holdfast_simulator::{Emit, Keys, Simulator, Traffic};
use serde_json::{Value, json};

use crate::stage::{Arrival, Front, Inbox, Stage, Witness};
use crate::support::{Holdfast, discord, discord_with, until};

/// A guild that no world has.
const NOWHERE: u64 = 81_384_788_765_712_384;
const END: &str = "HOLDFAST_TEST_END";

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_byte_for_byte_with_what_the_contract_says_of_it() {
    for keys in [Keys::Discord, Keys::DataFirst, Keys::Spaced] {
        let discord = discord_with(1, 4, |limits| {
            (limits.keys, limits.identify_window_ms) = (keys, 0);
        })
        .await;
        let mut stage = Stage::new().await;
        let holdfast = stage.holdfast(&discord, &Front::default()).await;
        let mut inbox = stage.inbox("all");
        until_guilds(&mut inbox, 4).await;
        let mut witness = Witness::of(&discord, [0, 1]).await;
        witness.until_count("GUILD_CREATE", 4).await;
        discord.traffic(Traffic::mixed(500.0).lasting(Duration::from_secs(2)));
        discord.finish_traffic().await;
        emit_every_kind(&discord);
        emit(&discord, END, json!({}));
        inbox.until_event(END).await;
        witness.until(END).await;
        let stream = inbox.events().next().expect("events").stream.clone();
        let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>();
        let got = names(&mut inbox.events().map(|event| event.name.clone()));
        assert_eq!(got, names(&mut witness.seen.iter().map(|(name, _)| name.clone())), "{keys:?}");
        for (index, (arrival, (name, data))) in inbox.arrivals.iter().zip(&witness.seen).enumerate() {
            let event = arrival.event().expect("no gap");
            assert_eq!((&event.name, &event.data[..]), (name, data.as_bytes()), "{keys:?}, {}", arrival.id());
            let number = u64::try_from(index).expect("small") + 2;
            assert_eq!((event.position, event.sequence), (number, number), "READY is the first");
            assert_eq!(event.stream, stream);
            as_the_contract_says(arrival, &stage);
        }
        assert_eq!((inbox.repeated, holdfast.metric("holdfast_ws_amqp_gaps_total").await), (0, 0.0));
        drop(holdfast);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_list_names_is_published() {
    let discord = discord(1, 4).await;
    let mut stage = Stage::new().await;
    let amqp = "events = [\"MESSAGE_CREATE\", \"SOMETHING_NEW\"]";
    let holdfast = stage.holdfast(&discord, &Front { amqp, ..Front::default() }).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::mixed(500.0).lasting(Duration::from_secs(1)));
    let sent = discord.finish_traffic().await.sent;
    emit(&discord, "SOMETHING_ELSE", json!({}));
    emit(&discord, "SOMETHING_NEW", json!({ "a": 1 }));
    inbox.until_event("SOMETHING_NEW").await;
    inbox.ledger.assert_each_once(&sent, &std::collections::BTreeMap::new());
    let messages = inbox.ledger.count();
    assert_eq!(inbox.arrivals.len(), messages + 1);
    assert_eq!(holdfast.metric("holdfast_ws_amqp_events_total").await, count(messages + 1));
    // What isn't published is done as well: nothing is left to be confirmed.
    no_lag(&holdfast).await;
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_is_bound_for_is_counted_and_goes_where_it_is_sent() {
    let queues = "[[ws.amqp.queues]]\nname = \"messages\"\nbindings = [\"MESSAGE_CREATE.#\"]\n";
    for elsewhere in [false, true] {
        let discord = discord(1, 4).await;
        let mut stage = Stage::new().await;
        let amqp = format!("unrouted = {elsewhere}");
        let holdfast = stage.holdfast(&discord, &Front { amqp: &amqp, queues, ..Front::default() }).await;
        until("the guilds", async || holdfast.metric("holdfast_ws_amqp_events_total").await >= 4.0).await;
        no_lag(&holdfast).await;
        let mut messages = stage.inbox("messages");
        let mut rest = match elsewhere {
            true => {
                let exchange = stage.broker.names().unrouted();
                Some(stage.queue("rest", &exchange, "").await)
            }
            false => None,
        };
        discord.traffic(Traffic::mixed(500.0).lasting(Duration::from_secs(1)));
        let sent = discord.finish_traffic().await.sent;
        emit(&discord, END, json!({}));
        messages.until_last(&sent).await;
        messages.ledger.assert_each_once(&sent, &std::collections::BTreeMap::new());
        no_lag(&holdfast).await;
        let published = holdfast.metric("holdfast_ws_amqp_events_total").await;
        let unrouted = match &mut rest {
            Some(rest) => {
                rest.until_event(END).await;
                assert_eq!(rest.ledger.count(), 0, "messages have their own queue");
                // All but the guilds, which came before the queue was bound.
                assert_eq!(count(messages.arrivals.len() + rest.arrivals.len()), published - 4.0);
                4.0
            }
            None => published - count(messages.arrivals.len()),
        };
        // The last that come back are known with the next confirmation.
        until("they are counted", async || {
            holdfast.metric("holdfast_ws_amqp_unrouted_total").await >= unrouted
        })
        .await;
        assert_eq!(holdfast.metric("holdfast_ws_amqp_unrouted_total").await, unrouted);
        drop(holdfast);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_declared_with_their_bounds() {
    let discord = discord(1, 1).await;
    let mut stage = Stage::new().await;
    let queues = "[[ws.amqp.queues]]\nname = \"work\"\nbindings = [\"MESSAGE_CREATE.#\"]\nmax_length = 1000\n\
                  max_bytes = \"2 MiB\"\ndelivery_limit = 7\nsingle_active_consumer = true\n\
                  [[ws.amqp.queues]]\nname = \"history\"\nbindings = [\"#\"]\ntype = \"stream\"\n\
                  max_bytes = \"4 MiB\"\nmax_age = \"2h\"\n";
    let holdfast = stage.holdfast(&discord, &Front { queues, ..Front::default() }).await;
    until("the queues", async || holdfast.output().contains("exchanges and queues are declared")).await;
    let work = Queue {
        max_length: Some(1000),
        max_length_bytes: Some(2 << 20),
        delivery_limit: Some(7),
        single_active_consumer: true,
        dead_letter: Some(DeadLetter {
            exchange: stage.broker.names().dead(),
            key: Some(stage.name("work")),
        }),
        ..Queue::new(stage.name("work"), QueueKind::Quorum)
    };
    let history = Queue {
        max_length_bytes: Some(4 << 20),
        max_age: Some(Duration::from_secs(2 * 3600)),
        ..Queue::new(stage.name("history"), QueueKind::Stream)
    };
    let declare = async |queue: &Queue| {
        stage.broker.declare(&Topology { queues: vec![queue.clone()], ..Topology::default() }).await
    };
    // A queue that is there can only be declared again just as it is.
    for queue in [&work, &history] {
        declare(queue).await.expect("it is there, and just so");
        let other = Queue { max_length_bytes: Some(3 << 20), ..queue.clone() };
        declare(&other).await.expect_err("it is there, and another");
    }
    let _ = (stage.inbox("work"), stage.inbox("history"));
    drop(holdfast);
    stage.end().await;
}

/// Reads until so many guilds have come.
pub(crate) async fn until_guilds(inbox: &mut Inbox, count: usize) {
    let is_guild = |event: &&holdfast_contract::v1::Event| event.name == "GUILD_CREATE";
    while inbox.events().filter(is_guild).count() < count {
        inbox.next().await;
    }
}

/// Waits until everything is confirmed.
pub(crate) async fn no_lag(holdfast: &Holdfast) {
    until("everything is confirmed", async || {
        let page = holdfast.page("/metrics").await;
        let lags: Vec<&str> =
            page.lines().filter(|line| line.starts_with("holdfast_ws_amqp_lag_events{")).collect();
        let events = holdfast.metric("holdfast_ws_events_total").await;
        !lags.is_empty() && events > 0.0 && lags.iter().all(|line| line.ends_with(" 0"))
    })
    .await;
}

/// A number of things as metrics have it.
pub(crate) fn count(things: usize) -> f64 {
    f64::from(u32::try_from(things).expect("few"))
}

pub(crate) fn emit(discord: &Simulator, name: &str, data: Value) {
    discord.emit(&Emit { t: name.to_owned(), d: data, shard: Some(0), guild: None });
}

/// Every kind of event that Holdfast knows and some that it doesn't, of a guild that nobody knows.
fn emit_every_kind(discord: &Simulator) {
    let known = (0..=u8::MAX).map(|number| EventKind::from_u8(number).name());
    let mut names: Vec<&str> =
        known.filter(|name| EventKind::from_name(name) != EventKind::Unknown).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 70, "{names:?}");
    // What answers one client's request goes to that client, and READY begins a session.
    names.retain(|name| !matches!(*name, "READY" | "RESUMED" | "GUILD_MEMBERS_CHUNK" | "RATE_LIMITED"));
    names.extend(["SOMETHING_NEW", "X", "lower_case"]);
    for name in names {
        let id = if name.starts_with("GUILD_") && matches!(&name[6..], "CREATE" | "UPDATE" | "DELETE") {
            "id"
        } else {
            "guild_id"
        };
        emit(
            discord,
            name,
            json!({ id: NOWHERE.to_string(), "new": { "d": [1, "é\u{1f600}\n\\\""], "s": null } }),
        );
        emit(discord, name, json!(null));
    }
}

fn as_the_contract_says(arrival: &Arrival, stage: &Stage) {
    let event = arrival.event().expect("an event");
    let data: Value = serde_json::from_slice(&event.data).expect("JSON");
    let of_guild = matches!(event.name.as_str(), "GUILD_CREATE" | "GUILD_UPDATE" | "GUILD_DELETE");
    let guild = data[if of_guild { "id" } else { "guild_id" }].as_str().unwrap_or("0");
    assert_eq!(event.guild_id.to_string(), guild, "{}", event.name);
    assert_eq!(arrival.exchange, stage.broker.names().events());
    assert_eq!(arrival.key, format!("{}.0.{guild}", event.name));
    let properties = &arrival.message.properties;
    assert_eq!(arrival.id(), format!("{}:{}", event.stream, event.position));
    assert_eq!(properties.kind.as_deref(), Some("holdfast.v1.Event"));
    assert_eq!(properties.content_type.as_deref(), Some("application/x-protobuf"));
    assert_eq!(properties.timestamp, Some(event.received_at_us / 1_000_000));
    assert!(properties.persistent);
    assert_eq!((&properties.correlation_id, &properties.reply_to), (&None, &None));
    let headers = &arrival.message.headers;
    assert_eq!(headers.text("shard"), Some("0"));
    assert_eq!(headers.text("guild"), Some(guild), "of no guild: the shard's number, which is the same here");
    assert_eq!(headers.integer("generation"), i64::try_from(event.generation).ok());
    assert_eq!(headers.len(), 3);
    assert_eq!((event.schema, event.shard, event.shard_count), (SCHEMA, 0, 1));
    assert!(event.application > 0 && event.generation > 0 && event.stream.len() == 16);
    assert!(event.trace.is_empty() && !event.possible_duplicate);
}
