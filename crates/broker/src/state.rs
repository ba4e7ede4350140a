// SPDX-License-Identifier: AGPL-3.0-only
//! What the connections to the broker are doing, as one state that anybody may watch.

use std::sync::{Mutex, PoisonError};

use holdfast_service::Condition;
use tokio::sync::watch;

use crate::error::Refusal;

/// What the connections are doing, all together: the worst of them counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not all are there; they are tried again and again.
    Connecting {
        /// Why not yet.
        reason: String,
    },
    /// The broker refuses. It is asked again and again, since somebody may be putting it right.
    Refused(Refusal),
    /// All are there, but the broker takes no messages for now: an alarm about its memory or disk.
    Blocked {
        /// In its words.
        reason: String,
    },
    /// All are there.
    Connected,
}

impl State {
    /// The higher, the worse.
    fn severity(&self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Blocked { .. } => 1,
            Self::Connecting { .. } => 2,
            Self::Refused(_) => 3,
        }
    }
}

/// Which connection. Publishing is apart from the rest because the broker stops reading from a connection that
/// publishes when it is short of memory; consuming, because it must go on then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ordered streams.
    Events,
    /// Requests, replies, dead letters.
    Rpc,
    /// Consumers, and declarations.
    Consume,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Rpc => "rpc",
            Self::Consume => "consume",
        }
    }
}

/// Makes one state of those of all connections.
#[derive(Debug)]
pub(crate) struct Board {
    links: Mutex<[State; 3]>,
    sender: watch::Sender<State>,
    condition: Condition,
}

impl Board {
    pub(crate) fn new(condition: Condition) -> Self {
        let state = State::Connecting { reason: "the first connection is being made".to_owned() };
        Self {
            links: Mutex::new([state.clone(), state.clone(), state.clone()]),
            sender: watch::Sender::new(state),
            condition,
        }
    }

    /// Of a broker without connections.
    pub(crate) fn connected(condition: Condition) -> Self {
        condition.ready();
        let state = || State::Connected;
        Self {
            links: Mutex::new([state(), state(), state()]),
            sender: watch::Sender::new(State::Connected),
            condition,
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.sender.subscribe()
    }

    /// States what one connection is doing.
    pub(crate) fn set(&self, role: Role, state: State) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links[role as usize] = state;
        let worst = links.iter().max_by_key(|state| state.severity()).cloned();
        let Some(worst) = worst else { return };
        let changed = self.sender.send_if_modified(|known| {
            let changed = *known != worst;
            known.clone_from(&worst);
            changed
        });
        if changed {
            announce(&worst, &self.condition);
        }
    }
}

/// A change of state is worth a line, and decides whether the process is ready.
fn announce(state: &State, condition: &Condition) {
    match state {
        State::Connected => {
            condition.ready();
            tracing::info!("connected to the broker");
        }
        State::Connecting { reason } => {
            condition.waiting(format!("connecting: {reason}"));
            tracing::warn!(reason, "no connection to the broker");
        }
        State::Blocked { reason } => {
            condition.waiting(format!("the broker takes no messages: {reason}"));
            tracing::warn!(reason, "the broker takes no messages");
        }
        State::Refused(refusal) => {
            condition.waiting(refusal.to_string());
            tracing::error!(%refusal, "the broker refuses");
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_service::Readiness;

    use super::*;

    #[test]
    fn the_worst_connection_counts_and_readyz_says_why() {
        let readiness = Readiness::default();
        let board = Board::new(readiness.condition("broker", "connecting"));
        let state = board.watch();
        for role in [Role::Events, Role::Rpc, Role::Consume] {
            board.set(role, State::Connected);
        }
        assert_eq!(*state.borrow(), State::Connected);
        assert!(readiness.unmet().is_empty());
        board.set(Role::Events, State::Blocked { reason: "low on memory".to_owned() });
        assert_eq!(readiness.unmet(), ["broker: the broker takes no messages: low on memory"]);
        board.set(Role::Rpc, State::Connecting { reason: "reset by peer".to_owned() });
        assert_eq!(*state.borrow(), State::Connecting { reason: "reset by peer".to_owned() });
        board.set(Role::Rpc, State::Connected);
        board.set(Role::Events, State::Connected);
        assert_eq!(*state.borrow(), State::Connected);
        assert!(readiness.unmet().is_empty());
    }
}
