// SPDX-License-Identifier: AGPL-3.0-only
//! What nobody may guess: names that are a credential, boundaries that no file may contain. From the system's random
//! numbers, unlike what only has to be different each time.

/// 128 random bits as 32 hexadecimal digits.
///
/// # Panics
/// The system has no random numbers.
#[must_use]
pub fn unguessable() -> String {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("every system that this runs on has random numbers");
    format!("{:032x}", u128::from_ne_bytes(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_follows_from_others_or_from_a_seed() {
        let [one, other] = [1, 1].map(|seed| {
            fastrand::seed(seed);
            unguessable()
        });
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }
}
