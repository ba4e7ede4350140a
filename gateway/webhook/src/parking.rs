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

/// See the module.
#[derive(Debug)]
pub(crate) struct Parking<T> {
    bounds: Bounds,
    /// Webhooks of which a message is under way, each with those that wait behind it.
    webhooks: HashMap<u64, VecDeque<(T, usize)>>,
    bytes: usize,
    waiting: usize,
}

impl<T> Parking<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, webhooks: HashMap::new(), bytes: 0, waiting: 0 }
    }

    /// A message of so many bytes has come.
    pub(crate) fn come(&mut self, webhook: u64, item: T, bytes: usize) -> Place<T> {
        let Some(queue) = self.webhooks.get_mut(&webhook) else {
            self.webhooks.insert(webhook, VecDeque::new());
            return Place::Goes(item);
        };
        if queue.len() >= self.bounds.each || self.bytes + bytes > self.bounds.bytes {
            return Place::Full(item);
        }
        queue.push_back((item, bytes));
        self.bytes += bytes;
        self.waiting += 1;
        Place::Waits
    }

    /// The webhook's message under way is over; the next one goes.
    pub(crate) fn over(&mut self, webhook: u64) -> Option<T> {
        let next = self.webhooks.get_mut(&webhook)?.pop_front();
        match next {
            Some((item, bytes)) => {
                self.bytes -= bytes;
                self.waiting -= 1;
                Some(item)
            }
            None => {
                self.webhooks.remove(&webhook);
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
        let mut parking = Parking::new(Bounds { each: 2, bytes: 100 });
        assert_eq!(parking.come(1, "a", 10), Place::Goes("a"));
        assert_eq!(parking.come(1, "b", 10), Place::Waits);
        assert_eq!(parking.come(2, "c", 10), Place::Goes("c"));
        assert_eq!(parking.come(1, "d", 10), Place::Waits);
        assert_eq!(parking.waiting(), (2, 20));
        assert_eq!((parking.over(1), parking.over(1), parking.over(1)), (Some("b"), Some("d"), None));
        assert_eq!((parking.over(2), parking.waiting()), (None, (0, 0)));
        assert!(parking.webhooks.is_empty());
    }

    #[test]
    fn a_webhook_that_has_all_that_it_may_have_leaves_room_for_others() {
        let mut parking = Parking::new(Bounds { each: 1, bytes: 100 });
        assert_eq!(parking.come(1, "a", 10), Place::Goes("a"));
        assert_eq!(parking.come(1, "b", 10), Place::Waits);
        assert_eq!(parking.come(1, "c", 10), Place::Full("c"));
        assert_eq!(parking.come(2, "d", 10_000), Place::Goes("d"), "what goes at once doesn't wait");
        assert_eq!(parking.come(2, "e", 91), Place::Full("e"), "the bytes of all count");
        assert_eq!(parking.come(2, "f", 90), Place::Waits);
    }
}
