// SPDX-License-Identifier: AGPL-3.0-only
//! A Holdfast process with settings and state of its own, ended when it is dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use holdfast_simulator::Simulator;
use serde_json::Value;

use super::{ALL, TOKEN, within};

/// A running process, and the folder that outlives it.
pub(crate) struct Holdfast {
    pub(super) child: Child,
    folder: tempfile::TempDir,
    /// What it is to run.
    command: &'static str,
    pub(crate) url: String,
    pub(crate) admin: String,
    /// Where Discord posts.
    pub(crate) http: String,
}

/// Where a process listens.
struct Addresses {
    ws: String,
    admin: String,
    http: String,
}

/// What a process is started with.
pub(crate) struct Setup<'a> {
    pub(crate) intents: u64,
    /// Further lines for `[discord]`.
    pub(crate) discord: &'a str,
    /// The table `ws.cache`.
    pub(crate) cache: &'a str,
    /// Further lines for `[ws]`, and tables after it.
    pub(crate) ws: &'a str,
    /// The level of the log.
    pub(crate) log: &'a str,
    /// `ws.state_dir`; by default a folder that goes with the test.
    pub(crate) state: Option<&'a str>,
    /// What it is to run.
    pub(crate) command: &'static str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let cache = "members = true, presences = true";
        Self { intents: ALL, discord: "", cache, ws: "", log: "info", state: None, command: "ws" }
    }
}

impl Setup<'_> {
    /// Writes the settings file.
    pub(super) fn write(&self, api_url: &str, folder: &Path) {
        let settings = format!(
            "[discord]\ntoken = \"{TOKEN}\"\napi_url = \"{}\"\nintents = {}\n{}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"{}\"\n\
             [ws]\nlisten = \"127.0.0.1:0\"\nstate_dir = \"{}\"\ncache = {{ {} }}\n{}\n",
            api_url,
            self.intents,
            self.discord,
            self.log,
            self.state.map_or_else(|| folder.join("state"), PathBuf::from).display(),
            self.cache,
            self.ws,
        );
        std::fs::write(folder.join("holdfast.toml"), settings).expect("settings are written");
    }
}

impl Holdfast {
    /// Starts before a simulated Discord, with further lines for `[ws]`.
    pub(crate) async fn start(discord: &Simulator, ws: &str) -> Self {
        Self::start_with(discord, &Setup { ws, ..Setup::default() }).await
    }

    /// Starts before a simulated Discord.
    pub(crate) async fn start_with(discord: &Simulator, setup: &Setup<'_>) -> Self {
        Self::start_at(discord.api_url(), setup).await
    }

    /// Starts before whatever is, or will be, at an address.
    pub(crate) async fn start_at(api_url: &str, setup: &Setup<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        setup.write(api_url, folder.path());
        let (child, Addresses { ws, admin, http }) = launch(folder.path(), setup.command).await;
        Self { child, folder, command: setup.command, url: ws, admin, http }
    }

    /// A second process with the same settings and state; how it ended and what it said.
    pub(crate) async fn second(&self) -> (Option<i32>, String) {
        run_to_the_end(self.folder.path()).await
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024
    }

    /// Time that the process has computed so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Behind the name: state is field 3, utime 14, stime 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Ends the process as `kill -9` does, and starts it again with the same state.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process has ended");
    }

    /// Changes the settings file: takes effect with the next start.
    pub(crate) fn change_settings(&self, from: &str, to: &str) {
        let file = self.settings();
        let settings = std::fs::read_to_string(&file).expect("the settings are there");
        assert!(settings.contains(from), "the settings have {from:?}");
        std::fs::write(&file, settings.replace(from, to)).expect("the settings are written");
    }

    /// Asks the process to end, waits for it, and starts it again with the same state.
    pub(crate) async fn terminate_and_restart(&mut self) {
        let status = self.terminate().await;
        assert_eq!(status.code(), Some(0), "{}", self.output());
        self.restart().await;
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill").args([name, &pid]).status().expect("kill runs");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        exit(&mut self.child).await
    }

    /// Where log, sessions and guild state are.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The settings file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("holdfast.toml")
    }

    /// What the process has said.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// A page of the admin listener.
    pub(crate) async fn page(&self, path: &str) -> String {
        self.answer(path).await.1
    }

    /// The status of a page of the admin listener, and the page.
    pub(crate) async fn answer(&self, path: &str) -> (u16, String) {
        self.request(&format!("GET {path} HTTP/1.1")).await
    }

    /// What the admin listener answers to a request that begins so.
    pub(crate) async fn request(&self, head: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.admin.trim_start_matches("http://");
        let mut tcp = tokio::net::TcpStream::connect(address).await.expect("the admin listener answers");
        let request = format!("{head}\r\nhost: admin\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.expect("the answer is text");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// A metric's value; the sum over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.page("/metrics").await;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(' ') || rest.starts_with('{'))
                .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// Waits until so many clients have their sessions at the first shard.
    pub(crate) async fn clients(&self, count: usize) {
        self.shards("the clients' sessions", |shards| shards[0]["clients"] == count).await;
    }

    /// Waits until so many sessions of the first shard are without a connection, and none has one.
    pub(crate) async fn detached(&self, count: usize) {
        let detached = |shards: &[Value]| shards[0]["detached"] == count && shards[0]["clients"] == 0;
        self.shards("the end of the connection is seen", detached).await;
    }

    /// Waits until no session of any shard has a connection.
    pub(crate) async fn nobody(&self) {
        let nobody = |shards: &[Value]| shards.iter().all(|shard| shard["clients"] == 0);
        self.shards("the end of all connections is seen", nobody).await;
    }

    /// The stream that a restart would find in shard 0's record.
    pub(crate) fn stored_stream(&self) -> Option<String> {
        let record = std::fs::read(self.state().join("shards").join("0-of-1").join("session")).ok()?;
        let text = String::from_utf8_lossy(&record).into_owned();
        Some(text.split("\"stream\":").nth(1)?.split(',').next()?.to_owned())
    }

    /// Waits until `/shards` shows all shards live.
    pub(crate) async fn live(&self) {
        let live = |shards: &[Value]| shards.iter().all(|shard| shard["phase"] == "live");
        self.shards("all shards live", live).await;
    }

    /// Waits until `/shards`, which lists one at least, is as wanted.
    async fn shards(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        within(what, async {
            loop {
                let shards: Vec<Value> =
                    serde_json::from_str(&self.page("/shards").await).unwrap_or_default();
                if !shards.is_empty() && wanted(&shards) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Starts again with the same state.
    pub(crate) async fn restart(&mut self) {
        let (child, Addresses { ws, admin, http }) = launch(self.folder.path(), self.command).await;
        (self.child, self.url, self.admin, self.http) = (child, ws, admin, http);
    }
}

impl Drop for Holdfast {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── holdfast said ──\n{}", self.output());
        }
    }
}

/// A further process with a folder's settings; how it ended and what it said.
pub(super) async fn run_to_the_end(folder: &Path) -> (Option<i32>, String) {
    let said = folder.join("second");
    let file = std::fs::File::create(&said).expect("the output file opens");
    let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["ws", "--config"])
        .arg(folder.join("holdfast.toml"))
        .stdout(file.try_clone().expect("the file is cloned"))
        .stderr(file)
        .spawn();
    let mut child = child.expect("the binary runs");
    let status = exit(&mut child).await;
    (status.code(), std::fs::read_to_string(said).unwrap_or_default())
}

/// Waits for a process to end; ends it when it doesn't.
async fn exit(child: &mut Child) -> ExitStatus {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return status;
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process did not end");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn launch(folder: &Path, command: &str) -> (Child, Addresses) {
    let addresses = folder.join("addresses.json");
    let _ = std::fs::remove_file(&addresses);
    let output = std::fs::File::options().create(true).append(true).open(folder.join("output"));
    let output = output.expect("the output file opens");
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args([command, "--config"])
        .arg(folder.join("holdfast.toml"))
        .arg("--addresses")
        .arg(&addresses)
        .stdout(output.try_clone().expect("the file is cloned"))
        .stderr(output)
        .stdin(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let addresses = within("the addresses of the process", async {
        loop {
            if let Some(written) = std::fs::read(&addresses).ok().filter(|written| !written.is_empty()) {
                return serde_json::from_slice::<Value>(&written).expect("addresses are JSON");
            }
            if let Some(status) = child.try_wait().expect("the process is ours") {
                let output = std::fs::read_to_string(folder.join("output")).unwrap_or_default();
                panic!("holdfast ended with {status}:\n{output}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let text = |name: &str| addresses[name].as_str().unwrap_or_default().to_owned();
    (child, Addresses { ws: text("ws"), admin: text("admin"), http: text("http") })
}
