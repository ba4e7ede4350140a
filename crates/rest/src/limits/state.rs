// SPDX-License-Identifier: AGPL-3.0-only
//! The account of one token: its buckets, its global limit, and who waits for them. In: requests, answers, the time.
//! Out: permits. Owned by an `Account`, under its lock; no clock, no tasks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use holdfast_discord::rest::{Bucket, Place, Rolling, RouteId, Told, Wait};
use tokio::sync::oneshot;

use super::fair::Fair;
use super::metrics::Cause;
use super::slot::{Grant, Key, Slot, Waiter, Wish};

/// Buckets are looked through for idle ones when there are so many, and then when there are twice as many as were left.
const SWEEP: usize = 4_096;

/// Places in queues of those who have stopped waiting, besides as many as wait; about 100 bytes each.
const ABANDONED: usize = 256;

/// Answers name their buckets; so many names are remembered. Discord has fewer routes.
const NAMES: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    /// Of each route: to which kin it belongs, as far as is known.
    kins: Vec<u16>,
    /// Of each voice: which of its kin's counts it has turned out to have.
    groups: Vec<u8>,
    /// The kin that answers by a name.
    names: HashMap<Box<str>, u16>,
    slots: HashMap<Key, Slot>,
    sweep_at: usize,
    global: Rolling,
    /// Buckets with a place for somebody, whom the global limit keeps.
    filed: Fair<Key>,
    timers: BinaryHeap<Reverse<(Duration, Key)>>,
    waiting: usize,
    /// Of those in queues, at most so many have stopped waiting.
    abandoned: usize,
    margin: Duration,
}

impl State {
    pub(super) fn new(global_limit: u32, margin: Duration) -> Self {
        let routes = RouteId::count();
        let kin = |number: usize| {
            let id = RouteId(u16::try_from(number).unwrap_or(u16::MAX));
            if id.route().unknown { id.0 } else { id.route().kin }
        };
        Self {
            kins: (0..routes).map(kin).collect(),
            groups: vec![0; routes * 3],
            names: HashMap::new(),
            slots: HashMap::new(),
            sweep_at: SWEEP,
            global: Rolling::new(global_limit, Duration::from_secs(1), margin),
            filed: Fair::default(),
            timers: BinaryHeap::new(),
            waiting: 0,
            abandoned: 0,
            margin,
        }
    }

    /// Those who wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing is waited for, under way or counted.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.waiting == 0 && self.global.is_idle(now) && self.slots.values().all(|slot| slot.is_idle(now))
    }

    pub(super) fn key(&self, wish: &Wish) -> Key {
        let kin = self.kins.get(usize::from(wish.route.0)).copied().unwrap_or(wish.route.0);
        let group = self.groups.get(usize::from(wish.voice)).copied().unwrap_or(0);
        Key { kin, group, major: wish.major }
    }

    /// Takes over what replicas have learnt: routes' kins, voices' groups.
    pub(super) fn adopt(&mut self, kins: &[(u16, u16)], groups: &[(u16, u8)]) {
        for (route, kin) in kins {
            if let Some(own) = self.kins.get_mut(usize::from(*route)) {
                *own = *kin;
            }
        }
        for (voice, group) in groups {
            if let Some(own) = self.groups.get_mut(usize::from(*voice)) {
                *own = *group;
            }
        }
    }

    /// Remembers that a kin answers by this name; true if that is news.
    pub(super) fn is_news(&mut self, name: &str, kin: u16) -> bool {
        if self.names.get(name) == Some(&kin) {
            return false;
        }
        if self.names.len() < NAMES {
            self.names.insert(name.into(), kin);
        }
        true
    }

    /// Lets a request go if nothing keeps it and nobody waits.
    pub(super) fn try_now(&mut self, wish: &Wish, now: Duration) -> Option<Grant> {
        let key = self.key(wish);
        let exempt = wish.route.route().exempt;
        if !exempt && !self.filed.is_empty() {
            return None;
        }
        self.slot(key, wish, now);
        let slot = self.slots.get_mut(&key)?;
        if !slot.queue.is_empty() || slot.ready(wish, now, self.margin).is_err() {
            return None;
        }
        let global = if exempt { None } else { Some(self.global.take(now).ok()?) };
        slot.take(key, wish, now, global)
    }

    /// When a request may go, about.
    pub(super) fn estimate(&self, wish: &Wish, now: Duration) -> Duration {
        let Some(slot) = self.slots.get(&self.key(wish)) else { return now };
        let free = slot.bucket.estimate(now, slot.queue.ahead(wish.priority, wish.caller));
        let free = match &slot.hidden {
            Some(hidden) if wish.name_topic => free.max(hidden.estimate(now, 0)),
            _ => free,
        };
        if wish.route.route().exempt {
            return free;
        }
        free.max(self.global.estimate(now, self.filed.ahead(wish.priority, wish.caller)))
    }

    /// Puts a request in the queue; says what keeps it.
    pub(super) fn wait(&mut self, wish: Wish, grant: oneshot::Sender<Grant>, now: Duration) -> Cause {
        let key = self.key(&wish);
        self.slot(key, &wish, now);
        let Some(slot) = self.slots.get_mut(&key) else { return Cause::Bucket };
        let cause = match slot.ready(&wish, now, self.margin) {
            Ok(()) if slot.queue.is_empty() => Cause::Global,
            _ if now < slot.shared_until => Cause::Shared,
            _ => Cause::Bucket,
        };
        slot.queue.push(wish.priority, wish.caller, Waiter { grant, wish });
        self.waiting += 1;
        self.settle(key, now);
        self.release(now);
        cause
    }

    /// Somebody has got what was waited for, or, `early`, has stopped waiting.
    pub(super) fn left(&mut self, early: bool) {
        self.waiting = self.waiting.saturating_sub(1);
        self.abandoned += usize::from(early);
        // Most are passed over when it is their turn; those that would be long in coming mustn't pile up.
        if self.abandoned > self.waiting + ABANDONED {
            self.slots.values_mut().for_each(|slot| slot.queue.retain(|waiter| !waiter.grant.is_closed()));
            self.abandoned = 0;
        }
    }

    /// Lets go whoever may by now; says when to come again.
    pub(super) fn advance(&mut self, now: Duration) -> Option<Duration> {
        while let Some(Reverse((due, key))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if let Some(slot) = self.slots.get_mut(&key)
                && slot.timer == Some(due)
            {
                slot.timer = None;
                self.settle(key, now);
            }
        }
        let global = self.release(now);
        let bucket = self.timers.peek().map(|Reverse((due, _))| *due);
        [global, bucket].into_iter().flatten().min()
    }

    /// An answer that isn't a 429 of this bucket. `name` is what it calls the bucket.
    pub(super) fn answered(
        &mut self,
        grant: &Grant,
        wish: &Wish,
        told: Option<Told>,
        name: Option<&str>,
        now: Duration,
    ) {
        self.places(grant, now);
        let route = wish.route.route();
        let Some(slot) = self.slots.get_mut(&grant.key) else { return };
        let apart = slot.bucket.answered(grant.ticket, now, told);
        if route.unknown {
            slot.bucket.caution();
        }
        if apart && !route.together {
            self.part(wish.voice, grant.key.group);
        }
        if let Some(name) = name {
            self.named(wish, grant.key.kin, name);
        }
        self.settle(grant.key, now);
        self.release(now);
    }

    /// A 429 about the bucket, or about what is shared or hidden in it.
    pub(super) fn limited(
        &mut self,
        grant: &Grant,
        told: Option<Told>,
        until: Duration,
        shared: bool,
        now: Duration,
    ) {
        self.places(grant, now);
        let Some(slot) = self.slots.get_mut(&grant.key) else { return };
        match (&mut slot.hidden, grant.hidden) {
            // There was room: it is the limit that no header tells.
            (Some(hidden), Some(_)) if told.is_some_and(|told| told.remaining > 0) => {
                hidden.block(until);
                slot.bucket.lost(grant.ticket);
            }
            _ => slot.bucket.limited(grant.ticket, now, told, until),
        }
        if shared {
            slot.shared_until = until;
        }
        self.settle(grant.key, now);
        self.release(now);
    }

    /// A 429 about everything.
    pub(super) fn limited_globally(&mut self, grant: &Grant, until: Duration, now: Duration) {
        self.lost(grant, now);
        self.global.block(until);
    }

    /// Another global limit from now on.
    pub(super) fn set_global_limit(&mut self, limit: u32) {
        self.global.set_limit(limit);
    }

    /// Nothing that the global limit is about goes before `until`.
    pub(super) fn hold(&mut self, until: Duration) {
        self.global.block(until);
    }

    /// No answer came.
    pub(super) fn lost(&mut self, grant: &Grant, now: Duration) {
        if let Some(slot) = self.slots.get_mut(&grant.key) {
            slot.bucket.lost(grant.ticket);
        }
        self.settle(grant.key, now);
        self.release(now);
    }

    /// It was never sent.
    pub(super) fn unused(&mut self, grant: &Grant, now: Duration) {
        self.give_back(grant);
        self.settle(grant.key, now);
        self.release(now);
    }

    fn give_back(&mut self, grant: &Grant) {
        if let Some(place) = grant.global {
            self.global.unused(place);
        }
        let Some(slot) = self.slots.get_mut(&grant.key) else { return };
        slot.bucket.unused(grant.ticket);
        if let (Some(hidden), Some(place)) = (&mut slot.hidden, grant.hidden) {
            hidden.unused(place);
        }
    }

    fn places(&mut self, grant: &Grant, now: Duration) {
        if let Some(place) = grant.global {
            self.global.answered(place, now);
        }
        let hidden = self.slots.get_mut(&grant.key).and_then(|slot| slot.hidden.as_mut());
        if let (Some(hidden), Some(place)) = (hidden, grant.hidden) {
            hidden.answered(place, now);
        }
    }

    /// The voice doesn't count together with the others of its group: it tries the next one.
    fn part(&mut self, voice: u16, group: u8) {
        if let Some(current) = self.groups.get_mut(usize::from(voice))
            && *current == group
        {
            *current = group.saturating_add(1);
        }
    }

    /// Routes that answer one name may count together, until they are shown not to.
    fn named(&mut self, wish: &Wish, kin: u16, name: &str) {
        match self.names.get(name) {
            Some(other) if *other != kin && !wish.route.route().by_age => {
                if let Some(kin) = self.kins.get_mut(usize::from(wish.route.0)) {
                    *kin = *other;
                }
            }
            Some(_) => {}
            None if self.names.len() < NAMES => {
                self.names.insert(name.into(), kin);
            }
            None => {}
        }
    }

    /// Makes sure that there is a slot.
    fn slot(&mut self, key: Key, wish: &Wish, now: Duration) {
        if self.slots.len() >= self.sweep_at {
            self.slots.retain(|_, slot| !slot.is_idle(now));
            self.sweep_at = SWEEP.max(self.slots.len() * 2);
        }
        let each = wish.route.route().each;
        self.slots.entry(key).or_insert_with(|| Slot {
            bucket: if each { Bucket::free() } else { Bucket::default() },
            ..Slot::default()
        });
    }

    /// Looks at a bucket's queue: lets go whom only the bucket kept, files it for the global limit, or sets its timer.
    fn settle(&mut self, key: Key, now: Duration) {
        loop {
            let Some(slot) = self.slots.get_mut(&key) else { return };
            let Some((priority, caller, waiter)) = slot.queue.front() else { return };
            if waiter.grant.is_closed() {
                slot.queue.pop();
                continue;
            }
            let wish = waiter.wish;
            match slot.ready(&wish, now, self.margin) {
                Err(Wait::Answer) => return,
                Err(Wait::Until(due)) => {
                    if slot.timer.is_none_or(|timer| due < timer) {
                        slot.timer = Some(due);
                        self.timers.push(Reverse((due, key)));
                    }
                    return;
                }
                Ok(()) if wish.route.route().exempt => self.grant(key, None, now),
                Ok(()) => {
                    if slot.filed.is_none_or(|filed| priority < filed) {
                        slot.filed = Some(priority);
                        self.filed.push(priority, caller, key);
                    }
                    return;
                }
            }
        }
    }

    /// Lets go whom only the global limit kept; says when there is a place for the next one.
    fn release(&mut self, now: Duration) -> Option<Duration> {
        while let Some((priority, _, key)) = self.filed.front() {
            let key = *key;
            let slot = self.slots.get_mut(&key);
            let current = slot.filter(|slot| slot.filed == Some(priority)).and_then(|slot| {
                let (_, _, waiter) = slot.queue.front()?;
                let wish = waiter.wish;
                (!waiter.grant.is_closed() && slot.ready(&wish, now, self.margin).is_ok()).then_some(())
            });
            if current.is_some() {
                match self.global.take(now) {
                    Err(due) => return Some(due),
                    Ok(place) => self.grant(key, Some(place), now),
                }
            }
            self.filed.pop();
            if let Some(slot) = self.slots.get_mut(&key)
                && slot.filed == Some(priority)
            {
                slot.filed = None;
                self.settle(key, now);
            }
        }
        None
    }

    /// Lets the first of a bucket's queue go, which may.
    fn grant(&mut self, key: Key, global: Option<Place>, now: Duration) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(waiter) = slot.queue.pop() else { return };
        let Some(grant) = slot.take(key, &waiter.wish, now, global) else { return };
        // It may have left in this moment.
        if let Err(grant) = waiter.grant.send(grant) {
            self.give_back(&grant);
        }
    }
}

#[cfg(test)]
mod tests;
