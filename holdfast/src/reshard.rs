// SPDX-License-Identifier: AGPL-3.0-only
//! `reshard`: asks a running service for another count of shards, and shows how far it is. In: the settings, for the
//! admin listener's address and the token. Out: a line for each step on standard error, and how it ended.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use holdfast_service::{Exit, Secret, process::SettingsFlag};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use crate::{args::Reshard, services::ALL};

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What one answer may take: Discord is asked for the budget before it.
const WITHIN: Duration = Duration::from_secs(15);

/// What `/reshard` shows.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Status {
    shards: u32,
    phase: Option<String>,
    #[serde(default)]
    to: u32,
    #[serde(default)]
    warm: u32,
    #[serde(default)]
    cut: u32,
    #[serde(default)]
    opened: u32,
    last: Option<String>,
}

/// The command `reshard`.
pub(crate) async fn run(flag: &SettingsFlag, options: &Reshard) -> anyhow::Result<Exit> {
    let written = match ALL.find(flag) {
        Ok(written) => written,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let settings = match ALL.read(&written.document).into_result() {
        Ok(settings) => settings,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let admin = Admin {
        address: options.admin.unwrap_or(settings.admin.listen),
        token: settings.services.ws.discord.token.clone(),
    };
    let query = match options.shards {
        Some(shards) => format!("shards={shards}"),
        None => "abandon".to_owned(),
    };
    let (status, answer) = admin.ask(Method::POST, &format!("/reshard?{query}")).await?;
    if status != 202 {
        eprintln!("{}", answer.trim_end());
        return Ok(Exit::Error);
    }
    admin.follow(options.shards).await
}

/// The admin listener of a running service.
struct Admin {
    address: SocketAddr,
    token: Secret,
}

impl Admin {
    /// Shows each step until the end.
    async fn follow(&self, wanted: Option<u32>) -> anyhow::Result<Exit> {
        let mut shown = String::new();
        loop {
            let (_, answer) = self.ask(Method::GET, "/reshard").await?;
            let status: Status =
                serde_json::from_str(&answer).context("/reshard doesn't answer as expected")?;
            let line = status.line();
            if line != shown {
                eprintln!("{line}");
                shown = line;
            }
            if status.phase.is_none() {
                let done = wanted.is_none_or(|wanted| wanted == status.shards);
                return Ok(if done { Exit::Ok } else { Exit::Error });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = timeout(WITHIN, self.exchange(method, path)).await;
        let place = || format!("asking the admin listener at {} (admin.listen, or --admin)", self.address);
        answer.with_context(place)?.with_context(place)
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<(u16, String)> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bot {}", self.token.expose()))
            .body(Empty::<Bytes>::new())?;
        let answering = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::select! { biased;
            answer = answering => answer,
            _ = connection => bail!("the connection was closed before the answer"),
        }
    }
}

impl Status {
    fn line(&self) -> String {
        let Status { shards, to, warm, cut, opened, .. } = self;
        match self.phase.as_deref() {
            None => self.last.clone().unwrap_or_else(|| format!("the bot has {shards} shards")),
            Some("warming") => {
                format!("{shards} → {to} shards: {warm} of {to} new ones have gathered enough")
            }
            Some(_) => format!(
                "{shards} → {to} shards: {cut} of {shards} old ones cut, {opened} of {to} new ones open"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_line() {
        let line = |json: &str| serde_json::from_str::<Status>(json).expect("a status").line();
        let warming = r#"{"shards":4,"phase":"warming","to":8,"warm":3,"cut":0,"opened":0}"#;
        assert_eq!(line(warming), "4 → 8 shards: 3 of 8 new ones have gathered enough");
        let cutting = r#"{"shards":4,"phase":"cutting","to":8,"warm":8,"cut":4,"opened":2}"#;
        assert_eq!(line(cutting), "4 → 8 shards: 4 of 4 old ones cut, 2 of 8 new ones open");
        assert_eq!(line(r#"{"shards":8,"phase":null,"last":"resharded"}"#), "resharded");
        assert_eq!(line(r#"{"shards":8,"phase":null}"#), "the bot has 8 shards");
    }
}
