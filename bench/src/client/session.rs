// SPDX-License-Identifier: AGPL-3.0-only
//! One bot's connection: HELLO, IDENTIFY, heartbeats, and every event counted.
//! In: messages of the gateway. Out: calls of the shared recorder, frames for the writer.
//! Two tasks per connection: this reader, and a writer that also keeps the heartbeat.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::tcp::OwnedWriteHalf,
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    ALL_INTENTS,
    inflate::{Compression, Inflater},
    payload::{Head, guilds_listed, heartbeat_interval, numbered, sent_at},
    record::Recorder,
    websocket::{Message, Reader, pong, text},
};

/// Answers that wait for the writer; a server that makes more of them necessary is not read on.
const ANSWERS: usize = 16;

/// A connection that has had HELLO.
pub(crate) struct Session {
    reader: Reader,
    writer: OwnedWriteHalf,
    inflater: Inflater,
    interval: Duration,
    shard: u32,
    recorder: Rc<RefCell<Recorder>>,
}

impl Session {
    /// Connects and waits for HELLO.
    pub(crate) async fn connect(
        address: SocketAddr,
        shard: u32,
        compression: Compression,
        recorder: Rc<RefCell<Recorder>>,
    ) -> Result<Self> {
        let query = format!("?v=10&encoding=json{}", compression.query());
        let (mut reader, writer) = Reader::connect(address, &query).await?;
        let mut inflater = Inflater::new(compression)?;
        let mut inflated = Vec::new();
        loop {
            match reader.next()? {
                None => reader.fill().await?,
                Some(Message::Data { payload, .. }) => {
                    let hello = inflater.payload(payload, &mut inflated)?;
                    let millis = heartbeat_interval(hello).context("the first message is not HELLO")?;
                    let interval = Duration::from_millis(millis);
                    return Ok(Self { reader, writer, inflater, interval, shard, recorder });
                }
                Some(Message::Ping(_)) => {}
                Some(Message::Close(code, reason)) => bail!("closed before HELLO: {code} {reason}"),
            }
        }
    }

    /// The IDENTIFY of this connection, for a bot with `shards` shards.
    pub(crate) fn identify(&self, token: &str, shards: u32) -> Vec<u8> {
        let identify = json!({ "op": 2, "d": {
            "token": token,
            "intents": ALL_INTENTS,
            "shard": [self.shard, shards],
            "large_threshold": 250,
            "properties": { "os": "linux", "browser": "holdfast-bench", "device": "holdfast-bench" },
        }});
        text(identify.to_string().as_bytes())
    }

    /// Identifies, then reads until the connection ends; `number` tells connections of the process apart.
    pub(super) async fn run(self, identify: Vec<u8>, number: usize) {
        let (shard, recorder) = (self.shard, Rc::clone(&self.recorder));
        let mut opened = self.open(identify, number);
        let Err(error) = read(&mut opened).await;
        recorder.borrow_mut().closed(format!("shard {shard}: {error:#}"));
    }

    /// Identifies; what is read is up to the caller.
    pub(crate) fn open(self, identify: Vec<u8>, number: usize) -> Opened {
        let Self { reader, writer, inflater, interval, recorder, .. } = self;
        let (answers, waiting) = channel(ANSWERS);
        let sequence = Rc::new(Cell::new(None));
        let writing =
            tokio::task::spawn_local(write(writer, identify, waiting, interval, Rc::clone(&sequence)));
        let events = Events { number, recorder, sequence, answers, listed: None, guilds: 0, is_ready: false };
        Opened { reader, inflater, events, _writing: Writing(writing) }
    }
}

/// A connection that identifies.
pub(crate) struct Opened {
    /// What comes in.
    pub(crate) reader: Reader,
    inflater: Inflater,
    /// What is made of it.
    pub(crate) events: Events,
    _writing: Writing,
}

/// The writer's task, which ends with the handle.
struct Writing(JoinHandle<std::io::Result<()>>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(Opened { reader, inflater, events, .. }: &mut Opened) -> Result<Infallible> {
    let mut inflated = Vec::new();
    loop {
        // One clock reading for all that one read brought: that is when it was received.
        let now = micros();
        while let Some(message) = reader.next()? {
            match message {
                Message::Data { payload, wire } => {
                    events.take(inflater.payload(payload, &mut inflated)?, wire, now)?;
                }
                Message::Ping(payload) => events.answer(pong(payload))?,
                Message::Close(code, reason) => bail!("closed: {code} {reason}"),
            }
        }
        reader.fill().await?;
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    identify: Vec<u8>,
    mut waiting: Receiver<Vec<u8>>,
    every: Duration,
    sequence: Rc<Cell<Option<u64>>>,
) -> std::io::Result<()> {
    writer.write_all(&identify).await?;
    let mut heartbeat = interval(every);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and Discord wants no heartbeat at once.
    heartbeat.tick().await;
    loop {
        let frame = tokio::select! {
            biased;
            _ = heartbeat.tick() => beat(sequence.get()),
            answer = waiting.recv() => match answer {
                Some(frame) => frame,
                None => return Ok(()),
            },
        };
        writer.write_all(&frame).await?;
    }
}

fn beat(sequence: Option<u64>) -> Vec<u8> {
    text(json!({ "op": 1, "d": sequence }).to_string().as_bytes())
}

/// Microseconds since 1970.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// What one connection makes of its payloads.
pub(crate) struct Events {
    number: usize,
    recorder: Rc<RefCell<Recorder>>,
    /// The last sequence, for the heartbeat.
    sequence: Rc<Cell<Option<u64>>>,
    answers: Sender<Vec<u8>>,
    /// Guilds that READY listed and that have not come yet; none before READY and after the last guild.
    listed: Option<usize>,
    guilds: usize,
    /// READY and all its guilds have come.
    is_ready: bool,
}

impl Events {
    fn take(&mut self, payload: &[u8], wire: usize, now: u64) -> Result<()> {
        let head = Head::of(payload).context("a payload that is not a gateway's")?;
        match head.op {
            0 => {
                self.sequence.set(head.sequence.or(self.sequence.get()));
                self.dispatch(head.name.unwrap_or_default(), payload, wire, now)
            }
            1 => self.answer(beat(self.sequence.get())),
            7 => bail!("asked to reconnect"),
            9 => bail!("invalid session"),
            _ => Ok(()),
        }
    }

    /// The name of an event that came when all was ready, and that nobody counts; anything else is taken.
    pub(crate) fn pass<'a>(&mut self, payload: &'a [u8], wire: usize, now: u64) -> Result<Option<&'a str>> {
        let head = Head::of(payload).context("a payload that is not a gateway's")?;
        if head.op != 0 || !self.is_ready {
            self.take(payload, wire, now)?;
            return Ok(None);
        }
        self.sequence.set(head.sequence.or(self.sequence.get()));
        Ok(head.name)
    }

    fn dispatch(&mut self, name: &str, payload: &[u8], wire: usize, now: u64) -> Result<()> {
        let mut recorder = self.recorder.borrow_mut();
        let mut sent = None;
        match name {
            "MESSAGE_CREATE" => {
                sent = sent_at(payload);
                if recorder.checks()
                    && let Some((guild, number)) = numbered(payload)
                {
                    recorder.numbered(self.number, guild, number);
                }
                if self.number == 0 {
                    recorder.sample(wire, payload);
                }
            }
            "READY" => {
                let listed = guilds_listed(payload).context("READY without guilds")?;
                self.listed = (listed > 0).then_some(listed);
                if listed == 0 {
                    self.is_ready = true;
                    recorder.ready();
                }
            }
            "GUILD_CREATE" if self.listed.is_some() => {
                recorder.guild(payload.len());
                self.guilds += 1;
                if self.listed == Some(self.guilds) {
                    self.listed = None;
                    self.is_ready = true;
                    recorder.ready();
                }
            }
            _ => {}
        }
        recorder.dispatch(wire, sent, now);
        Ok(())
    }

    /// Has a frame sent.
    pub(crate) fn answer(&self, frame: Vec<u8>) -> Result<()> {
        self.answers.try_send(frame).context("more pings and heartbeat requests than can be answered")
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, task::LocalSet};

    use super::*;

    #[test]
    fn a_connection_is_ready_when_every_listed_guild_has_come() {
        let (mut events, recorder, _answers) = events();
        feed(&mut events, r#"{"t":"READY","s":1,"op":0,"d":{"guilds":[{"id":"1"},{"id":"2"}]}}"#).unwrap();
        feed(&mut events, r#"{"t":"GUILD_CREATE","s":1,"op":0,"d":{"id":"1"}}"#).unwrap();
        assert_eq!(recorder.borrow().progress().0, 0);
        feed(&mut events, r#"{"t":"GUILD_CREATE","s":1,"op":0,"d":{"id":"2"}}"#).unwrap();
        assert_eq!(recorder.borrow().progress().0, 1);
        feed(&mut events, r#"{"t":"GUILD_CREATE","s":2,"op":0,"d":{"id":"3"}}"#).unwrap();
        assert_eq!((recorder.borrow().progress().0, recorder.borrow().guilds().0), (1, 2));
        assert_eq!(events.sequence.get(), Some(2));
    }

    #[test]
    fn a_connection_without_guilds_is_ready_at_once() {
        let (mut events, recorder, _answers) = events();
        feed(&mut events, r#"{"t":"READY","s":1,"op":0,"d":{"guilds":[]}}"#).unwrap();
        assert_eq!(recorder.borrow().progress().0, 1);
    }

    #[test]
    fn events_are_passed_on_once_all_is_ready() {
        let (mut events, recorder, mut answers) = events();
        let mut pass = |payload: &str| events.pass(payload.as_bytes(), 0, 0).unwrap().map(str::to_owned);
        assert_eq!(pass(r#"{"t":"READY","s":1,"op":0,"d":{"guilds":[{"id":"1"}]}}"#), None);
        assert_eq!(pass(r#"{"t":"GUILD_CREATE","s":2,"op":0,"d":{"id":"1"}}"#), None);
        assert_eq!(pass(r#"{"t":"TYPING_START","s":3,"op":0,"d":{}}"#).as_deref(), Some("TYPING_START"));
        assert_eq!(pass(r#"{"t":null,"s":null,"op":1,"d":null}"#), None);
        assert_eq!(answers.try_recv().unwrap(), beat(Some(3)));
        assert_eq!(recorder.borrow_mut().counts().events, 2);
    }

    #[test]
    fn a_heartbeat_request_is_answered_with_the_last_sequence() {
        let (mut events, _recorder, mut answers) = events();
        feed(&mut events, r#"{"t":"TYPING_START","s":7,"op":0,"d":{}}"#).unwrap();
        feed(&mut events, r#"{"t":null,"s":null,"op":1,"d":null}"#).unwrap();
        assert_eq!(answers.try_recv().unwrap(), beat(Some(7)));
    }

    #[test]
    fn being_sent_away_ends_the_connection() {
        let (mut events, ..) = events();
        assert!(feed(&mut events, r#"{"t":null,"s":null,"op":7,"d":null}"#).is_err());
        assert!(feed(&mut events, r#"{"t":null,"s":null,"op":9,"d":false}"#).is_err());
    }

    #[test]
    fn the_age_of_a_message_is_recorded() {
        let (mut events, recorder, _answers) = events();
        feed(&mut events, r#"{"t":"MESSAGE_CREATE","s":3,"op":0,"d":{"nonce":"900"}}"#).unwrap();
        let counts = recorder.borrow_mut().counts();
        assert_eq!((counts.timed, counts.p50), (1, 100));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_gateway_is_greeted_followed_and_its_close_noted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Rc::new(RefCell::new(Recorder::new(true, Compression::None).unwrap()));
        let shared = Rc::clone(&recorder);
        let client = async move {
            let session = Session::connect(address, 3, Compression::None, shared).await.unwrap();
            let identify = session.identify("token", 16);
            session.run(identify, 0).await;
        };
        let ((), identify) =
            LocalSet::new().run_until(async { tokio::join!(client, gateway(listener)) }).await;

        assert!(identify.contains(r#""shard":[3,16]"#), "{identify}");
        let counts = recorder.borrow_mut().counts();
        assert_eq!((counts.events, counts.timed, counts.skipped), (4, 2, 1));
        assert_eq!((counts.closed, counts.why), (1, vec!["shard 3: closed: 4000 bye".to_owned()]));
        assert_eq!(recorder.borrow().progress().0, 1);
    }

    /// Greets one client, sends it a guild and two messages, closes; what the client identified with.
    async fn gateway(listener: TcpListener) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /?v=10&encoding=json HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        stream.write_all(&frame(0x81, br#"{"op":10,"d":{"heartbeat_interval":60000}}"#)).await.unwrap();
        let read = stream.read(&mut request).await.unwrap();
        for payload in [
            r#"{"t":"READY","s":1,"op":0,"d":{"guilds":[{"id":"1"}]}}"#,
            r#"{"t":"GUILD_CREATE","s":2,"op":0,"d":{"id":"1"}}"#,
            r#"{"t":"MESSAGE_CREATE","s":3,"op":0,"d":{"content":"sim 1 4","nonce":"1"}}"#,
            r#"{"t":"MESSAGE_CREATE","s":4,"op":0,"d":{"content":"sim 1 6","nonce":"2"}}"#,
        ] {
            stream.write_all(&frame(0x81, payload.as_bytes())).await.unwrap();
        }
        stream.write_all(&frame(0x88, b"\x0f\xa0bye")).await.unwrap();
        // Eight bytes of header: 126 to 65,535 bytes of payload, and the mask.
        let mask: [u8; 4] = request[4..8].try_into().unwrap();
        let payload = request[8..read].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        String::from_utf8(payload.collect()).unwrap()
    }

    fn events() -> (Events, Rc<RefCell<Recorder>>, Receiver<Vec<u8>>) {
        let recorder = Rc::new(RefCell::new(Recorder::new(true, Compression::None).unwrap()));
        let (answers, waiting) = channel(ANSWERS);
        let sequence = Rc::new(Cell::new(None));
        let shared = Rc::clone(&recorder);
        (
            Events {
                number: 0,
                recorder: shared,
                sequence,
                answers,
                listed: None,
                guilds: 0,
                is_ready: false,
            },
            recorder,
            waiting,
        )
    }

    fn feed(events: &mut Events, payload: &str) -> Result<()> {
        events.take(payload.as_bytes(), payload.len(), 1000)
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, payload.len() as u8], payload].concat()
    }
}
