// SPDX-License-Identifier: AGPL-3.0-only
//! What is asked of the tests: the usual ones, or the long ones too (`cargo xtask test --full`).

/// Whether the long tests are wanted.
pub(crate) fn full() -> bool {
    variable("HOLDFAST_TEST_FULL").is_some()
}

/// One in a usual run, the other with the long tests.
pub(crate) fn usually<T>(usual: T, long: T) -> T {
    if full() { long } else { usual }
}

/// A number that the environment sets.
pub(crate) fn number(name: &str) -> Option<u64> {
    variable(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn variable(name: &str) -> Option<String> {
    holdfast_service::environment()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value)
}
