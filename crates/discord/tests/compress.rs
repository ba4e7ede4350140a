// SPDX-License-Identifier: AGPL-3.0-only
//! Both sides of a compressed connection, against each other and against decoders of the libraries.
//! In: payloads, frames cut and broken at will. Out: the same payloads, or errors; never a panic or a full memory.

use std::io::{Read, Write};

use flate2::{Compress, Compression, FlushCompress, read::ZlibDecoder};
use holdfast_discord::compress::{Deflater, InflateError, Inflater, ZLIB_SUFFIX};
use proptest::prelude::*;

const MAX: usize = 1 << 20;

#[test]
fn what_is_deflated_is_inflated_again() {
    for (name, mut deflater, mut inflater) in pairs() {
        for payload in payloads() {
            let mut frame = Vec::new();
            deflater.message(&payload, &mut frame);
            let mut out = b"kept".to_vec();
            assert!(inflater.push(&frame, &mut out, MAX).unwrap(), "{name}");
            assert_eq!(&out[..4], b"kept");
            assert_eq!(&out[4..], payload, "{name}");
        }
    }
}

#[test]
fn a_context_is_shared_by_the_messages_of_a_connection() {
    let payload = payloads().remove(1);
    for (name, mut deflater) in [("zlib", Deflater::zlib_stream()), ("zstd", Deflater::zstd_stream(-1))] {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        deflater.message(&payload, &mut first);
        deflater.message(&payload, &mut second);
        assert!(second.len() * 4 < first.len(), "{name}: {} then {}", first.len(), second.len());
    }
}

#[test]
fn every_zlib_stream_message_ends_with_the_marker_once() {
    for mut deflater in [Deflater::zlib_stream(), Deflater::zlib_stored()] {
        for payload in payloads() {
            let mut frame = Vec::new();
            deflater.message(&payload, &mut frame);
            assert!(frame.ends_with(&ZLIB_SUFFIX));
            assert!(!frame[..frame.len() - 5].ends_with(&ZLIB_SUFFIX));
        }
    }
}

#[test]
fn a_reference_decoder_reads_our_zlib_streams() {
    for mut deflater in [Deflater::zlib_stream(), Deflater::zlib_stored()] {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for payload in payloads() {
            deflater.message(&payload, &mut stream);
            expected.extend_from_slice(&payload);
        }
        let mut read = vec![0; expected.len()];
        ZlibDecoder::new(stream.as_slice()).read_exact(&mut read).unwrap();
        assert!(read == expected);
    }
}

#[test]
fn streams_of_every_level_of_a_library_are_read() {
    for level in 0..=9 {
        let mut context = Compress::new(Compression::new(level), true);
        let mut inflater = Inflater::zlib_stream();
        for payload in payloads() {
            let (mut frame, mut out) = (Vec::with_capacity(payload.len() * 2 + 100), Vec::new());
            context.compress_vec(&payload, &mut frame, FlushCompress::Sync).unwrap();
            assert!(inflater.push(&frame, &mut out, MAX).unwrap(), "level {level}");
            assert!(out == payload, "level {level}");
        }
    }
}

#[test]
fn our_stream_is_about_as_small_as_a_librarys() {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut deflater = Deflater::zlib_stream();
    let mut context = Compress::new(Compression::fast(), true);
    for number in 0..500_u64 {
        let id = 1_000_000_000_000_000_000 + number * 9_999_999_937;
        let message = format!(
            r#"{{"t":"MESSAGE_CREATE","s":{number},"op":0,"d":{{"id":"{id}","type":0,"content":"{}","author":{{"id":"{}","username":"user {}","avatar":"{:032x}","bot":false}},"channel_id":"{}","guild_id":"81384788765712384","mentions":[],"pinned":false,"timestamp":"2026-01-01T00:00:{:02}.{:06}+00:00"}}}}"#,
            "so it goes ".repeat(id as usize % 7),
            id / 3,
            number % 50,
            u128::from(id).pow(2),
            id / 7 * 7,
            number % 60,
            id % 1_000_000,
        );
        deflater.message(message.as_bytes(), &mut ours);
        theirs.reserve(2 * message.len());
        context.compress_vec(message.as_bytes(), &mut theirs, FlushCompress::Sync).unwrap();
    }
    assert!(ours.len() * 10 <= theirs.len() * 11, "{} against {} bytes", ours.len(), theirs.len());
}

#[test]
fn matches_reach_back_a_whole_window_and_no_further() {
    let noise = payloads().remove(2);
    for back in [300, 32_767, 32_768, 32_769, 40_000] {
        let (mut deflater, mut inflater, mut sizes) =
            (Deflater::zlib_stream(), Inflater::zlib_stream(), Vec::new());
        for message in [&noise[..back], &noise[..200]] {
            let (mut frame, mut out) = (Vec::new(), Vec::new());
            deflater.message(message, &mut frame);
            assert!(inflater.push(&frame, &mut out, MAX).unwrap());
            assert!(out == message, "{back}");
            sizes.push(frame.len());
        }
        assert_eq!(back <= 32_768, sizes[1] < 100, "{back}: {sizes:?}");
    }
}

#[test]
fn a_reference_decoder_reads_our_payloads_and_our_zstd_streams() {
    let (mut zlib, mut zstd) = (Deflater::zlib_payload(6), Deflater::zstd_stream(-1));
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    for payload in payloads() {
        let mut frame = Vec::new();
        zlib.message(&payload, &mut frame);
        let mut read = Vec::new();
        ZlibDecoder::new(frame.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == payload);
        zstd.message(&payload, &mut stream);
        expected.extend_from_slice(&payload);
    }
    let mut read = vec![0; expected.len()];
    zstd::stream::read::Decoder::new(stream.as_slice()).unwrap().read_exact(&mut read).unwrap();
    assert!(read == expected);
}

#[test]
fn streams_of_reference_encoders_are_read() {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 6).unwrap();
    let (mut from_zlib, mut from_zstd) = (Inflater::zlib_stream(), Inflater::zstd_stream());
    for payload in payloads() {
        let mut out = Vec::new();
        zlib.write_all(&payload).unwrap();
        zlib.flush().unwrap();
        assert!(from_zlib.push(&std::mem::take(zlib.get_mut()), &mut out, MAX).unwrap());
        assert!(out == payload);

        out.clear();
        zstd.write_all(&payload).unwrap();
        zstd.flush().unwrap();
        assert!(from_zstd.push(&std::mem::take(zstd.get_mut()), &mut out, MAX).unwrap());
        assert!(out == payload);
    }
}

#[test]
fn a_message_in_several_frames_is_complete_with_its_marker_only() {
    for mut deflater in [Deflater::zlib_stream(), Deflater::zlib_stored()] {
        let mut inflater = Inflater::zlib_stream();
        for payload in payloads() {
            let mut message = Vec::new();
            deflater.message(&payload, &mut message);
            // The last cut goes through the marker.
            let cuts = [0, message.len() / 3, message.len() - 3, message.len() - 2, message.len()];
            let mut out = Vec::new();
            for cut in cuts.windows(2) {
                let complete = inflater.push(&message[cut[0]..cut[1]], &mut out, MAX).unwrap();
                assert_eq!(complete, cut[1] == message.len());
            }
            assert!(out == payload);
        }
    }
}

#[test]
fn an_empty_frame_completes_nothing() {
    let (mut deflater, mut inflater, mut message) =
        (Deflater::zlib_stream(), Inflater::zlib_stream(), Vec::new());
    deflater.message(b"{}", &mut message);
    let mut out = Vec::new();
    assert!(inflater.push(&message, &mut out, MAX).unwrap());
    assert!(!inflater.push(b"", &mut out, MAX).unwrap());
    assert_eq!(out, b"{}");
}

#[test]
fn payload_compression_leaves_alone_what_is_not_compressed() {
    let mut inflater = Inflater::zlib_payload();
    for plain in [&br#"{"op":10}"#[..], b"\x83t\0\0\0\0", b"", b"x"] {
        let mut out = Vec::new();
        assert!(inflater.push(plain, &mut out, MAX).unwrap());
        assert_eq!(out, plain);
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    let bomb = vec![0; 16 << 20];
    for (name, mut deflater, mut inflater) in pairs() {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        deflater.message(&bomb, &mut frame);
        let error = inflater.push(&frame, &mut out, MAX).unwrap_err();
        assert!(matches!(error, InflateError::TooLarge(MAX)), "{name}");
        assert!(out.capacity() <= 4 * MAX, "{name}: {}", out.capacity());
    }
}

#[test]
fn the_bound_is_exact_and_counts_over_frames() {
    let payload = vec![7; 5000];
    for (name, make) in makers() {
        let (mut deflater, mut inflater) = make();
        let (mut frame, mut out) = (Vec::new(), vec![1; 300]);
        deflater.message(&payload, &mut frame);
        assert!(inflater.push(&frame, &mut out, 5000).is_ok(), "{name}");

        let (mut deflater, mut inflater) = make();
        let (mut frame, mut out) = (Vec::new(), vec![1; 300]);
        deflater.message(&payload, &mut frame);
        assert!(matches!(inflater.push(&frame, &mut out, 4999), Err(InflateError::TooLarge(4999))), "{name}");
        assert!(out.len() <= 300 + 4999, "{name}");
    }
    let (mut deflater, mut inflater, mut message) =
        (Deflater::zlib_stored(), Inflater::zlib_stream(), Vec::new());
    deflater.message(&payload, &mut message);
    let mut out = Vec::new();
    let outcome = message.chunks(100).try_for_each(|frame| inflater.push(frame, &mut out, 3000).map(|_| ()));
    assert!(matches!(outcome, Err(InflateError::TooLarge(3000))));
    assert!(out.len() <= 3000);
}

#[test]
fn a_stream_that_ends_or_is_garbage_is_an_error() {
    let mut whole = Vec::new();
    Deflater::zlib_payload(1).message(b"the end", &mut whole);
    let mut out = Vec::new();
    assert!(matches!(Inflater::zlib_stream().push(&whole, &mut out, MAX), Err(InflateError::Corrupt(_))));
    assert!(matches!(
        Inflater::zlib_stream().push(b"{\"op\":10}", &mut out, MAX),
        Err(InflateError::Corrupt(_))
    ));
    assert!(matches!(
        Inflater::zstd_stream().push(b"{\"op\":10}", &mut out, MAX),
        Err(InflateError::Corrupt(_))
    ));
    // With a dictionary (and the right check bits), with a window of 64 KiB.
    for header in [[0x78, 0x20], [0x88, 0x1c]] {
        let frame = [&header[..], &[0x01, 0x00, 0x00, 0xff, 0xff]].concat();
        assert!(matches!(
            Inflater::zlib_stream().push(&frame, &mut out, MAX),
            Err(InflateError::Corrupt("zlib-stream"))
        ));
    }
    let cut = &whole[..whole.len() - 5];
    assert!(matches!(Inflater::zlib_payload().push(cut, &mut out, MAX), Err(InflateError::Corrupt(_))));
    whole.push(0);
    assert!(matches!(Inflater::zlib_payload().push(&whole, &mut out, MAX), Err(InflateError::Corrupt(_))));
}

#[test]
fn a_zstd_stream_with_a_huge_window_is_refused() {
    // A frame header that asks for a window of 2^27 bytes, and a block that says nothing.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x00, 0x00, 0x00];
    let mut out = Vec::new();
    assert!(matches!(Inflater::zstd_stream().push(&frame, &mut out, MAX), Err(InflateError::Corrupt(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_messages_survive(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 1..6)) {
        for (name, make) in makers() {
            let (mut deflater, mut inflater) = make();
            for message in &messages {
                let (mut frame, mut out) = (Vec::new(), Vec::new());
                deflater.message(message, &mut frame);
                prop_assert!(inflater.push(&frame, &mut out, MAX).unwrap());
                prop_assert_eq!(&out, message, "{}", name);
            }
        }
    }

    #[test]
    fn garbage_is_an_error_or_nothing_but_never_a_panic(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4),
        at in any::<usize>(),
        bit in 0_u8..8,
    ) {
        for (_, make) in makers() {
            let (mut deflater, mut inflater) = make();
            let mut out = Vec::new();
            for frame in &frames {
                let _ = inflater.push(frame, &mut out, 10_000);
            }
            // The same with one bit of a good message turned.
            let (mut message, mut inflater) = (Vec::new(), make().1);
            deflater.message(&usual(), &mut message);
            let at = at % message.len();
            message[at] ^= 1 << bit;
            let mut out = Vec::new();
            let _ = inflater.push(&message, &mut out, 10_000);
            prop_assert!(out.len() <= 10_000);
            let _ = inflater.push(&message, &mut out, 10_000);
        }
    }
}

type Pair = (Deflater, Inflater);
type Named = (&'static str, fn() -> Pair);

fn makers() -> [Named; 5] {
    [
        ("none", || (Deflater::none(), Inflater::none())),
        ("zlib payload", || (Deflater::zlib_payload(6), Inflater::zlib_payload())),
        ("zlib stream", || (Deflater::zlib_stream(), Inflater::zlib_stream())),
        ("zlib stored", || (Deflater::zlib_stored(), Inflater::zlib_stream())),
        ("zstd stream", || (Deflater::zstd_stream(-1), Inflater::zstd_stream())),
    ]
}

fn pairs() -> impl Iterator<Item = (&'static str, Deflater, Inflater)> {
    makers().into_iter().map(|(name, make)| {
        let (deflater, inflater) = make();
        (name, deflater, inflater)
    })
}

/// Small, as usual, large and not to be compressed, and of just more than one stored block.
fn payloads() -> Vec<Vec<u8>> {
    let mut random = 1_u64;
    let noise = (0..300_000)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        })
        .collect();
    vec![
        br#"{"op":11}"#.to_vec(),
        usual(),
        noise,
        vec![b'a'; 65_536],
        vec![b'a'; 65_535],
        br#"{"op":11}"#.to_vec(),
    ]
}

fn usual() -> Vec<u8> {
    let members = (0..60).map(|id| format!(r#"{{"id":"{}","name":"member {id}"}},"#, id * 7919));
    members.collect::<String>().into_bytes()
}
