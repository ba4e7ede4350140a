// SPDX-License-Identifier: AGPL-3.0-only
//! Numbers, names and types on the wire stay what they are: against a list, and against bytes that another
//! implementation (Python's protobuf) wrote.

use std::{collections::BTreeSet, fmt::Debug};

use holdfast_contract::v1::{
    Command, CommandReply, Error, ErrorCode, Event, Gap, GapReason, Rejected, RequestGuildMembers, command,
    command_reply,
};
use prost::Message;

use crate::descriptors::{self, fields, values};

/// Lines are only ever added to it.
const LIST: &str = include_str!("numbers.txt");

#[test]
fn no_number_name_or_type_ever_changes() {
    let pool = descriptors::current();
    let now: BTreeSet<String> = pool
        .all_messages()
        .flat_map(|message| fields(&message))
        .chain(pool.all_enums().flat_map(|kind| values(&kind)))
        .collect();
    let listed: BTreeSet<String> = LIST.lines().map(str::to_owned).collect();
    let gone: Vec<&String> = listed.difference(&now).collect();
    assert!(gone.is_empty(), "consumers rely on these, put them back: {gone:#?}");
    let new: Vec<&String> = now.difference(&listed).collect();
    assert!(new.is_empty(), "add these to numbers.txt, from now on they stay: {new:#?}");
}

#[test]
fn the_bytes_of_an_event_stay() {
    let event = Event {
        schema: 1,
        application: 1_181_384_788_765_712_385,
        shard: 17,
        shard_count: 32,
        stream: "00c0ffee00c0ffee".to_owned(),
        position: 300,
        sequence: 301,
        generation: 4,
        received_at_us: 1_795_305_600_000_001,
        name: "MESSAGE_CREATE".to_owned(),
        guild_id: 81_384_788_765_712_384,
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        possible_duplicate: true,
        data: r#"{"id":"1", "new":null}"#.into(),
    };
    both_ways(&event, EVENT);
}

#[test]
fn the_bytes_of_a_gap_stay() {
    let gap = Gap {
        schema: 1,
        application: 1_181_384_788_765_712_385,
        shard: 17,
        shard_count: 32,
        stream: "00c0ffee00c0ffee".to_owned(),
        generation: 4,
        received_at_us: 1_795_305_600_000_001,
        name: "HOLDFAST_GAP".to_owned(),
        from: 30,
        to: 31,
        next_stream: "00000000000000ff".to_owned(),
        reason: GapReason::NewSession.into(),
        lost: 1,
    };
    both_ways(&gap, GAP);
}

#[test]
fn the_bytes_of_a_command_and_its_reply_stay() {
    let members =
        RequestGuildMembers { query: Some(String::new()), user_ids: vec![5, 6], ..Default::default() };
    let command = Command {
        schema: 1,
        application: 0,
        priority: 3,
        deadline_ms: 1_795_305_600_000,
        target: Some(command::Target::GuildId(81_384_788_765_712_384)),
        payload: Some(command::Payload::RequestGuildMembers(members)),
    };
    both_ways(&command, COMMAND);
    let error =
        Error { code: ErrorCode::RateLimited.into(), message: "wait".to_owned(), retry_after_ms: 29_500 };
    let reply = CommandReply {
        schema: 1,
        shard: 17,
        shard_count: 32,
        number: 1,
        reply: Some(command_reply::Reply::Rejected(Rejected { error: Some(error) })),
    };
    both_ways(&reply, REPLY);
}

/// A Gap that is read as an Event by mistake does no harm.
#[test]
fn a_gap_read_as_an_event_is_one_of_an_unknown_name_without_data() {
    let event = Event::decode(bytes(GAP).as_slice()).unwrap();
    assert_eq!((event.name.as_str(), event.position, event.guild_id), ("HOLDFAST_GAP", 0, 0));
    assert_eq!((event.shard, event.shard_count, event.generation), (17, 32, 4));
    assert!(event.data.is_empty());
}

fn both_ways<M: Message + PartialEq + Debug + Default>(message: &M, hex: &str) {
    assert_eq!(&M::decode(bytes(hex).as_slice()).unwrap(), message);
    let written: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, hex.replace(char::is_whitespace, ""));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const EVENT: &str = "
    08011101206ec5341f6510181120202a103030633066666565303063306666656530ac0238ad0240044881c0b4c4a29a
    9803520e4d4553534147455f43524541544559002080c008232101623730302d30616637363531393136636434336464
    383434386562323131633830333139632d623761643662373136393230333333312d303168017a167b226964223a2231
    222c20226e6577223a6e756c6c7d";

const GAP: &str = "
    08011101206ec5341f6510181120202a103030633066666565303063306666656540044881c0b4c4a29a9803520c484f
    4c44464153545f474150a0011ea8011fb2011030303030303030303030303030306666b80101c00101";

const COMMAND: &str = "
    080121002080c00823210130033880e8b584a0349201140a00221005000000000000000600000000000000";

const REPLY: &str = "
    08011011182020018a010e0a0c086812047761697418bce601";
