// SPDX-License-Identifier: AGPL-3.0-only
//! The service in a process of its own, as its operator runs it.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use holdfast_simulator::{Options, Simulator};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before the test says what it waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn it_becomes_ready_and_drains_on_sigterm() {
    let discord = Simulator::start(Options::default()).await.expect("the simulator starts");
    let folder = folder("holdfast.toml", &settings(discord.api_url(), ""));
    let mut running = Running::start(folder.path(), &[]);
    let admin = running.address("admin");
    until("it is ready", || get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&admin, "/metrics").contains("holdfast_ws_shards_live 1"));
    assert!(get(&running.address("ws"), "/").starts_with("HTTP/1.1 426"), "the front listens");
    assert_eq!(running.terminate(), Some(0));
    let sessions = discord.state()["sessions"].clone();
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "Discord keeps the session: {sessions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_json_is_accepted_as_it_is() {
    let discord = Simulator::start(Options::default()).await.expect("the simulator starts");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let api = address_of(discord.api_url());
    let json = format!(
        r#"{{"token": "sim-token", "intents": 513, "port": {port}, "backpressure": 100,
            "externally_accessible_url": "ws://localhost:{port}", "twilight_http_proxy": "{api}"}}"#
    );
    // Found in the working folder, as in an image made for the other program.
    let folder = folder("config.json", &json);
    let mut running = Running::start(folder.path(), &[]);
    let front = format!("127.0.0.1:{port}");
    until("it is ready", || get(&front, "/readyz").starts_with("HTTP/1.1 200"));
    // The first event may come a moment after READY.
    until("events are counted by the other program's name", || {
        get(&front, "/metrics").contains("gateway_shard_events{")
    });
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(running.log().matches("backpressure").count(), 1, "{}", running.log());
}

#[test]
fn everything_that_is_wrong_with_the_settings_is_said_at_once_and_the_code_is_2() {
    let folder = folder("holdfast.toml", "[discord]\ncompresion = \"none\"\n[ws]\nlisten = \"here\"\n");
    let output = run(folder.path(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["holdfast-ws: 3 problems", "discord.token: missing", "did you mean `compression`?", "line 4"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let missing = run(folder.path(), &["--config", "elsewhere.toml"]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(2), "{said}");
    assert!(said.contains("elsewhere.toml"), "{said}");
}

#[test]
fn a_certificate_that_is_not_there_ends_it_at_once_whether_or_not_discord_answers() {
    // Nobody listens there.
    let tls = "tls = { cert = \"no-such-cert.pem\", key = \"no-such-key.pem\" }";
    let folder = folder("holdfast.toml", &settings("http://127.0.0.1:9/api/v10", tls));
    let output = run(folder.path(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ws.tls.cert: cannot use no-such-cert.pem"), "{said}");
}

#[test]
fn help_teaches() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &["--help"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for part in
        ["Usage: holdfast-ws", "--config", "HOLDFAST_CONFIG", "DISCORD_TOKEN=", "config.json", "Exit codes:"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(run(folder.path(), &["--confg"]).status.code(), Some(2));
}

fn folder(file: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(file), text).expect("writes");
    folder
}

fn settings(api: &str, ws: &str) -> String {
    format!(
        "[discord]\ntoken = \"sim-token\"\napi_url = \"{api}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [ws]\nlisten = \"127.0.0.1:0\"\n{ws}\n"
    )
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-ws"));
    command.args(args).current_dir(folder).env_remove("DISCORD_TOKEN").env_remove("HOLDFAST_CONFIG");
    command
}

/// Runs to its end, which has to come by itself.
fn run(folder: &Path, args: &[&str]) -> Output {
    let mut child =
        command(folder, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let begun = Instant::now();
    while child.try_wait().expect("the process is ours").is_none() {
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it goes on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("it has ended")
}

/// A running process; killed when dropped.
struct Running {
    child: Child,
    addresses: Value,
    log: std::path::PathBuf,
}

impl Running {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let (log, file) = (folder.join("log"), folder.join("addresses.json"));
        let mut command = command(folder, args);
        command.arg("--addresses").arg(&file).stdout(Stdio::null());
        let child = command.stderr(std::fs::File::create(&log).expect("writes")).spawn().expect("starts");
        let mut running = Self { child, addresses: Value::Null, log };
        until("the addresses are written", || {
            let ended = running.child.try_wait().expect("the process is ours");
            assert_eq!(ended, None, "{}", running.log());
            file.exists()
        });
        running.addresses = serde_json::from_slice(&std::fs::read(file).expect("reads")).expect("JSON");
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

fn address_of(url: &str) -> &str {
    url.split('/').nth(2).expect("a URL")
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
