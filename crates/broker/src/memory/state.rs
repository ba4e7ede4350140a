// SPDX-License-Identifier: AGPL-3.0-only
//! All of a broker in memory under one lock: what is declared, what waits. Publishing and settling happen here at once;
//! only receiving waits, on the signal of its queue.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::queue::{ChannelId, Death, Queue, Stored};
use super::routing::Exchanges;
use crate::error::{PublishError, Refusal};
use crate::message::{Message, Publication};
use crate::topology::{QueueKind, Topology};

/// A dead message that dies again and again ends here; RabbitMQ ends such circles as well.
const DEATHS: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    exchanges: Exchanges,
    queues: HashMap<String, Queue>,
    /// By queue, whether it is declared yet or not.
    signals: HashMap<String, Arc<Notify>>,
    channels: ChannelId,
}

/// A message handed out.
pub(super) struct Handed {
    pub(super) tag: u64,
    pub(super) stored: Stored,
}

impl State {
    /// With exchanges that are there from the start.
    pub(super) fn new(topology: &Topology) -> Self {
        Self { exchanges: Exchanges::new(&topology.exchanges), ..Self::default() }
    }

    pub(super) fn declare(&mut self, topology: &Topology, now: Instant) -> Result<(), Refusal> {
        for exchange in &topology.exchanges {
            self.exchanges.declare(exchange)?;
        }
        for queue in &topology.queues {
            if queue.kind == QueueKind::Stream {
                return Err(Refusal::Unsupported(format!("queue {}: streams need RabbitMQ", queue.name)));
            }
            match self.queues.get(&queue.name) {
                Some(known) if known.declared != *queue => {
                    return Err(Refusal::Mismatch(format!("queue {} has other arguments", queue.name)));
                }
                Some(_) => {}
                None => _ = self.queues.insert(queue.name.clone(), Queue::new(queue.clone(), now)),
            }
            self.signal(&queue.name).notify_waiters();
        }
        topology.bindings.iter().try_for_each(|binding| self.exchanges.bind(binding))
    }

    pub(super) fn delete(&mut self, topology: &Topology) {
        topology.bindings.iter().for_each(|binding| self.exchanges.unbind(binding));
        topology.queues.iter().for_each(|queue| self.delete_queue(&queue.name));
        topology.exchanges.iter().for_each(|exchange| self.exchanges.delete(&exchange.name));
    }

    fn delete_queue(&mut self, name: &str) {
        self.queues.remove(name);
        self.exchanges.forget_queue(name);
    }

    pub(super) fn publish(&mut self, publication: Publication, now: Instant) -> Result<(), PublishError> {
        let Publication { exchange, key, mandatory, message } = publication;
        let Some(queues) = self.route(&exchange, &key, &message) else {
            let reason = format!("NOT_FOUND - no exchange '{exchange}'");
            return Err(PublishError::Unconfirmed(reason));
        };
        if queues.is_empty() && mandatory {
            return Err(PublishError::Unrouted);
        }
        if self.store(queues, &exchange, &key, message, now, 0) { Ok(()) } else { Err(PublishError::Nacked) }
    }

    fn route(&self, exchange: &str, key: &str, message: &Message) -> Option<BTreeSet<String>> {
        if exchange.is_empty() {
            return Some(self.queues.keys().filter(|name| *name == key).cloned().collect());
        }
        self.exchanges.route(exchange, key, &message.headers)
    }

    /// Whether all queues took it.
    fn store(
        &mut self,
        queues: BTreeSet<String>,
        exchange: &str,
        key: &str,
        message: Message,
        now: Instant,
        deaths: usize,
    ) -> bool {
        let mut taken = true;
        for name in queues {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            match queue.push(message.clone(), exchange, key, now) {
                Some(pushed_out) => self.bury(&name, pushed_out, Death::TooMany, now, deaths),
                None => taken = false,
            }
            self.signal(&name).notify_waiters();
        }
        taken
    }

    /// Sends dead messages where the queue's dead go.
    fn bury(&mut self, name: &str, dead: Vec<Stored>, death: Death, now: Instant, deaths: usize) {
        let to = self.queues.get(name).and_then(|queue| queue.declared.dead_letter.clone());
        let Some(to) = to.filter(|_| deaths < DEATHS) else { return };
        for mut stored in dead {
            let headers = &mut stored.message.headers;
            if headers.get("x-first-death-reason").is_none() {
                headers.push("x-first-death-reason", death.word());
                headers.push("x-first-death-queue", name.to_owned());
                headers.push("x-first-death-exchange", stored.exchange.clone());
            }
            stored.message.properties.expiration = None;
            let key = to.key.clone().unwrap_or(stored.key);
            let queues = self.route(&to.exchange, &key, &stored.message).unwrap_or_default();
            self.store(queues, &to.exchange, &key, stored.message, now, deaths + 1);
        }
    }

    /// A number for somebody who receives.
    pub(super) fn channel(&mut self) -> ChannelId {
        self.channels += 1;
        self.channels
    }

    /// What tells that a queue has something new.
    pub(super) fn signal(&mut self, queue: &str) -> Arc<Notify> {
        if let Some(signal) = self.signals.get(queue) {
            return Arc::clone(signal);
        }
        let signal = Arc::<Notify>::default();
        self.signals.insert(queue.to_owned(), Arc::clone(&signal));
        signal
    }

    /// The next message of a queue for a channel.
    pub(super) fn deliver(
        &mut self,
        name: &str,
        channel: ChannelId,
        prefetch: u16,
        exclusive: bool,
        now: Instant,
    ) -> Option<Handed> {
        self.expire_messages(name, now);
        let queue = self.queues.get_mut(name)?;
        if !queue.join(channel, exclusive) {
            return None;
        }
        let (tag, stored) = queue.deliver(channel, prefetch)?;
        Some(Handed { tag, stored })
    }

    /// Whether there was anything to acknowledge.
    pub(super) fn ack(&mut self, name: &str, channel: ChannelId, tag: u64, multiple: bool) -> bool {
        let acked = self.queues.get_mut(name).is_some_and(|queue| queue.ack(channel, tag, multiple));
        self.signal(name).notify_waiters();
        acked
    }

    /// Whether there was anything to put back.
    pub(super) fn requeue(&mut self, name: &str, tag: u64, now: Instant) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        let held = queue.holds(tag);
        let dead = queue.requeue(tag).into_iter().collect();
        self.bury(name, dead, Death::DeliveredTooOften, now, 0);
        self.signal(name).notify_waiters();
        held
    }

    /// Somebody receives no more.
    pub(super) fn leave(&mut self, name: &str, channel: ChannelId, now: Instant) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let was_there = queue.is_joined(channel);
        let dead = queue.leave(channel, now);
        let unused = was_there && queue.declared.auto_delete && queue.channels() == 0;
        self.bury(name, dead, Death::DeliveredTooOften, now, 0);
        if unused {
            self.delete_queue(name);
        }
        self.signal(name).notify_waiters();
    }

    /// Lets time pass: expired messages die, queues that nobody uses go.
    pub(super) fn expire(&mut self, now: Instant) {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        for name in names {
            self.expire_messages(&name, now);
            if self.queues.get(&name).is_some_and(|queue| queue.is_expired(now)) {
                self.delete_queue(&name);
            }
        }
    }

    fn expire_messages(&mut self, name: &str, now: Instant) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let expired = queue.expire(now);
        self.bury(name, expired, Death::Expired, now, 0);
    }
}
