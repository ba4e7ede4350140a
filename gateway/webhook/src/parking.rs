// SPDX-License-Identifier: AGPL-3.0-only
//! Whose turn it is: one message of each webhook at a time, the rest wait in order, so that a webhook that is limited
//! or slow holds up no other. In: messages, and which are over. Out: what goes now. Bounded, pure; owned by a partition.

use std::collections::{HashMap, VecDeque};

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages of one webhook.
    pub(crate) each: usize,
    /// Bytes of all of them.
    pub(crate) bytes: usize,
}

/// What becomes of a message that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<T> {
    /// It goes now.
    Goes(T),
    /// It waits for those before it.
    Waits,
    /// There is no room for it to wait.
    Full(T),
}

/// A message as it comes.
#[derive(Debug)]
pub(crate) struct Coming<T> {
    pub(crate) webhook: u64,
    pub(crate) item: T,
    pub(crate) bytes: usize,
    /// It has come before.
    pub(crate) again: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parking<T> {
    bounds: Bounds,
    /// Webhooks of which a message is under way.
    webhooks: HashMap<u64, Webhook<T>>,
    /// Bytes of what is under way.
    under_way: usize,
    /// Bytes of what waits.
    bytes: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Webhook<T> {
    /// Bytes of the message under way.
    under_way: usize,
    /// Those behind it, with their bytes.
    queue: VecDeque<(T, usize)>,
}

impl<T> Parking<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, webhooks: HashMap::new(), under_way: 0, bytes: 0, waiting: 0 }
    }

    /// A message has come. Before it is found to be too much, those are forgotten that don't live any more: after a lost
    /// connection everything comes again, and has to find the room that it had.
    pub(crate) fn come(&mut self, coming: Coming<T>, lives: impl Fn(&T) -> bool) -> Place<T> {
        let Coming { webhook, item, bytes, again } = coming;
        if !self.webhooks.contains_key(&webhook) {
            self.under_way += bytes;
            self.webhooks.insert(webhook, Webhook { under_way: bytes, queue: VecDeque::new() });
            return Place::Goes(item);
        }
        if !self.has_room(webhook, bytes, again) {
            self.forget_dead(lives);
        }
        let room = self.has_room(webhook, bytes, again);
        match self.webhooks.get_mut(&webhook).filter(|_| room) {
            Some(webhook) => webhook.queue.push_back((item, bytes)),
            None => return Place::Full(item),
        }
        self.bytes += bytes;
        self.waiting += 1;
        Place::Waits
    }

    /// Whether one more may wait. What comes again may be what is under way still, which had no room here.
    fn has_room(&self, webhook: u64, bytes: usize, again: bool) -> bool {
        let Bounds { each, bytes: most } = self.bounds;
        let (each, most) = if again { (each + 1, most + self.under_way) } else { (each, most) };
        let waiting = self.webhooks.get(&webhook).map_or(0, |it| it.queue.len());
        waiting < each && self.bytes + bytes <= most
    }

    fn forget_dead(&mut self, lives: impl Fn(&T) -> bool) {
        (self.waiting, self.bytes) = (0, 0);
        for Webhook { queue, .. } in self.webhooks.values_mut() {
            queue.retain(|(item, _)| lives(item));
            self.waiting += queue.len();
            self.bytes += queue.iter().map(|(_, bytes)| bytes).sum::<usize>();
        }
    }

    /// The webhook's message under way is over; the next one goes.
    pub(crate) fn over(&mut self, number: u64) -> Option<T> {
        let webhook = self.webhooks.get_mut(&number)?;
        self.under_way -= webhook.under_way;
        match webhook.queue.pop_front() {
            Some((item, bytes)) => {
                webhook.under_way = bytes;
                self.under_way += bytes;
                self.bytes -= bytes;
                self.waiting -= 1;
                Some(item)
            }
            None => {
                self.webhooks.remove(&number);
                None
            }
        }
    }

    /// Messages that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_webhook_goes_at_a_time_and_the_others_in_order() {
        let mut parking = parking(2);
        assert_eq!(come(&mut parking, 1, "a", 10), Place::Goes("a"));
        assert_eq!(come(&mut parking, 1, "b", 10), Place::Waits);
        assert_eq!(come(&mut parking, 2, "c", 10), Place::Goes("c"));
        assert_eq!(come(&mut parking, 1, "d", 10), Place::Waits);
        assert_eq!(parking.waiting(), (2, 20));
        assert_eq!((parking.over(1), parking.over(1), parking.over(1)), (Some("b"), Some("d"), None));
        assert_eq!((parking.over(2), parking.waiting(), parking.under_way), (None, (0, 0), 0));
        assert!(parking.webhooks.is_empty());
    }

    #[test]
    fn a_webhook_that_has_all_that_it_may_have_leaves_room_for_others() {
        let mut parking = parking(1);
        assert_eq!(come(&mut parking, 1, "a", 10), Place::Goes("a"));
        assert_eq!(come(&mut parking, 1, "b", 10), Place::Waits);
        assert_eq!(come(&mut parking, 1, "c", 10), Place::Full("c"));
        assert_eq!(come(&mut parking, 2, "d", 10_000), Place::Goes("d"), "what goes at once doesn't wait");
        assert_eq!(come(&mut parking, 2, "e", 91), Place::Full("e"), "the bytes of all count");
        assert_eq!(come(&mut parking, 2, "f", 90), Place::Waits);
    }

    #[test]
    fn all_that_had_room_has_it_when_it_comes_again() {
        let mut parking = parking(2);
        for (webhook, item) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e")] {
            assert_ne!(come(&mut parking, webhook, item, 33), Place::Full(item));
        }
        let mut again = |webhook, item| {
            let coming = Coming { webhook, item, bytes: 33, again: true };
            parking.come(coming, |item| item.ends_with("again"))
        };
        for (webhook, item) in
            [(1, "a again"), (1, "b again"), (1, "c again"), (2, "d again"), (2, "e again")]
        {
            assert_eq!(again(webhook, item), Place::Waits, "{item}");
        }
        assert_eq!(again(1, "one more again"), Place::Full("one more again"));
        assert_eq!(parking.waiting(), (5, 5 * 33));
        assert_eq!(
            [(); 4].map(|()| parking.over(1)),
            [Some("a again"), Some("b again"), Some("c again"), None]
        );
    }

    /// So many of each, and a hundred bytes.
    fn parking(each: usize) -> Parking<&'static str> {
        Parking::new(Bounds { each, bytes: 100 })
    }

    fn come(
        parking: &mut Parking<&'static str>,
        webhook: u64,
        item: &'static str,
        bytes: usize,
    ) -> Place<&'static str> {
        parking.come(Coming { webhook, item, bytes, again: false }, |_| true)
    }
}
