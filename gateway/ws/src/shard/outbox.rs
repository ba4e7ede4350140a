// SPDX-License-Identifier: AGPL-3.0-only
//! What clients want sent to Discord, waiting for the 120 sends a minute that a connection has.
//!
//! In: payloads from clients. Out: the next one when the budget allows: voice first, then the clients in
//! turn, so that one busy client can't starve the others. Pure; owned by the shard's task; bounded per
//! client.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use holdfast_discord::limits::SendBudget;

/// A client itself may send 120 a minute; two minutes' worth may wait while upstream is away.
const MAX_PER_CLIENT: usize = 240;

/// Over all clients, those that have left among them: ten minutes' worth of the budget, 5 MiB at most.
const MAX_IN_ALL: usize = 1_200;

/// One payload for Discord.
#[derive(Debug)]
pub(crate) struct Command {
    /// The connection that sent it; 0 for our own.
    pub(crate) client: u64,
    /// Voice goes first: a late join is heard.
    pub(crate) voice: bool,
    /// The whole payload, JSON, at most 4,096 bytes.
    pub(crate) payload: Vec<u8>,
}

/// The waiting commands of one shard.
pub(crate) struct Outbox {
    budget: SendBudget,
    /// The budget counts time from here.
    origin: Instant,
    voice: VecDeque<Vec<u8>>,
    turn: VecDeque<u64>,
    by_client: HashMap<u64, VecDeque<Vec<u8>>>,
    next_at: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            budget: SendBudget::discord(),
            origin: Instant::now(),
            voice: VecDeque::new(),
            turn: VecDeque::new(),
            by_client: HashMap::new(),
            next_at: None,
        }
    }

    /// Takes a command in. False: the client has too many waiting already, this one is dropped.
    pub(crate) fn push(&mut self, command: Command) -> bool {
        self.next_at = None;
        if self.len() >= MAX_IN_ALL {
            return false;
        }
        if command.voice {
            let room = self.voice.len() < MAX_PER_CLIENT;
            if room {
                self.voice.push_back(command.payload);
            }
            return room;
        }
        let queue = self.by_client.entry(command.client).or_default();
        if queue.is_empty() {
            self.turn.push_back(command.client);
        }
        let room = queue.len() < MAX_PER_CLIENT;
        if room {
            queue.push_back(command.payload);
        }
        room
    }

    /// The next payload, if one is waiting and may be sent now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.len() == 0 || self.next_at.is_some_and(|at| now < at) {
            return None;
        }
        if let Err(wait) = self.budget.try_take(now.duration_since(self.origin), false) {
            self.next_at = Some(now + wait);
            return None;
        }
        self.next_at = None;
        if let Some(payload) = self.voice.pop_front() {
            return Some(payload);
        }
        let client = self.turn.pop_front()?;
        let queue = self.by_client.get_mut(&client)?;
        let payload = queue.pop_front();
        if queue.is_empty() {
            self.by_client.remove(&client);
        } else {
            self.turn.push_back(client);
        }
        payload
    }

    /// A send that doesn't wait (heartbeat, IDENTIFY, RESUME) is counted all the same.
    pub(crate) fn count(&mut self, now: Instant) {
        let _ = self.budget.try_take(now.duration_since(self.origin), true);
    }

    /// When the next payload may be sent; none if nothing waits.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        (self.len() > 0).then(|| self.next_at.unwrap_or(now))
    }

    /// A new connection has a budget of its own.
    pub(crate) fn new_connection(&mut self) {
        self.budget = SendBudget::discord();
        self.next_at = None;
    }

    /// Number of payloads waiting.
    pub(crate) fn len(&self) -> usize {
        self.voice.len() + self.by_client.values().map(VecDeque::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn voice_goes_first_and_clients_take_turns() {
        let mut outbox = Outbox::new();
        for payload in ["a1", "a2", "a3"] {
            outbox.push(command(1, payload));
        }
        outbox.push(command(2, "b1"));
        outbox.push(Command { voice: true, ..command(3, "voice") });
        let now = Instant::now();
        let sent: Vec<_> =
            std::iter::from_fn(|| outbox.pop(now)).map(|p| String::from_utf8(p).unwrap()).collect();
        assert_eq!(sent, ["voice", "a1", "b1", "a2", "a3"]);
        assert_eq!(outbox.due(now), None);
    }

    #[test]
    fn the_budget_of_a_connection_is_kept_with_room_for_heartbeats() {
        let mut outbox = Outbox::new();
        for number in 0..200 {
            outbox.push(command(number, "x"));
        }
        let now = Instant::now();
        let sent = std::iter::from_fn(|| outbox.pop(now)).count();
        assert!((100..120).contains(&sent), "{sent} of 120");
        let due = outbox.due(now).unwrap();
        assert!(due > now + Duration::from_secs(59), "the rest waits for the window");
        assert!(outbox.pop(due).is_some());
    }

    #[test]
    fn one_client_cannot_fill_the_memory() {
        let mut outbox = Outbox::new();
        assert!((0..MAX_PER_CLIENT).all(|_| outbox.push(command(1, "x"))));
        assert!(!outbox.push(command(1, "x")));
        assert!(outbox.push(command(2, "x")));
    }

    #[test]
    fn all_clients_together_cannot_fill_it_either() {
        let mut outbox = Outbox::new();
        let taken = (0..10_000).filter(|client| outbox.push(command(*client, "x"))).count();
        assert_eq!(taken, MAX_IN_ALL);
    }

    fn command(client: u64, payload: &str) -> Command {
        Command { client, voice: false, payload: payload.into() }
    }
}
