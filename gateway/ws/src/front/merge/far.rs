// SPDX-License-Identifier: AGPL-3.0-only
//! A leg whose shard another replica has: the end of who merges. In: what that one says. Out: events to be given, in
//! order; the client's commands, and where it is.
//!
//! What has come and isn't given yet is bounded: the other isn't read on, and its cursor stands still. Polled by the
//! client's task only.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use holdfast_cluster::ShardId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{CloseCode, Message};

use super::{
    batch::Batch,
    wire::{self, ANSWER, ASK, Answer, Ask, GUILD, MARK, Note, SETTLE},
};
use crate::{
    front::{Front, outgoing::Outgoing, query::Refused, splice::Socket},
    log::Position,
};

/// What may have come and isn't given yet: as much as is gathered for one write to a client.
const WAITING_BYTES: usize = 64 * 1024;
/// What may wait to be said: as many commands as a shard takes at once.
const UNSAID: usize = 256;
/// The other may take this long to say how a leg begins that needs nothing but its shard: as long as it is looked for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The other may take this long to hear of the end.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Far {
    pub(super) shard: ShardId,
    socket: Socket,
    said: VecDeque<Said>,
    waiting: usize,
    unsaid: VecDeque<String>,
    /// How the leg begins, once the other has said it. None in it: there is nothing for the client.
    answer: Option<Option<Answer>>,
    over: Option<Over>,
    /// The shard leaves its owner, or that one ends.
    leaving: CancellationToken,
    /// When something was said, and heard.
    beat: Instant,
    heard: Instant,
    heartbeat: Duration,
}

/// What the other has said, in order.
pub(super) enum Said {
    /// An event that came in at this time; its payload begins here.
    Event { position: Position, received_ms: u64, message: Message, at: usize },
    /// Nothing lies up to here.
    Mark(Position),
    /// A guild of the snapshot.
    Guild(Box<RawValue>),
    /// A dispatch that isn't of the log.
    Own(Message),
}

/// Why nothing more comes.
#[derive(Clone, Debug)]
pub(super) enum Over {
    /// The session can't go on.
    Invalid,
    /// The client is to be closed.
    Closed(Refused),
}

#[derive(Deserialize)]
struct Payload<'a> {
    op: u64,
    #[serde(borrow, default)]
    d: Option<&'a RawValue>,
}

impl Far {
    /// Over a connection to who has the shard. `leaving` is cancelled when that one wants to be rid of it.
    pub(super) fn new(
        heartbeat: Duration,
        shard: ShardId,
        socket: Socket,
        ask: &Ask,
        leaving: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            shard,
            socket,
            said: VecDeque::new(),
            waiting: 0,
            unsaid: VecDeque::from([wire::payload(ASK, ask)]),
            answer: None,
            over: None,
            leaving,
            beat: now,
            heard: now,
            heartbeat,
        }
    }

    /// Says what waits, and hears what is there, as far as there is room.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if self.poll_say(cx).is_err() {
            self.end(self.lost());
        }
        while self.over.is_none() && self.waiting < WAITING_BYTES {
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => self.hear(message),
                Poll::Ready(_) => self.end(self.lost()),
                Poll::Pending => return,
            }
        }
    }

    fn poll_say(&mut self, cx: &mut Context<'_>) -> Result<(), tokio_websockets::Error> {
        while !self.unsaid.is_empty() {
            match self.socket.poll_ready_unpin(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            if let Some(said) = self.unsaid.pop_front() {
                self.socket.start_send_unpin(Message::text(said))?;
            }
        }
        match self.socket.poll_flush_unpin(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn hear(&mut self, message: Message) {
        self.heard = Instant::now();
        if let Some((code, reason)) = message.as_close() {
            return self.end(Over::Closed(Refused::new(code.into(), reason)));
        }
        let bytes: &[u8] = message.as_payload();
        let len = bytes.len();
        if let Some((position, received_ms, at)) = wire::read_event(bytes) {
            self.waiting += len;
            self.said.push_back(Said::Event { position, received_ms, message, at });
            return;
        }
        let Ok(payload) = serde_json::from_slice::<Payload<'_>>(bytes) else { return };
        let data = payload.d.map_or("null", RawValue::get);
        let said = match payload.op {
            0 => Said::Own(message),
            MARK => Said::Mark(data.parse().unwrap_or(0)),
            GUILD => Said::Guild(payload.d.map(ToOwned::to_owned).unwrap_or_default()),
            ANSWER => {
                match serde_json::from_str(data) {
                    Ok(answer) => self.answer = Some(answer),
                    // It may be of another version: whoever waits for it would wait for good.
                    Err(_) => self.end(self.lost()),
                }
                return;
            }
            1 => return self.leaving.cancel(),
            9 => return self.end(Over::Invalid),
            _ => return,
        };
        self.waiting += len;
        self.said.push_back(said);
    }

    fn end(&mut self, over: Over) {
        self.over.get_or_insert(over);
    }

    fn lost(&self) -> Over {
        let ShardId { shard, total } = self.shard;
        Over::Closed(Refused::new(4000, format!("the replica of shard {shard} of {total} is lost: resume")))
    }

    /// Waits until the other has said how the leg begins. Err: it has said that it doesn't, or nothing.
    pub(super) async fn answered(&mut self) -> Result<Option<Answer>, Over> {
        let answer = std::future::poll_fn(|cx| {
            self.poll(cx);
            match (self.answer.take(), &self.over) {
                (Some(answer), _) => Poll::Ready(Ok(answer)),
                (None, Some(over)) => Poll::Ready(Err(over.clone())),
                (None, None) => Poll::Pending,
            }
        });
        let answer = timeout(ANSWER_WITHIN, answer).await;
        answer.unwrap_or_else(|_| Err(self.lost()))
    }

    /// How the leg begins, if that is known.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take().flatten()
    }

    /// Whether that is known.
    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// What comes next. None: nothing yet, or nothing any more.
    pub(super) fn next(&self) -> Option<&Said> {
        self.said.front()
    }

    /// Takes it.
    pub(super) fn take(&mut self) -> Option<Said> {
        let said = self.said.pop_front()?;
        self.waiting -= match &said {
            Said::Event { message, .. } | Said::Own(message) => message.as_payload().len(),
            Said::Guild(data) => data.get().len(),
            Said::Mark(_) => 0,
        }
        .min(self.waiting);
        if self.said.is_empty() {
            self.waiting = 0;
        }
        Some(said)
    }

    /// Gives answers to commands that came before the guilds, or some of them. Whether there were any.
    pub(super) fn give_own(&mut self, sequence: u64, batch: &mut Batch, out: &mut Outgoing) -> bool {
        while matches!(self.next(), Some(Said::Own(_)))
            && let Some(Said::Own(message)) = self.take()
        {
            batch.renumber(message.as_payload(), sequence);
        }
        batch.drain(|_, payload| out.payload(payload)) > 0
    }

    /// Why nothing more comes, once everything has been taken.
    pub(super) fn over(&self) -> Option<&Over> {
        self.over.as_ref().filter(|_| self.said.is_empty())
    }

    /// A command of the client's.
    pub(super) fn command(&mut self, op: u64, data: &serde_json::Value) -> Result<(), Refused> {
        if self.unsaid.len() >= UNSAID {
            return Err(Refused::new(4008, "too many commands are waiting to be sent"));
        }
        self.say(wire::command(op, data));
        Ok(())
    }

    /// Tells where the client is, unless that was `noted` and it isn't time for a heartbeat.
    pub(super) fn note(&mut self, note: &Note, noted: bool) {
        let now = Instant::now();
        if noted && now - self.beat < self.heartbeat / 2 {
            return;
        }
        self.beat_with(now, note);
    }

    /// A heartbeat, if it is time for one: there is no place to tell of yet.
    pub(super) fn beat(&mut self) {
        let now = Instant::now();
        if now - self.beat >= self.heartbeat / 2 {
            self.beat_with(now, &());
        }
    }

    /// A heartbeat. Every one is answered: who hasn't for too long is lost.
    fn beat_with(&mut self, now: Instant, data: &impl Serialize) {
        if now - self.heard > self.heartbeat.mul_f64(1.5) {
            // What isn't read because the client doesn't read isn't silence. With its next turn the task listens again.
            self.poll(&mut Context::from_waker(Waker::noop()));
            if self.heard < now && self.waiting < WAITING_BYTES {
                self.end(self.lost());
            }
        }
        self.beat = now;
        self.say(wire::payload(1, data));
    }

    /// The client has everything of a shard of a former count.
    pub(super) fn settle(mut self, front: &Front) {
        self.say(wire::payload(SETTLE, &()));
        self.close(front, 4000);
    }

    fn say(&mut self, payload: String) {
        self.unsaid.push_back(payload);
        // At once, as a rule; the rest with the task's next turn.
        if self.poll_say(&mut Context::from_waker(Waker::noop())).is_err() {
            self.end(self.lost());
        }
    }

    /// Says what waits, and that the client has gone with this code. What the other still has to say is read, or the last
    /// of it could be lost with the connection.
    pub(super) fn close(mut self, front: &Front, code: u16) {
        let Ok(code) = CloseCode::try_from(code) else { return };
        let farewell = async move {
            while let Some(said) = self.unsaid.pop_front() {
                self.socket.send(Message::text(said)).await.ok()?;
            }
            self.socket.send(Message::close(Some(code), "")).await.ok()?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Some(())
        };
        front.tasks.spawn("a leg's end", async move {
            let _ = timeout(FAREWELL_WITHIN, farewell).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::BufReader,
        net::{TcpListener, TcpStream},
    };
    use tokio_websockets::{ClientBuilder, ServerBuilder, WebSocketStream};

    use super::*;
    use crate::{
        front::merge::wire::{What, Who},
        upstream::Transport,
    };

    const HEARTBEAT: Duration = Duration::from_secs(40);

    #[tokio::test(start_paused = true)]
    async fn who_never_says_how_a_leg_begins_is_lost() {
        let (mut far, _other) = connected(HEARTBEAT).await;
        assert_eq!(code(far.answered().await.err().as_ref()), Some(4000));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_understood_is_none_to_wait_for() {
        let (mut far, mut other) = connected(HEARTBEAT).await;
        other.send(Message::text(r#"{"op":110,"d":{"snapshot":"x"}}"#)).await.unwrap();
        assert_eq!(code(far.answered().await.err().as_ref()), Some(4000));
        let (mut far, mut other) = connected(HEARTBEAT).await;
        other.send(Message::text(r#"{"op":110,"d":{"snapshot":7,"of_a_later_version":1}}"#)).await.unwrap();
        assert_eq!(far.answered().await.unwrap().unwrap().snapshot, 7);
    }

    #[tokio::test]
    async fn who_answers_no_heartbeat_is_lost_also_before_the_leg_begins() {
        let (mut far, _other) = connected(Duration::ZERO).await;
        far.beat();
        assert_eq!(code(far.over()), Some(4000));
        let (mut far, _other) = connected(HEARTBEAT).await;
        far.beat();
        assert_eq!(code(far.over()), None);
    }

    fn code(over: Option<&Over>) -> Option<u16> {
        match over? {
            Over::Closed(refused) => Some(refused.code),
            Over::Invalid => None,
        }
    }

    /// A leg's end, and who has the shard.
    async fn connected(heartbeat: Duration) -> (Far, WebSocketStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let transport = BufReader::new(Transport::Plain(tcp));
        let client = ClientBuilder::from_uri(format!("ws://{address}/").parse().unwrap());
        let server = async { ServerBuilder::new().accept(listener.accept().await.unwrap().0).await };
        let (ours, others) = tokio::join!(client.connect_on(transport), server);
        let who = Who {
            session: String::new(),
            credential: String::new(),
            client: [0, 1],
            name: None,
            intents: 0,
            large_threshold: 50,
        };
        let ask = Ask { who, what: What::Take };
        let far = Far::new(heartbeat, ShardId::new(1, 2), ours.unwrap().0, &ask, CancellationToken::new());
        (far, others.unwrap().1)
    }
}
