// SPDX-License-Identifier: AGPL-3.0-only
//! Codes of failures: their short names, and what a code's range says to whoever doesn't know it.

use std::time::Duration;

use crate::v1::{Error, ErrorCode};

/// What every code's name begins with in the `.proto` file.
const PREFIX: &str = "ERROR_CODE_";

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request can't succeed as it is.
    Refused,
    /// It wasn't done, and may succeed later.
    Later,
    /// Whether it was done isn't known: a repetition may do it twice.
    Unknown,
}

impl Error {
    /// A failure in a code and words; `message` says what to do.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after_ms: 0 }
    }

    /// The same, with the time after which a repetition may succeed, rounded up to milliseconds.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self
    }

    /// What the code's range says, of codes that this crate doesn't know too.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.code {
            1..=99 => Class::Refused,
            100..=199 => Class::Later,
            _ => Class::Unknown,
        }
    }
}

impl ErrorCode {
    /// The name without the enum's prefix, such as `NO_OWNER`: the header `holdfast-reason`, labels of metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        let full = self.as_str_name();
        full.strip_prefix(PREFIX).unwrap_or(full)
    }

    /// The code of a short name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_what_to_do() {
        assert_eq!(Error::new(ErrorCode::MissingIntent, "").class(), Class::Refused);
        assert_eq!(Error::new(ErrorCode::NoOwner, "").class(), Class::Later);
        assert_eq!(Error::new(ErrorCode::Interrupted, "").class(), Class::Unknown);
        assert_eq!(Error::new(ErrorCode::Unspecified, "").class(), Class::Unknown);
    }

    #[test]
    fn a_code_from_the_future_has_a_class() {
        assert_eq!(Error { code: 57, ..Error::default() }.class(), Class::Refused);
        assert_eq!(Error { code: 199, ..Error::default() }.class(), Class::Later);
        assert_eq!(Error { code: 4_711, ..Error::default() }.class(), Class::Unknown);
    }

    #[test]
    fn a_wait_is_never_told_too_short() {
        let error = Error::new(ErrorCode::RateLimited, "wait").after(Duration::from_micros(29_500_001));
        assert_eq!(error.retry_after_ms, 29_501);
    }

    #[test]
    fn short_names_are_read_as_they_are_written() {
        let codes: Vec<ErrorCode> =
            (0..1_000).filter_map(|number| ErrorCode::try_from(number).ok()).collect();
        assert!(codes.len() > 10);
        for code in codes {
            assert!(!code.name().starts_with(PREFIX));
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
        }
        assert_eq!(ErrorCode::from_name("NO_SUCH"), None);
    }
}
