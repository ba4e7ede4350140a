// SPDX-License-Identifier: AGPL-3.0-only
//! Which replica should own which shard: rendezvous hashing with weights and bounds. In: how many shards, who lives.
//! Out: an owner per shard, the same wherever it is computed. Pure; integers only, since replicas of different
//! machines and versions must agree to the last bit.

use crate::{Replica, ReplicaId};

/// How far above its even share a replica may go, in quarters: 5/4. Plain rendezvous hashing of 16 shards over 3
/// replicas gives one of them 8 or more in a quarter of all cases.
const SLACK_QUARTERS: u128 = 5;

/// The owner of each shard of `total`; `None` where all replicas are full. Those that drain are passed over.
///
/// Each pair of shard and replica has a cost, drawn from a hash of both and divided by the weight; the cheapest pairs
/// are taken first while the replica has room. So all shards have an owner as long as there is room, and when a
/// replica comes or goes hardly any shard moves but those that it takes or leaves.
#[must_use]
pub fn place(total: u32, replicas: &[Replica]) -> Vec<Option<ReplicaId>> {
    let able: Vec<&Replica> = replicas.iter().filter(|replica| !replica.draining).collect();
    let mut room = bounds(total, &able);
    let mut pairs = Vec::with_capacity(able.len() * total as usize);
    for shard in 0..total {
        for (index, replica) in able.iter().enumerate() {
            pairs.push((cost(shard, replica), shard, replica.id, index));
        }
    }
    pairs.sort_unstable();
    let mut owners = vec![None; total as usize];
    for (_, shard, replica, index) in pairs {
        let owner = &mut owners[shard as usize];
        if owner.is_none() && room[index] > 0 {
            room[index] -= 1;
            *owner = Some(replica);
        }
    }
    owners
}

/// The most shards for each: its own bound, and not too far above its even share of what those with bounds leave.
fn bounds(total: u32, replicas: &[&Replica]) -> Vec<u32> {
    let most = |replica: &Replica| replica.max_shards.unwrap_or(total).min(total);
    let mut left = u128::from(total);
    let mut weights: u128 = replicas.iter().map(|replica| weight(replica)).sum();
    let mut full = vec![false; replicas.len()];
    // Whoever can't take its even share leaves the rest to the others, which may fill the next one.
    loop {
        let filled = replicas.iter().enumerate().position(|(index, replica)| {
            !full[index] && u128::from(most(replica)) * weights < left * weight(replica)
        });
        let Some(index) = filled else { break };
        full[index] = true;
        left -= u128::from(most(replicas[index]));
        weights -= weight(replicas[index]);
    }
    let even = |replica: &Replica| {
        let share = (left * weight(replica) * SLACK_QUARTERS).div_ceil(4 * weights.max(1));
        u32::try_from(share).unwrap_or(u32::MAX).min(most(replica))
    };
    let bound =
        |(index, replica): (usize, &&Replica)| if full[index] { most(replica) } else { even(replica) };
    replicas.iter().enumerate().map(bound).collect()
}

fn weight(replica: &Replica) -> u128 {
    u128::from(replica.weight.max(1))
}

/// −log₂ of a number drawn evenly between 0 and 1, over the weight: the least of several such is a replica's with the
/// chance that its weight has among all.
fn cost(shard: u32, replica: &Replica) -> u128 {
    let drawn = mix(replica.id.number() ^ mix(u64::from(shard) + 1));
    (u128::from(minus_log2(drawn | 1)) << 32) / weight(replica)
}

/// splitmix64's finaliser: each bit of the input changes half of the output's.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// −log₂(number ÷ 2⁶⁴) with 32 binary digits after the point. The number isn't 0.
fn minus_log2(number: u64) -> u64 {
    let whole = 63 - u64::from(number.leading_zeros());
    // In [1, 2), with 63 digits after the point; squaring it doubles its logarithm, and shows the next digit.
    let mut rest = u128::from(number << number.leading_zeros());
    let mut log = whole;
    for _ in 0..32 {
        rest = (rest * rest) >> 63;
        let digit = rest >> 64;
        rest >>= digit;
        log = log << 1 | u64::from(digit == 1);
    }
    (64 << 32) - log
}

#[cfg(test)]
mod tests;
