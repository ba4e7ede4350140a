// SPDX-License-Identifier: AGPL-3.0-only
//! Buckets before a Discord that counts as it does, with answers that take their time and overtake each other.

use proptest::prelude::*;

use super::*;

#[test]
fn the_first_request_of_an_unknown_bucket_goes_alone() {
    let mut bucket = Bucket::default();
    let first = bucket.take(ms(0), 0).expect("the first");
    assert_eq!(bucket.take(ms(1), 0).err(), Some(Wait::Answer));
    bucket.answered(first, ms(40), Some(told(5, 4, 1_000, 1_000)));
    let four: Vec<_> = (0..4).map(|_| bucket.take(ms(41), 0).expect("four more at once")).collect();
    assert_eq!(four.len(), 4);
    assert_eq!(bucket.take(ms(41), 0).err(), Some(Wait::Until(ms(1_040))));
}

#[test]
fn answers_without_a_limit_let_everything_go() {
    let mut bucket = Bucket::default();
    let first = bucket.take(ms(0), 0).expect("the first");
    bucket.answered(first, ms(40), None);
    assert!((0..100).all(|_| bucket.take(ms(41), 0).is_ok()));
    bucket.caution();
    assert_eq!(bucket.take(ms(41), 0).err(), Some(Wait::Answer));
}

#[test]
fn a_429_holds_a_bucket_and_so_does_one_that_no_header_told() {
    let mut bucket = Bucket::default();
    let first = bucket.take(ms(0), 0).expect("the first");
    bucket.limited(first, ms(40), None, ms(700));
    assert_eq!(bucket.take(ms(50), 0).err(), Some(Wait::Until(ms(700))));
    let second = bucket.take(ms(700), 0).expect("the block is over");
    bucket.answered(second, ms(740), Some(told(5, 3, 2_000, 2_740)));
    let third = bucket.take(ms(741), 0).expect("there is room");
    bucket.limited(third, ms(780), Some(told(5, 2, 2_000, 2_780)), ms(600_000));
    assert_eq!(bucket.take(ms(790), 0).err(), Some(Wait::Until(ms(600_000))));
}

#[test]
fn what_another_sender_has_used_is_seen() {
    let mut bucket = Bucket::default();
    let first = bucket.take(ms(0), 0).expect("the first");
    bucket.answered(first, ms(40), Some(told(5, 0, 3_000, 3_000)));
    assert_eq!(bucket.take(ms(41), 0).err(), Some(Wait::Until(ms(3_040))));
}

#[test]
fn a_request_that_was_never_sent_gives_its_place_back() {
    let mut bucket = Bucket::default();
    let first = bucket.take(ms(0), 0).expect("the first");
    bucket.answered(first, ms(40), Some(told(2, 1, 1_000, 1_000)));
    let second = bucket.take(ms(41), 0).expect("one more");
    bucket.unused(second);
    assert!(bucket.take(ms(42), 0).is_ok() && bucket.under_way() == 1);
}

#[test]
fn the_form_shows_in_whether_the_reset_moves() {
    for (discord, steady) in [(Discord::window(5, 5_000), false), (Discord::steady(5, 5_000), true)] {
        let (mut bucket, mut discord) = (Bucket::default(), discord);
        let mut go = |bucket: &mut Bucket, now: u64| {
            let ticket = bucket.take(ms(now), 0).expect("there is room");
            let told = discord.count(now + 10).expect("no 429");
            bucket.answered(ticket, ms(now + 20), Some(told));
        };
        go(&mut bucket, 0);
        go(&mut bucket, 100);
        assert_eq!(matches!(bucket.count, Count::Steady(_)), steady, "{bucket:?}");
        assert_eq!(matches!(bucket.count, Count::Window(Window { sure: true, .. })), !steady, "{bucket:?}");
    }
}

#[test]
fn voices_that_count_apart_are_told_apart_and_those_that_do_not_are_not() {
    for make in [Discord::window as fn(u32, u64) -> Discord, Discord::steady] {
        for apart in [true, false] {
            let (mut bucket, mut one, mut other) = (Bucket::default(), make(5, 5_000), make(5_000, 5_000));
            other.limit = 5;
            other.length = 5_000;
            let mut shown = false;
            for (now, voice) in [(0, 0), (100, 0), (200, 1), (300, 0), (400, 1)] {
                let Ok(ticket) = bucket.take(ms(now), voice) else { continue };
                let discord = if apart && voice == 1 { &mut other } else { &mut one };
                let told = discord.count(now + 10).expect("no 429");
                shown |= bucket.answered(ticket, ms(now + 20), Some(told));
            }
            assert_eq!(shown, apart);
        }
    }
}

#[test]
fn the_estimate_counts_what_is_ahead() {
    let mut bucket = Bucket::default();
    assert_eq!(bucket.estimate(ms(5), 3), ms(5));
    let first = bucket.take(ms(0), 0).expect("the first");
    bucket.answered(first, ms(0), Some(told(5, 0, 5_000, 5_000)));
    assert_eq!(bucket.estimate(ms(100), 0), ms(5_000));
    assert_eq!(bucket.estimate(ms(100), 4), ms(5_000));
    assert_eq!(bucket.estimate(ms(100), 5), ms(10_000));
}

proptest! {
    /// Whatever the form, however answers overtake each other: Discord never says 429, and the bucket is used to
    /// most of what it has.
    #[test]
    fn discord_is_never_asked_too_much_and_not_much_too_little(
        limit in 1_u32..12,
        steady in any::<bool>(),
        trips in proptest::collection::vec((1_u64..60, 1_u64..60), 150),
    ) {
        let mut discord = if steady { Discord::steady(limit, 5_000) } else { Discord::window(limit, 5_000) };
        let mut bucket = Bucket::default();
        // (when, what): 0 reaches Discord, 1 is back.
        let (mut flying, mut now, mut counted): (Vec<(u64, Flight)>, u64, u32) = (Vec::new(), 0, 0);
        let mut trips = trips.into_iter().peekable();
        while trips.peek().is_some() || !flying.is_empty() {
            let mut next = u64::MAX;
            while trips.peek().is_some() {
                match bucket.take(ms(now), 0) {
                    Ok(ticket) => {
                        let (out, back) = trips.next().expect("peeked");
                        flying.push((now + out, Flight::Out(ticket, back)));
                    }
                    Err(Wait::Until(until)) => { next = u64::try_from(until.as_micros()).expect("small").div_ceil(1_000); break; }
                    Err(Wait::Answer) => break,
                }
            }
            flying.sort_by_key(|(at, _)| *at);
            match flying.first().map(|(at, _)| *at) {
                Some(at) if at <= next => {
                    now = at;
                    match flying.remove(0).1 {
                        Flight::Out(ticket, back) => {
                            let told = discord.count(now);
                            prop_assert!(told.is_some(), "a 429 at {now}: {bucket:?} {discord:?}");
                            counted += 1;
                            flying.push((now + back, Flight::Back(ticket, told)));
                        }
                        Flight::Back(ticket, told) => { prop_assert!(!bucket.answered(ticket, ms(now), told)); }
                    }
                }
                _ => { prop_assert!(next < u64::MAX && next > now); now = next; }
            }
        }
        prop_assert_eq!(counted, 150);
        let rounds = u64::from(150_u32.div_ceil(limit));
        // A round trip is lost with each window, and the first window is spent on learning.
        let most = rounds * (5_000 + 120) + 5_000 + 500;
        prop_assert!(now <= most, "took {now} ms, could be {most}: {bucket:?}");
    }
}

#[derive(Debug)]
enum Flight {
    Out(Ticket, u64),
    Back(Ticket, Option<Told>),
}

/// Discord's side of one bucket, by its documentation.
#[derive(Debug)]
struct Discord {
    limit: u32,
    length: u64,
    steady: bool,
    used: u32,
    /// In microseconds.
    full_at: u64,
}

impl Discord {
    fn window(limit: u32, length: u64) -> Self {
        Self { limit, length, steady: false, used: 0, full_at: 0 }
    }

    fn steady(limit: u32, length: u64) -> Self {
        Self { steady: true, ..Self::window(limit, length) }
    }

    fn count(&mut self, now: u64) -> Option<Told> {
        let (now, length) = (now * 1_000, self.length * 1_000);
        if self.steady {
            let place = length / u64::from(self.limit);
            let full_at = self.full_at.max(now) + place;
            if full_at - now > place * u64::from(self.limit) {
                return None;
            }
            self.full_at = full_at;
            self.used = u32::try_from((full_at - now).div_ceil(place)).expect("small");
        } else {
            if now >= self.full_at {
                (self.used, self.full_at) = (0, now + length);
            }
            self.used += 1;
            if self.used > self.limit {
                return None;
            }
        }
        // Rounded as in the headers.
        let after = (self.full_at - now).div_ceil(1_000);
        let reset = self.full_at.div_ceil(1_000);
        Some(told(self.limit, self.limit - self.used, after, reset))
    }
}

fn told(limit: u32, remaining: u32, after: u64, reset: u64) -> Told {
    Told { limit, remaining, reset_after: ms(after), reset: Some(ms(reset)) }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
