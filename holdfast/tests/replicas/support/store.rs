// SPDX-License-Identifier: AGPL-3.0-only
//! Redis: the machine's, of which a test has one prefix, or one of the test's own, which may be frozen and killed.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::PATIENCE;

/// The machine's.
pub(crate) const REDIS: &str = "redis://127.0.0.1:6379";

/// Takes the keys of a prefix away when it is dropped.
pub(crate) struct Prefix {
    url: String,
    pub(crate) name: String,
}

impl Prefix {
    /// One that no other test has.
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), name: format!("test-{:016x}", fastrand::u64(..)) }
    }

    /// The keys that end so.
    pub(crate) fn keys(&self, ending: &str) -> Vec<String> {
        let keys = ask(&self.url, &["KEYS", &format!("{}:*{ending}", self.name)]).unwrap_or_default();
        keys.lines().map(str::to_owned).collect()
    }

    /// One field of a hash.
    pub(crate) fn field(&self, key: &str, field: &str) -> Option<String> {
        ask(&self.url, &["HGET", key, field]).filter(|field| !field.is_empty())
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        for key in self.keys("") {
            ask(&self.url, &["DEL", &key]);
        }
    }
}

/// What a server answers, text as it is; none if it can't be reached.
fn ask(url: &str, command: &[&str]) -> Option<String> {
    let asked = Command::new("redis-cli").args(["-u", url, "--raw"]).args(command).output();
    let answer = asked.expect("redis-cli is installed");
    let text = String::from_utf8(answer.stdout).expect("text");
    answer.status.success().then(|| text.trim_end().to_owned())
}

/// A process that keeps nothing on disk; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    port: u16,
    options: Vec<String>,
}

impl Server {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        Self::start_at(free_port(), &[])
    }

    /// Starts one on a port, with these options.
    pub(crate) fn start_at(port: u16, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self { child: run(port, &options), port, options };
        server.wait();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// It keeps its connections, and answers nothing any more.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        self.child = run(self.port, &self.options);
        self.wait();
    }

    fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
    }

    fn wait(&self) {
        let begin = Instant::now();
        // One that asks for a password answers, too.
        while ask(&self.url(), &["PING"]).is_none_or(|answer| answer.is_empty()) {
            assert!(begin.elapsed() < PATIENCE, "the server starts");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(port: u16, options: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]);
    command.args(options).current_dir(std::env::temp_dir());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed")
}
