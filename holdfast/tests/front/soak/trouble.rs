// SPDX-License-Identifier: AGPL-3.0-only
//! What can go wrong, by chance: a seed gives the same troubles in the same order.

use std::time::Duration;

use holdfast_simulator::{Fault, FaultKind, Traffic};

/// One thing that goes wrong.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// At Discord; the session can be resumed.
    Upstream(Fault),
    /// At Discord; the session is gone. The faults come one after the other.
    NewSession(u32, Vec<Fault>),
    /// `kill -9`.
    KillHoldfast,
    /// SIGTERM, and a new start.
    EndHoldfast,
    CutBot(usize),
    KillBot(usize, Duration),
    StallBot(usize, Duration),
    /// More than usual, all at once.
    Burst(Traffic),
}

/// The next trouble, for so many shards and bots.
pub(crate) fn next(random: &mut fastrand::Rng, shards: u32, bots: usize) -> Trouble {
    let (shard, bot) = (random.u32(..shards), random.usize(..bots));
    let seconds = |random: &mut fastrand::Rng, from: f64, to: f64| {
        Duration::from_secs_f64(from + random.f64() * (to - from))
    };
    match random.u8(..20) {
        0..=7 => Trouble::Upstream(resumable(random, shard)),
        8..=9 => Trouble::NewSession(shard, session_ends(random, shard)),
        10..=11 => Trouble::KillHoldfast,
        12 => Trouble::EndHoldfast,
        13..=14 => Trouble::CutBot(bot),
        15..=16 => Trouble::KillBot(bot, seconds(random, 0.5, 3.0)),
        17 => Trouble::StallBot(bot, seconds(random, 1.0, 5.0)),
        _ => Trouble::Burst(Traffic { seed: random.u64(..), ..Traffic::burst(random.u64(100..2_000)) }),
    }
}

/// Everything after which Discord keeps the session.
fn resumable(random: &mut fastrand::Rng, shard: u32) -> Fault {
    let fault = |kind| Fault::new(shard, kind);
    let lasting = Duration::from_millis(random.u64(500..6_000));
    let all = [
        fault(FaultKind::Fin),
        fault(FaultKind::Rst),
        fault(FaultKind::FinRst),
        fault(FaultKind::Op7),
        fault(FaultKind::Op9).resumable(true),
        fault(FaultKind::Close).code(4000),
        fault(FaultKind::Close).code(4001),
        fault(FaultKind::Close).code(4002),
        fault(FaultKind::Close).code(4008),
        fault(FaultKind::Close).code(1000),
        fault(FaultKind::Close).code(1001),
        fault(FaultKind::Truncate),
        fault(FaultKind::Garbage).code(random.u16(..4)),
        fault(FaultKind::HeartbeatRequest),
        fault(FaultKind::Silence).lasting(lasting),
        fault(FaultKind::NoAck).lasting(lasting),
        fault(FaultKind::Refuse).lasting(lasting),
        Fault::everywhere(FaultKind::FinRst),
    ];
    all[random.usize(..all.len())].clone()
}

/// Everything after which Discord has dropped the session.
fn session_ends(random: &mut fastrand::Rng, shard: u32) -> Vec<Fault> {
    let fault = |kind| Fault::new(shard, kind);
    match random.u8(..4) {
        0 => vec![fault(FaultKind::Op9).resumable(false)],
        1 => vec![fault(FaultKind::Close).code(4007)],
        2 => vec![fault(FaultKind::Close).code(4009)],
        _ => vec![fault(FaultKind::ExpireSession), fault(FaultKind::Rst)],
    }
}
