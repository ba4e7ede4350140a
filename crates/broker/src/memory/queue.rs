// SPDX-License-Identifier: AGPL-3.0-only
//! One queue in memory: what waits, what is delivered and not settled, who receives. Pure: it is told the time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::topology::{Overflow, Queue as Declared, QueueKind};

/// Header that counts deliveries before this one, as quorum queues have it.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Names a channel: a consumer with what was delivered to it.
pub(super) type ChannelId = u64;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) message: Message,
    expires: Option<Instant>,
    deliveries: u32,
    place: Place,
}

/// The higher priority first, then the older one. What is put back gets its old place again.
type Place = (Reverse<u8>, u64);

/// Why a message is dead; RabbitMQ's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Expired,
    TooMany,
    DeliveredTooOften,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) declared: Declared,
    waiting: BTreeMap<Place, Stored>,
    bytes: u64,
    unsettled: BTreeMap<u64, (ChannelId, Stored)>,
    /// Who receives, in the order of arrival.
    channels: Vec<ChannelId>,
    /// Whether the one who receives does so exclusively.
    is_taken: bool,
    next: u64,
    idle_since: Instant,
}

impl Death {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::TooMany => "maxlen",
            Self::DeliveredTooOften => "delivery_limit",
        }
    }
}

impl Queue {
    pub(super) fn new(declared: Declared, now: Instant) -> Self {
        Self {
            declared,
            waiting: BTreeMap::new(),
            bytes: 0,
            unsettled: BTreeMap::new(),
            channels: Vec::new(),
            is_taken: false,
            next: 1,
            idle_since: now,
        }
    }

    /// Takes a message in; gives those that had to go for it, or nothing if it refuses.
    pub(super) fn push(
        &mut self,
        message: Message,
        exchange: &str,
        key: &str,
        now: Instant,
    ) -> Option<Vec<Stored>> {
        let size = size(&message);
        if self.declared.overflow == Overflow::RejectPublish && self.is_beyond(1, size) {
            return None;
        }
        let ttl = [message.properties.expiration, self.declared.message_ttl].into_iter().flatten().min();
        let highest = self.declared.max_priority.unwrap_or(0);
        let priority = message.properties.priority.unwrap_or(0).min(highest);
        let stored = Stored {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            message,
            expires: ttl.map(|ttl| now + ttl),
            deliveries: 0,
            place: (Reverse(priority), self.number()),
        };
        self.put(stored);
        let mut pushed_out = Vec::new();
        while self.is_beyond(0, 0) {
            pushed_out.extend(self.take_least());
        }
        Some(pushed_out)
    }

    /// The next message for a channel, if it may have one.
    pub(super) fn deliver(&mut self, channel: ChannelId, prefetch: u16) -> Option<(u64, Stored)> {
        let active = !self.declared.single_active_consumer || self.channels.first() == Some(&channel);
        let held = self.unsettled.values().filter(|(holder, _)| *holder == channel).count();
        if !active || held >= usize::from(prefetch) {
            return None;
        }
        let place = *self.waiting.first_key_value()?.0;
        let mut stored = self.take(place)?;
        if stored.deliveries > 0 && self.declared.kind == QueueKind::Quorum {
            stored.message.headers.set(DELIVERY_COUNT, i64::from(stored.deliveries));
        }
        let tag = self.number();
        self.unsettled.insert(tag, (channel, stored.clone()));
        Some((tag, stored))
    }

    /// Whether there was such a delivery to acknowledge.
    pub(super) fn ack(&mut self, channel: ChannelId, tag: u64, multiple: bool) -> bool {
        if !self.unsettled.contains_key(&tag) {
            return false;
        }
        if multiple {
            self.unsettled.retain(|other, (holder, _)| *holder != channel || *other > tag);
        } else {
            self.unsettled.remove(&tag);
        }
        true
    }

    /// Puts a delivery back; gives it if it was delivered too often.
    pub(super) fn requeue(&mut self, tag: u64) -> Option<Stored> {
        let (_, mut stored) = self.unsettled.remove(&tag)?;
        stored.deliveries += 1;
        if self.declared.delivery_limit.is_some_and(|limit| stored.deliveries > limit) {
            return Some(stored);
        }
        self.put(stored);
        None
    }

    /// Whether a tag is known.
    pub(super) fn holds(&self, tag: u64) -> bool {
        self.unsettled.contains_key(&tag)
    }

    /// Somebody begins to receive, if nobody has the queue exclusively; whether they may.
    pub(super) fn join(&mut self, channel: ChannelId, exclusive: bool) -> bool {
        if self.is_joined(channel) {
            return true;
        }
        if self.is_taken || (exclusive && !self.channels.is_empty()) {
            return false;
        }
        self.is_taken = exclusive;
        self.channels.push(channel);
        true
    }

    pub(super) fn is_joined(&self, channel: ChannelId) -> bool {
        self.channels.contains(&channel)
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Somebody receives no more; what they held goes back. Gives what was delivered too often.
    pub(super) fn leave(&mut self, channel: ChannelId, now: Instant) -> Vec<Stored> {
        self.channels.retain(|other| *other != channel);
        self.is_taken &= !self.channels.is_empty();
        self.idle_since = now;
        let held = self.unsettled.iter().filter(|(_, (holder, _))| *holder == channel);
        let tags: Vec<u64> = held.map(|(tag, _)| *tag).collect();
        tags.into_iter().filter_map(|tag| self.requeue(tag)).collect()
    }

    /// Takes out what has expired.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Stored> {
        let expired = self.waiting.values().filter(|stored| stored.expires.is_some_and(|at| at <= now));
        let places: Vec<Place> = expired.map(|stored| stored.place).collect();
        places.into_iter().filter_map(|place| self.take(place)).collect()
    }

    /// Whether the queue itself has been without a consumer for too long.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let unused = |after: Duration| self.channels.is_empty() && now >= self.idle_since + after;
        self.declared.expires.is_some_and(unused)
    }

    fn is_beyond(&self, more: usize, more_bytes: u64) -> bool {
        let length = (self.waiting.len() + more) as u64;
        self.declared.max_length.is_some_and(|most| length > most)
            || self.declared.max_length_bytes.is_some_and(|most| self.bytes + more_bytes > most)
    }

    /// The oldest of the lowest priority.
    fn take_least(&mut self) -> Option<Stored> {
        let (priority, _) = *self.waiting.last_key_value()?.0;
        let place = *self.waiting.range((priority, 0)..).next()?.0;
        self.take(place)
    }

    fn put(&mut self, stored: Stored) {
        self.bytes += size(&stored.message);
        self.waiting.insert(stored.place, stored);
    }

    fn take(&mut self, place: Place) -> Option<Stored> {
        let stored = self.waiting.remove(&place)?;
        self.bytes -= size(&stored.message);
        Some(stored)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Stored {
    pub(super) fn is_redelivered(&self) -> bool {
        self.deliveries > 0
    }
}

/// Bodies count, as in RabbitMQ.
fn size(message: &Message) -> u64 {
    message.body.len() as u64
}
