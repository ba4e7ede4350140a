// SPDX-License-Identifier: AGPL-3.0-only
//! What a run leaves at the broker and in the store, and its removal.
//! In: their addresses. Out: a prefix that nobody else has; all below it goes with the handle, or on a signal.

use std::{
    collections::BTreeMap,
    iter,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lapin::{
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
    types::ShortString,
};
use tokio::time::timeout;

use crate::amqp;

/// Exchanges that services declare, below their prefix.
const EXCHANGES: [&str; 6] = ["events", "dead", "commands", "requests", "interactions", "webhook-events"];
/// Queues that stay when these end.
const QUEUES: [&str; 3] = ["commands.guild", "requests.state", "interactions.late"];
/// Longest time for all of them.
const REMOVING: Duration = Duration::from_secs(30);
/// Keys in one command.
const KEYS: usize = 500;

/// Where a run works besides this machine's memory and files.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// RabbitMQ's address.
    pub(crate) broker: String,
    /// Redis's, if it is used.
    pub(crate) store: Option<String>,
}

/// Everything that is there now, by prefix.
#[derive(Clone, Default)]
pub(crate) struct Traces(Arc<Mutex<BTreeMap<String, Places>>>);

/// A prefix, whose traces go when this is dropped. To be dropped after the processes that use it.
pub(crate) struct Prefix {
    /// The prefix.
    pub(crate) name: String,
    traces: Traces,
}

impl Traces {
    /// A prefix of its own.
    pub(crate) fn prefix(&self, places: Places) -> Prefix {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{number}", std::process::id());
        self.lock().insert(name.clone(), places);
        Prefix { name, traces: self.clone() }
    }

    /// Removes everything.
    pub(crate) fn remove_all(&self) {
        let all = self.lock().clone();
        for (prefix, places) in all {
            remove(&prefix, &places);
            self.lock().remove(&prefix);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let places = self.traces.lock().get(&self.name).cloned();
        if let Some(places) = places {
            remove(&self.name, &places);
            // Not before: on a signal the process ends when nothing is known to be left.
            self.traces.lock().remove(&self.name);
        }
    }
}

fn remove(prefix: &str, places: &Places) {
    if let Err(error) = remove_from_broker(prefix, &places.broker) {
        eprintln!("what begins with {prefix} stays at the broker: {error:#}");
    }
    if let Some(store) = &places.store
        && let Err(error) = remove_from_store(prefix, store)
    {
        eprintln!("keys that begin with {prefix} stay in the store: {error:#}");
    }
}

fn remove_from_broker(prefix: &str, broker: &str) -> Result<()> {
    let removing = async {
        let (connection, channel) = amqp::connect(broker).await?;
        let name = |name: &str| ShortString::try_new(format!("{prefix}.{name}"));
        // One that isn't there counts as removed.
        for exchange in EXCHANGES {
            channel.exchange_delete(name(exchange)?, ExchangeDeleteOptions::default()).await?;
        }
        for queue in QUEUES {
            channel.queue_delete(name(queue)?, QueueDeleteOptions::default()).await?;
        }
        connection.close(200, "OK".into()).await?;
        anyhow::Ok(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(REMOVING, removing).await.context("it takes too long")? })
}

fn remove_from_store(prefix: &str, store: &str) -> Result<()> {
    let keys = ask(store, &["--scan", "--pattern", &format!("{prefix}:*")])?;
    let keys: Vec<&str> = keys.lines().collect();
    for some in keys.chunks(KEYS) {
        let words: Vec<&str> = iter::once("DEL").chain(some.iter().copied()).collect();
        ask(store, &words)?;
    }
    Ok(())
}

/// What the store says to a command, by the client that comes with it.
pub(crate) fn ask(store: &str, words: &[&str]) -> Result<String> {
    let asked = Command::new("redis-cli").args(["-u", store, "--raw"]).args(words).output();
    let asked = asked.context("starting redis-cli")?;
    if !asked.status.success() {
        bail!("redis-cli: {}", String::from_utf8_lossy(&asked.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use lapin::{ExchangeKind, options::ExchangeDeclareOptions, types::FieldTable};

    use super::*;

    const BROKER: &str = "amqp://guest:guest@localhost:5672";
    const STORE: &str = "redis://localhost:6379";

    #[test]
    fn what_is_below_a_prefix_goes_with_its_handle_and_nothing_else() {
        let traces = Traces::default();
        let (gone, kept) = (traces.prefix(places()), traces.prefix(places()));
        for prefix in [&gone, &kept] {
            leave(prefix);
        }
        let name = gone.name.clone();
        drop(gone);
        assert_eq!((is_declared(&name), keys(&name)), (false, 0));
        assert_eq!((is_declared(&kept.name), keys(&kept.name)), (true, 1));
    }

    #[test]
    fn on_a_signal_everything_goes_and_the_handles_have_nothing_left_to_do() {
        let traces = Traces::default();
        let prefix = traces.prefix(places());
        leave(&prefix);
        traces.remove_all();
        assert_eq!((is_declared(&prefix.name), keys(&prefix.name)), (false, 0));
        leave(&prefix);
        let name = prefix.name.clone();
        drop(prefix);
        assert_eq!(keys(&name), 1);
        remove(&name, &places());
    }

    fn places() -> Places {
        Places { broker: BROKER.to_owned(), store: Some(STORE.to_owned()) }
    }

    fn leave(prefix: &Prefix) {
        ask(STORE, &["SET", &format!("{}:{{1:0/1}}:lease", prefix.name), "1"]).unwrap();
        declare(&prefix.name, ExchangeDeclareOptions { durable: true, ..Default::default() }).unwrap();
    }

    fn is_declared(prefix: &str) -> bool {
        declare(prefix, ExchangeDeclareOptions { durable: true, passive: true, ..Default::default() }).is_ok()
    }

    fn declare(prefix: &str, options: ExchangeDeclareOptions) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (_connection, channel) = amqp::connect(BROKER).await?;
            let name = ShortString::try_new(format!("{prefix}.events"))?;
            channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default()).await?;
            Ok(())
        })
    }

    fn keys(prefix: &str) -> usize {
        ask(STORE, &["--scan", "--pattern", &format!("{prefix}:*")]).unwrap().lines().count()
    }
}
