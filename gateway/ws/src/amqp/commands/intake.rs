// SPDX-License-Identifier: AGPL-3.0-only
//! The commands of one shard: from its queue into its outbox, and back to who sent them.
//!
//! In: the shard's queue. Out: payloads for the shard's task, replies. One task per shard that we own; all its commands
//! are futures of that task. A command is acknowledged when its last reply is sent.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use holdfast_broker::{ConsumerOptions, DeclareError, Message, Request, Responder, Topology};
use holdfast_contract::{
    Body,
    v1::{
        self, DeliverInteraction, Done, Error, ErrorCode, GetGuild, MembersChunk, Outcome,
        RequestGuildMembers, command::Payload, command_reply::Reply,
    },
};
use holdfast_discord::{EventKind, shard_of};
use serde_json::value::RawValue;
use tokio::{
    select,
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Shared,
    collect::Collector,
    decode,
    job::{Ending, Follow, Job, answer, full, leaving},
    plan::{About, Plan, What, kind, plan},
    replies::{Replies, replies},
    topology,
};
use crate::{
    amqp::state,
    shard::{Ask, Command, Hub, Offer, Priority, Wanted, Written, members_from_state, unix_ms},
};

/// Commands of high priority may go beyond the bound by this part of it.
const HIGH_SHARE: usize = 4;
/// Commands that are being refused, beyond those that are held.
const REFUSALS: usize = 64;
/// Bytes of answers from the state that wait for the broker.
const MAX_KNOWN_BYTES: usize = 8 << 20;
/// How long a shard that leaves waits: for the broker, and for its last replies.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// When so long nothing has come after the queue was unbound, nothing more will.
const QUIET: Duration = Duration::from_millis(50);

/// See the module's documentation.
pub(super) struct Intake {
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Arc<Hub>,
    /// The shard is no longer ours.
    pub(super) stop: CancellationToken,
    pub(super) held: Arc<Held>,
}

/// What a shard holds of commands.
#[derive(Debug, Default)]
pub(super) struct Held {
    commands: AtomicUsize,
    /// Of answers that are known.
    bytes: AtomicUsize,
}

/// One command's part of that, given back when it is dropped.
struct Part {
    held: Arc<Held>,
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.held.commands.fetch_sub(1, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.shared.metrics.in_flight.dec();
    }
}

/// What becomes of a command as soon as it has come.
enum Begun {
    /// It can't be done; with `poison`, by nobody.
    Refused { error: Error, poison: bool },
    /// It is answered from what is known.
    Known(Vec<Reply>, Instant, Part),
    /// The shard has it.
    Given(Box<Job>, Part),
    /// A client is to have it.
    Offered(Written, Instant, Part),
}

type Jobs = FuturesUnordered<BoxFuture<'static, ()>>;

impl Intake {
    /// Takes commands until the shard is no longer ours.
    pub(super) async fn run(self) {
        let this = Arc::new(self);
        let shared = &this.shared;
        let (shard, generation) = ((this.hub.shard, this.hub.total), this.hub.generation);
        let topology = topology::of_shard(shared.broker.names(), shard, generation);
        select! { biased;
            () = this.stop.cancelled() => return,
            declared = shared.broker.declare(&topology) => match declared {
                Ok(()) => {}
                Err(DeclareError::Refused(refusal)) => return shared.refuse(refusal),
                Err(DeclareError::Closed) => return,
            },
        }
        let queue = shared.broker.names().shard_commands(shard.0, shard.1, generation);
        let held = shared.in_flight + shared.in_flight / HIGH_SHARE;
        let prefetch = u16::try_from(held + REFUSALS).unwrap_or(u16::MAX);
        let mut queue = shared.broker.respond(ConsumerOptions { prefetch, ..ConsumerOptions::new(queue) });
        let mut jobs = Jobs::new();
        loop {
            select! { biased;
                () = this.stop.cancelled() => break,
                Some(()) = jobs.next(), if !jobs.is_empty() => {}
                request = queue.next(), if jobs.len() < usize::from(prefetch) => match request {
                    Some(request) => jobs.push(this.take(request)),
                    None => break,
                },
            }
        }
        if timeout(LEAVE_WITHIN, this.leave(&topology, &mut queue, &mut jobs)).await.is_err() {
            debug!(unanswered = jobs.len(), "the broker didn't take all last replies");
        }
    }

    /// Nothing more is routed to the queue; what is in it, and what is under way, is answered.
    async fn leave(self: &Arc<Self>, topology: &Topology, queue: &mut Responder, jobs: &mut Jobs) {
        let broker = &self.shared.broker;
        broker.delete(&Topology { bindings: topology.bindings.clone(), ..Topology::default() }).await;
        while let Ok(Some(request)) = timeout(QUIET, queue.next()).await {
            jobs.push(self.take(request));
        }
        while jobs.next().await.is_some() {}
        broker.delete(&Topology { queues: topology.queues.clone(), ..Topology::default() }).await;
    }

    /// Takes one command in, at once, so that commands keep their order; what follows is a future.
    fn take(self: &Arc<Self>, request: Request) -> BoxFuture<'static, ()> {
        if request.message().properties.kind.as_deref() == Some(GetGuild::TYPE) {
            let (shared, hub) = (Arc::clone(&self.shared), Arc::clone(&self.hub));
            return Box::pin(async move { state::answer(&shared, &hub, request).await });
        }
        let now = Instant::now();
        let command = decode::command(request.message());
        let kind = command.as_ref().map_or("unknown", kind);
        let begun = match command {
            Ok(command) => self.begin(&command, request.message(), now),
            Err(error) => Begun::Refused { error, poison: true },
        };
        let this = Arc::clone(self);
        Box::pin(async move { this.finish(request, kind, begun).await })
    }

    fn begin(&self, command: &v1::Command, message: &Message, now: Instant) -> Begun {
        let begun = match &command.payload {
            Some(Payload::DeliverInteraction(delivery)) => self.deliver(command, delivery, now),
            _ => self.check(command, now).and_then(|(plan, deadline)| self.give(plan, deadline, message)),
        };
        begun.unwrap_or_else(|error| {
            let poison = error.code() == ErrorCode::Unsupported;
            Begun::Refused { error, poison }
        })
    }

    /// Gives what isn't for Discord to one client.
    fn deliver(
        &self,
        command: &v1::Command,
        delivery: &DeliverInteraction,
        now: Instant,
    ) -> Result<Begun, Error> {
        if self.stop.is_cancelled() {
            return Err(leaving());
        }
        let deadline = decode::deadline(command, now, unix_ms())?;
        let (shard, total) = (shard_of(delivery.guild_id, self.hub.total), self.hub.total);
        if shard != self.hub.shard {
            let text = format!("the interaction is for shard {shard} of {total}, this is {}", self.hub.shard);
            return Err(Error::new(ErrorCode::WrongShard, text));
        }
        if serde_json::from_slice::<&RawValue>(&delivery.data).is_err() {
            return Err(Error::new(ErrorCode::InvalidArgument, "data is no JSON"));
        }
        let part = self.hold(Priority::High, 0)?;
        let name = EventKind::InteractionCreate.name();
        let (offer, written) = Offer::new(name, delivery.guild_id, delivery.data.clone());
        let taken = self.hub.readers.offer(offer);
        taken.map_err(|_| no_client()).map(|()| Begun::Offered(written, deadline, part))
    }

    /// Everything that is to be known before something is sent.
    fn check(&self, command: &v1::Command, now: Instant) -> Result<(Plan, Instant), Error> {
        if self.stop.is_cancelled() {
            return Err(leaving());
        }
        let deadline = decode::deadline(command, now, unix_ms())?;
        let core = self.hub.core();
        let ready = core.ready.as_ref().ok_or_else(|| {
            Error::new(ErrorCode::NotConnected, "the shard has no session with Discord yet")
        })?;
        let about = About {
            shard: self.hub.shard,
            total: self.hub.total,
            application: ready.application(),
            intents: self.shared.intents,
        };
        let plan = plan(command, &about)?;
        if matches!(plan.what, What::Raw(_)) && core.refused_opcodes.contains(&plan.op) {
            let text = format!("Discord doesn't know opcode {}", plan.op);
            return Err(Error::new(ErrorCode::RefusedByDiscord, text));
        }
        for guild in plan.guilds() {
            let known = core.guilds.get(guild).ok_or_else(|| {
                Error::new(ErrorCode::UnknownGuild, format!("the bot is not in guild {guild}"))
            })?;
            if known.unavailable() {
                let text = format!("guild {guild} has an outage, or Discord has not sent it yet");
                return Err(Error::new(ErrorCode::GuildUnavailable, text));
            }
        }
        Ok((plan, deadline))
    }

    /// Answers from the state, or gives the command to the shard's task.
    fn give(&self, plan: Plan, deadline: Instant, message: &Message) -> Result<Begun, Error> {
        if let What::Members { guild, ask } = &plan.what
            && let Some(chunks) = self.members(*guild, ask)
        {
            let bytes = chunks.iter().map(Vec::len).sum();
            let part = self.hold(plan.priority, bytes)?;
            return Ok(Begun::Known(replies_of(*guild, chunks), deadline, part));
        }
        let own_user = self.hub.core().ready.as_ref().map_or(0, |ready| ready.user);
        let (wanted, payload) = match &plan.what {
            What::Presence | What::Raw(_) => (Wanted::Nothing, plan.payload(None)?),
            What::Voice { guild, .. } => (Wanted::Voice(*guild), plan.payload(None)?),
            What::Sounds(guilds) => (Wanted::Sounds(guilds.clone()), plan.payload(None)?),
            What::ChannelInfo { guild } => (Wanted::ChannelInfo(*guild), plan.payload(None)?),
            What::Members { .. } => {
                let (number, nonce) = self.hub.core().members.own();
                (Wanted::Members(number), plan.payload(Some(&nonce))?)
            }
        };
        let part = self.hold(plan.priority, 0)?;
        let waiting = self.hub.waiting(plan.priority);
        let follow = Follow::begin(&self.hub, wanted);
        let command = Command {
            sender: sender(message),
            priority: plan.priority,
            payload: payload.clone(),
            ticket: Some(follow.ticket()),
        };
        if !self.hub.command(command) {
            return Err(full());
        }
        let collector = Collector::new(&plan, own_user);
        let job = Job { plan, payload, collector, follow, deadline, waiting };
        Ok(Begun::Given(Box::new(job), part))
    }

    /// Room for one more command.
    fn hold(&self, priority: Priority, bytes: usize) -> Result<Part, Error> {
        let high = if priority == Priority::High { self.shared.in_flight / HIGH_SHARE } else { 0 };
        let (held, shared) = (Arc::clone(&self.held), Arc::clone(&self.shared));
        // Only this task adds to them.
        if held.commands.load(Ordering::Relaxed) >= shared.in_flight + high
            || (bytes > 0 && held.bytes.load(Ordering::Relaxed) >= MAX_KNOWN_BYTES)
        {
            return Err(full());
        }
        held.commands.fetch_add(1, Ordering::Relaxed);
        held.bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.metrics.in_flight.inc();
        Ok(Part { held, shared, bytes })
    }

    /// Members from the state, if that has all that are asked for.
    fn members(&self, guild: u64, ask: &RequestGuildMembers) -> Option<Vec<Vec<u8>>> {
        let snapshot = self.hub.core().guilds.get(guild)?;
        let ask = Ask {
            ids: ask.query.is_none().then_some(&*ask.user_ids),
            query: ask.query.as_deref(),
            limit: usize::try_from(ask.limit).unwrap_or(usize::MAX),
            presences: ask.presences,
            intents: self.shared.intents,
            nonce: None,
        };
        members_from_state(&snapshot, &ask)
    }

    /// Sees a command through to its last reply.
    async fn finish(&self, request: Request, kind: &'static str, begun: Begun) {
        let metrics = &self.shared.metrics;
        let (replies, outgoing) = replies();
        let shard = (self.hub.shard, self.hub.total);
        let drive = async move {
            let (ending, poison) = self.drive(begun, &replies).await;
            let name = ending.name();
            replies.say(ending.reply()).await;
            (name, poison)
        };
        let ((name, poison), ()) = tokio::join!(drive, outgoing.deliver(&request, shard, metrics));
        metrics.ended(kind, name);
        self.shared.settle(request, name, poison).await;
    }

    async fn drive(&self, begun: Begun, replies: &Replies) -> (Ending, bool) {
        match begun {
            Begun::Refused { error, poison } => (Ending::Rejected(error), poison),
            Begun::Known(results, deadline, _part) => (answer(replies, results, deadline).await, false),
            Begun::Given(job, _part) => (job.run(replies, &self.stop).await, false),
            Begun::Offered(written, deadline, _part) => {
                let ending = match timeout_at(deadline.into(), written).await {
                    Ok(Ok(())) => {
                        Ending::Done(Done { outcome: Outcome::Complete.into(), results: 0, expected: 0 })
                    }
                    Ok(Err(_)) => Ending::Rejected(no_client()),
                    Err(_) => {
                        Ending::Done(Done { outcome: Outcome::TimedOut.into(), results: 0, expected: 0 })
                    }
                };
                (ending, false)
            }
        }
    }
}

/// Nobody has had it.
fn no_client() -> Error {
    Error::new(ErrorCode::NoClient, "no client of the shard is connected, and has its guilds")
}

fn replies_of(guild_id: u64, chunks: Vec<Vec<u8>>) -> Vec<Reply> {
    let chunk_count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let reply = |(chunk_index, data): (u32, Vec<u8>)| {
        Reply::MembersChunk(MembersChunk { guild_id, chunk_index, chunk_count, data: data.into() })
    };
    (0..).zip(chunks).map(reply).collect()
}

/// Who takes turns in the outbox: whoever has the same queue for replies. Connections of clients count from 1.
fn sender(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.properties.reply_to.hash(&mut hasher);
    hasher.finish() | 1 << 63
}
