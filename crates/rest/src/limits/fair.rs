// SPDX-License-Identifier: AGPL-3.0-only
//! A queue in which callers take turns: what is urgent goes first, and of equally urgent things each caller's next one.
//! Not bounded by itself: whoever fills it counts.

use std::collections::VecDeque;

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Replies to interactions, by default: somebody waits for them, for 3 s.
    High,
    /// Everything else, by default.
    #[default]
    Normal,
    /// Bulk work.
    Low,
}

const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// Who sends requests: callers share what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller(pub u64);

/// See the module.
#[derive(Debug)]
pub(super) struct Fair<T> {
    classes: [VecDeque<(Caller, VecDeque<T>)>; 3],
    len: usize,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { classes: Default::default(), len: 0 }
    }
}

impl<T> Fair<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, priority: Priority, caller: Caller, item: T) {
        let class = &mut self.classes[priority as usize];
        match class.iter_mut().find(|(other, _)| *other == caller) {
            Some((_, items)) => items.push_back(item),
            None => class.push_back((caller, VecDeque::from([item]))),
        }
        self.len += 1;
    }

    /// The next item, and for whom it is.
    pub(super) fn front(&self) -> Option<(Priority, Caller, &T)> {
        let of = |priority: Priority| {
            let (caller, items) = self.classes[priority as usize].front()?;
            Some((priority, *caller, items.front()?))
        };
        PRIORITIES.into_iter().find_map(of)
    }

    /// Takes the next item; its caller is last in turn then.
    pub(super) fn pop(&mut self) -> Option<T> {
        let class = self.classes.iter_mut().find(|class| !class.is_empty())?;
        let (caller, mut items) = class.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            class.push_back((caller, items));
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// How many go before the next item of a caller.
    pub(super) fn ahead(&self, priority: Priority, caller: Caller) -> usize {
        let urgent = self.classes[..priority as usize].iter().flatten();
        let urgent: usize = urgent.map(|(_, items)| items.len()).sum();
        let class = &self.classes[priority as usize];
        let own = class.iter().find(|(other, _)| *other == caller).map_or(0, |(_, items)| items.len());
        let turns =
            class.iter().map(|(other, items)| if *other == caller { own } else { items.len().min(own + 1) });
        urgent + turns.sum::<usize>()
    }

    /// Keeps only what `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for class in &mut self.classes {
            class.iter_mut().for_each(|(_, items)| items.retain(&keep));
            class.retain(|(_, items)| !items.is_empty());
        }
        self.len = self.classes.iter().flatten().map(|(_, items)| items.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_and_urgent_things_go_first() {
        let mut queue = Fair::default();
        for number in 0..3 {
            queue.push(Priority::Normal, Caller(1), (1, number));
        }
        queue.push(Priority::Normal, Caller(2), (2, 0));
        queue.push(Priority::Low, Caller(3), (3, 0));
        queue.push(Priority::High, Caller(1), (1, 9));
        assert_eq!(queue.ahead(Priority::Normal, Caller(2)), 4);
        assert_eq!(queue.ahead(Priority::Normal, Caller(4)), 3);
        assert_eq!(queue.ahead(Priority::High, Caller(4)), 1);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, 9), (1, 0), (2, 0), (1, 1), (1, 2), (3, 0)]);
        assert!(queue.is_empty() && queue.front().is_none());
    }

    #[test]
    fn what_is_not_kept_is_not_counted() {
        let mut queue = Fair::default();
        (0..4).for_each(|number| queue.push(Priority::Normal, Caller(number % 2), number));
        queue.retain(|number| *number != 1 && *number != 3);
        assert_eq!((queue.len, queue.pop(), queue.pop(), queue.pop()), (2, Some(0), Some(2), None));
    }
}
