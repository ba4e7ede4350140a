// SPDX-License-Identifier: AGPL-3.0-only
//! Bytes in, messages out; what is written is read again.

use proptest::prelude::*;

use super::*;

const MAX: usize = 100_000;

/// All messages in `bytes`, given in pieces of `piece` bytes.
fn read(masked: bool, bytes: &[u8], piece: usize) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
    let mut reader = FrameReader::new(masked, MAX, Vec::new());
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.space(piece.len()).extend_from_slice(piece);
        while let Some(kind) = reader.next()? {
            messages.push((kind, reader.payload().to_vec()));
        }
    }
    Ok(messages)
}

#[test]
fn a_header_is_as_long_as_its_payload_needs() {
    for (len, expected) in [
        (0, vec![0x81, 0]),
        (125, vec![0x81, 125]),
        (126, vec![0x81, 126, 0, 126]),
        (65_535, vec![0x81, 126, 255, 255]),
        (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let (bytes, used) = header(Opcode::Text, len);
        assert_eq!(bytes[..used], expected);
    }
}

#[test]
fn controls_come_between_the_parts_of_a_message() {
    let bytes = [&[0x01, 2, b'a', b'b'][..], &[0x89, 1, b'!'], &[0x00, 1, b'c'], &[0x80, 0]].concat();
    let expected = [(Kind::Ping, b"!".to_vec()), (Kind::Text, b"abc".to_vec())];
    for piece in 1..bytes.len() {
        assert_eq!(read(false, &bytes, piece).unwrap(), expected);
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let malformed: [(&[u8], &str); 10] = [
        (&[0x88, 1, 3], "a close with half a code"),
        (&[0xc1, 0], "a reserved bit is set"),
        (&[0x83, 0], "an unknown opcode"),
        (&[0x80, 0], "a message goes on that has not begun"),
        (&[0x01, 0, 0x81, 0], "a message begins within another"),
        (&[0x09, 0], "a control frame that is long or in parts"),
        (&[0x88, 126, 0, 200], "a control frame that is long or in parts"),
        (&[0x81, 126, 0, 1], "a length in more bytes than it needs"),
        (&[0x81, 0x80, 0, 0, 0, 0], "a frame with a mask"),
        (&[0x81, 2, 0xff, 0xfe], "text that is not UTF-8"),
    ];
    for (bytes, why) in malformed {
        assert_eq!(read(false, bytes, 64), Err(FrameError::Malformed(why)), "{bytes:?}");
    }
    assert_eq!(read(true, &[0x81, 0], 64), Err(FrameError::Malformed("a frame without a mask")));
}

#[test]
fn a_message_too_long_is_refused_by_its_length_alone_or_by_its_parts_together() {
    let too_long = Err(FrameError::TooLong(MAX));
    assert_eq!(read(false, &[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0], 10), too_long);
    assert_eq!(read(false, &[0x82, 127, 0, 0, 0, 0, 0, 1, 134, 161], 10), too_long);
    let mut parts = vec![0x02, 126, 255, 255];
    parts.resize(4 + 65_535, 0);
    parts.extend([0x80, 126, 255, 255]);
    assert_eq!(read(false, &parts, 4096), too_long);
}

#[test]
fn a_length_that_is_only_claimed_takes_no_memory() {
    let mut reader = FrameReader::new(false, usize::MAX, Vec::new());
    reader.space(16).extend_from_slice(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.space(16).capacity() < 4 << 20);
}

#[test]
fn memory_is_given_back_at_rest_but_not_within_a_frame() {
    let mut reader = FrameReader::new(false, MAX, Vec::new());
    reader.space(9_000).extend_from_slice(&[0x81, 3, b'a']);
    assert_eq!(reader.next(), Ok(None));
    reader.rest(0);
    reader.space(2).extend_from_slice(b"bc");
    assert_eq!(reader.next(), Ok(Some(Kind::Text)));
    assert_eq!(reader.payload(), b"abc");
    assert_eq!(reader.next(), Ok(None));
    reader.rest(0);
    assert!(reader.space(0).capacity() < 100);
}

#[test]
fn a_message_has_a_bounded_number_of_parts_also_of_empty_ones() {
    let parts = [&[0x01, 0][..], &[0x00, 0].repeat(1022), &[0x80, 1, b'a']].concat();
    assert_eq!(read(false, &parts.repeat(2), 100).unwrap(), vec![(Kind::Text, b"a".to_vec()); 2]);
    let parts = [&[0x01, 0][..], &[0x00, 0].repeat(1024)].concat();
    assert_eq!(read(false, &parts, 100), Err(FrameError::Malformed("a message in too many parts")));
}

#[test]
fn what_was_lent_in_parts_is_gone_when_the_buffer_is_read_into_again() {
    let mut reader = FrameReader::new(false, MAX, Vec::new());
    for message in [b"ab", b"cd"] {
        reader.space(8).extend_from_slice(&[0x01, 1, message[0], 0x80, 1, message[1]]);
        assert_eq!(reader.next(), Ok(Some(Kind::Text)));
        assert_eq!(reader.payload(), message);
        reader.rest(0);
    }
}

#[test]
fn a_close_is_answered_with_a_code_that_may_be_sent() {
    assert_eq!(close_answer(&close_body(4000, "why")), close_body(4000, ""));
    assert!(close_answer(&[]).is_empty());
    for code in [0, 999, 1004, 1005, 1006, 1015, 5000] {
        assert_eq!(close_answer(&close_body(code, "")), close_body(1002, ""));
    }
}

#[test]
fn a_close_has_code_and_reason_or_neither() {
    assert_eq!(read_close(&close_body(4004, "no")), (Some(4004), "no"));
    assert_eq!(read_close(&[]), (None, ""));
    assert_eq!(read_close(&[15]), (None, ""));
    assert_eq!(read_close(&[15, 160, 0xff]), (Some(4000), ""));
    let long = close_body(4010, &"ä".repeat(100));
    assert_eq!(long.len(), 2 + 122);
    assert_eq!(read_close(&long).1.chars().count(), 61);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70_000), 0..4),
        mask in any::<[u8; 4]>(),
        piece in 1_usize..9_000,
    ) {
        let (mut plain, mut masked) = (Vec::new(), Vec::new());
        for payload in &payloads {
            push(&mut plain, Opcode::Binary, payload);
            push_masked(&mut masked, Opcode::Binary, payload, mask);
        }
        let expected: Vec<_> = payloads.into_iter().map(|payload| (Kind::Binary, payload)).collect();
        prop_assert_eq!(read(false, &plain, piece).unwrap(), expected.clone());
        prop_assert_eq!(read(true, &masked, piece).unwrap(), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), masked: bool, piece in 1_usize..20) {
        let _ = read(masked, &bytes, piece);
    }
}
