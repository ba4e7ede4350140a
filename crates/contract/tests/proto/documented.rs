// SPDX-License-Identifier: AGPL-3.0-only
//! Everything in the `.proto` files has a comment, and every message and enum stands in `docs/contract.md`.

use std::fs;

use prost_reflect::{DescriptorPool, FileDescriptor};

use crate::descriptors;

#[test]
fn everything_has_a_comment() {
    let found = uncommented(&descriptors::current());
    assert!(found.is_empty(), "without a comment: {found:#?}");
}

/// `newer.proto` has none: the check sees it.
#[test]
fn what_has_no_comment_is_found() {
    let found = uncommented(&descriptors::newer());
    for name in ["newer.Event", "newer.Event.schema", "newer.Command.target", "newer.ErrorCode"] {
        assert!(found.iter().any(|other| other == name), "{name}");
    }
    assert!(found.iter().any(|other| other.ends_with("ERROR_CODE_MALFORMED")));
    assert!(found.iter().all(|name| name.starts_with("newer.")));
}

#[test]
fn every_message_and_enum_stands_in_the_contract() {
    let contract = fs::read_to_string(descriptors::workspace().join("docs/contract.md")).unwrap();
    let pool = descriptors::current();
    let messages = pool.all_messages().map(|message| message.name().to_owned());
    let enums = pool.all_enums().map(|kind| kind.name().to_owned());
    let missing: Vec<String> =
        messages.chain(enums).filter(|name| !contract.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/contract.md: {missing:?}");
}

#[test]
fn every_error_code_stands_in_the_contract() {
    let contract = fs::read_to_string(descriptors::workspace().join("docs/contract.md")).unwrap();
    let codes = descriptors::current().get_enum_by_name("holdfast.v1.ErrorCode").unwrap();
    for code in codes.values().filter(|code| code.number() != 0) {
        let row = format!("| {} | `{}` |", code.number(), code.name().trim_start_matches("ERROR_CODE_"));
        assert!(contract.contains(&row), "not in docs/contract.md: {row}");
    }
}

/// Full names of all messages, fields, oneofs, enums and values without a comment before them.
fn uncommented(pool: &DescriptorPool) -> Vec<String> {
    let mut items: Vec<(FileDescriptor, Vec<i32>, String)> = Vec::new();
    for message in pool.all_messages() {
        let file = message.parent_file();
        items.push((file.clone(), message.path().into(), message.full_name().to_owned()));
        for field in message.fields() {
            items.push((file.clone(), field.path().into(), field.full_name().to_owned()));
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            items.push((file.clone(), oneof.path().into(), oneof.full_name().to_owned()));
        }
    }
    for kind in pool.all_enums() {
        let file = kind.parent_file();
        items.push((file.clone(), kind.path().into(), kind.full_name().to_owned()));
        for value in kind.values() {
            items.push((file.clone(), value.path().into(), value.full_name().to_owned()));
        }
    }
    let bare = items.into_iter().filter(|(file, path, _)| !has_comment(file, path));
    bare.map(|(_, _, name)| name).collect()
}

fn has_comment(file: &FileDescriptor, path: &[i32]) -> bool {
    let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let mut places = source.location.iter().filter(|place| place.path == path);
    places.any(|place| !place.leading_comments().trim().is_empty())
}
