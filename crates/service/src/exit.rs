// SPDX-License-Identifier: AGPL-3.0-only
//! How a process ends: a code that scripts and orchestrators can tell apart.

use std::process::ExitCode;

/// The exit codes of all our binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Ended as asked.
    Ok = 0,
    /// Something failed; trying again may help.
    Error = 1,
    /// Wrong arguments or settings; trying again without a change won't help.
    Usage = 2,
    /// Discord refused for good, such as for a wrong token; trying again without a change won't help.
    Refused = 3,
    /// Draining took longer than its deadline, and something was left undone.
    DrainDeadline = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
