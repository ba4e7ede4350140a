// SPDX-License-Identifier: AGPL-3.0-only
//! Whole frames, appended to a buffer of the caller's. A server's are as they are, a client's masked.

/// What a frame carries, as its opcode (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    /// Text.
    Text = 1,
    /// Binary.
    Binary = 2,
    /// The connection's end.
    Close = 8,
    /// The answer to a ping.
    Pong = 10,
}

/// The header of a final, unmasked frame, and its length.
pub(crate) fn header(opcode: Opcode, payload_len: usize) -> ([u8; 10], usize) {
    const FINAL: u8 = 0x80;
    let mut header = [FINAL | opcode as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let wide = payload_len as u64;
    match payload_len {
        0..=125 => {
            header[1] = payload_len as u8;
            (header, 2)
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&wide.to_be_bytes()[6..]);
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&wide.to_be_bytes());
            (header, 10)
        }
    }
}

/// Appends a frame as a server sends it.
pub(crate) fn push(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let (header, len) = header(opcode, payload.len());
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

/// Appends a frame as a client sends it. `mask` is random; it is meant for proxies that take a payload for a request of
/// its own (RFC 6455, section 10.3), and what we send are no strangers' bytes.
pub(crate) fn push_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    const MASKED: u8 = 0x80;
    let (mut header, len) = header(opcode, payload.len());
    header[1] |= MASKED;
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(&mask);
    let from = out.len();
    out.extend_from_slice(payload);
    xor(&mut out[from..], mask);
}

/// Masks a payload, or takes its mask off.
pub(super) fn xor(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a close frame carries: its code and as much of the reason as a control frame takes.
pub(crate) fn close_body(code: u16, reason: &str) -> Vec<u8> {
    /// A control frame carries at most 125 bytes (RFC 6455, section 5.5).
    const REASON: usize = 123;
    let mut body = code.to_be_bytes().to_vec();
    let end = (0..=reason.len().min(REASON)).rev().find(|end| reason.is_char_boundary(*end));
    body.extend_from_slice(&reason.as_bytes()[..end.unwrap_or(0)]);
    body
}

/// The body that answers a close: the same code, or 1002 for one that nobody may send (RFC 6455, section 7.4).
pub(crate) fn close_answer(body: &[u8]) -> Vec<u8> {
    match read_close(body).0 {
        None => Vec::new(),
        Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => close_body(code, ""),
        Some(_) => close_body(1002, ""),
    }
}

/// Code and reason of a close frame; neither has to be there.
pub(crate) fn read_close(body: &[u8]) -> (Option<u16>, &str) {
    let Some((code, reason)) = body.split_first_chunk::<2>() else { return (None, "") };
    (Some(u16::from_be_bytes(*code)), std::str::from_utf8(reason).unwrap_or_default())
}
