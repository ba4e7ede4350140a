// SPDX-License-Identifier: AGPL-3.0-only
//! Erlang's term format against golden bytes, against JSON, and against garbage.
//! In: terms as libraries and Erlang itself write them. Out: the values they stand for, or errors.

use holdfast_discord::etf::{EtfError, decode, encode, from_json_bytes};
use proptest::prelude::*;
use serde_json::{Value, json};

const DEPTH: usize = 32;

#[test]
fn json_becomes_the_terms_that_libraries_unpack() {
    for (value, term) in [
        (json!(null), &b"\x83s\x03nil"[..]),
        (json!(true), b"\x83s\x04true"),
        (json!(false), b"\x83s\x05false"),
        (json!(0), b"\x83a\x00"),
        (json!(255), b"\x83a\xff"),
        (json!(256), b"\x83b\x00\x00\x01\x00"),
        (json!(-1), b"\x83b\xff\xff\xff\xff"),
        (json!(i32::MAX), b"\x83b\x7f\xff\xff\xff"),
        (json!(i32::MIN), b"\x83b\x80\x00\x00\x00"),
        (json!(2_147_483_648_u64), b"\x83n\x04\x00\x00\x00\x00\x80"),
        (json!(-2_147_483_649_i64), b"\x83n\x04\x01\x01\x00\x00\x80"),
        (json!(u64::MAX), b"\x83n\x08\x00\xff\xff\xff\xff\xff\xff\xff\xff"),
        (json!(i64::MIN), b"\x83n\x08\x01\x00\x00\x00\x00\x00\x00\x00\x80"),
        (json!(1.5), b"\x83F\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        (json!("h\u{e9}"), b"\x83m\x00\x00\x00\x03h\xc3\xa9"),
        (json!([]), b"\x83j"),
        (json!([1]), b"\x83l\x00\x00\x00\x01a\x01j"),
        (json!({}), b"\x83t\x00\x00\x00\x00"),
        (json!({"op": 11}), b"\x83t\x00\x00\x00\x01m\x00\x00\x00\x02opa\x0b"),
    ] {
        let (mut encoded, mut from_bytes) = (Vec::new(), b"kept".to_vec());
        encode(&value, &mut encoded);
        from_json_bytes(value.to_string().as_bytes(), &mut from_bytes).unwrap();
        assert_eq!(encoded, term, "{value}");
        assert_eq!(from_bytes, [b"kept", term].concat(), "{value}");
        assert_eq!(decode(term, DEPTH), Ok(value));
    }
}

#[test]
fn terms_that_only_others_write_are_understood() {
    for (term, value) in [
        (&b"\x83d\x00\x03nil"[..], json!(null)),
        (b"\x83s\x04null", json!(null)),
        (b"\x83w\x04true", json!(true)),
        (b"\x83v\x00\x05false", json!(false)),
        (b"\x83d\x00\x06online", json!("online")),
        // Erlang writes a list of small numbers as a string: here a shard of two.
        (b"\x83k\x00\x02\x00\x02", json!([0, 2])),
        (b"\x83h\x02a\x01a\x02", json!([1, 2])),
        (b"\x83i\x00\x00\x00\x01a\x01", json!([1])),
        (b"\x83o\x00\x00\x00\x02\x00\x01\x01", json!(257)),
        (b"\x83n\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", json!(1)),
        (b"\x83n\x00\x00", json!(0)),
        (b"\x83c1.50000000000000000000e+00\0\0\0\0\0", json!(1.5)),
        (b"\x83t\x00\x00\x00\x01d\x00\x02opa\x01", json!({"op": 1})),
        (b"\x83t\x00\x00\x00\x01w\x01ds\x03nil", json!({"d": null})),
    ] {
        assert_eq!(decode(term, DEPTH), Ok(value), "{term:?}");
    }
}

#[test]
fn an_identify_as_a_library_packs_it() {
    let term = b"\x83t\x00\x00\x00\x02m\x00\x00\x00\x02opa\x02m\x00\x00\x00\x01dt\x00\x00\x00\x03\
        m\x00\x00\x00\x05tokenm\x00\x00\x00\x03abcm\x00\x00\x00\x05shardl\x00\x00\x00\x02a\x00a\x01j\
        m\x00\x00\x00\x07intentsb\x00\x00\x02\x01";
    assert_eq!(
        decode(term, DEPTH),
        Ok(json!({"op": 2, "d": {"token": "abc", "shard": [0, 1], "intents": 513}}))
    );
}

#[test]
fn what_is_no_payload_is_refused() {
    for (term, error) in [
        (&b""[..], EtfError::Version),
        (b"{\"op\":1}", EtfError::Version),
        (b"\x83", EtfError::CutOff),
        (b"\x83m\xff\xff\xff\xffab", EtfError::CutOff),
        (b"\x83l\xff\xff\xff\xffj", EtfError::CutOff),
        (b"\x83t\xff\xff\xff\xffj", EtfError::CutOff),
        (b"\x83i\xff\xff\xff\xff", EtfError::CutOff),
        (b"\x83a\x01a", EtfError::Trailing),
        (b"\x83P\x00\x00\x00\x01", EtfError::Unsupported(80)),
        (b"\x83l\x00\x00\x00\x01a\x01a\x02", EtfError::Unsupported(108)),
        (b"\x83m\x00\x00\x00\x01\xff", EtfError::Text),
        (b"\x83d\x00\x01\xff", EtfError::Text),
        (b"\x83n\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", EtfError::Number),
        (b"\x83n\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff", EtfError::Number),
        (b"\x83F\x7f\xf0\x00\x00\x00\x00\x00\x00", EtfError::Number),
        (b"\x83cnot a number of any kind at all", EtfError::Number),
        (b"\x83t\x00\x00\x00\x01a\x01a\x02", EtfError::Key),
    ] {
        assert_eq!(decode(term, DEPTH), Err(error), "{term:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let mut term = vec![131];
        term.extend_from_slice(&b"l\x00\x00\x00\x01".repeat(levels));
        term.push(b'j');
        term.extend_from_slice(&b"j".repeat(levels));
        term
    };
    assert!(decode(&nested(DEPTH), DEPTH).is_ok());
    assert_eq!(decode(&nested(DEPTH + 1), DEPTH), Err(EtfError::TooDeep));
    assert_eq!(decode(&nested(1_000_000), DEPTH), Err(EtfError::TooDeep));
    assert_eq!(decode(b"\x83t\x00\x00\x00\x00", 0), Err(EtfError::TooDeep));
}

#[test]
fn broken_json_leaves_the_buffer_as_it_was() {
    for json in ["", "{", "[1,", "{\"a\":1}x", "nul", "{\"a\" 1}", &"[".repeat(100_000)] {
        let mut out = b"kept".to_vec();
        assert!(from_json_bytes(json.as_bytes(), &mut out).is_err());
        assert_eq!(out, b"kept");
    }
}

proptest! {
    #[test]
    fn json_comes_back_as_it_was(value in json_value()) {
        let (mut encoded, mut from_bytes) = (Vec::new(), Vec::new());
        encode(&value, &mut encoded);
        from_json_bytes(value.to_string().as_bytes(), &mut from_bytes).unwrap();
        prop_assert_eq!(&decode(&encoded, 100).unwrap(), &value);
        // Compared as values: a float's last digit may change when it is read from text.
        let read: Value = serde_json::from_str(&value.to_string()).unwrap();
        prop_assert_eq!(&decode(&from_bytes, 100).unwrap(), &read);
    }

    #[test]
    fn a_term_that_is_cut_off_is_an_error(value in json_value(), at in any::<usize>()) {
        let mut term = Vec::new();
        encode(&value, &mut term);
        let at = at % term.len();
        prop_assert!(decode(&term[..at], 100).is_err());
    }

    #[test]
    fn garbage_never_panics(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 97_u8..120, 0_u8..4], 0..300),
    ) {
        let _ = decode(&bytes, DEPTH);
        let _ = decode(&[&[131], &bytes[..]].concat(), DEPTH);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-300_i64..300).prop_map(Value::from),
        (-1e6_f64..1e6).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            proptest::collection::vec((".{0,9}", inner), 0..8)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}
