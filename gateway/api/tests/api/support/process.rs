// SPDX-License-Identifier: AGPL-3.0-only
//! The service in a process of its own, killed when it is dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use holdfast_cluster::Settings;
use serde_json::Value;

use super::SOON;

/// See the module.
pub(crate) struct Process {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts before a Discord, with a store if there is one.
    pub(crate) async fn start(api_url: &str, store: Option<&Settings>, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = store.map_or(String::new(), |store| {
            format!("[cluster]\nurl = \"redis://127.0.0.1:6379\"\nprefix = \"{}\"\n", store.prefix)
        });
        let settings = format!(
            "[discord]\napi_url = \"{api_url}\"\n[api]\nlisten = \"127.0.0.1:0\"\n{more}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{cluster}"
        );
        std::fs::write(folder.path().join("holdfast.toml"), settings).expect("written");
        let file = folder.path().join("addresses.json");
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast-api"))
            .args(["--config", "holdfast.toml", "--addresses", "addresses.json"])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary is there");
        let addresses = addresses(&file).await;
        let text = |name: &str| addresses[name].as_str().expect("an address").to_owned();
        let host = |url: String| url.split('/').nth(2).expect("a host").to_owned();
        let (address, admin) = (host(text("api")), host(text("admin")));
        Self { child, address, admin, _folder: folder }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// What its `/metrics` says.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let text = get(&self.admin, "/metrics").await;
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_default().parse().unwrap_or_default()
    }

    /// KiB of memory by the name that `/proc` has for them.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect(name).trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// From here on the peak of memory (`VmHWM`) is measured anew.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file appears when the ports are bound.
async fn addresses(file: &Path) -> Value {
    let wait = async {
        loop {
            let said = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
            match said {
                Some(said) => return said,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it starts")
}

/// What a page says.
async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}
