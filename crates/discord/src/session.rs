// SPDX-License-Identifier: AGPL-3.0-only
//! The client's side of one gateway session, as a pure state machine.
//!
//! In: payloads with their scanned headers, the transport's closing, time. Out: a [`Step`] each, which
//! the shard's task carries out. Owns the heartbeat's schedule and what is needed to resume.
//! Source: Discord's documentation, "Gateway", sections "Connection Lifecycle" to "Resuming".

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{AfterClose, CloseCode, EventKind, Header};

/// What it takes to resume a session. Its `Debug` shows no secret: a session id lets its holder take the
/// session over.
#[derive(Clone, PartialEq, Eq)]
pub struct Resumable {
    /// Discord's id of the session.
    pub session_id: String,
    /// `resume_gateway_url` of READY.
    pub resume_url: String,
    /// Sequence of the last dispatch that is safely ours.
    pub sequence: u64,
}

impl std::fmt::Debug for Resumable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumable").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What the shard's task has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Ask for an identify permit, then send IDENTIFY and call [`Session::identified`].
    Identify,
    /// Send this payload now (RESUME, a heartbeat).
    Send(Vec<u8>),
    /// READY: a new session has begun. The payload's `d` holds the guilds.
    Ready,
    /// RESUMED: the replay is over.
    Resumed,
    /// An event to be kept and handed out.
    Dispatch,
    /// Close the transport with this code (none: it is gone already) and do as told.
    Reconnect {
        /// Code to close with, in the 4000 range, so that the session lives on.
        close: Option<u16>,
        /// Whether the session goes on or a new one begins.
        next: Next,
    },
}

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Connect to the resume URL and resume.
    Resume,
    /// Connect to the gateway's address and identify.
    NewSession,
    /// Give up; the text says what the operator has to do.
    Fatal(u16, &'static str),
}

/// A payload that the session can't go on from.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// HELLO, READY or INVALID_SESSION without the fields that make it usable.
    #[error("the gateway sent a malformed {0}")]
    Malformed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    AwaitingHello,
    AwaitingPermit,
    AwaitingReady,
    AwaitingResumed,
    Live,
}

#[derive(Debug)]
struct Heartbeat {
    interval: Duration,
    due: Instant,
    sent: Option<Instant>,
    acknowledged: bool,
    /// Something has come since it was sent.
    heard: bool,
    /// Heartbeats in a row without acknowledgement.
    unanswered: u8,
}

impl Heartbeat {
    fn new(interval: Duration, due: Instant) -> Self {
        Self { interval, due, sent: None, acknowledged: true, heard: false, unanswered: 0 }
    }

    /// No acknowledgement since the last one ("Sending Heartbeats"). While a long replay is still being read
    /// the acknowledgement stands behind it: what comes counts as a sign of life, for a while.
    fn is_dead(&self) -> bool {
        !self.acknowledged && (!self.heard || self.unanswered >= PATIENCE)
    }
}

/// Heartbeats that may go unanswered while payloads come.
const PATIENCE: u8 = 2;

/// One shard's session with Discord, over any number of connections.
#[derive(Debug)]
pub struct Session {
    state: State,
    resumable: Option<Resumable>,
    heartbeat: Option<Heartbeat>,
    received: u64,
    confirmed: u64,
    was_identifying: bool,
    latency: Option<Duration>,
    lateness: Duration,
}

/// A connection that brings no HELLO in this time is given up.
const HELLO_WITHIN: Duration = Duration::from_secs(20);

impl Session {
    /// A session to be resumed, or to be begun.
    pub fn new(resumable: Option<Resumable>) -> Self {
        let sequence = resumable.as_ref().map_or(0, |resumable| resumable.sequence);
        Self {
            state: State::Closed,
            resumable,
            heartbeat: None,
            received: sequence,
            confirmed: sequence,
            was_identifying: false,
            latency: None,
            lateness: Duration::ZERO,
        }
    }

    /// What it takes to resume, if there is a session.
    pub fn resumable(&self) -> Option<&Resumable> {
        self.resumable.as_ref()
    }

    /// Where to resume from: the last sequence received, at this moment.
    pub fn position(&self) -> u64 {
        self.received
    }

    /// Whether READY or RESUMED has come on this connection.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Whether a replay is under way.
    pub fn is_resuming(&self) -> bool {
        self.state == State::AwaitingResumed
    }

    /// Whether IDENTIFY has been sent on this connection, and not been answered yet.
    pub fn awaits_ready(&self) -> bool {
        self.state == State::AwaitingReady
    }

    /// Whether the last connection ended after IDENTIFY and before READY: Discord refused it.
    pub fn was_identifying(&self) -> bool {
        self.was_identifying
    }

    /// Time between the last heartbeat and its acknowledgement.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// How late the last heartbeat was sent.
    pub fn lateness(&self) -> Duration {
        self.lateness
    }

    /// Gives the session up: the next connection identifies.
    pub fn forget(&mut self) {
        self.resumable = None;
        self.received = 0;
        self.confirmed = 0;
    }

    /// A fresh transport is open; HELLO is awaited.
    pub fn opened(&mut self, now: Instant) {
        self.state = State::AwaitingHello;
        self.latency = None;
        self.heartbeat = Some(Heartbeat::new(HELLO_WITHIN, now + HELLO_WITHIN));
    }

    /// Everything up to `sequence` is safely stored: heartbeats may acknowledge it. Discord may drop what
    /// a heartbeat acknowledged, so nothing may be acknowledged that a crash could still lose.
    pub fn confirm(&mut self, sequence: u64) {
        self.confirmed = self.confirmed.max(sequence);
    }

    /// IDENTIFY has been sent.
    pub fn identified(&mut self) {
        if self.state == State::AwaitingPermit {
            self.state = State::AwaitingReady;
        }
    }

    /// Takes one payload. `jitter` (0 to 1) spreads the first heartbeat, `token` goes into RESUME.
    ///
    /// # Errors
    /// A HELLO or READY that lacks its fields.
    pub fn received(
        &mut self,
        header: &Header<'_>,
        payload: &[u8],
        now: Instant,
        jitter: f64,
        token: &str,
    ) -> Result<Step, SessionError> {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.heard = true;
        }
        match header.op {
            0 => self.dispatch(header, payload),
            1 => Ok(Step::Send(self.heartbeat_payload(now))),
            7 => Ok(self.end(Some(RECONNECT), self.next_by_session())),
            9 => Ok(self.invalid_session(header, payload)),
            10 => self.hello(header, payload, now, jitter, token),
            11 => {
                self.acknowledged(now);
                Ok(Step::Nothing)
            }
            _ => Ok(Step::Nothing),
        }
    }

    /// When [`Session::on_timeout`] is due.
    pub fn timeout(&self) -> Option<Instant> {
        self.heartbeat.as_ref().map(|heartbeat| heartbeat.due)
    }

    /// The time of [`Session::timeout`] has come: a heartbeat, or the end of a dead connection.
    pub fn on_timeout(&mut self, now: Instant) -> Step {
        let Some(heartbeat) = &self.heartbeat else { return Step::Nothing };
        if now < heartbeat.due {
            return Step::Nothing;
        }
        if self.state == State::AwaitingHello || heartbeat.is_dead() {
            return self.end(Some(RECONNECT), self.next_by_session());
        }
        self.lateness = now.saturating_duration_since(heartbeat.due);
        Step::Send(self.heartbeat_payload(now))
    }

    /// The transport is gone, with Discord's close code if there was one.
    pub fn closed(&mut self, code: Option<u16>) -> Step {
        let next = match CloseCode::after(code) {
            AfterClose::Resume => self.next_by_session(),
            AfterClose::NewSession => Next::NewSession,
            AfterClose::Fatal(what) => Next::Fatal(code.unwrap_or(0), what),
        };
        self.end(None, next)
    }

    fn next_by_session(&self) -> Next {
        if self.resumable.is_some() { Next::Resume } else { Next::NewSession }
    }

    fn end(&mut self, close: Option<u16>, next: Next) -> Step {
        self.was_identifying = self.state == State::AwaitingReady;
        self.state = State::Closed;
        self.heartbeat = None;
        if next == Next::NewSession {
            self.forget();
        } else if let Some(resumable) = &mut self.resumable {
            resumable.sequence = self.received;
        }
        Step::Reconnect { close, next }
    }

    fn dispatch(&mut self, header: &Header<'_>, payload: &[u8]) -> Result<Step, SessionError> {
        if let Some(sequence) = header.sequence {
            self.received = sequence;
        }
        match header.kind {
            EventKind::Ready => {
                let ready: ReadyFields = fields(header, payload).ok_or(SessionError::Malformed("READY"))?;
                self.resumable = Some(Resumable {
                    session_id: ready.session_id,
                    resume_url: ready.resume_gateway_url,
                    sequence: self.received,
                });
                self.confirmed = self.received;
                self.state = State::Live;
                Ok(Step::Ready)
            }
            EventKind::Resumed => {
                self.state = State::Live;
                Ok(Step::Resumed)
            }
            _ => Ok(Step::Dispatch),
        }
    }

    fn invalid_session(&mut self, header: &Header<'_>, payload: &[u8]) -> Step {
        let resumable = fields::<bool>(header, payload).unwrap_or(false);
        let next = if resumable { self.next_by_session() } else { Next::NewSession };
        self.end(Some(RECONNECT), next)
    }

    fn hello(
        &mut self,
        header: &Header<'_>,
        payload: &[u8],
        now: Instant,
        jitter: f64,
        token: &str,
    ) -> Result<Step, SessionError> {
        let hello: HelloFields = fields(header, payload)
            .filter(|hello: &HelloFields| hello.heartbeat_interval > 0)
            .ok_or(SessionError::Malformed("HELLO"))?;
        let interval = Duration::from_millis(hello.heartbeat_interval);
        let first = now + interval.mul_f64(jitter.clamp(0.0, 1.0));
        self.heartbeat = Some(Heartbeat::new(interval, first));
        let Some(resumable) = &self.resumable else {
            self.state = State::AwaitingPermit;
            return Ok(Step::Identify);
        };
        self.state = State::AwaitingResumed;
        let resume = serde_json::json!({
            "op": 6,
            "d": { "token": token, "session_id": resumable.session_id, "seq": self.received },
        });
        Ok(Step::Send(resume.to_string().into_bytes()))
    }

    fn heartbeat_payload(&mut self, now: Instant) -> Vec<u8> {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.due = now + heartbeat.interval;
            heartbeat.sent = Some(now);
            heartbeat.unanswered = if heartbeat.acknowledged { 0 } else { heartbeat.unanswered + 1 };
            heartbeat.acknowledged = false;
            heartbeat.heard = false;
        }
        match self.confirmed.min(self.received) {
            0 => br#"{"op":1,"d":null}"#.to_vec(),
            sequence => format!(r#"{{"op":1,"d":{sequence}}}"#).into_bytes(),
        }
    }

    fn acknowledged(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.acknowledged = true;
            self.latency = heartbeat.sent.map(|sent| now.saturating_duration_since(sent));
        }
    }
}

/// Closing with 1000 or 1001 would end the session ("Initiating a Disconnect"); 4000 leaves it alive.
const RECONNECT: u16 = 4000;

#[derive(Deserialize)]
struct ReadyFields {
    session_id: String,
    resume_gateway_url: String,
}

#[derive(Deserialize)]
struct HelloFields {
    heartbeat_interval: u64,
}

fn fields<T: serde::de::DeserializeOwned>(header: &Header<'_>, payload: &[u8]) -> Option<T> {
    serde_json::from_slice(payload.get(header.data.clone()?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan;

    #[test]
    fn a_new_session_identifies_and_becomes_live_with_ready() {
        let mut session = Session::new(None);
        let now = Instant::now();
        assert_eq!(hello(&mut session, now), Step::Identify);
        assert!(!session.awaits_ready());
        session.identified();
        assert!(session.awaits_ready());
        assert_eq!(feed(&mut session, READY, now), Step::Ready);
        assert!(!session.awaits_ready());
        assert!(session.is_live());
        assert_eq!(session.resumable().map(|r| r.sequence), Some(1));
    }

    #[test]
    fn a_resumed_session_asks_for_what_follows_its_sequence() {
        let mut session = Session::new(Some(resumable(7)));
        let Step::Send(resume) = hello(&mut session, Instant::now()) else { panic!("no RESUME") };
        let resume: serde_json::Value = serde_json::from_slice(&resume).unwrap();
        assert_eq!(resume["op"], 6);
        assert_eq!(resume["d"]["seq"], 7);
        assert_eq!(resume["d"]["token"], "token");
        assert!(session.is_resuming());
    }

    #[test]
    fn heartbeats_acknowledge_only_what_is_stored() {
        let mut session = live();
        let now = Instant::now();
        for sequence in 2..=9 {
            let event = format!(r#"{{"t":"TYPING_START","s":{sequence},"op":0,"d":{{}}}}"#);
            assert_eq!(feed(&mut session, &event, now), Step::Dispatch);
        }
        assert_eq!(feed(&mut session, r#"{"op":1,"d":null}"#, now), beat(1));
        session.confirm(5);
        assert_eq!(feed(&mut session, r#"{"op":1,"d":null}"#, now), beat(5));
    }

    #[test]
    fn a_connection_without_acknowledgement_is_closed_resumably() {
        let mut session = live();
        let now = Instant::now();
        let due = session.timeout().unwrap().max(now);
        assert!(matches!(session.on_timeout(due), Step::Send(_)));
        let later = session.timeout().unwrap();
        assert_eq!(later - due, Duration::from_millis(41_250));
        assert_eq!(session.on_timeout(later), Step::Reconnect { close: Some(4000), next: Next::Resume });
    }

    #[test]
    fn a_long_replay_is_a_sign_of_life_for_a_while() {
        let mut session = live();
        let mut kept = 0;
        while let Step::Send(_) = session.on_timeout(session.timeout().unwrap()) {
            kept += 1;
            feed(&mut session, r#"{"t":"TYPING_START","s":9,"op":0,"d":{}}"#, Instant::now());
        }
        assert_eq!(kept, 3);
    }

    #[test]
    fn an_acknowledgement_keeps_the_connection_and_tells_the_latency() {
        let mut session = live();
        let due = session.timeout().unwrap();
        session.on_timeout(due);
        feed(&mut session, r#"{"op":11}"#, due + Duration::from_millis(30));
        assert_eq!(session.latency(), Some(Duration::from_millis(30)));
        assert!(matches!(session.on_timeout(session.timeout().unwrap()), Step::Send(_)));
    }

    #[test]
    fn op_7_resumes_and_op_9_does_as_it_says() {
        let now = Instant::now();
        let reconnect = |next| Step::Reconnect { close: Some(4000), next };
        assert_eq!(feed(&mut live(), r#"{"op":7,"d":null}"#, now), reconnect(Next::Resume));
        assert_eq!(feed(&mut live(), r#"{"op":9,"d":true}"#, now), reconnect(Next::Resume));
        let mut session = live();
        assert_eq!(feed(&mut session, r#"{"op":9,"d":false}"#, now), reconnect(Next::NewSession));
        assert!(session.resumable().is_none());
    }

    #[test]
    fn close_codes_resume_begin_anew_or_end() {
        let after = |code| live().closed(code);
        let gone = |next| Step::Reconnect { close: None, next };
        for code in [None, Some(1006), Some(4000), Some(4008)] {
            assert_eq!(after(code), gone(Next::Resume), "{code:?}");
        }
        for code in [4007, 4009] {
            assert_eq!(after(Some(code)), gone(Next::NewSession), "{code}");
        }
        for code in [4004, 4010, 4011, 4012, 4013, 4014] {
            assert!(
                matches!(after(Some(code)), Step::Reconnect { next: Next::Fatal(c, _), .. } if c == code),
                "{code}"
            );
        }
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let mut session = Session::new(None);
        let now = Instant::now();
        session.opened(now);
        assert!(matches!(
            session.on_timeout(now + HELLO_WITHIN),
            Step::Reconnect { next: Next::NewSession, .. }
        ));
    }

    #[test]
    fn malformed_hello_and_ready_are_errors() {
        let mut session = Session::new(None);
        session.opened(Instant::now());
        for payload in [r#"{"op":10}"#, r#"{"op":10,"d":{"heartbeat_interval":0}}"#] {
            let header = scan(payload.as_bytes()).unwrap();
            assert!(session.received(&header, payload.as_bytes(), Instant::now(), 0.5, "token").is_err());
        }
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        assert!(!format!("{:?}", live()).contains("secret"));
    }

    const READY: &str =
        r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"secret","resume_gateway_url":"wss://r"}}"#;

    fn resumable(sequence: u64) -> Resumable {
        Resumable { session_id: "secret".into(), resume_url: "wss://r".into(), sequence }
    }

    fn hello(session: &mut Session, now: Instant) -> Step {
        session.opened(now);
        feed(session, r#"{"op":10,"d":{"heartbeat_interval":41250}}"#, now)
    }

    fn live() -> Session {
        let mut session = Session::new(None);
        hello(&mut session, Instant::now());
        session.identified();
        feed(&mut session, READY, Instant::now());
        session
    }

    fn feed(session: &mut Session, payload: &str, now: Instant) -> Step {
        let header = scan(payload.as_bytes()).unwrap();
        session.received(&header, payload.as_bytes(), now, 0.5, "token").unwrap()
    }

    fn beat(sequence: u64) -> Step {
        Step::Send(format!(r#"{{"op":1,"d":{sequence}}}"#).into_bytes())
    }
}
