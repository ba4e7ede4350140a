// SPDX-License-Identifier: AGPL-3.0-only
//! What a replica shows another to be let in as one: who its client is and which shard that wants, signed with a key
//! that only replicas of this bot have.
//!
//! In: a ticket, or a header. Out: a header, or a ticket that was issued for us, just now, and shown for the first
//! time. Pure.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hmac::{Hmac, Mac};
use holdfast_cluster::{ReplicaId, ShardId};
use holdfast_service::Secret;
use sha2::Sha256;

/// The request's header that holds a ticket.
pub(crate) const HEADER: &str = "holdfast-splice";

/// How far a ticket's time may be off ours: what clocks that are kept at all differ by, and a connection takes.
const AGE: Duration = Duration::from_secs(30);
/// Tickets remembered so that none is shown twice; those older than [`AGE`] are forgotten. 1,000 a second.
const MAX_SEEN: usize = 64 * 1024;

/// The client for whom a replica asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The shard that the client wants.
    pub(crate) shard: ShardId,
    /// The replica that is asked.
    pub(crate) to: ReplicaId,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Only the shard's part of a client is wanted, whose parts the replica that asks merges.
    pub(crate) leg: bool,
}

/// How what is said for a leg begins.
const LEG: &str = "leg ";

/// Why a ticket isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("it isn't signed by a replica of this bot")]
    Signature,
    #[error("it is for another replica")]
    Elsewhere,
    #[error("it is too old, or a clock is wrong")]
    Stale,
    #[error("it was shown before")]
    Replayed,
    #[error("too many were shown")]
    Full,
}

/// Signs tickets.
pub(super) struct Key(Hmac<Sha256>);

/// Takes each ticket once.
pub(super) struct Gate {
    key: Key,
    own: ReplicaId,
    /// When those that were shown were issued, by their nonces.
    seen: Mutex<HashMap<u128, u64>>,
}

impl Key {
    /// The key of the bot with this token.
    pub(super) fn new(token: &Secret) -> Option<Self> {
        let mut root = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
        root.update(b"holdfast splice 1");
        Hmac::new_from_slice(&root.finalize().into_bytes()).ok().map(Self)
    }

    /// The header with a ticket, good for once.
    pub(super) fn issue(&self, ticket: &Ticket, now_ms: u64) -> String {
        let Ticket { shard, to, peer, leg } = ticket;
        let nonce = fastrand::u128(..);
        let leg = if *leg { LEG } else { "" };
        let said = format!("{leg}{}/{} {to} {peer} {now_ms} {nonce:032x}", shard.shard, shard.total);
        let mac = self.0.clone().chain_update(&said).finalize().into_bytes();
        let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{said} {mac}")
    }

    /// What a header says, if we have signed it: the ticket, when it was issued, its nonce.
    fn read(&self, header: &str) -> Option<(Ticket, u64, u128)> {
        let (said, mac) = header.rsplit_once(' ')?;
        // In constant time.
        self.0.clone().chain_update(said).verify_slice(&from_hex(mac)?).ok()?;
        let (leg, said) = said.strip_prefix(LEG).map_or((false, said), |said| (true, said));
        let mut words = said.split(' ');
        let (shard, total) = words.next()?.split_once('/')?;
        let shard = ShardId::new(shard.parse().ok()?, total.parse().ok()?);
        let (to, peer) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let ticket = Ticket { shard, to, peer, leg };
        let issued = words.next()?.parse().ok()?;
        let nonce = u128::from_str_radix(words.next()?, 16).ok()?;
        Some((ticket, issued, nonce))
    }
}

impl Gate {
    /// The gate of a replica.
    pub(super) fn new(key: Key, own: ReplicaId) -> Self {
        Self { key, own, seen: Mutex::default() }
    }

    /// Signs for others.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Takes a ticket.
    pub(super) fn admit(&self, header: &str, now_ms: u64) -> Result<Ticket, Denied> {
        let (ticket, issued, nonce) = self.key.read(header).ok_or(Denied::Signature)?;
        if ticket.to != self.own {
            return Err(Denied::Elsewhere);
        }
        let fresh = |issued: u64| u128::from(issued.abs_diff(now_ms)) <= AGE.as_millis();
        if !fresh(issued) {
            return Err(Denied::Stale);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains_key(&nonce) {
            return Err(Denied::Replayed);
        }
        if seen.len() >= MAX_SEEN {
            seen.retain(|_, issued| fresh(*issued));
        }
        if seen.len() >= MAX_SEEN {
            return Err(Denied::Full);
        }
        seen.insert(nonce, issued);
        Ok(ticket)
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.bytes().map(|digit| char::from(digit).to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_ticket_says_to_its_addressee_what_was_issued() {
        let gate = gate("token");
        assert_eq!(gate.admit(&gate.key.issue(&ticket(), NOW), NOW + 20_000), Ok(ticket()));
        let v6 = Ticket { peer: "[2001:db8::1]:1234".parse().unwrap(), ..ticket() };
        assert_eq!(gate.admit(&gate.key.issue(&v6, NOW), NOW - 20_000), Ok(v6));
        let leg = Ticket { leg: true, ..ticket() };
        assert_eq!(gate.admit(&gate.key.issue(&leg, NOW), NOW), Ok(leg));
    }

    #[test]
    fn a_ticket_is_good_for_once_for_a_while_and_for_one_replica() {
        let gate = gate("token");
        let header = gate.key.issue(&ticket(), NOW);
        assert_eq!(gate.admit(&header, NOW + 30_001), Err(Denied::Stale));
        assert_eq!(gate.admit(&header, NOW - 30_001), Err(Denied::Stale));
        assert!(gate.admit(&header, NOW).is_ok());
        assert_eq!(gate.admit(&header, NOW), Err(Denied::Replayed));
        let other = Ticket { to: ReplicaId::from_number(8), ..ticket() };
        assert_eq!(gate.admit(&gate.key.issue(&other, NOW), NOW), Err(Denied::Elsewhere));
    }

    #[test]
    fn what_is_changed_or_signed_with_another_token_is_not_taken() {
        let gate = gate("token");
        let header = gate.key.issue(&ticket(), NOW);
        for at in 0..header.len() {
            let mut changed = header.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(gate.admit(&changed, NOW), Err(Denied::Signature), "{changed}");
        }
        let foreign = Key::new(&Secret::new("another")).unwrap().issue(&ticket(), NOW);
        for header in [foreign.as_str(), "", " ", "0/2", &header[..header.len() - 2], &format!("{header}00")]
        {
            assert_eq!(gate.admit(header, NOW), Err(Denied::Signature), "{header}");
        }
        assert!(!header.contains("token"));
    }

    #[test]
    fn the_memory_of_what_was_shown_is_bounded_and_empties_with_time() {
        let gate = gate("token");
        for _ in 0..MAX_SEEN {
            gate.admit(&gate.key.issue(&ticket(), NOW), NOW).unwrap();
        }
        assert_eq!(gate.admit(&gate.key.issue(&ticket(), NOW), NOW), Err(Denied::Full));
        let later = NOW + 31_000;
        assert!(gate.admit(&gate.key.issue(&ticket(), later), later).is_ok());
        assert_eq!(gate.seen.lock().unwrap().len(), 1);
    }

    fn gate(token: &str) -> Gate {
        Gate::new(Key::new(&Secret::new(token)).unwrap(), ReplicaId::from_number(7))
    }

    fn ticket() -> Ticket {
        Ticket {
            shard: ShardId::new(3, 16),
            to: ReplicaId::from_number(7),
            peer: "192.0.2.1:5000".parse().unwrap(),
            leg: false,
        }
    }
}
