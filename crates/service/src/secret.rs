// SPDX-License-Identifier: AGPL-3.0-only
//! A secret: a token or password that no log, error or metric can print by accident.

use std::fmt;

use subtle::ConstantTimeEq;

/// What stands in for a secret wherever it would be printed.
const REDACTED: &str = "[redacted]";

/// A token or password. `Debug` and `Display` print a placeholder; comparing takes the same time wherever two
/// secrets of one length differ.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody presented this secret; time doesn't tell where the two differ.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("MTIz.abc.def");
        for printed in [format!("{secret}"), format!("{secret:?}"), format!("{:#?}", Some(&secret))] {
            assert!(!printed.contains("abc"), "{printed}");
        }
    }

    #[test]
    fn a_secret_matches_itself_only() {
        let secret = Secret::new("token");
        assert!(secret.matches("token"));
        for other in ["", "toke", "tokem", "token "] {
            assert!(!secret.matches(other), "{other:?}");
        }
    }
}
