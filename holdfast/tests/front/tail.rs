// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast tail` as a user runs it, before the front and before RabbitMQ: what it shows, what it keeps to itself, how
//! it ends.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use holdfast_broker::{Broker, BrokerSettings, Exchange, ExchangeKind, Topology};
use holdfast_service::Service;
use holdfast_simulator::Traffic;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Client, Holdfast, TOKEN, discord, until, within};

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

#[tokio::test(flavor = "multi_thread")]
async fn the_front_shows_every_shards_news_and_ctrl_c_ends_with_a_summary() {
    let discord = discord(2, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    // The settings that a user has beside a running Holdfast.
    let admin = holdfast.admin.trim_start_matches("http://");
    let settings = format!("[ws]\npublic_url = \"{}\"\n[admin]\nlisten = \"{admin}\"\n", holdfast.url);
    let tail = Tail::start(&[], TOKEN, &settings).await;
    discord.traffic(Traffic::messages(40.0));
    for shard in ["  0  ", "  1  "] {
        tail.until_line("of each shard", |line| line.contains(shard) && line.contains("MESSAGE_CREATE"))
            .await;
    }
    let lines = tail.lines();
    assert!(lines.iter().all(|line| line.chars().count() <= 160), "cut: {lines:?}");
    assert!(!lines.iter().any(|line| line.contains("GUILD_CREATE")), "a snapshot is no news");
    let (code, said) = tail.interrupt().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" events in ") && said.contains("2 of 2 shards"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_number_of_shards_the_front_shows_them_as_one() {
    let discord = discord(2, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let tail = Tail::start(&["--url", &holdfast.url], TOKEN, "").await;
    let guilds = discord.guilds(0, 1);
    for guild in &guilds {
        discord.emit_in(*guild, "TYPING_START", typing(*guild));
    }
    for guild in &guilds {
        tail.until_line("of each guild", |line| line.contains(&guild.to_string())).await;
    }
    assert!(tail.lines().iter().all(|line| line.contains("    -  TYPING_START")), "{:?}", tail.lines());
    let (code, said) = Tail::start(&["--url", &holdfast.url, "--shard", "1"], TOKEN, "").await.ended().await;
    assert!(code == Some(2) && said.contains("ws.shards.total"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_let_through_what_all_of_them_admit() {
    let discord = discord(1, 3).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let guild = discord.guilds(0, 1)[1];
    let flags =
        ["--url", &holdfast.url, "--event", "typing_start,MESSAGE_DELETE", "--guild", &guild.to_string()];
    let tail = Tail::start(&flags, TOKEN, "[ws]\nshards = { total = 1 }\n").await;
    for guild in discord.guilds(0, 1) {
        discord.emit_in(guild, "TYPING_START", typing(guild));
        discord.emit_in(guild, "INVITE_DELETE", json!({ "guild_id": guild.to_string(), "code": "c" }));
        let data = json!({ "guild_id": guild.to_string(), "id": "1", "channel_id": "2" });
        discord.emit_in(guild, "MESSAGE_DELETE", data);
    }
    let last = discord.guilds(0, 1)[1];
    discord.emit_in(last, "TYPING_START", typing(last));
    within("the last event", tail.until(|lines| lines.len() >= 3)).await;
    let names: Vec<_> = tail
        .lines()
        .iter()
        .map(|line| line.split_whitespace().nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["TYPING_START", "MESSAGE_DELETE", "TYPING_START"]);
    assert!(tail.lines().iter().all(|line| line.contains(&guild.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bots_session_is_not_taken_over() {
    let discord = discord(1, 2).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut bot, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let tail = Tail::start(&["--url", &holdfast.url], TOKEN, "[ws]\nshards = { total = 1 }\n").await;
    holdfast.clients(2).await;
    discord.traffic(Traffic::burst(20));
    bot.until_messages(20).await;
    within("what the bot gets", tail.until(|lines| lines.len() >= 20)).await;
    assert_eq!(tail.interrupt().await.0, Some(0));
    holdfast.clients(1).await;
    assert!(holdfast.metric("holdfast_ws_catch_ups_total").await < 1.0, "nobody took over from anybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_restarts_is_watched_on() {
    let discord = discord(1, 2).await;
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast
        .change_settings("[ws]\nlisten = \"127.0.0.1:0\"", &format!("[ws]\nlisten = \"127.0.0.1:{port}\""));
    holdfast.terminate_and_restart().await;
    holdfast.live().await;
    let tail = Tail::start(&["--url", &holdfast.url], TOKEN, "[ws]\nshards = { total = 1 }\n").await;
    holdfast.kill_and_restart().await;
    holdfast.live().await;
    holdfast.clients(1).await;
    discord.traffic(Traffic::burst(5));
    within("news after the restart", tail.until(|lines| lines.len() >= 5)).await;
    let (code, said) = tail.interrupt().await;
    assert!(code == Some(0) && said.contains("connecting again"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_shows_what_is_bound_for_and_whole_events_as_json() {
    let discord = discord(2, 4).await;
    let prefix = Prefix::new();
    let holdfast = Holdfast::start(&discord, &prefix.section()).await;
    holdfast.live().await;
    let all = Tail::start(&["--json"], "", &prefix.section()).await;
    let guild = discord.guilds(0, 1)[0];
    let flags = ["--event", "MESSAGE_CREATE", "--guild", &guild.to_string()];
    let some = Tail::start(&flags, "", &prefix.section()).await;
    discord.traffic(Traffic::burst(40));
    let sent = within("the traffic's end", discord.finish_traffic()).await.sent;
    let messages = sent.values().sum::<u64>() as usize;
    within("all messages", all.until(|lines| lines.len() >= messages)).await;
    within("the guild's", some.until(|lines| lines.len() as u64 >= sent[&guild.to_string()])).await;
    let mut shards = [0; 2];
    for line in all.lines() {
        let event: Value = serde_json::from_str(&line).expect("a JSON line");
        assert_eq!(event["name"], "MESSAGE_CREATE");
        assert_eq!(event["data"]["guild_id"], event["guild_id"]);
        assert!(event["stream"].as_str().is_some_and(|stream| stream.len() == 16), "{line}");
        shards[event["shard"].as_u64().expect("a number") as usize] += 1;
    }
    assert!(shards.iter().all(|count| *count > 0) && shards.iter().sum::<usize>() == messages, "{shards:?}");
    assert_eq!(some.lines().len() as u64, sent[&guild.to_string()]);
    assert!(some.lines().iter().all(|line| line.contains(&format!("MESSAGE_CREATE            {guild}"))));
    for tail in [all, some] {
        let (code, said) = tail.interrupt().await;
        assert!(code == Some(0) && said.contains(" events in "), "{code:?} {said}");
    }
    prefix.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_masked_unless_they_are_asked_for() {
    const SECRET: &str = "aW50ZXJhY3Rpb24";
    let discord = discord(1, 1).await;
    let prefix = Prefix::new();
    let holdfast = Holdfast::start(&discord, &prefix.section()).await;
    holdfast.live().await;
    let front = ["--source", "front", "--url", &holdfast.url];
    let settings = prefix.section();
    let short = Tail::start(&[], "", &settings).await;
    let whole = Tail::start(&[&["--json"], &front[..]].concat(), TOKEN, &settings).await;
    let secret = Tail::start(&["--json", "--secrets"], "", &settings).await;
    let guild = discord.guilds(0, 1)[0];
    for name in ["INTERACTION_CREATE", "VOICE_SERVER_UPDATE"] {
        let data = json!({ "id": "1", "guild_id": guild.to_string(), "token": SECRET });
        discord.emit_in(guild, name, data);
    }
    for tail in [&short, &whole, &secret] {
        within("both events", tail.until(|lines| lines.len() >= 2)).await;
    }
    assert!(short.lines().iter().all(|line| line.contains("[redacted]") && !line.contains(SECRET)));
    assert!(whole.lines().iter().all(|line| line.contains("[redacted]") && !line.contains(SECRET)));
    assert!(secret.lines().iter().all(|line| line.contains(SECRET)));
    prefix.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_is_closed_ends_it_quietly() {
    let discord = discord(1, 2).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    discord.traffic(Traffic::messages(100.0));
    let mut tail = Tail::spawn(&["--url", &holdfast.url], TOKEN, "", Some(Stdio::piped()));
    let mut reader = BufReader::new(tail.child.stdout.take().expect("a pipe"));
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line
    });
    assert!(within("the first line", line).await.expect("no panic").contains("MESSAGE_CREATE"));
    let (code, said) = tail.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.to_lowercase().contains("pipe") && !said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_said_with_the_way_out() {
    let discord = discord(1, 1).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let wrong = format!("[broker]\nurl = \"{}\"\n", RABBITMQ.replace("guest:guest", "guest:hunter2"));
    let nobody = "[broker]\nurl = \"amqp://guest:hunter2@127.0.0.1:9/\"\n";
    let empty = Prefix::new().section();
    let url = holdfast.url.as_str();
    for (flags, token, settings, code, words) in [
        (&["--url", "ws://127.0.0.1:9"][..], TOKEN, "", 1, "no WebSocket front at ws://127.0.0.1:9"),
        (&["--url", "127.0.0.1"], TOKEN, "", 1, "no ws:// or wss:// address"),
        (&["--url", url], "another-token", "", 3, "refuses the token"),
        (&["--url", url], "", "", 2, "discord.token: missing"),
        (&["--url", url, "--shard", "7"], TOKEN, "[ws]\nshards = { total = 2 }\n", 2, "none of them has"),
        (&["--source", "broker"], TOKEN, "", 2, "[broker]"),
        (&["--source", "broker", "--url", url], TOKEN, &empty, 2, "leave it out"),
        (&[], TOKEN, &wrong, 1, "refuses user or password"),
        (&[], TOKEN, nobody, 1, "cannot reach the broker"),
        (&[], "", &empty, 1, "is Holdfast running with this broker"),
    ] {
        let (ended, said) = Tail::spawn(flags, token, settings, None).ended().await;
        assert_eq!(ended, Some(code), "{flags:?}: {said}");
        assert!(said.contains(words) && !said.contains("hunter2"), "{flags:?}: {words} in {said}");
        assert!(token.is_empty() || !said.contains(token), "{said}");
    }
}

/// A running `holdfast tail`; killed when dropped.
struct Tail {
    child: Child,
    folder: tempfile::TempDir,
}

impl Tail {
    /// Starts it with these settings, and waits until it watches, or has ended.
    async fn start(flags: &[&str], token: &str, settings: &str) -> Self {
        let mut tail = Self::spawn(flags, token, settings, None);
        until("it watches", async || tail.said().contains("watching") || tail.code().is_some()).await;
        tail
    }

    fn spawn(flags: &[&str], token: &str, settings: &str, stdout: Option<Stdio>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("holdfast.toml"), settings).expect("settings are written");
        let file = |name: &str| Stdio::from(std::fs::File::create(folder.path().join(name)).expect("a file"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.arg("tail").args(flags).current_dir(folder.path());
        command.env_remove("DISCORD_TOKEN").env_remove("HOLDFAST_CONFIG");
        if !token.is_empty() {
            command.env("DISCORD_TOKEN", token);
        }
        command.stdin(Stdio::null()).stdout(stdout.unwrap_or_else(|| file("lines"))).stderr(file("said"));
        let child = command.spawn().expect("the binary runs");
        Self { child, folder }
    }

    /// The whole lines so far.
    fn lines(&self) -> Vec<String> {
        let text = self.read("lines");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// What it said on standard error.
    fn said(&self) -> String {
        self.read("said")
    }

    fn read(&self, name: &str) -> String {
        let file: PathBuf = self.folder.path().join(name);
        std::fs::read_to_string(file).unwrap_or_default()
    }

    async fn until(&self, wanted: impl Fn(&[String]) -> bool) {
        until("the lines are shown", async || wanted(&self.lines())).await;
    }

    async fn until_line(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        until(what, async || self.lines().iter().any(|line| wanted(line))).await;
    }

    fn code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("the process is ours").map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end: the exit code, and what it said.
    async fn ended(mut self) -> (Option<i32>, String) {
        until("it ends", async || self.code().is_some()).await;
        (self.code(), self.said())
    }

    /// What Ctrl-C does.
    async fn interrupt(self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        self.ended().await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── tail said ──\n{}\n── and showed ──\n{}", self.said(), self.read("lines"));
        }
    }
}

/// Names at RabbitMQ that no other test has.
struct Prefix(String);

impl Prefix {
    fn new() -> Self {
        Self(format!("test-tail-{:016x}", fastrand::u64(..)))
    }

    fn section(&self) -> String {
        format!("[broker]\nurl = \"{RABBITMQ}\"\nprefix = \"{}\"\n", self.0)
    }

    /// Takes its exchanges away.
    async fn clear(&self) {
        let service = Service::new(CancellationToken::new());
        let settings = BrokerSettings { prefix: self.0.clone(), ..BrokerSettings::at(RABBITMQ) };
        let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
        let names = [broker.names().events(), broker.names().dead()];
        let exchanges = names.map(|name| Exchange::new(name, ExchangeKind::Topic)).to_vec();
        broker.delete(&Topology { exchanges, ..Topology::default() }).await;
    }
}

fn typing(guild: u64) -> Value {
    let guild = guild.to_string();
    json!({ "guild_id": guild, "channel_id": guild, "user_id": "1000000000000000001", "timestamp": 1_700_000_000 })
}
