// SPDX-License-Identifier: AGPL-3.0-only
//! One gateway connection, from the upgrade to its end.
//!
//! In: a TCP stream. Out: what the session holds, in batches of one write; what the client sent goes to `commands`.
//! One task per connection owns everything here; it ends with the socket or with the simulator.
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{Limits as FrameLimits, Message, ServerBuilder, WebSocketStream};

use crate::encode::{self, Encoder, Encoding};
use crate::faults::{Cut, FaultKind, Lasting};
use crate::hub::{Command, Hub, lock};
use crate::session::{Session, Taken};
use crate::socket::{Inbound, Query, finish, write_all};

/// Bytes taken from a session at a time; a connection holds at most about twice that.
const BATCH: usize = 128 << 10;
/// How long a client may take to upgrade, and to answer a close frame.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// What a client may send in one frame before the frame itself is refused; 4,096 bytes are checked on top.
const MAX_FRAME: usize = 64 << 10;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed or vanished; with a close frame, its code.
    Peer(Option<u16>),
    Cut(Cut),
    /// The simulator stops.
    Stopped,
}

/// Everything that can happen to a connection.
enum Next {
    Stop,
    Command(Option<Command>),
    Message(Option<Result<Message, tokio_websockets::Error>>),
    Writable(io::Result<()>),
    Woken,
    Timer,
}

/// A close frame has been queued.
pub(crate) struct Closing {
    until: Instant,
}

/// A live connection.
pub(crate) struct Connection {
    pub(crate) hub: Arc<Hub>,
    pub(crate) id: u64,
    tcp: Arc<TcpStream>,
    socket: WebSocketStream<Inbound>,
    replies: Arc<Mutex<Vec<u8>>>,
    pub(crate) encoder: Encoder,
    pub(crate) out: Vec<u8>,
    written: usize,
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) shard: Option<[u32; 2]>,
    pub(crate) sends: VecDeque<Instant>,
    pub(crate) last_heartbeat: Instant,
    pub(crate) lasting: Vec<Lasting>,
    pub(crate) acks: VecDeque<Instant>,
    pub(crate) by_resume_url: bool,
    closing: Option<Closing>,
    peer_code: Option<u16>,
    pub(crate) cut_at: Option<(Instant, Cut)>,
}

/// Accepts the upgrade and serves the connection to its end.
pub(crate) async fn serve(hub: Arc<Hub>, tcp: TcpStream, by_resume_url: bool, stop: CancellationToken) {
    let tcp = Arc::new(tcp);
    let _ = tcp.set_nodelay(true);
    let refused = lock(&hub.faults).on(None, Instant::now()).iter().any(|f| f.kind == FaultKind::Refuse);
    if refused {
        return finish(tcp, End::Cut(Cut::Rst)).await;
    }
    let (id, commands) = hub.attach();
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        opened = tokio::time::timeout(PATIENCE, open(Arc::clone(&hub), id, Arc::clone(&tcp), by_resume_url)) => {
            opened.ok().flatten()
        }
    };
    let end = match opened {
        Some(mut connection) => {
            let end = connection.run(commands, stop).await;
            connection.leave(end);
            end
        }
        None => End::Peer(None),
    };
    hub.detach(id);
    finish(tcp, end).await;
}

/// The WebSocket handshake, then HELLO or the close that the query earns.
async fn open(hub: Arc<Hub>, id: u64, tcp: Arc<TcpStream>, by_resume_url: bool) -> Option<Connection> {
    let replies = Arc::new(Mutex::new(Vec::new()));
    let inbound = Inbound { tcp: Arc::clone(&tcp), replies: Arc::clone(&replies) };
    let builder = ServerBuilder::new().limits(FrameLimits::default().max_payload_len(Some(MAX_FRAME)));
    let accepted = builder.accept(inbound).await;
    let response = std::mem::take(&mut *lock(&replies));
    write_all(&tcp, &response).await.ok()?;
    let (request, socket) = accepted.ok()?;
    let limits = hub.limits();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let encoding = if query.encoding.as_deref() == Some("etf") { Encoding::Etf } else { Encoding::Json };
    let encoder = Encoder::new(encoding, query.compress.as_deref(), &limits).ok()?;
    let lasting = lock(&hub.faults).on(None, Instant::now());
    let mut connection = Connection {
        lasting,
        hub,
        id,
        tcp,
        socket,
        replies,
        encoder,
        out: Vec::new(),
        written: 0,
        session: None,
        shard: None,
        sends: VecDeque::new(),
        last_heartbeat: Instant::now(),
        acks: VecDeque::new(),
        by_resume_url,
        closing: None,
        peer_code: None,
        cut_at: None,
    };
    match query.fault() {
        Some((code, reason)) => connection.close(code, reason),
        None => {
            let hello = format!(
                r#"{{"t":null,"s":null,"op":10,"d":{{"heartbeat_interval":{},"_trace":["[\"gateway-sim\",{{\"micros\":0.0}}]"]}}}}"#,
                limits.heartbeat_interval_ms
            );
            connection.send(hello.as_bytes());
        }
    }
    Some(connection)
}

impl Connection {
    async fn run(&mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) -> End {
        loop {
            self.fill();
            let next = self.next(&mut commands, &stop).await;
            if let Some(end) = self.handle(next) {
                return end;
            }
        }
    }

    /// Waits for what comes first; stopping and faults go before the client, the client before writing.
    async fn next(&mut self, commands: &mut mpsc::Receiver<Command>, stop: &CancellationToken) -> Next {
        let now = Instant::now();
        let (silent, slow) = (self.hit(FaultKind::Silence, now), self.hit(FaultKind::SlowRead, now));
        let session = self.session.clone();
        let backlog = self.backlog();
        let deadline = self.deadline();
        let tcp = Arc::clone(&self.tcp);
        tokio::select! {
            biased;
            () = stop.cancelled() => Next::Stop,
            command = commands.recv() => Next::Command(command),
            message = self.socket.next(), if !slow => Next::Message(message),
            ready = tcp.writable(), if backlog > 0 && !silent => Next::Writable(ready),
            () = woken(session.as_deref()), if backlog < BATCH => Next::Woken,
            () = tokio::time::sleep_until(deadline.into()) => Next::Timer,
        }
    }

    fn handle(&mut self, next: Next) -> Option<End> {
        match next {
            Next::Stop => Some(End::Stopped),
            Next::Command(None) => Some(End::Stopped),
            Next::Command(Some(command)) => self.command(command),
            Next::Message(None) => {
                self.flush();
                Some(End::Peer(self.peer_code))
            }
            Next::Message(Some(Err(error))) => {
                // A connection that breaks is no offence, a frame that isn't one is.
                if !matches!(error, tokio_websockets::Error::Io(_)) {
                    self.note("websocket", error.to_string());
                }
                self.flush();
                Some(End::Peer(None))
            }
            Next::Message(Some(Ok(message))) => self.message(&message),
            Next::Writable(Err(_)) => Some(End::Peer(None)),
            Next::Writable(Ok(())) => {
                if self.flush() {
                    None
                } else {
                    Some(End::Peer(None))
                }
            }
            Next::Woken => None,
            Next::Timer => self.timer(Instant::now()),
        }
    }

    fn message(&mut self, message: &Message) -> Option<End> {
        self.collect_replies();
        if let Some((code, _)) = message.as_close() {
            // The library answers at its next turn, then ends. Whoever closed first names the code that counts.
            self.peer_code = self.closing.is_none().then(|| u16::from(code));
            return None;
        }
        if self.closing.is_none() && self.peer_code.is_none() && (message.is_text() || message.is_binary()) {
            self.receive(message.as_payload(), message.is_binary());
        }
        self.flush();
        None
    }

    /// Moves events of the session into the write buffer, and writes what fits without waiting.
    fn fill(&mut self) {
        self.collect_replies();
        let now = Instant::now();
        while let Some(session) = self.session.clone() {
            if self.closing.is_some()
                || self.peer_code.is_some()
                || self.backlog() >= BATCH
                || self.hit(FaultKind::Silence, now)
                || (self.hit(FaultKind::HoldReady, now) && !session.has_begun())
            {
                break;
            }
            match session.take(self.id, BATCH) {
                Taken::Events(events) => {
                    for event in events {
                        self.encoder.dispatch(event.sequence, &event.name, &event.data, &mut self.out);
                    }
                    self.flush();
                }
                Taken::Guild(guild) => self.hub.announce(&session, guild),
                Taken::Nothing => break,
                Taken::Lost => {
                    self.note("too_slow", "events left the buffer before they were read".to_owned());
                    self.hub.end_session(&session.id);
                    self.session = None;
                    self.close(4000, "Unknown error");
                }
                Taken::NotYours => {
                    self.session = None;
                    self.close(4000, "Session resumed elsewhere");
                }
            }
        }
        if self.backlog() > 0 {
            self.flush();
        }
    }

    /// When something is due without anything happening.
    fn deadline(&self) -> Instant {
        let mut deadline = self.heartbeat_deadline();
        if let Some(closing) = &self.closing {
            deadline = closing.until;
        }
        let others = self.acks.front().copied().into_iter().chain(self.cut_at.map(|(at, _)| at));
        let lasting = self.lasting.iter().filter_map(|fault| fault.until);
        others.chain(lasting).fold(deadline, Instant::min)
    }

    fn timer(&mut self, now: Instant) -> Option<End> {
        self.lasting.retain(|fault| fault.until.is_none_or(|until| until > now));
        if let Some((at, cut)) = self.cut_at
            && at <= now
        {
            return Some(End::Cut(cut));
        }
        while self.acks.front().is_some_and(|at| *at <= now) {
            self.acks.pop_front();
            self.acknowledge_heartbeat();
        }
        match &self.closing {
            Some(closing) if closing.until <= now => Some(End::Cut(Cut::Fin)),
            None if self.heartbeat_deadline() <= now => {
                self.note("missed_heartbeat", "no heartbeat in time".to_owned());
                self.close(4009, "Session timed out.");
                None
            }
            _ => None,
        }
    }

    /// Half an interval of tolerance, and a little for very short intervals.
    fn heartbeat_deadline(&self) -> Instant {
        let interval = Duration::from_millis(self.hub.limits().heartbeat_interval_ms);
        self.last_heartbeat + interval + (interval / 2).max(Duration::from_millis(500))
    }

    /// Queues one payload.
    pub(crate) fn send(&mut self, json: &[u8]) {
        self.encoder.payload(json, &mut self.out);
    }

    /// Queues a close frame; nothing follows it. What becomes of the session depends on the code
    /// (topics/opcodes-and-status-codes, "Gateway Close Event Codes").
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let ends = !matches!(code, 4000..=4003 | 4005 | 4008 | 1000..=3999);
        if let (true, Some(session)) = (ends, self.session.take()) {
            self.hub.end_session(&session.id);
        }
        encode::frame_header(&mut self.out, encode::CLOSE, 2 + reason.len());
        self.out.extend_from_slice(&code.to_be_bytes());
        self.out.extend_from_slice(reason.as_bytes());
        self.closing = Some(Closing { until: Instant::now() + PATIENCE });
        self.flush();
    }

    pub(crate) fn note(&self, kind: &str, detail: String) {
        self.hub.violation(self.id, self.shard, kind, detail);
    }

    pub(crate) fn hit(&self, kind: FaultKind, now: Instant) -> bool {
        self.lasting.iter().any(|fault| fault.kind == kind && fault.until.is_none_or(|until| until > now))
    }

    pub(crate) fn reload_faults(&mut self) {
        self.lasting = lock(&self.hub.faults).on(self.shard.map(|[id, _]| id), Instant::now());
    }

    fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    fn collect_replies(&mut self) {
        let mut replies = lock(&self.replies);
        if self.closing.is_none() {
            self.out.append(&mut replies);
        }
        replies.clear();
    }

    /// Writes as much as the socket takes; false when it is gone.
    pub(crate) fn flush(&mut self) -> bool {
        if self.hit(FaultKind::Silence, Instant::now()) {
            return true;
        }
        self.collect_replies();
        while self.written < self.out.len() {
            match self.tcp.try_write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > 4 * BATCH {
            self.out.drain(..self.written);
            self.written = 0;
        }
        true
    }

    /// What becomes of the session when the connection is gone.
    fn leave(&mut self, end: End) {
        let Some(session) = self.session.take() else { return };
        // Closing with 1000 or 1001 ends the session (events/gateway, "Initiating a Disconnect").
        if matches!(end, End::Peer(Some(1000 | 1001))) {
            self.hub.end_session(&session.id);
        } else {
            session.leave(self.id);
        }
    }
}

async fn woken(session: Option<&Session>) {
    match session {
        Some(session) => session.wake.notified().await,
        None => std::future::pending().await,
    }
}
