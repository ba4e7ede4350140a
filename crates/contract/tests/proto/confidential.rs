// SPDX-License-Identifier: AGPL-3.0-only
//! What a message looks like in a log never has a secret or a user's words in it.

use std::fmt::Debug;

use holdfast_contract::v1::{
    ChannelInfo, Command, CommandReply, EditWebhookMessage, Event, ExecuteWebhook, Guild, MembersChunk, Raw,
    RestHeader, RestReply, RestRequest, RestResponse, SoundboardSounds, VoiceConnection, WebhookFile,
    WebhookMessage, WebhookReply, command, command_reply, guild, rest_reply, webhook_file, webhook_message,
};
use prost_reflect::{FieldDescriptor, Kind, Value};

use crate::descriptors;

/// Stands where something is that nobody may see.
const SECRET: &str = "hunter2";

#[test]
fn payloads_and_credentials_are_not_shown() {
    let data = || SECRET.into();
    let voice = VoiceConnection {
        session_id: SECRET.to_owned(),
        token: SECRET.to_owned(),
        endpoint: "voice.example:443".to_owned(),
        ..VoiceConnection::default()
    };
    let raw = Raw { opcode: 9, data: data() };
    let found = Some(guild::Found::Data(data()));
    let header = RestHeader { name: "authorization".to_owned(), value: data() };
    let response = RestResponse { status: 200, headers: vec![header.clone()], body: data() };
    let content = Some(webhook_file::Content::Data(data()));
    let files = vec![WebhookFile { content, ..WebhookFile::default() }];
    let execute = ExecuteWebhook { body: data(), files, ..ExecuteWebhook::default() };
    let shown: &[&dyn Debug] = &[
        &Event { data: data(), name: "MESSAGE_CREATE".to_owned(), ..Event::default() },
        &Guild { found, ..Guild::default() },
        &guild::Found::Data(data()),
        &Command { payload: Some(command::Payload::Raw(raw.clone())), ..Command::default() },
        &raw,
        &CommandReply {
            reply: Some(command_reply::Reply::VoiceConnection(voice.clone())),
            ..Default::default()
        },
        &voice,
        &MembersChunk { data: data(), ..MembersChunk::default() },
        &SoundboardSounds { data: data(), ..SoundboardSounds::default() },
        &ChannelInfo { data: data(), ..ChannelInfo::default() },
        &RestRequest { headers: vec![header.clone()], path: SECRET.to_owned(), ..RestRequest::default() },
        &RestReply { result: Some(rest_reply::Result::Response(response.clone())), ..RestReply::default() },
        &WebhookMessage {
            token: SECRET.to_owned(),
            operation: Some(webhook_message::Operation::Execute(execute)),
            ..WebhookMessage::default()
        },
        &EditWebhookMessage { body: data(), ..EditWebhookMessage::default() },
        &webhook_file::Content::Upload(SECRET.to_owned()),
        &WebhookReply { response: Some(response), ..WebhookReply::default() },
    ];
    for message in shown {
        let text = format!("{message:?} {message:#?}");
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("7 bytes"), "{text}");
    }
}

#[test]
fn what_is_shown_still_helps() {
    let event = Event { name: "MESSAGE_CREATE".to_owned(), position: 7, ..Event::default() };
    let text = format!("{event:?}");
    assert!(text.contains(r#"name: "MESSAGE_CREATE""#) && text.contains("position: 7"), "{text}");
    assert!(text.contains("data: 0 bytes"), "{text}");
}

/// Other languages' generators read the mark.
#[test]
fn every_payload_is_marked_as_confidential() {
    let pool = descriptors::current();
    let confidential = |field: &FieldDescriptor| {
        matches!(field.kind(), Kind::Bytes) || ["token", "session_id"].contains(&field.name())
    };
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let unmarked: Vec<String> = fields
        .filter(|field| confidential(field) && !is_marked(field))
        .map(|field| field.full_name().to_owned())
        .collect();
    assert!(unmarked.is_empty(), "without debug_redact: {unmarked:?}");
}

fn is_marked(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|mark| *mark == Value::Bool(true))
}
