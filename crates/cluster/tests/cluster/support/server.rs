// SPDX-License-Identifier: AGPL-3.0-only
//! A Redis of the test's own, which may be stopped, frozen and started again. In: its options. Out: its address.
//! Killed when dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::DEADLINE;

/// A process that keeps nothing on disk.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    options: Vec<String>,
    dir: TempDir,
}

impl Server {
    /// Starts one on a free port.
    pub(crate) fn start(options: &[&str]) -> Server {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = run(port, &options, &dir);
        let server = Server { child, port, options, dir };
        server.wait();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        self.child = run(self.port, &self.options, &self.dir);
        self.wait();
    }

    /// Says something to it.
    pub(crate) fn tell<T: redis::FromRedisValue>(&self, command: &str, arguments: &[&str]) -> T {
        let say = || redis::cmd(command).arg(arguments).query(&mut self.connection()?);
        // A server that is changing its part may cut a connection that has just come.
        say().or_else(|error| if error.is_io_error() { say() } else { Err(error) }).unwrap()
    }

    /// Whether what was written up to now has reached a server that copies this one. Writes something itself: only what
    /// came by the same connection is waited for.
    pub(crate) fn is_copied(&self, within_ms: u32) -> bool {
        let ask = || {
            let mut connection = self.connection()?;
            let () = redis::cmd("SET").arg("copied?").arg("").query(&mut connection)?;
            redis::cmd("WAIT").arg(1).arg(within_ms).query::<i64>(&mut connection)
        };
        ask().or_else(|error| if error.is_io_error() { ask() } else { Err(error) }).unwrap() > 0
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(1))
    }

    fn wait(&self) {
        let begin = Instant::now();
        loop {
            // One that asks for a password answers, too.
            match self.connection().and_then(|mut it| redis::cmd("PING").query::<redis::Value>(&mut it)) {
                Err(error) if error.is_io_error() => {}
                _ => return,
            }
            assert!(begin.elapsed() < DEADLINE, "the server starts");
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

fn run(port: u16, options: &[String], dir: &TempDir) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    if options.first().is_some_and(|option| option == "--sentinel") {
        // It writes down what it learns.
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, options[1..].join("\n")).unwrap();
        command.arg(file).args(["--sentinel", "--port", &port]);
    } else {
        command.args([
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        command.args(options);
    }
    command.args(["--bind", "127.0.0.1"]).current_dir(dir.path());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed")
}
