// SPDX-License-Identifier: AGPL-3.0-only
//! `doctor`: asks everything that the services will need, says what is well, what isn't, and how to mend it.

mod beside;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use holdfast_discord::Intents;
use holdfast_rest::{Client, GatewayBot, RestError};
use holdfast_service::process::SettingsFlag;
use holdfast_service::{Exit, bind, file_limit};
use tokio::net::TcpStream;

use crate::services::{ALL, Settings};

/// How long the gateway may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Files besides those of connections: log segments, listeners, the runtime's own.
const OTHER_FILES: u64 = 100;

/// The time of an answer has whole seconds, and was on its way.
const CLOCK_WELL: Duration = Duration::from_secs(3);

/// Beyond that, interactions are refused soon (`http.max_age`).
const CLOCK_BEARABLE: Duration = Duration::from_secs(15);

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Well(String),
    Warning { what: String, mend: String },
    Broken { what: String, mend: String },
}

/// All checks, in the order in which they depend on one another.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<(&'static str, Finding)>,
}

/// The command `doctor`.
pub(crate) async fn run(flag: &SettingsFlag) -> anyhow::Result<Exit> {
    let written = match ALL.find(flag) {
        Ok(written) => written,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let settings = match ALL.read(&written.document).into_result() {
        Ok(settings) => settings,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let mut report = Report::default();
    let file = written.file.map_or("defaults and environment".to_owned(), |file| file.display().to_string());
    report.add("settings", Finding::Well(file));
    for warning in written.warnings {
        report.add("settings", warning_of(warning, "take the key out"));
    }
    let refused = discord(&settings, &mut report).await;
    beside::check(&settings, &mut report).await;
    machine(&settings, &mut report);
    report.print()?;
    Ok(match (refused, report.is_broken()) {
        (true, _) => Exit::Refused,
        (false, true) => Exit::Error,
        (false, false) => Exit::Ok,
    })
}

/// Asks Discord; whether it refuses the token.
async fn discord(settings: &Settings, report: &mut Report) -> bool {
    let discord = &settings.services.ws.discord;
    let client = match Client::new(&discord.api_url, &discord.token) {
        Ok(client) => client,
        Err(error) => {
            report.add("token", broken_of(error.to_string(), "see above"));
            return false;
        }
    };
    match client.current_user().await {
        Ok(user) => report.add("token", Finding::Well(format!("{} ({})", user.username, user.id))),
        Err(error) => {
            let refused = error == RestError::Unauthorized;
            report.add("token", broken_of(error.to_string(), mend_of(&error)));
            return refused;
        }
    }
    match client.gateway_bot(Some(&settings.services.ws.public_url)).await {
        Ok(gateway) => {
            report.add("clock", clock(&client).await);
            report.add("gateway", reach(&gateway.url).await);
            report.add("shards", shards(settings, &gateway));
            report.add("identify budget", budget(settings, &gateway));
        }
        Err(error) => report.add("gateway", broken_of(error.to_string(), mend_of(&error))),
    }
    match client.application().await {
        Ok(application) => {
            let granted = Intents(application.privileged_intents());
            report.add("intents", intents(discord.intents, granted));
        }
        Err(error) => report.add("intents", broken_of(error.to_string(), mend_of(&error))),
    }
    false
}

fn machine(settings: &Settings, report: &mut Report) {
    report.add("ws.listen", port(settings.services.ws.listen, "ws.listen"));
    if settings.admin.enabled {
        report.add("admin.listen", port(settings.admin.listen, "admin.listen"));
    }
    if settings.services.wanted.api() {
        report.add("api.listen", port(settings.services.api.listen, "api.listen"));
    }
    if settings.services.wanted.http() {
        report.add("http.listen", port(settings.services.http.listen, "http.listen"));
    }
    report.add("ws.state_dir", folder(&settings.services.ws.state_dir));
    if let Some(tls) = &settings.services.ws.tls {
        report.add(
            "ws.tls",
            match tls.server_config() {
                Ok(_) => Finding::Well(tls.cert.display().to_string()),
                Err(error) => broken_of(error.to_string(), "give PEM files that belong together in ws.tls"),
            },
        );
    }
    if let Some(limit) = file_limit() {
        report.add("open files", files(limit, settings.services.ws.max_clients as u64));
    }
}

async fn reach(url: &str) -> Finding {
    let mend = "let this machine connect out to Discord's gateway on that port";
    let Some((host, port)) = host_and_port(url) else {
        return broken_of(format!("{url} is no address"), "check discord.api_url");
    };
    match tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Finding::Well(url.to_owned()),
        Ok(Err(error)) => broken_of(format!("cannot connect to {host}:{port}: {error}"), mend),
        Err(_) => broken_of(format!("{host}:{port} did not answer within {CONNECT:?}"), mend),
    }
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?']).next()?;
    let default = if scheme == "wss" { 443 } else { 80 };
    Some(match place.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().ok()?),
        None => (place.to_owned(), default),
    })
}

/// Signed times of interactions, and the times that replicas share, are compared with our clock.
async fn clock(client: &Client) -> Finding {
    let mend = "let this machine follow a time server: `timedatectl set-ntp true`, or chrony";
    match client.clock().await {
        Ok(Some(theirs)) => {
            let ours = SystemTime::now();
            let apart = ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours));
            let apart = apart.unwrap_or_default();
            let what = format!("{:.0} s from Discord's", apart.as_secs_f64());
            match apart {
                apart if apart <= CLOCK_WELL => Finding::Well(what),
                apart if apart <= CLOCK_BEARABLE => warning_of(what, mend),
                _ => broken_of(what, mend),
            }
        }
        Ok(None) => warning_of("Discord doesn't say what time it is".to_owned(), mend),
        Err(error) => warning_of(error.to_string(), mend_of(&error)),
    }
}

/// How many shards are ours.
fn ours(settings: &Settings, recommended: u32) -> u32 {
    let shards = &settings.services.ws.shards;
    let total = shards.total.unwrap_or(recommended);
    shards.end.unwrap_or(total).min(total).saturating_sub(shards.start)
}

fn shards(settings: &Settings, gateway: &GatewayBot) -> Finding {
    let recommended = gateway.shards;
    let total = settings.services.ws.shards.total.unwrap_or(recommended);
    match ours(settings, recommended) {
        0 => broken_of(
            format!("none is ours: {total} in all, ours begin at {}", settings.services.ws.shards.start),
            "lower ws.shards.start, or raise ws.shards.total",
        ),
        _ if total < recommended => warning_of(
            format!("{total} are set, Discord recommends {recommended}"),
            "leave ws.shards.total at \"auto\", or raise it before Discord requires it (2,500 guilds a shard)",
        ),
        ours => Finding::Well(format!("{ours} of {total} ours, {recommended} recommended")),
    }
}

fn budget(settings: &Settings, gateway: &GatewayBot) -> Finding {
    let limit = &gateway.session_start_limit;
    let needed = ours(settings, gateway.shards);
    let left = format!(
        "{} of {} left, {} shards, {} at once every 5 s",
        limit.remaining, limit.total, needed, limit.max_concurrency
    );
    if limit.remaining < needed {
        let hours = limit.reset_after.as_secs() / 3600 + 1;
        return broken_of(left, &format!("wait: the budget is whole again within {hours} h"));
    }
    if limit.remaining < needed.saturating_mul(2) {
        return warning_of(left, "avoid starts without stored sessions until the budget is whole again");
    }
    Finding::Well(left)
}

fn intents(wanted: Intents, granted: Intents) -> Finding {
    let missing: Vec<_> = wanted.names().into_iter().filter(|name| !allowed(name, granted)).collect();
    match missing.is_empty() {
        true => Finding::Well(wanted.names().join(", ")),
        false => broken_of(
            format!("Discord does not grant {}", missing.join(", ")),
            "switch them on in the Developer Portal (Bot, Privileged Gateway Intents), or take them out of \
             discord.intents; Discord closes with 4014 otherwise",
        ),
    }
}

fn allowed(name: &str, granted: Intents) -> bool {
    Intents::from_names([name])
        .is_ok_and(|intent| !Intents::PRIVILEGED.contains(intent) || granted.contains(intent))
}

fn port(address: SocketAddr, setting: &str) -> Finding {
    match bind(address, setting) {
        Ok(_) => Finding::Well(address.to_string()),
        Err(error) => {
            broken_of(error.to_string(), "a running Holdfast holds its ports too: end it first to be sure")
        }
    }
}

/// Tries what the log will do: make the folder and write a file into it.
fn folder(folder: &Path) -> Finding {
    let existed = folder.is_dir();
    let probe = folder.join(".doctor");
    let tried = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, b"probe"))
        .and_then(|()| std::fs::remove_file(&probe));
    if !existed {
        // Only ever removes an empty folder; one that can't be removed does no harm.
        let _ = std::fs::remove_dir(folder);
    }
    match tried {
        Ok(()) => Finding::Well(folder.display().to_string()),
        Err(error) => broken_of(
            format!("cannot write to {}: {error}", folder.display()),
            "give the folder to the user that runs Holdfast, or name another in ws.state_dir",
        ),
    }
}

fn files(limit: u64, clients: u64) -> Finding {
    let needed = clients + OTHER_FILES;
    match limit >= needed {
        true => Finding::Well(limit.to_string()),
        false => warning_of(
            format!("{limit} may be open, {needed} are needed for ws.max_clients"),
            &format!("raise it (ulimit -n {needed}, LimitNOFILE= in systemd), or lower ws.max_clients"),
        ),
    }
}

fn mend_of(error: &RestError) -> &'static str {
    match error {
        RestError::Unauthorized | RestError::Token => {
            "reset the token in the Developer Portal and set it anew"
        }
        RestError::Unreachable { .. } | RestError::TimedOut { .. } => {
            "let this machine reach discord.api_url: name resolution, firewall, proxy"
        }
        RestError::RateLimited { .. } => "wait that long",
        _ => "check discord.api_url",
    }
}

fn warning_of(what: String, mend: &str) -> Finding {
    Finding::Warning { what, mend: mend.to_owned() }
}

fn broken_of(what: String, mend: &str) -> Finding {
    Finding::Broken { what, mend: mend.to_owned() }
}

impl Report {
    fn add(&mut self, check: &'static str, finding: Finding) {
        self.findings.push((check, finding));
    }

    fn is_broken(&self) -> bool {
        self.findings.iter().any(|(_, finding)| matches!(finding, Finding::Broken { .. }))
    }

    fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        for (check, finding) in &self.findings {
            match finding {
                Finding::Well(what) => writeln!(out, "ok       {check:<16} {what}")?,
                Finding::Warning { what, mend } => {
                    writeln!(out, "warning  {check:<16} {what}\n{:26}mend: {mend}", "")?;
                }
                Finding::Broken { what, mend } => {
                    writeln!(out, "BROKEN   {check:<16} {what}\n{:26}mend: {mend}", "")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
