// SPDX-License-Identifier: AGPL-3.0-only
//! A bot that lives as real ones do: it resumes what it can, identifies where it can't, and is killed and started
//! again. What it got is kept by runs: one from each IDENTIFY to the next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::support::{Client, Ended, Ledger, within};

/// How often it confirms what it has.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What befalls a bot.
#[derive(Debug)]
pub(crate) enum Order {
    /// Its connection is cut; it knows its session and comes back at once.
    Cut,
    /// It is killed and started again so much later, knowing nothing.
    Kill(Duration),
    /// It reads nothing for so long.
    Stall(Duration),
    /// It reads on to the last of these messages, then ends.
    Finish(BTreeMap<String, u64>),
}

/// How far a bot is.
#[derive(Default)]
struct Progress {
    /// Messages, those twice that came twice.
    messages: usize,
    /// The highest number by guild.
    highest: BTreeMap<String, u64>,
}

/// A bot in a task of its own.
pub(crate) struct Bot {
    pub(crate) shard: u32,
    orders: mpsc::Sender<Order>,
    progress: Arc<Mutex<Progress>>,
    task: JoinHandle<Vec<Ledger>>,
}

impl Bot {
    /// Starts it before whatever listens at the front's address, which may change.
    pub(crate) fn start(front: watch::Receiver<String>, shard: [u32; 2], name: &str) -> Self {
        let (orders, received) = mpsc::channel(8);
        let progress = Arc::default();
        let mut client = Client::new(shard);
        name.clone_into(&mut client.name);
        let body = Body {
            client,
            front,
            orders: received,
            runs: Vec::new(),
            progress: Arc::clone(&progress),
            last: None,
        };
        Self { shard: shard[0], orders, progress, task: tokio::spawn(body.live()) }
    }

    pub(crate) async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the bot lives");
    }

    /// How many messages it has got, those twice that came twice.
    pub(crate) fn messages(&self) -> usize {
        assert!(!self.task.is_finished(), "a bot has failed: its panic is above");
        self.progress.lock().expect("no bot panics here").messages
    }

    /// Whether it has got the last of these messages, or later ones.
    pub(crate) fn has(&self, last: &BTreeMap<String, u64>) -> bool {
        let progress = self.progress.lock().expect("no bot panics here");
        last.iter().all(|(guild, last)| progress.highest.get(guild).copied().unwrap_or(0) >= *last)
    }

    /// Reads on to the last of these messages; everything it ever got, by runs.
    pub(crate) async fn finish(self, sent: BTreeMap<String, u64>) -> Vec<Ledger> {
        self.order(Order::Finish(sent)).await;
        within("the last messages", self.task).await.expect("the bot does not fail")
    }
}

struct Body {
    client: Client,
    front: watch::Receiver<String>,
    orders: mpsc::Receiver<Order>,
    /// What earlier runs got.
    runs: Vec<Ledger>,
    progress: Arc<Mutex<Progress>>,
    /// The last messages there will be.
    last: Option<BTreeMap<String, u64>>,
}

impl Body {
    async fn live(mut self) -> Vec<Ledger> {
        loop {
            let url = self.front.borrow().clone();
            let ended = match self.client.try_connect(&url).await {
                Ok(_) => self.connected().await,
                Err(ended) => ended,
            };
            if self.is_done() {
                self.runs.push(self.client.ledger);
                return self.runs;
            }
            match ended {
                // Nobody listens: the service is on its way up, maybe somewhere else.
                Ended::Cut => tokio::time::sleep(Duration::from_millis(20)).await,
                Ended::Closed(4007 | 4009) => self.forget(),
                Ended::Closed(4000 | 1000 | 1001) => {}
                Ended::Closed(code) => panic!("closed with {code}"),
            }
            self.client.cut();
        }
    }

    /// One connection, from HELLO to its end.
    async fn connected(&mut self) -> Ended {
        let first = match self.client.session.is_empty() {
            true => self.client.identify_payload(),
            false => self.client.resume_payload(),
        };
        if let Err(ended) = self.client.try_send(&first).await {
            return ended;
        }
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            let went = tokio::select! { biased;
                Some(order) = self.orders.recv() => self.obey(order).await,
                () = sleep_until(beat) => {
                    beat = Instant::now() + HEARTBEAT;
                    self.beat().await
                }
                payload = self.client.next() => match payload {
                    Ok(payload) => self.take(&payload).await,
                    Err(ended) => Err(ended),
                },
            };
            match went {
                Err(ended) => return ended,
                Ok(()) if self.is_done() => return Ended::Cut,
                Ok(()) => {}
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Ended> {
        match order {
            Order::Cut => Err(Ended::Cut),
            Order::Kill(away) => {
                self.client.cut();
                self.forget();
                // Time that a bot takes to start.
                tokio::time::sleep(away).await;
                Err(Ended::Cut)
            }
            Order::Stall(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Order::Finish(sent) => {
                self.last = Some(sent);
                Ok(())
            }
        }
    }

    async fn take(&mut self, payload: &Value) -> Result<(), Ended> {
        match payload["op"].as_u64() {
            Some(0) if payload["t"] == "READY" => {
                self.client.session = payload["d"]["session_id"].as_str().expect("a session id").to_owned();
            }
            Some(0) if payload["t"] == "MESSAGE_CREATE" => {
                let mut progress = self.progress.lock().expect("no bot panics here");
                progress.messages += 1;
                for (guild, last) in self.client.ledger.last() {
                    let highest = progress.highest.entry(guild).or_default();
                    *highest = last.max(*highest);
                }
            }
            Some(1) => return self.beat().await,
            Some(7) => return Err(Ended::Cut),
            Some(9) => {
                if payload["d"] == false {
                    self.forget();
                }
                return Err(Ended::Cut);
            }
            _ => {}
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), Ended> {
        self.client.try_send(&json!({ "op": 1, "d": self.client.sequence })).await
    }

    /// The next connection identifies, and begins a new run.
    fn forget(&mut self) {
        self.client.session.clear();
        self.client.sequence = 0;
        self.runs.push(std::mem::take(&mut self.client.ledger));
    }

    fn is_done(&self) -> bool {
        self.last.as_ref().is_some_and(|last| self.client.ledger.has_last(last))
    }
}
