// SPDX-License-Identifier: AGPL-3.0-only
//! One bucket: requests that count together. In: requests as they are sent, answers as they come, what these told. Out:
//! whether the next one may be sent. Discord counts a request somewhere between its sending and its answer, so all
//! that is kept here are bounds that hold whenever that was.

use super::Told;
use std::time::Duration;

/// Two times of Discord's that are no further apart are the same: they come rounded to milliseconds.
const SAME: Duration = Duration::from_millis(5);
/// How much a time that was told may be off.
const ROUNDED: Duration = Duration::from_millis(1);

/// A bucket's account.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Requests that were let go, and those of them that have ended.
    sent: u64,
    ended: u64,
    count: Count,
    blocked_until: Duration,
    /// What was told last, and about which request.
    said: Option<Said>,
    place: Length,
}

/// In what time one place of a steady bucket comes back, as far as answers have shown.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    /// It is at least this.
    least: Duration,
    /// An answer about a bucket that was full before has shown it.
    exact: bool,
}

/// A request that was let go; to be given back when it has ended.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Ticket {
    at: Duration,
    /// Requests that had ended by then: they were counted before this one.
    ended: u64,
    voice: u16,
    /// Steady buckets: from when on its place was taken to come back.
    base: Duration,
}

/// Why a request can't be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not before this time.
    Until(Duration),
    /// Not before a request under way is answered.
    Answer,
}

#[derive(Clone, Copy, Debug, Default)]
enum Count {
    /// Nothing is known yet: one request at a time.
    #[default]
    Unknown,
    /// Answers tell no limit.
    Free,
    /// All places come back at once.
    Window(Window),
    /// One place after another comes back.
    Steady(Steady),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    limit: u32,
    /// At most so many are counted.
    used: u32,
    /// All are free by then; not known before the window's first answer.
    until: Option<Duration>,
    /// The longest time to a reset that was told: about the window's length.
    length: Duration,
    /// Two answers have shown that it is one; until then it may be steady.
    sure: bool,
}

#[derive(Clone, Copy, Debug)]
struct Steady {
    limit: u32,
    /// The time in which one place comes back.
    place: Duration,
    /// All are free by then.
    full_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    voice: u16,
    sent: Duration,
    received: Duration,
    told: Told,
    base: Duration,
}

impl Bucket {
    /// A bucket of which nothing has to be learnt.
    #[must_use]
    pub fn free() -> Self {
        Self { count: Count::Free, ..Self::default() }
    }

    /// Lets a request go at `now`, if it may. `voice` tells requests apart that are only taken to count together.
    ///
    /// # Errors
    /// What to wait for.
    pub fn take(&mut self, now: Duration, voice: u16) -> Result<Ticket, Wait> {
        self.ready(now)?;
        let mut base = Duration::MAX;
        match &mut self.count {
            Count::Unknown | Count::Free => {}
            Count::Window(window) => window.used += 1,
            Count::Steady(steady) => {
                base = steady.full_at.max(now);
                steady.full_at = base + steady.place;
            }
        }
        self.sent += 1;
        Ok(Ticket { at: now, ended: self.ended, voice, base })
    }

    /// Whether a request may go at `now`.
    ///
    /// # Errors
    /// What to wait for.
    pub fn ready(&mut self, now: Duration) -> Result<(), Wait> {
        if now < self.blocked_until {
            return Err(Wait::Until(self.blocked_until));
        }
        let under_way = self.under_way();
        match &mut self.count {
            Count::Unknown if under_way > 0 => Err(Wait::Answer),
            Count::Unknown | Count::Free => Ok(()),
            Count::Window(window) => window.ready(now, under_way),
            Count::Steady(steady) => steady.ready(now),
        }
    }

    /// The request was answered at `now`. True: what was told can't be about the requests that another voice has sent
    /// lately, so this voice counts by itself.
    pub fn answered(&mut self, ticket: Ticket, now: Duration, told: Option<Told>) -> bool {
        // Those that may have been counted after this one: all that had not ended when it was sent.
        let beside = u32::try_from(self.sent - 1 - ticket.ended).unwrap_or(u32::MAX);
        self.end();
        let Some(told) = told else {
            if matches!(self.count, Count::Unknown) {
                self.count = Count::Free;
            }
            return false;
        };
        let said = Said { voice: ticket.voice, sent: ticket.at, received: now, told, base: ticket.base };
        if let Some(before) = self.said.filter(|before| before.is_apart(&said)) {
            // The account is about the other voice.
            self.said = Some(before);
            return true;
        }
        let form = self.said.and_then(|before| before.form(&said));
        self.said = Some(said);
        self.learn(&said, form, beside);
        false
    }

    /// The request was answered with a 429 about this bucket: nothing before `until`.
    pub fn limited(&mut self, ticket: Ticket, now: Duration, told: Option<Told>, until: Duration) {
        if told.is_some() {
            // A 429 isn't counted, so it tells nothing about who counts together.
            self.answered(
                Ticket { voice: self.said.map_or(ticket.voice, |said| said.voice), ..ticket },
                now,
                told,
            );
        } else {
            self.end();
        }
        self.blocked_until = self.blocked_until.max(until);
    }

    /// The request ended without an answer of Discord's: it may or may not have been counted.
    pub fn lost(&mut self, _: Ticket) {
        self.end();
    }

    /// The request was never sent.
    pub fn unused(&mut self, _: Ticket) {
        match &mut self.count {
            Count::Unknown | Count::Free => {}
            Count::Window(window) => window.used = window.used.saturating_sub(1),
            Count::Steady(steady) => steady.full_at = steady.full_at.saturating_sub(steady.place),
        }
        self.end();
    }

    /// Nothing is known any more about what answers tell: one request at a time again.
    pub fn caution(&mut self) {
        if matches!(self.count, Count::Free) {
            self.count = Count::Unknown;
        }
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        u32::try_from(self.sent - self.ended).unwrap_or(u32::MAX)
    }

    /// Whether it is known how many requests are allowed.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        match self.count {
            Count::Unknown | Count::Free => None,
            Count::Window(Window { limit, .. }) | Count::Steady(Steady { limit, .. }) => Some(limit),
        }
    }

    /// About when a request with `ahead` others before it may go.
    #[must_use]
    pub fn estimate(&self, now: Duration, ahead: usize) -> Duration {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let free = match self.count {
            Count::Unknown | Count::Free => now,
            Count::Window(window) => window.estimate(now, ahead),
            Count::Steady(steady) => steady.estimate(now, ahead),
        };
        free.max(self.blocked_until)
    }

    /// Whether nothing is counted and nothing is under way: what is forgotten then is only what was learnt.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        let full = match self.count {
            Count::Unknown | Count::Free => true,
            Count::Window(window) => window.until.is_none_or(|until| until <= now),
            Count::Steady(steady) => steady.full_at <= now,
        };
        full && self.under_way() == 0 && self.blocked_until <= now
    }

    fn end(&mut self) {
        self.ended = (self.ended + 1).min(self.sent);
    }

    fn learn(&mut self, said: &Said, form: Option<Form>, beside: u32) {
        let told = said.told;
        let known = self.limit() == Some(told.limit);
        if !known {
            self.place = Length::default();
        }
        self.place.told(&told);
        let place = self.place;
        match (&mut self.count, form) {
            (Count::Steady(steady), None | Some(Form::Steady)) if known => steady.told(said, place, beside),
            (Count::Window(window), None | Some(Form::Window)) if known => {
                window.sure |= form.is_some();
                window.told(said, beside);
            }
            (_, Some(Form::Steady)) => {
                let mut steady = Steady { limit: told.limit, place: Duration::ZERO, full_at: Duration::ZERO };
                steady.told(said, place, beside);
                self.count = Count::Steady(steady);
            }
            _ => self.count = Count::Window(Window::new(said, beside, form.is_some())),
        }
    }
}

impl Window {
    fn new(said: &Said, beside: u32, sure: bool) -> Self {
        let Told { limit, reset_after, .. } = said.told;
        let used = said.told.used().saturating_add(beside);
        Self { limit, used, until: Some(said.received + reset_after), length: reset_after, sure }
    }

    fn ready(&mut self, now: Duration, under_way: u32) -> Result<(), Wait> {
        if self.until.is_some_and(|until| now >= until) {
            // What is still under way may be counted in the new window.
            (self.used, self.until) = (under_way, None);
        }
        if self.used < self.limit {
            return Ok(());
        }
        match self.until {
            Some(until) => Err(Wait::Until(until)),
            None if under_way > 0 => Err(Wait::Answer),
            // A whole window was sent and nothing told when it ends: one more shows it.
            None => {
                self.used = self.limit - 1;
                Ok(())
            }
        }
    }

    fn told(&mut self, said: &Said, beside: u32) {
        let Told { reset_after, .. } = said.told;
        let (earliest, latest) = (said.sent + reset_after, said.received + reset_after);
        let (seen, most) = (said.told.used(), said.told.used().saturating_add(beside));
        self.length = self.length.max(reset_after);
        match self.until {
            // An answer about a window that has passed.
            Some(until) if latest + SAME < until => {}
            Some(until) if earliest > until + SAME => (self.used, self.until) = (most, Some(latest)),
            until => {
                // Somebody else uses it, too, if more was seen than we know of.
                self.used = if seen > self.used { most } else { self.used.min(most) };
                self.until = Some(until.map_or(latest, |until| until.min(latest)));
            }
        }
    }

    fn estimate(&self, now: Duration, ahead: u32) -> Duration {
        let free = self.limit.saturating_sub(self.used);
        let Some(beyond) = ahead.checked_sub(free) else { return now };
        self.until.unwrap_or(now).max(now) + self.length.saturating_mul(beyond / self.limit)
    }
}

impl Length {
    fn told(&mut self, told: &Told) {
        // At most `used` places are gone, so each takes at least this long; what was told was rounded.
        let place = (told.reset_after + ROUNDED) / told.used().max(1);
        self.least = self.least.max(place);
        self.exact |= told.used() == 1;
    }
}

impl Steady {
    /// How long before `full_at` a place is free.
    fn room(&self) -> Duration {
        self.place.saturating_sub(ROUNDED * 2) * (self.limit - 1)
    }

    fn ready(&self, now: Duration) -> Result<(), Wait> {
        let free = self.full_at.saturating_sub(self.room());
        if free <= now { Ok(()) } else { Err(Wait::Until(free)) }
    }

    fn told(&mut self, said: &Said, place: Length, beside: u32) {
        let Told { reset_after, .. } = said.told;
        let (earliest, latest) = (said.sent + reset_after, said.received + reset_after + ROUNDED);
        let latest = latest + place.least * beside;
        // The place was taken when Discord counted the request, at the latest now.
        let known = self.full_at + said.received.saturating_sub(said.base);
        // What is known is too little if somebody else uses it, too, or if places were taken to be shorter.
        let right = place.exact && place.least == self.place && earliest <= known + ROUNDED;
        self.full_at = if right { known.min(latest) } else { latest };
        self.place = place.least;
    }

    fn estimate(&self, now: Duration, ahead: u32) -> Duration {
        (self.full_at + self.place * ahead).saturating_sub(self.room()).max(now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Window,
    Steady,
}

impl Said {
    /// What two answers show about the bucket's form. Within a window the time of the reset stands still; where places
    /// come back one by one, each request moves it.
    fn form(&self, later: &Said) -> Option<Form> {
        let (reset, was) = (later.told.reset?, self.told.reset?);
        let more = later.told.used().abs_diff(self.told.used());
        let place = later.told.reset_after.max(self.told.reset_after) / later.told.limit.max(1);
        if self.told.limit != later.told.limit || place * more < SAME * 2 {
            return None;
        }
        let moved = reset.abs_diff(was);
        if moved <= SAME {
            return Some(Form::Window);
        }
        // In a window that hasn't passed the reset couldn't have moved.
        let same_window = later.received < self.sent + self.told.reset_after;
        (same_window && moved > SAME * 2).then_some(Form::Steady)
    }

    /// Whether a later answer shows that the two don't count together: neither in one window nor steadily could the
    /// reset stand where it does.
    fn is_apart(&self, later: &Said) -> bool {
        let in_order = later.voice != self.voice && later.sent >= self.received;
        let still_counted = later.received < self.sent + self.told.reset_after;
        let (Some(reset), Some(was)) = (later.told.reset, self.told.reset) else { return false };
        if !in_order || !still_counted || later.told.limit == 1 {
            return in_order && still_counted && later.told.limit == 1 && reset + SAME < was;
        }
        let same_window = reset.abs_diff(was) <= SAME && later.told.used() > self.told.used();
        let place = later.told.reset_after / later.told.used().max(1);
        let steadily = reset + SAME >= was + place;
        !same_window && !steadily
    }
}

#[cfg(test)]
mod tests;
