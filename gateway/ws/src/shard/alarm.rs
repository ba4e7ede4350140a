// SPDX-License-Identifier: AGPL-3.0-only
//! A timer that can be set anew without being made anew: tasks that wake ten thousand times a second keep
//! one each.

use std::{pin::Pin, time::Instant};

use tokio::time::{Sleep, sleep_until};

/// Rings at the time it was last set to; never, if it is set to none.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(tokio::time::Instant::now())), at: None }
    }

    /// Sets the time; costs nothing if it is the same as before.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.at != Some(at)
        {
            self.sleep.as_mut().reset(at.into());
        }
        self.at = at;
    }

    /// Waits for it.
    pub(crate) async fn ring(&mut self) {
        match self.at {
            Some(_) => self.sleep.as_mut().await,
            None => std::future::pending().await,
        }
    }
}
