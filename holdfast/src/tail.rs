// SPDX-License-Identifier: AGPL-3.0-only
//! `tail`: events as they pass, one line each. In: the settings, a [`Filter`]. Out: lines on standard output, notices
//! and a summary on standard error. Events come from the broker (`broker.rs`) or from the WebSocket front
//! (`front.rs`), through one bounded queue; whoever watches holds up nobody.

mod broker;
mod event;
mod filter;
mod front;
mod printer;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_service::process::SettingsFlag;
use holdfast_service::settings::Problems;
use holdfast_service::{Exit, Service, drain};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::event::Event;
use self::filter::Filter;
use self::front::Front;
use self::printer::Printer;
use crate::args::{Source, Tail};
use crate::services::{ALL, Settings};

/// Events between their source and the printer. A terminal that stands still stops the source, never the shard.
const QUEUE: usize = 1024;

/// How long connections may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What a source has to say.
enum Item {
    Event(Event),
    /// For the person who watches.
    Notice(String),
    /// The source has ended for good.
    Failed(Failure),
}

/// Why nothing can be watched, and what the process ends with.
struct Failure {
    what: String,
    exit: Exit,
}

/// What has been shown.
struct Tally {
    since: Instant,
    events: u64,
    bytes: u64,
}

/// The command `tail`.
pub(crate) async fn run(flag: &SettingsFlag, options: &Tail) -> anyhow::Result<Exit> {
    let written = match ALL.find(flag) {
        Ok(written) => written,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let mut reading = ALL.read(&written.document);
    let source = match source(options, &reading.value) {
        Ok(source) => source,
        Err(failure) => return Ok(failure.said()),
    };
    if source == Source::Broker {
        // It is asked for the broker's password, not for the bot's token.
        reading.problems.retain(|problem| problem.path != "discord.token");
    }
    if !reading.problems.is_empty() {
        return Ok(ALL.refuse(&Problems(reading.problems)));
    }
    let service = Service::new(CancellationToken::new());
    let stop = CancellationToken::new();
    drain::on_signals(stop.clone(), &service.tasks)?;
    let mut printer = Printer::new(options.json, options.secrets);
    let exit = tokio::select! {
        biased;
        () = stop.cancelled() => Exit::Ok,
        exit = watch(source, &reading.value, options, &service, &mut printer) => exit?,
    };
    // What isn't closed in order by then closes with the process.
    let _ = service.tasks.finish(CLOSE_WITHIN).await;
    Ok(exit)
}

/// Where events are watched: what was asked for, else the broker, if there is one.
fn source(options: &Tail, settings: &Settings) -> Result<Source, Failure> {
    let broker = settings.services.ws.broker.is_some();
    match (options.source, &options.url) {
        (Some(Source::Broker), Some(_)) => {
            Err(Failure::usage("--url is the WebSocket front's address: leave it out, or --source broker"))
        }
        (Some(Source::Broker), None) if !broker => Err(Failure::usage(
            "no broker in the settings: add the section [broker], or watch with --source front",
        )),
        (Some(source), _) => Ok(source),
        (None, None) if broker => Ok(Source::Broker),
        (None, _) => Ok(Source::Front),
    }
}

/// Until the source fails, or nobody reads any more.
async fn watch(
    source: Source,
    settings: &Settings,
    options: &Tail,
    service: &Service,
    printer: &mut Printer,
) -> io::Result<Exit> {
    let filter = Arc::new(Filter::of(options));
    for name in filter.unknown_events() {
        notice(&format!(
            "{name} is no event that this version knows: only events of exactly this name are shown"
        ));
    }
    let (items, mut queue) = mpsc::channel(QUEUE);
    let ws = &settings.services.ws;
    let begun = match (source, &ws.broker) {
        (Source::Broker, Some(broker)) => broker::watch(broker, filter, items, service).await,
        _ => {
            let url = options.url.as_deref().unwrap_or(&ws.public_url);
            let count = shard_count(settings, options).await;
            Front::new(url, &ws.discord.token, filter, items, &service.tasks).watch(count).await
        }
    };
    match begun {
        Ok(what) => notice(&format!("watching {what}; times are UTC, Ctrl-C ends it")),
        Err(failure) => return Ok(failure.said()),
    }
    let mut tally = Tally { since: Instant::now(), events: 0, bytes: 0 };
    while let Some(item) = queue.recv().await {
        match item {
            Item::Event(event) => {
                tally.count(&event);
                match printer.print(&event) {
                    // Whoever read has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
                    printed => printed?,
                }
            }
            Item::Notice(what) => notice(&what),
            Item::Failed(failure) => return Ok(failure.said()),
        }
    }
    Ok(Failure::error("nothing is left to watch").said())
}

/// The number of shards, if the settings or the Holdfast that they describe know it.
async fn shard_count(settings: &Settings, options: &Tail) -> Option<u32> {
    let admin = &settings.admin;
    match settings.services.ws.shards.total {
        None if admin.enabled && options.url.is_none() => front::ask_count(admin.listen).await,
        total => total,
    }
}

impl Failure {
    /// Trying again may help.
    fn error(what: impl Into<String>) -> Self {
        Self { what: what.into(), exit: Exit::Error }
    }

    /// The arguments or settings are wrong.
    fn usage(what: impl Into<String>) -> Self {
        Self { what: what.into(), exit: Exit::Usage }
    }

    fn said(self) -> Exit {
        notice(&self.what);
        self.exit
    }
}

impl Tally {
    fn count(&mut self, event: &Event) {
        self.events += 1;
        self.bytes += event.data.len() as u64;
    }
}

/// The summary, however the watching ended.
impl Drop for Tally {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        let (events, kilobytes) = (self.events, self.bytes / 1000);
        let rate = events as f64 / seconds.max(0.001);
        notice(&format!("{events} events in {seconds:.1} s ({rate:.1} a second), {kilobytes} kB"));
    }
}

fn notice(what: &str) {
    // Standard error may be closed; there is nobody left to tell then.
    let _ = writeln!(io::stderr(), "{}: {what}", ALL.name);
}
