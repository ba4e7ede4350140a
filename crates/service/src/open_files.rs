// SPDX-License-Identifier: AGPL-3.0-only
//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most files and sockets that this process may have open; `None` is no limit.
#[must_use]
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the limit to what the system grants without more rights: shells begin at 1,024 for the sake of programs that
/// use `select`, and each client is one. Refusal leaves the limit as it is; `doctor` tells.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Nothing is worse than before when the system refuses.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_most_that_is_granted() {
        raise_file_limit();
        assert_eq!(file_limit(), getrlimit(Resource::Nofile).maximum);
    }
}
