// SPDX-License-Identifier: AGPL-3.0-only
//! Whether a request is Discord's, and new. In: headers and the body as it came. Out: the signed parts, or why it is
//! refused. The body isn't looked into before its signature is known to be right.

use std::time::Duration;

use bytes::Bytes;
use holdfast_discord::signature::{self, PublicKey, SIGNATURE, TIMESTAMP};
use http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::seen::{Key, Seen};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It isn't signed by any of these keys.
    Signature,
    /// Its time is too far from ours.
    Stale,
    /// It was taken before.
    Replay,
}

/// What the headers say of the signature.
pub(crate) struct Signed {
    pub(crate) signature: String,
    pub(crate) timestamp: String,
    bytes: [u8; 64],
    /// Seconds of Unix time.
    at: u64,
}

impl Refused {
    /// As metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::Replay => "replay",
        }
    }
}

/// What is said to be signed, if anything is: who sends something else needs no body to be read.
pub(crate) fn signature(headers: &HeaderMap) -> Result<Signed, Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refused::Signature);
    let (signature, timestamp) = (text(SIGNATURE)?, text(TIMESTAMP)?);
    let bytes = signature::signature(signature).ok_or(Refused::Signature)?;
    let at = signature::timestamp(timestamp).ok_or(Refused::Signature)?;
    Ok(Signed { signature: signature.to_owned(), timestamp: timestamp.to_owned(), bytes, at })
}

/// Whether one of the keys' owners signed the body.
pub(crate) fn right(signed: &Signed, body: &Bytes, keys: &[PublicKey]) -> Result<(), Refused> {
    let mut message = Vec::with_capacity(signed.timestamp.len() + body.len());
    message.extend_from_slice(signed.timestamp.as_bytes());
    message.extend_from_slice(body);
    let is_right = keys.iter().any(|key| key.signed(&signed.bytes, &message));
    if is_right { Ok(()) } else { Err(Refused::Signature) }
}

/// Whether it is of these days. `now`: seconds of Unix time.
pub(crate) fn young(signed: &Signed, now: u64, most: Duration) -> Result<(), Refused> {
    if signed.at.abs_diff(now) > most.as_secs() { Err(Refused::Stale) } else { Ok(()) }
}

/// Whether it hasn't been taken before. The time is part of what is signed: the same body at another time is another
/// request.
pub(crate) async fn new(signed: &Signed, body: &Bytes, seen: &Seen, age: Duration) -> Result<(), Refused> {
    let key: Key = Sha256::new().chain_update(&signed.timestamp).chain_update(body).finalize().into();
    // For as long as its time would be young enough, whichever clock is ahead.
    if seen.take(key, 2 * age + Duration::from_secs(1)).await { Ok(()) } else { Err(Refused::Replay) }
}
