// SPDX-License-Identifier: AGPL-3.0-only
//! Placement: what holds for any replicas.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn sixteen_shards_are_spread_over_three_replicas() {
    let replicas: Vec<Replica> = [1, 2, 3].map(|id| replica(id, 100, None)).into();
    let counts = counts(&place(16, &replicas));
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| *count <= 7), "16 ÷ 3 × 5/4 = 6.7: {counts:?}");
}

#[test]
fn placement_is_the_same_in_every_version() {
    // Replicas of two versions must agree during a rolling upgrade: these owners may never change.
    let replicas: Vec<Replica> = [11, 22, 33].map(|id| replica(id, 100, None)).into();
    let owners: Vec<u64> = place(12, &replicas).into_iter().map(|owner| owner.unwrap().number()).collect();
    assert_eq!(owners, PLACED);
}

const PLACED: [u64; 12] = [33, 22, 11, 33, 33, 33, 11, 33, 11, 22, 22, 22];

#[test]
fn a_weight_of_three_takes_three_times_as_much() {
    let replicas = [replica(1, 300, None), replica(2, 100, None)];
    let counts = counts(&place(4000, &replicas));
    let share = f64::from(counts[&replicas[0].id]) / 4000.0;
    assert!((0.72..0.78).contains(&share), "{share}");
}

#[test]
fn without_replicas_nobody_owns_anything() {
    assert_eq!(place(2, &[]), [None, None]);
    let draining = Replica { draining: true, ..replica(1, 100, None) };
    assert_eq!(place(1, &[draining]), [None]);
    assert_eq!(place(0, &[replica(1, 100, None)]), []);
}

#[test]
fn the_logarithm_is_exact_where_it_can_be_checked() {
    for digit in 0..64 {
        assert_eq!(minus_log2(1 << digit), (64 - digit) << 32);
    }
    for number in [3, 12_345, u64::MAX / 3, u64::MAX] {
        let float = 64.0 - (number as f64).log2();
        let fixed = minus_log2(number) as f64 / f64::from(1 << 16) / f64::from(1 << 16);
        assert!((float - fixed).abs() < 1e-6, "{number}: {float} {fixed}");
    }
}

proptest! {
    #[test]
    fn every_shard_has_an_owner_as_long_as_there_is_room_and_no_bound_is_broken(
        total in 0_u32..200,
        replicas in replicas(),
    ) {
        let owners = place(total, &replicas);
        let counts = counts(&owners);
        for replica in &replicas {
            let owned = counts.get(&replica.id).copied().unwrap_or(0);
            prop_assert!(owned <= replica.max_shards.unwrap_or(u32::MAX));
            prop_assert!(!replica.draining || owned == 0);
        }
        let able = replicas.iter().filter(|replica| !replica.draining);
        let room: u64 = able.map(|replica| u64::from(replica.max_shards.unwrap_or(total))).sum();
        let owned: u32 = counts.values().sum();
        prop_assert_eq!(u64::from(owned), room.min(u64::from(total)));
    }

    #[test]
    fn the_order_in_which_replicas_are_listed_does_not_matter(
        total in 1_u32..100,
        replicas in replicas(),
        by in 0_usize..8,
    ) {
        let mut turned = replicas.clone();
        turned.rotate_left(by % replicas.len().max(1));
        prop_assert_eq!(place(total, &replicas), place(total, &turned));
    }

    #[test]
    fn nobody_is_far_above_its_even_share(total in 1_u32..200, ids in ids()) {
        let replicas: Vec<Replica> = ids.iter().map(|id| replica(*id, 100, None)).collect();
        let most = (total * 5).div_ceil(4 * u32::try_from(replicas.len()).unwrap());
        let counts = counts(&place(total, &replicas));
        prop_assert!(counts.values().all(|count| *count <= most), "{:?}", counts);
    }

    #[test]
    fn when_a_replica_goes_hardly_any_shard_moves_but_its_own(ids in ids(), leaver in 0_usize..8) {
        let replicas: Vec<Replica> = ids.iter().map(|id| replica(*id, 100, None)).collect();
        let leaver = leaver % replicas.len();
        let rest: Vec<Replica> =
            replicas.iter().filter(|replica| replica.id != replicas[leaver].id).cloned().collect();
        prop_assume!(!rest.is_empty());
        let (before, after) = (place(96, &replicas), place(96, &rest));
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
        let own = before.iter().filter(|owner| **owner == Some(replicas[leaver].id)).count();
        // What bounds push about is on top; without any it would be none.
        prop_assert!(moved >= own && moved <= own + 96 / 8, "{moved} of which {own} had to");
    }
}

fn replicas() -> impl Strategy<Value = Vec<Replica>> {
    let one = (any::<u64>(), 1_u32..400, proptest::option::of(0_u32..80), proptest::bool::weighted(0.1));
    proptest::collection::vec(one, 0..8).prop_map(|replicas| {
        let replicas: BTreeMap<u64, Replica> = replicas
            .into_iter()
            .map(|(id, weight, max, draining)| (id, Replica { draining, ..replica(id, weight, max) }))
            .collect();
        replicas.into_values().collect()
    })
}

fn ids() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::btree_set(any::<u64>(), 1..8).prop_map(|ids| ids.into_iter().collect())
}

fn counts(owners: &[Option<ReplicaId>]) -> BTreeMap<ReplicaId, u32> {
    let mut counts = BTreeMap::new();
    for owner in owners.iter().flatten() {
        *counts.entry(*owner).or_default() += 1;
    }
    counts
}

fn replica(id: u64, weight: u32, max_shards: Option<u32>) -> Replica {
    Replica {
        id: ReplicaId::from_number(id),
        address: String::new(),
        weight,
        max_shards,
        draining: false,
        started_unix_ms: 0,
    }
}
