// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions that Discord posts, at clients of the WebSocket front: each at exactly one, which answers as ever.

use holdfast_broker::{Broker, BrokerSettings, Exchange, ExchangeKind, Queue, QueueKind, Topology};
use holdfast_service::Service;
use holdfast_simulator::{Press, Pressed, Simulator};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Client, Holdfast, PATIENCE, Setup, discord, until, within};

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

const TO_CLIENTS: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[[http.routes]]\nto = [\"websocket\"]\n";

/// In one process without a broker: nothing else is needed.
#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_is_at_exactly_one_of_a_shards_clients_which_answers_it_by_rest() {
    let discord = discord(1, 4).await;
    let holdfast = together(&discord, "").await;
    let (mut one, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let mut other = Client::new([0, 1]);
    other.name = "other".to_owned();
    other.identify(&holdfast.url).await;
    let guild = discord.guilds(0, 1)[0];
    let mut had = [0, 0];
    for name in ["a", "b", "c", "d"] {
        let pressing = press(&discord, &holdfast, name, Some(guild));
        let answering = async {
            let (who, event) = tokio::select! {
                event = one.until("INTERACTION_CREATE") => (0, event),
                event = other.until("INTERACTION_CREATE") => (1, event),
            };
            had[who] += 1;
            assert_eq!((&event["d"]["data"]["name"], &event["op"]), (&json!(name), &json!(0)));
            event["d"].clone()
        };
        let (pressed, interaction) = tokio::join!(pressing, answering);
        assert_eq!((pressed.status, pressed.failure), (202, None));
        call_back(&discord, &interaction).await;
        assert!(discord.followed(&pressed.token).by_rest);
    }
    // They take turns, and nobody gets another's.
    assert_eq!(had, [2, 2]);
    for client in [&mut one, &mut other] {
        client.heartbeat().await;
        assert_eq!(client.seen.get("INTERACTION_CREATE"), Some(&2));
    }
    assert_eq!(holdfast.metric("holdfast_http_interactions_total").await, 4.0);
    assert_eq!(discord.violations().len(), 0);
}

/// Nobody could answer later: the user sees that it failed.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_nobody_is_told_to_wait() {
    let discord = discord(1, 4).await;
    let holdfast = together(&discord, "").await;
    holdfast.live().await;
    let fails = async || {
        let pressed = press(&discord, &holdfast, "ping", None).await;
        assert_eq!(pressed.status, 504);
        assert!(pressed.took_ms < 1_500, "at once: {} ms", pressed.took_ms);
    };
    fails().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (pressed, _) =
        tokio::join!(press(&discord, &holdfast, "ping", None), client.until("INTERACTION_CREATE"));
    assert_eq!(pressed.status, 202);
    client.cut();
    holdfast.nobody().await;
    fails().await;
    // Whoever comes back isn't given what was answered long ago.
    client.resume(&holdfast.url).await;
    client.heartbeat().await;
    assert_eq!(client.seen.get("INTERACTION_CREATE"), Some(&1));
}

/// A client that stands still is none that an interaction can be written to: Discord doesn't wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let discord = discord(1, 4).await;
    let holdfast = together(&discord, "").await;
    let (_client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    // More than its socket and ours take.
    let large = "x".repeat(1 << 20);
    let guild = discord.guilds(0, 1)[0];
    for _ in 0..16 {
        discord.emit_in(guild, "GUILD_UPDATE", json!({ "id": guild.to_string(), "description": large }));
    }
    until("the client's socket is full", async || {
        let pressed = press(&discord, &holdfast, "ping", Some(guild)).await;
        assert!(pressed.took_ms < 2_900, "{pressed:?}");
        pressed.status == 504
    })
    .await;
}

/// Clients of other counts get what is their guilds', direct messages go to shard 0.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_another_count_get_their_own() {
    let discord = discord(4, 24).await;
    let holdfast = together(&discord, "").await;
    let mut clients = Vec::new();
    for shard in 0..3 {
        clients.push(Client::identified(&holdfast.url, [shard, 3]).await.0);
    }
    for guild in discord.guilds(0, 1).into_iter().map(Some).chain([None]) {
        let of = guild.map_or(0, |guild| usize::try_from((guild >> 22) % 3).expect("small"));
        let client = &mut clients[of];
        let (pressed, event) =
            tokio::join!(press(&discord, &holdfast, "ping", guild), client.until("INTERACTION_CREATE"));
        assert_eq!(pressed.status, 202, "{guild:?}");
        assert_eq!(event["d"]["guild_id"].as_str(), guild.map(|guild| guild.to_string()).as_deref());
    }
    let mut all = 0;
    for client in &mut clients {
        client.heartbeat().await;
        all += client.seen.get("INTERACTION_CREATE").copied().unwrap_or(0);
    }
    assert_eq!(all, 25);
    assert_eq!(discord.violations().len(), 0);
}

/// `http` and `ws` in processes of their own, over RabbitMQ.
#[tokio::test(flavor = "multi_thread")]
async fn across_processes_it_goes_by_the_broker() {
    let discord = discord(2, 8).await;
    let prefix = format!("interactions-{:016x}", fastrand::u64(..));
    let broker = format!("[broker]\nurl = \"{RABBITMQ}\"\nprefix = \"{prefix}\"\n");
    let holdfast = Holdfast::start(&discord, &broker).await;
    holdfast.live().await;
    let key = discord.public_key();
    let http = format!("{broker}{TO_CLIENTS}[[http.applications]]\npublic_key = \"{key}\"\n");
    let setup = Setup { ws: &http, command: "http", ..Setup::default() };
    let http = Holdfast::start_with(&discord, &setup).await;
    for shard in 0..2 {
        let (mut client, _) = Client::identified(&holdfast.url, [shard, 2]).await;
        let guild = discord.guilds(shard, 2)[0];
        let (pressed, event) =
            tokio::join!(press(&discord, &http, "ping", Some(guild)), client.until("INTERACTION_CREATE"));
        assert_eq!((pressed.status, pressed.failure), (202, None));
        call_back(&discord, &event["d"]).await;
        assert!(discord.followed(&pressed.token).by_rest);
        client.close(1000).await;
    }
    drop((holdfast, http));
    forget(&prefix).await;
}

/// `ws` and `http` in one process.
async fn together(discord: &Simulator, ws: &str) -> Holdfast {
    let key = discord.public_key();
    let ws = format!("{ws}\n{TO_CLIENTS}[[http.applications]]\npublic_key = \"{key}\"\n");
    Holdfast::start_with(discord, &Setup { ws: &ws, command: "up", ..Setup::default() }).await
}

async fn press(discord: &Simulator, holdfast: &Holdfast, name: &str, guild: Option<u64>) -> Pressed {
    let press = Press { name: name.to_owned(), guild, ..Press::default() };
    within("an answer", discord.press(&format!("{}/interactions", holdfast.http), &press)).await
}

/// Answers as a library does ("Create Interaction Response").
async fn call_back(discord: &Simulator, interaction: &Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let text = |key: &str| interaction[key].as_str().expect("text").to_owned();
    let body = json!({ "type": 4, "data": { "content": "hello" } }).to_string();
    let base = discord.api_url().trim_start_matches("http://");
    let (host, path) = base.split_once('/').expect("a path");
    let request = format!(
        "POST /{path}/interactions/{}/{}/callback HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        text("id"),
        text("token"),
        body.len(),
    );
    let mut tcp = tokio::net::TcpStream::connect(host).await.expect("Discord answers");
    tcp.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("the answer is text");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// Takes what outlives the processes away from RabbitMQ.
async fn forget(prefix: &str) {
    let service = Service::new(CancellationToken::new());
    let settings = BrokerSettings { prefix: prefix.to_owned(), ..BrokerSettings::at(RABBITMQ) };
    let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
    let names = broker.names();
    let exchanges = [
        names.events(),
        names.commands(),
        names.requests(),
        names.interactions(),
        names.webhook_events(),
        names.dead(),
    ];
    let queues = [names.guild_commands(), names.state_requests(), names.late_interactions()];
    let topology = Topology {
        exchanges: exchanges.map(|name| Exchange::new(name, ExchangeKind::Topic)).into(),
        queues: queues.map(|name| Queue::new(name, QueueKind::Classic)).into(),
        bindings: Vec::new(),
    };
    within("the end", broker.delete(&topology)).await;
    service.tasks.finish(PATIENCE).await.expect("it ends");
}
