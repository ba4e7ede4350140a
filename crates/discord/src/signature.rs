// SPDX-License-Identifier: AGPL-3.0-only
//! Ed25519 signatures of what Discord posts ("Validating Security Request Headers"). In: an application's public key, the
//! two headers, the body as it came. Out: whether Discord signed it.

use ring::signature::{ED25519, UnparsedPublicKey};

/// The header that has the signature, 64 bytes in hexadecimal.
pub const SIGNATURE: &str = "x-signature-ed25519";
/// The header that has the time, seconds of Unix time. It is signed, before the body.
pub const TIMESTAMP: &str = "x-signature-timestamp";

/// Discord's times have ten digits; this one isn't from there.
const MAX_TIMESTAMP: usize = 20;

/// An application's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Something that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 64 hexadecimal digits")]
pub struct NotAKey;

impl PublicKey {
    /// A key as Discord shows it to the application's owner: 64 hexadecimal digits.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        bytes_of(text).map(Self).ok_or(NotAKey)
    }

    /// Whether the owner of the key signed this. `message` is the timestamp with the body behind it.
    #[must_use]
    pub fn signed(&self, signature: &[u8; 64], message: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A signature from its header.
#[must_use]
pub fn signature(header: &str) -> Option<[u8; 64]> {
    bytes_of(header)
}

/// A time from its header, in seconds.
#[must_use]
pub fn timestamp(header: &str) -> Option<u64> {
    let fits =
        (1..=MAX_TIMESTAMP).contains(&header.len()) && header.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| header.parse().ok()).flatten()
}

/// Exactly `N` bytes, two hexadecimal digits each.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn only_what_was_signed_is_accepted() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = PublicKey::parse(&hex(pair.public_key().as_ref())).unwrap();
        let message = br#"1700000000{"type":1}"#;
        let signed = signature(&hex(pair.sign(message).as_ref())).unwrap();
        assert!(key.signed(&signed, message));
        for bit in 0..8 * message.len() {
            let mut changed = message.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.signed(&signed, &changed), "bit {bit} of the message");
        }
        for bit in 0..8 * signed.len() {
            let mut changed = signed;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.signed(&changed, message), "bit {bit} of the signature");
        }
        assert!(!PublicKey::parse(&"0".repeat(64)).unwrap().signed(&signed, message));
    }

    /// Test 2 of RFC 8032, section 7.1.
    #[test]
    fn a_published_signature_is_accepted() {
        let key =
            PublicKey::parse("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").unwrap();
        let signed = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
                      387b2eaeb4302aeeb00d291612bb0c00";
        assert!(key.signed(&signature(signed).unwrap(), &[0x72]));
        assert_eq!(key.to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    }

    #[test]
    fn what_is_no_key_no_signature_and_no_time_is_none() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32)] {
            assert_eq!(PublicKey::parse(text), Err(NotAKey), "{text}");
        }
        assert_eq!(signature(&"0".repeat(127)), None);
        assert!(signature(&"Fe".repeat(64)).is_some());
        for text in ["", "-1", "1.5", " 1", "1\n", &"9".repeat(20), &"1".repeat(21)] {
            assert_eq!(timestamp(text), None, "{text}");
        }
        assert_eq!(timestamp("1700000000"), Some(1_700_000_000));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
