// SPDX-License-Identifier: AGPL-3.0-only
//! Old and new versions mix: what `newer.proto` writes is read by today's types, and the other way round.

use std::collections::BTreeSet;

use holdfast_contract::{
    Class,
    v1::{Command, CommandReply, Error, ErrorCode, Event, Rejected, command, command_reply},
};
use prost::Message;
use prost_reflect::DynamicMessage;

use crate::descriptors::{self, fields, values};

#[test]
fn the_newer_version_has_all_that_today_has() {
    let (current, newer) = (descriptors::current(), descriptors::newer());
    for name in ["Event", "Command", "CommandReply", "Rejected", "Error"] {
        let old = fields(&current.get_message_by_name(&format!("holdfast.v1.{name}")).unwrap());
        let new = fields(&newer.get_message_by_name(&format!("newer.{name}")).unwrap());
        only_added(old, new);
    }
    let old = values(&current.get_enum_by_name("holdfast.v1.ErrorCode").unwrap());
    only_added(old, values(&newer.get_enum_by_name("newer.ErrorCode").unwrap()));
}

#[test]
fn an_older_consumer_reads_a_newer_event() {
    let bytes = by_newer(
        "Event",
        r#"schema: 2 shard: 17 shard_count: 32 stream: "00c0ffee00c0ffee" position: 7 name: "SOMETHING_NEW"
           guild_id: 81384788765712384 added_channel_id: 5 data: "{\"x\":1}" added_words: ["a", "b"]
           added_part { text: "more" }"#,
    );
    let event = Event::decode(bytes.as_slice()).unwrap();
    let expected = Event {
        schema: 2,
        shard: 17,
        shard_count: 32,
        stream: "00c0ffee00c0ffee".to_owned(),
        position: 7,
        name: "SOMETHING_NEW".to_owned(),
        guild_id: 81_384_788_765_712_384,
        data: r#"{"x":1}"#.into(),
        ..Event::default()
    };
    assert_eq!(event, expected);
}

#[test]
fn a_newer_consumer_reads_an_older_event() {
    let event = Event { schema: 1, shard: 17, data: "{}".into(), ..Event::default() };
    let read = by_newer_read("Event", &event);
    assert_eq!(read.to_text_format(), r#"schema:1,shard:17,data:"{}""#);
}

/// An older replica can still forward it, and says that it doesn't know it.
#[test]
fn a_command_of_a_newer_kind_keeps_its_target() {
    let bytes =
        by_newer("Command", r#"schema: 2 guild_id: 5 priority: PRIORITY_HIGH added_payload { text: "x" }"#);
    let command = Command::decode(bytes.as_slice()).unwrap();
    assert_eq!(command.payload, None);
    assert_eq!(command.target, Some(command::Target::GuildId(5)));
}

#[test]
fn a_command_to_a_newer_kind_of_target_has_none() {
    let bytes = by_newer("Command", "added_user_id: 5 update_presence { status: 'idle' }");
    let command = Command::decode(bytes.as_slice()).unwrap();
    assert_eq!(command.target, None);
    assert!(matches!(command.payload, Some(command::Payload::UpdatePresence(_))));
}

#[test]
fn a_reply_of_a_newer_kind_is_passed_over() {
    let bytes = by_newer("CommandReply", r#"schema: 2 shard: 3 number: 1 added_reply { text: "x" }"#);
    let reply = CommandReply::decode(bytes.as_slice()).unwrap();
    assert_eq!(reply, CommandReply { schema: 2, shard: 3, number: 1, ..CommandReply::default() });
}

#[test]
fn a_newer_error_code_says_by_its_range_what_to_do() {
    let bytes = by_newer(
        "CommandReply",
        r#"rejected { error { code: ERROR_CODE_ADDED_LATER message: "m" retry_after_ms: 5 added_link: "l" }
                      added_hint: "h" }"#,
    );
    let reply = CommandReply::decode(bytes.as_slice()).unwrap().reply;
    let Some(command_reply::Reply::Rejected(Rejected { error: Some(error) })) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(error, Error { code: 150, message: "m".to_owned(), retry_after_ms: 5 });
    assert_eq!((error.code(), error.class()), (ErrorCode::Unspecified, Class::Later));
}

#[test]
fn a_newer_caller_reads_an_older_rejection() {
    let error = Error::new(ErrorCode::NoOwner, "start a replica");
    let reply = command_reply::Reply::Rejected(Rejected { error: Some(error) });
    let read = by_newer_read("CommandReply", &CommandReply { reply: Some(reply), ..CommandReply::default() });
    assert_eq!(
        read.to_text_format(),
        r#"rejected{error{code:ERROR_CODE_NO_OWNER,message:"start a replica"}}"#
    );
}

fn by_newer(message: &str, text: &str) -> Vec<u8> {
    let descriptor = descriptors::newer().get_message_by_name(&format!("newer.{message}")).unwrap();
    DynamicMessage::parse_text_format(descriptor, text).unwrap().encode_to_vec()
}

/// What the newer version makes of our bytes; it must know every field in them.
fn by_newer_read(message: &str, written: &impl Message) -> DynamicMessage {
    let descriptor = descriptors::newer().get_message_by_name(&format!("newer.{message}")).unwrap();
    let read = DynamicMessage::decode(descriptor, written.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.unknown_fields().count(), 0);
    read
}

fn only_added(old: Vec<String>, new: Vec<String>) {
    let (old, new): (BTreeSet<String>, BTreeSet<String>) =
        (old.into_iter().collect(), new.into_iter().collect());
    let changed: Vec<&String> = old.difference(&new).collect();
    assert!(changed.is_empty(), "newer.proto lacks what the contract has by now: {changed:#?}");
}
