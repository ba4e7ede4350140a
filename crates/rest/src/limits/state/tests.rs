// SPDX-License-Identifier: AGPL-3.0-only
//! An account with requests that wait, leave and are let go.

use holdfast_discord::rest::find;

use super::super::fair::{Caller, Priority};
use super::*;

const SEND: (&str, &str) = ("POST", "/channels/1/messages");

#[test]
fn who_waits_for_a_bucket_goes_when_its_window_is_over() {
    let mut account = Account::new(50);
    let first = account.now(SEND, 0).expect("the first");
    let mut second = account.queue(SEND, Priority::Normal, 1, 1);
    assert!(account.state.advance(ms(2)).is_none() && second.try_recv().is_err(), "the first goes alone");
    account.answer(first, SEND, 40, Some(told(1, 0, 1_000, 1_000)));
    assert_eq!(account.state.advance(ms(41)), Some(ms(1_040)));
    account.state.advance(ms(1_040));
    assert!(second.try_recv().is_ok());
}

#[test]
fn who_left_is_passed_over_and_what_came_too_late_is_given_back() {
    let mut account = Account::new(50);
    let first = account.now(SEND, 0).expect("the first");
    let second = account.queue(SEND, Priority::Normal, 1, 1);
    let mut third = account.queue(SEND, Priority::Normal, 1, 1);
    drop(second);
    account.answer(first, SEND, 40, Some(told(2, 1, 1_000, 1_000)));
    assert!(third.try_recv().is_ok());
    assert!(account.now(SEND, 41).is_none());
}

#[test]
fn the_global_limit_lets_the_urgent_go_first_and_callers_take_turns() {
    let mut account = Account::new(1);
    let gateway = |channel: u32| format!("/channels/{channel}/typing");
    let first = account.now(("POST", &gateway(1)), 0).expect("the first");
    let mut waiting: Vec<_> =
        [(2, Priority::Low, 1), (3, Priority::Normal, 1), (4, Priority::Normal, 1), (5, Priority::Normal, 2)]
            .map(|(channel, priority, caller)| {
                (channel, account.queue(("POST", &gateway(channel)), priority, caller, 1))
            })
            .into();
    account.answer(first, ("POST", &gateway(1)), 10, None);
    let mut order = Vec::new();
    let mut now = 10;
    while !waiting.is_empty() {
        now = u64::try_from(account.state.advance(ms(now)).expect("somebody waits").as_millis())
            .expect("small");
        account.state.advance(ms(now));
        waiting.retain_mut(|(channel, grant)| match grant.try_recv() {
            Ok(grant) => {
                order.push(*channel);
                account.answer(grant, ("POST", &gateway(*channel)), now + 10, None);
                false
            }
            Err(_) => true,
        });
        now += 10;
    }
    assert_eq!(order, [3, 5, 4, 2]);
    // Each a second after the answer before.
    assert_eq!(now, 10 + 4 * 1_010);
}

#[test]
fn interactions_are_bound_neither_to_the_global_limit_nor_to_each_other() {
    let mut account = Account::new(1);
    account.now(SEND, 0).expect("the first");
    for number in 0..60 {
        let path = format!("/interactions/{number}/token/callback");
        assert!(account.now(("POST", &path), 1).is_some(), "{number}");
    }
}

#[test]
fn routes_of_one_kin_count_together_until_they_are_shown_not_to() {
    let mut account = Account::new(50);
    let edit = ("PATCH", "/channels/1/messages/5");
    let first = account.now(SEND, 0).expect("the first");
    account.answer(first, SEND, 40, Some(told(5, 1, 4_000, 4_000)));
    let second = account.now(edit, 50).expect("one is left");
    assert!(account.now(SEND, 50).is_none(), "it was the last");
    // Its own bucket was full.
    account.answer(second, edit, 90, Some(told(5, 4, 1_000, 1_060)));
    let third = account.now(edit, 100).expect("a bucket of its own, the first alone");
    account.answer(third, edit, 140, Some(told(5, 3, 1_900, 2_060)));
    for _ in 0..3 {
        assert!(account.now(edit, 150).is_some());
    }
    assert!(account.now(edit, 150).is_none());
}

#[test]
fn routes_that_answer_one_name_count_together_from_then_on() {
    let mut account = Account::new(50);
    let (pin, unpin) = (("PUT", "/channels/1/pins/5"), ("DELETE", "/channels/1/pins/5"));
    for (route, now) in [(pin, 0), (unpin, 50)] {
        let grant = account.now(route, now).expect("alone");
        let wish = account.wish(route, Priority::Normal, 0);
        account.state.answered(&grant, &wish, Some(told(2, 0, 9_000, 9_000)), Some("name"), ms(now + 40));
    }
    let wish = |route| account.wish(route, Priority::Normal, 0);
    assert_eq!(account.state.key(&wish(pin)), account.state.key(&wish(unpin)));
}

#[test]
fn a_channels_name_changes_twice_in_ten_minutes_and_other_things_go_on() {
    let mut account = Account::new(50);
    let patch = ("PATCH", "/channels/1");
    let mut rename = account.wish(patch, Priority::Normal, 0);
    rename.name_topic = true;
    for now in [0, 100] {
        let grant = account.state.try_now(&rename, ms(now)).expect("twice");
        account.state.answered(&grant, &rename, Some(told(5, 3, 1_000, 2_000)), None, ms(now + 40));
    }
    assert!(account.state.try_now(&rename, ms(5_000)).is_none());
    assert!(account.now(patch, 5_000).is_some());
    assert!(account.state.try_now(&rename, ms(600_140)).is_some());
}

#[test]
fn what_is_untold_goes_one_by_one() {
    let mut account = Account::new(50);
    let emojis = ("GET", "/guilds/1/emojis");
    let first = account.now(emojis, 0).expect("the first");
    account.answer(first, emojis, 40, Some(told(50, 49, 1_000, 1_000)));
    let second = account.now(emojis, 50).expect("the second");
    assert!(account.now(emojis, 51).is_none());
    account.answer(second, emojis, 90, Some(told(50, 48, 1_000, 1_000)));
    assert!(account.now(emojis, 91).is_some());
}

#[test]
fn a_global_429_holds_all_but_what_is_exempt() {
    let mut account = Account::new(50);
    let first = account.now(SEND, 0).expect("the first");
    account.state.limited_globally(&first, ms(700), ms(40));
    assert!(account.now(("GET", "/users/@me"), 50).is_none());
    assert!(account.now(("POST", "/webhooks/1/t"), 50).is_some());
    assert!(account.now(("GET", "/users/@me"), 700).is_some());
}

struct Account {
    state: State,
}

impl Account {
    fn new(global: u32) -> Self {
        Self { state: State::new(global, ms(100)) }
    }

    fn wish(&self, (method, path): (&str, &str), priority: Priority, caller: u64) -> Wish {
        let found = find(method, path);
        let major = found.major.bytes().fold(7, |state: u64, byte| state * 31 + u64::from(byte));
        let (route, voice) = (found.id, found.id.0 * 3);
        Wish { route, voice, major, name_topic: false, priority, caller: Caller(caller) }
    }

    fn now(&mut self, route: (&str, &str), now: u64) -> Option<Grant> {
        let wish = self.wish(route, Priority::Normal, 0);
        self.state.try_now(&wish, ms(now))
    }

    fn queue(
        &mut self,
        route: (&str, &str),
        priority: Priority,
        caller: u64,
        now: u64,
    ) -> oneshot::Receiver<Grant> {
        let (sender, grant) = oneshot::channel();
        let wish = self.wish(route, priority, caller);
        self.state.wait(wish, sender, ms(now));
        grant
    }

    fn answer(&mut self, grant: Grant, route: (&str, &str), now: u64, told: Option<Told>) {
        let wish = self.wish(route, Priority::Normal, 0);
        self.state.answered(&grant, &wish, told, None, ms(now));
    }
}

fn told(limit: u32, remaining: u32, after: u64, reset: u64) -> Told {
    Told { limit, remaining, reset_after: ms(after), reset: Some(ms(reset)) }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
