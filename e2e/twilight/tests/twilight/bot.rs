// SPDX-License-Identifier: AGPL-3.0-only
//! A bot as twilight's users write it: a shard, read in a loop. Every event is decoded into twilight's own
//! types; one that those refuse fails the test.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures_util::StreamExt;
use serde_json::Value;
use tokio::select;
use twilight_gateway::{
    ConfigBuilder, Event, EventTypeFlags, Intents, Message, Shard, ShardId, error::ReceiveMessageErrorType,
    parse, queue::InMemoryQueue,
};
use twilight_model::{
    gateway::payload::incoming::{GuildCreate, Ready},
    guild::Guild,
};

use crate::{ledger::Ledger, stage::within};

/// A shard and what it got.
pub(crate) struct Bot {
    pub(crate) shard: Shard,
    pub(crate) ledger: Ledger,
    /// Dispatches by name.
    pub(crate) seen: BTreeMap<String, u64>,
    /// Close codes, none for a connection that ended without one that it understood.
    pub(crate) closes: Vec<Option<u16>>,
    sequence: u64,
}

impl Bot {
    /// Not connected before it is read.
    pub(crate) fn new(url: &str, token: &str, id: ShardId) -> Self {
        Self::with_config(id, config(url, token))
    }

    /// The next life of a bot that ended without a word, but had written down its session.
    pub(crate) fn with_the_session_of(earlier: Self, url: &str, token: &str) -> Self {
        let session = earlier.shard.session().expect("it was connected").clone();
        let resume_url = earlier.shard.resume_url().expect("it was connected").to_owned();
        let config = config(url, token).session(session).resume_url(resume_url);
        let (ledger, sequence) = (earlier.ledger, earlier.sequence);
        Self { ledger, sequence, ..Self::with_config(earlier.shard.id(), config) }
    }

    fn with_config(id: ShardId, config: ConfigBuilder) -> Self {
        Self {
            shard: Shard::with_config(id, config.build()),
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            closes: Vec::new(),
            sequence: 0,
        }
    }

    /// The next event or close; none when twilight has given up.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        within("an event", self.read()).await
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            match self.shard.next().await? {
                Ok(Message::Close(frame)) => {
                    self.closes.push(frame.as_ref().map(|frame| frame.code));
                    return Some(Event::GatewayClose(frame));
                }
                Ok(Message::Text(text)) => {
                    self.note(&text);
                    match parse(text, EventTypeFlags::all()) {
                        Ok(Some(event)) => return Some(event.into()),
                        // Twilight doesn't know it and leaves it out.
                        Ok(None) => {}
                        Err(error) => panic!("twilight can't read {error:?}"),
                    }
                }
                // Refused connections are tried again by the library.
                Err(error) if matches!(error.kind(), ReceiveMessageErrorType::Reconnect) => {}
                Err(error) => panic!("twilight: {error:?}"),
            }
        }
    }

    /// Reads until an event is the wanted one.
    pub(crate) async fn until<T>(&mut self, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("twilight gave up before {what}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Reads READY, and then every guild that it names.
    pub(crate) async fn connected(&mut self) -> (Ready, Vec<Guild>) {
        let ready = self
            .until("READY", |event| match event {
                Event::Ready(ready) => Some(ready),
                Event::GuildCreate(_) => panic!("a guild before READY"),
                _ => None,
            })
            .await;
        let mut guilds = Vec::new();
        while guilds.len() < ready.guilds.len() {
            let guild = self.until("GUILD_CREATE", |event| match event {
                Event::GuildCreate(guild) => Some(*guild),
                _ => None,
            });
            match guild.await {
                GuildCreate::Available(guild) => guilds.push(guild),
                GuildCreate::Unavailable(guild) => panic!("{guild:?}"),
            }
        }
        (ready, guilds)
    }

    /// Reads until a session was resumed.
    pub(crate) async fn resumed(&mut self) {
        self.until("RESUMED", |event| matches!(event, Event::Resumed).then_some(())).await;
    }

    /// Reads until so many messages have come.
    pub(crate) async fn until_messages(&mut self, count: usize) {
        while self.ledger.count() < count {
            self.next().await.expect("more messages come");
        }
    }

    /// Reads until the last of these messages is there.
    pub(crate) async fn until_last(&mut self, sent: &BTreeMap<String, u64>) {
        while !self.ledger.has_last(sent) {
            self.next().await.expect("the rest of the messages comes");
        }
    }

    /// Reads on while something else is waited for.
    pub(crate) async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        loop {
            select! {
                output = &mut something => return output,
                event = self.next() => assert!(event.is_some(), "twilight gave up"),
            }
        }
    }

    /// Reads until twilight gives up for good; the last close code.
    pub(crate) async fn given_up(mut self) -> Option<u16> {
        while self.next().await.is_some() {}
        self.closes.last().copied().flatten()
    }

    /// How many dispatches of this name came.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.seen.get(name).copied().unwrap_or(0)
    }

    fn note(&mut self, text: &str) {
        let payload: Value = serde_json::from_str(text).expect("payloads are JSON");
        let Some(name) = payload["t"].as_str() else { return };
        let sequence = payload["s"].as_u64().expect("dispatches have a sequence");
        assert!(name == "READY" || sequence >= self.sequence, "{name}: {sequence} after {}", self.sequence);
        self.sequence = sequence;
        *self.seen.entry(name.to_owned()).or_default() += 1;
        if name == "MESSAGE_CREATE" {
            self.ledger.note(payload["d"]["content"].as_str().unwrap_or_default());
        }
    }
}

/// The lines of docs/guides/connect.md.
fn config(url: &str, token: &str) -> ConfigBuilder {
    ConfigBuilder::new(token.to_owned(), Intents::all()).proxy_url(url.to_owned()).queue(InMemoryQueue::new(
        0,
        0,
        Duration::ZERO,
        0,
    ))
}
