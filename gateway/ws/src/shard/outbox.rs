// SPDX-License-Identifier: AGPL-3.0-only
//! What clients and workers want sent to Discord, waiting for the 120 sends a minute that a connection has.
//!
//! In: payloads, each from a sender and of a priority. Out: the next one when the budget allows: by priority, then
//! the senders in turn, so that one busy sender can't starve the others. Pure; owned by the shard's task; bounded
//! per sender.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use holdfast_discord::limits::SendBudget;

/// "Sending Events": larger payloads are refused.
pub(crate) const MAX_PAYLOAD: usize = 4096;

/// A client itself may send 120 a minute; two minutes' worth may wait while upstream is away.
const MAX_PER_SENDER: usize = 240;

/// Over all senders, those that have left among them: ten minutes' worth of the budget, 5 MiB at most.
const MAX_IN_ALL: usize = 1_200;

/// One payload for Discord.
#[derive(Debug)]
pub(crate) struct Command {
    /// Who takes turns: the connection that sent it; 0 for our own.
    pub(crate) sender: u64,
    /// Who goes first.
    pub(crate) priority: Priority,
    /// The whole payload, JSON, at most [`MAX_PAYLOAD`].
    pub(crate) payload: Vec<u8>,
    /// For a sender who wants to know what becomes of it.
    pub(crate) ticket: Option<Ticket>,
}

impl Command {
    /// A command of somebody who doesn't ask what becomes of it.
    pub(crate) fn new(sender: u64, priority: Priority, payload: Vec<u8>) -> Self {
        Self { sender, priority, payload, ticket: None }
    }
}

/// Who goes first. Voice is high: a late join is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    High,
    Normal,
    Low,
}

/// A command's way to the wire, as both its sender and the shard's task hold it: either it is taken to be sent, or
/// it is withdrawn, never both.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    state: Arc<AtomicU8>,
}

const WAITS: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    pub(super) fn new(number: u64) -> Self {
        Self { number, state: Arc::default() }
    }

    /// The sender no longer wants it sent. False: it has been taken already.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave(WITHDRAWN)
    }

    /// It is to be sent now. False: it has been withdrawn.
    fn take(&self) -> bool {
        self.leave(TAKEN)
    }

    fn leave(&self, to: u8) -> bool {
        self.state.compare_exchange(WAITS, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_withdrawn(&self) -> bool {
        self.state.load(Ordering::Acquire) == WITHDRAWN
    }
}

/// The waiting commands of one shard.
pub(crate) struct Outbox {
    budget: SendBudget,
    /// The budget counts time from here.
    origin: Instant,
    /// By priority.
    queues: [Turns; 3],
    next_at: Option<Instant>,
}

/// The commands of one priority: senders take turns.
#[derive(Default)]
struct Turns {
    turn: VecDeque<u64>,
    by_sender: HashMap<u64, VecDeque<Command>>,
    /// How many of them may be withdrawn.
    ticketed: usize,
}

impl Turns {
    /// Takes a command in, or gives it back: its sender has too many waiting already.
    fn push(&mut self, command: Command) -> Result<(), Command> {
        let queue = self.by_sender.entry(command.sender).or_default();
        if queue.len() >= MAX_PER_SENDER {
            return Err(command);
        }
        if queue.is_empty() {
            self.turn.push_back(command.sender);
        }
        self.ticketed += usize::from(command.ticket.is_some());
        queue.push_back(command);
        Ok(())
    }

    /// The next command that is still wanted.
    fn pop(&mut self) -> Option<Command> {
        loop {
            let sender = self.turn.pop_front()?;
            let queue = self.by_sender.get_mut(&sender)?;
            let command = queue.pop_front();
            if queue.is_empty() {
                self.by_sender.remove(&sender);
            } else {
                self.turn.push_back(sender);
            }
            self.ticketed -= usize::from(command.as_ref().is_some_and(|command| command.ticket.is_some()));
            if let Some(command) = command
                && command.ticket.as_ref().is_none_or(Ticket::take)
            {
                return Some(command);
            }
        }
    }

    fn forget_withdrawn(&mut self) {
        if self.ticketed == 0 {
            return;
        }
        let before = self.len();
        for queue in self.by_sender.values_mut() {
            queue.retain(|command| !command.ticket.as_ref().is_some_and(Ticket::is_withdrawn));
        }
        self.ticketed -= before - self.len();
        self.by_sender.retain(|_, queue| !queue.is_empty());
        self.turn.retain(|sender| self.by_sender.contains_key(sender));
    }

    fn len(&self) -> usize {
        self.by_sender.values().map(VecDeque::len).sum()
    }
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            budget: SendBudget::discord(),
            origin: Instant::now(),
            queues: <[Turns; 3]>::default(),
            next_at: None,
        }
    }

    /// Takes a command in, or gives it back: too many are waiting already.
    pub(crate) fn push(&mut self, command: Command) -> Result<(), Command> {
        self.next_at = None;
        match self.try_push(command) {
            Err(command) => {
                // Those that nobody wants sent any more make room.
                self.queues.iter_mut().for_each(Turns::forget_withdrawn);
                self.try_push(command)
            }
            taken => taken,
        }
    }

    fn try_push(&mut self, command: Command) -> Result<(), Command> {
        if self.len() >= MAX_IN_ALL {
            return Err(command);
        }
        self.queues[command.priority as usize].push(command)
    }

    /// The next command, if one is waiting and may be sent now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Command> {
        if self.next_at.is_some_and(|at| now < at) {
            return None;
        }
        // Before the budget is touched: what is withdrawn isn't to cost anything.
        self.queues.iter_mut().for_each(Turns::forget_withdrawn);
        if self.len() == 0 {
            return None;
        }
        if let Err(wait) = self.budget.try_take(now.duration_since(self.origin), false) {
            self.next_at = Some(now + wait);
            return None;
        }
        self.next_at = None;
        self.queues.iter_mut().find_map(Turns::pop)
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
        self.queues.iter().map(Turns::len).sum()
    }

    /// How many wait of each priority.
    pub(crate) fn waiting(&self) -> [usize; 3] {
        self.queues.each_ref().map(Turns::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn priority_goes_first_and_senders_take_turns() {
        let mut outbox = Outbox::new();
        push(&mut outbox, Command { priority: Priority::Low, ..command(4, "bulk") });
        for payload in ["a1", "a2", "a3"] {
            push(&mut outbox, command(1, payload));
        }
        push(&mut outbox, command(2, "b1"));
        push(&mut outbox, Command { priority: Priority::High, ..command(3, "voice") });
        assert_eq!(outbox.waiting(), [1, 4, 1]);
        let now = Instant::now();
        assert_eq!(sent(&mut outbox, now), ["voice", "a1", "b1", "a2", "a3", "bulk"]);
        assert_eq!(outbox.due(now), None);
    }

    #[test]
    fn the_budget_of_a_connection_is_kept_with_room_for_heartbeats() {
        let mut outbox = Outbox::new();
        for number in 0..200 {
            push(&mut outbox, command(number, "x"));
        }
        let now = Instant::now();
        let sent = std::iter::from_fn(|| outbox.pop(now)).count();
        assert!((100..120).contains(&sent), "{sent} of 120");
        let due = outbox.due(now).unwrap();
        assert!(due > now + Duration::from_secs(59), "the rest waits for the window");
        assert!(outbox.pop(due).is_some());
    }

    #[test]
    fn one_sender_cannot_fill_the_memory() {
        let mut outbox = Outbox::new();
        assert!((0..MAX_PER_SENDER).all(|_| outbox.push(command(1, "x")).is_ok()));
        assert!(outbox.push(command(1, "x")).is_err());
        assert!(outbox.push(command(2, "x")).is_ok());
    }

    #[test]
    fn all_senders_together_cannot_fill_it_either() {
        let mut outbox = Outbox::new();
        let taken = (0..10_000).filter(|sender| outbox.push(command(*sender, "x")).is_ok()).count();
        assert_eq!(taken, MAX_IN_ALL);
    }

    #[test]
    fn what_is_withdrawn_is_not_sent_and_costs_nothing() {
        let mut outbox = Outbox::new();
        let tickets: Vec<Ticket> = (0..MAX_PER_SENDER as u64).map(Ticket::new).collect();
        for ticket in &tickets {
            push(&mut outbox, Command { ticket: Some(ticket.clone()), ..command(1, "x") });
        }
        assert!(tickets[1..].iter().all(Ticket::withdraw));
        push(&mut outbox, command(1, "y"));
        let now = Instant::now();
        assert_eq!(sent(&mut outbox, now), ["x", "y"]);
        assert!(!tickets[0].withdraw(), "it was taken");
        assert_eq!(outbox.due(now), None);
        let budget = (0..200).filter(|number| outbox.push(command(*number, "x")).is_ok()).count();
        assert_eq!((budget, sent(&mut outbox, now).len()), (200, 112));
    }

    fn push(outbox: &mut Outbox, command: Command) {
        outbox.push(command).expect("room");
    }

    fn sent(outbox: &mut Outbox, now: Instant) -> Vec<String> {
        let payload = |command: Command| String::from_utf8(command.payload).unwrap();
        std::iter::from_fn(|| outbox.pop(now)).map(payload).collect()
    }

    fn command(sender: u64, payload: &str) -> Command {
        Command::new(sender, Priority::Normal, payload.into())
    }
}
