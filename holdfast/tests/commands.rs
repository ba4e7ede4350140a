// SPDX-License-Identifier: AGPL-3.0-only
//! The commands as a user runs them: the real binary, its output, its exit code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use holdfast_broker::{Broker, BrokerSettings, Exchange, ExchangeKind, Topology};
use holdfast_simulator::{Fault, FaultKind, Limits, Options, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio_websockets::{ClientBuilder, Message};

/// How long anything may take before the test says what it waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn everything_that_is_wrong_is_said_at_once_and_the_code_is_2() {
    let folder = Folder::with("holdfast.toml", "[discord]\ncompresion = \"none\"\n[ws]\nlisten = \"here\"\n");
    for command in ["up", "ws", "config", "doctor"] {
        let output = folder.run(&[command]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        for part in ["discord.token: missing", "did you mean `compression`?", "ws.listen: expected", "line 4"]
        {
            assert!(said.contains(part), "{command}: {part} in {said}");
        }
    }
}

#[test]
fn config_prints_a_file_that_means_the_same_and_never_the_token() {
    let folder = Folder::with("holdfast.toml", "[discord]\ntoken = \"very.secret\"\n[ws]\nmax_clients = 7\n");
    let printed = folder.run(&["config"]);
    let text = String::from_utf8(printed.stdout).expect("text");
    assert_eq!(printed.status.code(), Some(0));
    assert!(!text.contains("very.secret") && text.contains("max_clients = 7"), "{text}");
    let again = Folder::with("holdfast.toml", &text);
    let output = again.command(&["config"]).env("DISCORD_TOKEN", "other").output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn up_simulate_needs_nothing_and_ends_with_0_on_sigterm() {
    let folder = Folder::new();
    let mut holdfast = Running::start(&folder, &["up", "--simulate"], "addresses.json");
    let admin = holdfast.address("admin");
    until("all shards are live", || get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&admin, "/metrics").contains("holdfast_ws_events_total"));
    assert!(get(&admin, "/shard-count").ends_with("\r\n\r\n2"));
    let front = holdfast.address("ws");
    assert!(
        !get(&front, "/metrics").contains("holdfast_ws_events_total"),
        "not on this listener unless told"
    );
    assert_eq!(holdfast.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_events_tell_of_a_shard_that_drops_and_comes_back() {
    let discord = discord(Limits { shards: 2, max_concurrency: 16, ..Limits::default() }).await;
    let folder = Folder::against(&discord, "sim-token", "");
    let mut holdfast = Running::start(&folder, &["up"], "addresses.json");
    let admin = holdfast.address("admin");
    let mut events = Events::of(&admin);
    let page = get(&admin, "/");
    assert!(page.contains("text/html") && page.contains("default-src 'none'"), "{page}");
    let phases = |snapshot: &Value| -> Vec<String> {
        let shards = snapshot["shards"].as_array().expect("rows");
        shards.iter().map(|row| row[1].as_str().expect("a phase").to_owned()).collect()
    };
    let first = events.until("both shards are live", |snapshot| phases(snapshot) == ["live", "live"]);
    assert_eq!((&first["total"], &first["replicas"]), (&Value::from(2), &Value::Null));
    assert_eq!(first["unmet"], Value::Array(Vec::new()));
    assert!(first["identifies"]["total"].as_u64() > first["identifies"]["remaining"].as_u64());
    assert!(first["figures"]["process_resident_memory_bytes"].as_f64() > Some(1e6));
    assert!(!first.to_string().contains("sim-token"));
    discord.fault(&Fault::new(1, FaultKind::Refuse));
    discord.fault(&Fault::new(1, FaultKind::Rst));
    let dropped = events.until("shard 1 has dropped", |snapshot| phases(snapshot)[1] != "live");
    assert_eq!(phases(&dropped)[0], "live");
    discord.clear_faults();
    let back = events.until("shard 1 is back", |snapshot| phases(snapshot)[1] == "live");
    assert!(back["shards"][1][7].as_u64() >= Some(1), "a resume: {back}");
    assert!(get(&admin, "/metrics").contains("holdfast_ws_dashboard_watchers 1"));
    drop(events);
    until("its place is free", || get(&admin, "/metrics").contains("holdfast_ws_dashboard_watchers 0"));
    let watching: Vec<Events> = (0..16).map(|_| Events::of(&admin)).collect();
    until("all places are taken", || get(&admin, "/metrics").contains("holdfast_ws_dashboard_watchers 16"));
    assert!(get(&admin, "/events").starts_with("HTTP/1.1 503"));
    assert_eq!(holdfast.terminate(), Some(0), "who watches doesn't hold up the end");
    drop(watching);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_events_tell_which_replica_owns_which_shard() {
    let discord = discord(Limits { shards: 8, max_concurrency: 16, ..Limits::default() }).await;
    let prefix = format!("test-dashboard-{}", std::process::id());
    let cluster = format!("[cluster]\nurl = \"redis://127.0.0.1:6379\"\nprefix = \"{prefix}\"\n");
    let folders = [(), ()].map(|()| Folder::against(&discord, "sim-token", &cluster));
    let [first, _second] = folders.each_ref().map(|folder| Running::start(folder, &["ws"], "addresses.json"));
    let mut events = Events::of(&first.address("admin"));
    // Those that it tells of, and those that are its own by the store.
    let told = |snapshot: &Value| -> Vec<u64> {
        let rows = snapshot["shards"].as_array().expect("rows");
        rows.iter().map(|row| row[0].as_u64().expect("a number")).collect()
    };
    let owned = |snapshot: &Value| -> Vec<u64> {
        let is_own = |owner: &Value| {
            owner.as_u64().is_some_and(|at| snapshot["replicas"][at as usize]["this"] == true)
        };
        let owners = snapshot["owners"].as_array().expect("owners");
        (0..).zip(owners).filter(|(_, owner)| is_own(owner)).map(|(shard, _)| shard).collect()
    };
    events.until("the shards are shared out", |snapshot| {
        let owners = snapshot["owners"].as_array();
        let taken = owners.is_some_and(|owners| owners.iter().all(|owner| !owner.is_null()));
        let live = snapshot["shards"].as_array().expect("rows").iter().all(|row| row[1] == "live");
        taken
            && live
            && snapshot["replicas"].as_array().map(Vec::len) == Some(2)
            && (1..8).contains(&told(snapshot).len())
            && told(snapshot) == owned(snapshot)
    });
    drop((first, _second));
    forget(&prefix);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_names_every_metric_and_no_other() {
    let mut documented = metrics_of_the_contract();
    // With labels, and without a sample: nobody sends commands here.
    let quiet = [
        "holdfast_amqp_commands",
        "holdfast_amqp_guilds_read",
        "holdfast_api_amqp_requests",
        "holdfast_api_errors",
        "holdfast_api_relayed",
        "holdfast_api_shared",
        "holdfast_http_deferred",
        "holdfast_http_events",
        "holdfast_http_interactions",
        "holdfast_http_late",
        "holdfast_http_refused",
        "holdfast_webhook_messages",
        "holdfast_rest_bucket_fill",
        "holdfast_rest_limited",
        "holdfast_rest_queue_seconds",
        "holdfast_rest_refused",
        "holdfast_rest_upstream_seconds",
    ];
    documented.retain(|(name, _)| !quiet.contains(&name.as_str()));
    let prefix = format!("test-metrics-{}", std::process::id());
    let settings = format!(
        "[broker]\nurl = \"amqp://guest:guest@127.0.0.1:5672/%2f\"\nprefix = \"test-metrics\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n[webhook]\n\
         [cluster]\nurl = \"redis://127.0.0.1:6379\"\nprefix = \"{prefix}\"\n"
    );
    let folder = Folder::with("holdfast.toml", &settings);
    let holdfast = Running::start(&folder, &["up", "--simulate"], "addresses.json");
    let admin = holdfast.address("admin");
    until("all shards are live", || get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    // No queue is bound for them.
    until("events are returned", || get(&admin, "/metrics").contains("holdfast_ws_amqp_unrouted_total{"));
    // A metric with labels appears with its first sample.
    say_nonsense(&holdfast.address("ws")).await;
    until("the nonsense is refused", || get(&admin, "/metrics").contains("holdfast_ws_client_closes"));
    until("the state is looked at", || get(&admin, "/metrics").contains("holdfast_ws_state_entities{"));
    let text = get(&admin, "/metrics");
    let mut registered: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    drop(holdfast);
    forget(&prefix);
    documented.sort();
    registered.sort();
    assert_eq!(documented, registered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_json_starts_the_service_with_everything_on_one_port() {
    let discord = discord(Limits::default()).await;
    let port = free_port();
    let json = format!(
        r#"{{"token": "sim-token", "intents": 513, "port": {port}, "shards": 1, "backpressure": 100,
            "externally_accessible_url": "ws://localhost:{port}", "twilight_http_proxy": "{}"}}"#,
        address_of(discord.api_url())
    );
    let folder = Folder::with("config.json", &json);
    let mut holdfast = Running::start(&folder, &["up", "--config", "config.json"], "addresses.json");
    let front = format!("127.0.0.1:{port}");
    until("the shard is live", || get(&front, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&front, "/shard-count").ends_with("\r\n\r\n1"));
    until("guilds are counted under both names", || {
        let metrics = get(&front, "/metrics");
        metrics.contains("gateway_shard_events{") && metrics.contains("holdfast_ws_events_total{")
    });
    assert_eq!(holdfast.terminate(), Some(0));
    let log = holdfast.log();
    assert_eq!(log.matches("backpressure").count(), 1, "warned about once: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_ends_up_and_doctor_with_3_and_says_what_to_do() {
    let discord = discord(Limits::default()).await;
    let folder = Folder::against(&discord, "wrong-token", "");
    for command in ["up", "doctor"] {
        let output = folder.run(&[command]);
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{command}: {said}");
        assert!(said.contains("Developer Portal") && !said.contains("wrong-token"), "{command}: {said}");
    }
}

#[test]
fn while_discord_is_out_of_reach_readyz_says_so_and_sigterm_ends_with_0() {
    let api = format!("http://127.0.0.1:{}/api/v10", free_port());
    let folder =
        Folder::with("holdfast.toml", &format!("[discord]\ntoken = \"sim-token\"\napi_url = \"{api}\"\n"));
    let mut holdfast = Running::start(&folder, &["up"], "addresses.json");
    let admin = holdfast.address("admin");
    until("the condition is stated", || get(&admin, "/readyz").contains("Discord's gateway"));
    assert!(get(&admin, "/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(holdfast.terminate(), Some(0));
}

#[test]
fn a_container_can_ask_whether_the_service_in_it_is_well() {
    let admin = format!("0.0.0.0:{}", free_port());
    let settings =
        format!("[discord]\ntoken = \"x\"\n[admin]\nlisten = \"{admin}\"\n[api]\nlisten = \"127.0.0.1:0\"\n");
    let folder = Folder::with("holdfast.toml", &settings);
    for command in ["api", "up"] {
        let asked = || folder.run(&[command, "--health"]);
        assert_eq!(asked().status.code(), Some(1), "nobody is there");
        assert!(
            String::from_utf8_lossy(&asked().stderr).contains("can't be asked"),
            "{asked:?}",
            asked = asked()
        );
        let mut holdfast = Running::start(&folder, &[command], command);
        assert_eq!(asked().status.code(), Some(0), "{:?}", asked());
        assert_eq!(holdfast.terminate(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_that_names_the_setting() {
    let discord = discord(Limits::default()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let folder = Folder::against(&discord, "sim-token", "");
    let output =
        folder.command(&["up"]).env("HOLDFAST__WS__LISTEN", address.to_string()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ws.listen") && said.contains("another process"), "{said}");
    assert_eq!(said.matches("in use").count(), 1, "the reason is said once: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_healthy_set_up_healthy_and_an_empty_budget_broken() {
    let healthy = discord(Limits::default()).await;
    let output = Folder::against(&healthy, "sim-token", "").run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for check in
        ["settings", "token", "gateway", "shards", "identify budget", "intents", "ws.listen", "ws.state_dir"]
    {
        assert!(said.contains(check), "{check} in {said}");
    }
    let spent = discord(Limits { identifies_remaining: 0, ..Limits::default() }).await;
    let output = Folder::against(&spent, "sim-token", "").run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("BROKEN   identify budget") && said.contains("mend: wait"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_broker_and_store_and_says_how_to_mend_them() {
    let discord = discord(Limits::default()).await;
    let prefix = format!("doctor-{}", std::process::id());
    let beside = |broker: &str, store: &str| {
        format!(
            "[ws]\nlisten = \"127.0.0.1:0\"\n[webhook]\n[broker]\nurl = \"amqp://{broker}/%2f\"\nprefix = \"{prefix}\"\n\
             [cluster]\nurl = \"redis://{store}\"\nprefix = \"{prefix}\"\n"
        )
    };
    let run = |settings: &str| {
        let output = Folder::against(&discord, "sim-token", settings).run(&["doctor"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = run(&beside("guest:guest@127.0.0.1:5672", "127.0.0.1:6379"));
    assert_eq!(code, Some(0), "{said}");
    for check in ["ok       clock", "ok       broker", "ok       exchanges", "ok       store"] {
        assert!(said.contains(check), "{check} in {said}");
    }
    // Somebody else has an exchange of that name, and it isn't what the services need.
    let service = holdfast_service::Service::new(tokio_util::sync::CancellationToken::new());
    let mut settings = BrokerSettings::at("amqp://guest:guest@127.0.0.1:5672/%2f");
    settings.prefix.clone_from(&prefix);
    let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
    let names = broker.names().clone();
    let of = |kind| Topology { exchanges: vec![Exchange::new(names.events(), kind)], ..Topology::default() };
    broker.delete(&of(ExchangeKind::Topic)).await;
    broker.declare(&of(ExchangeKind::Fanout)).await.expect("declared");
    let (code, said) = run(&beside("guest:guest@127.0.0.1:5672", "127.0.0.1:6379"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("BROKEN   exchanges") && said.contains("broker.prefix"), "{said}");
    let exchanges = [names.events(), names.dead(), names.commands(), names.requests(), names.webhook()];
    let exchanges = exchanges.map(|name| Exchange::new(name, ExchangeKind::Topic)).to_vec();
    broker.delete(&Topology { exchanges, ..Topology::default() }).await;
    service.tasks.finish(PATIENCE).await.expect("it ends");
    let (code, said) = run(&beside("guest:wrong-secret@127.0.0.1:5672", "127.0.0.1:9"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("BROKEN   broker") && said.contains("correct broker.url"), "{said}");
    assert!(said.contains("BROKEN   store") && said.contains("start Redis or Valkey"), "{said}");
    assert!(!said.contains("wrong-secret"), "{said}");
}

#[test]
fn completions_and_man_pages_know_all_commands() {
    let folder = Folder::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = folder.run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(script.contains("doctor") && script.contains("simulate"), "{shell}");
    }
    let output = folder.run(&["man", "pages"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for (page, part) in [("holdfast.1", "holdfast\\-doctor"), ("holdfast-up.1", "simulate")] {
        let text = std::fs::read_to_string(folder.0.path().join("pages").join(page)).expect("it is there");
        assert!(text.contains(part), "{part} in {page}: {text}");
    }
}

#[test]
fn the_level_of_the_log_follows_the_file() {
    let folder = Folder::with("holdfast.toml", "[log]\nlevel = \"info\"\n");
    let mut holdfast = Running::start(&folder, &["up", "--simulate"], "addresses.json");
    folder.write("holdfast.toml", "[log]\nlevel = \"loud\"\n");
    until("the wrong level is warned about", || holdfast.log().contains("the log level stays"));
    folder.write("holdfast.toml", "[log]\nlevel = \"debug\"\n");
    until("the level is read anew", || holdfast.log().contains("log level read anew"));
    assert_eq!(holdfast.terminate(), Some(0));
}

/// What replicas share outlives them.
fn forget(prefix: &str) {
    let forget = format!("redis-cli --scan --pattern '{prefix}:*' | xargs -r redis-cli DEL");
    Command::new("sh").args(["-c", &forget]).output().expect("redis-cli is installed");
}

/// Server-sent events, as they come.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(admin: &str) -> Self {
        // It is there as soon as the shards are known.
        until("there is a dashboard", || get(admin, "/").starts_with("HTTP/1.1 200"));
        let mut stream = TcpStream::connect(admin).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "GET /events HTTP/1.1\r\nhost: {admin}\r\n\r\n").expect("sends");
        Self(BufReader::new(stream))
    }

    /// The next one's JSON.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("is told") > 0, "the events have ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let snapshot = self.next();
            if is_so(&snapshot) {
                return snapshot;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {snapshot}");
        }
    }
}

/// A client that Discord would close with 4002.
async fn say_nonsense(front: &str) {
    let uri = format!("ws://{front}/?v=10&encoding=json").parse().expect("an address");
    let (mut client, _) = ClientBuilder::from_uri(uri).connect().await.expect("connects");
    client.send(Message::text("nonsense")).await.expect("sends");
    while client.next().await.is_some_and(|message| message.is_ok_and(|message| !message.is_close())) {}
}

/// Names and types in the tables of docs/contract.md, without those that are planned.
fn metrics_of_the_contract() -> Vec<(String, String)> {
    let contract = include_str!("../../docs/contract.md");
    let (_, metrics) = contract.split_once("\n## Metrics\n").expect("a section on metrics");
    let rows = metrics.lines().filter(|line| line.starts_with("| `") && !line.contains("*planned*"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let named = cells.flat_map(|cells| {
        let names: Vec<_> = cells[1].split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        let kind = cells[2].to_owned();
        names.into_iter().map(move |name| (name, kind.clone()))
    });
    named.collect()
}

/// A folder to run in, with nothing of this machine's settings.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn with(file: &str, text: &str) -> Self {
        let folder = Self::new();
        folder.write(file, text);
        folder
    }

    fn against(discord: &Simulator, token: &str, more: &str) -> Self {
        let api = discord.api_url();
        Self::with("holdfast.toml", &format!("[discord]\ntoken = \"{token}\"\napi_url = \"{api}\"\n{more}"))
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.path().join(file), text).expect("writes");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Any free ports, unless the file or the test names others.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(args).current_dir(self.path()).env_remove("DISCORD_TOKEN").env_remove("HOLDFAST_CONFIG");
        if !self.path().join("config.json").exists() && !args.contains(&"config") {
            let text = std::fs::read_to_string(self.path().join("holdfast.toml")).unwrap_or_default();
            if !text.contains("[admin]") {
                command.env("HOLDFAST__ADMIN__LISTEN", "127.0.0.1:0");
            }
            if !text.contains("listen") {
                command.env("HOLDFAST__WS__LISTEN", "127.0.0.1:0");
            }
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }
}

/// A running process; killed when dropped.
struct Running {
    child: Child,
    addresses: Value,
    log: std::path::PathBuf,
}

impl Running {
    fn start(folder: &Folder, args: &[&str], addresses: &str) -> Self {
        let log = folder.path().join("log");
        let err = std::fs::File::create(&log).expect("writes");
        let mut command = folder.command(args);
        command.args(["--addresses", addresses]).stdout(Stdio::null()).stderr(err);
        let child = command.spawn().expect("starts");
        let mut running = Self { child, addresses: Value::Null, log };
        let file = folder.path().join(addresses);
        until("the addresses are written", || {
            let ended = running.child.try_wait().expect("the process is ours");
            assert_eq!(ended, None, "{}", running.log());
            file.exists()
        });
        let text = std::fs::read_to_string(file).expect("reads");
        running.addresses = serde_json::from_str(&text).expect("JSON");
        running
    }

    fn address(&self, of: &str) -> String {
        address_of(self.addresses[of].as_str().expect("an address")).to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("reads")
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn discord(limits: Limits) -> Simulator {
    Simulator::start(Options { limits, ..Options::default() }).await.expect("starts")
}

fn address_of(url: &str) -> &str {
    url.split('/').nth(2).expect("a URL")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// One HTTP answer, head and body; empty when nobody answers.
fn get(address: &str, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// Looks until something is so; another process gives no other sign.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
