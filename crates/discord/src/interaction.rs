// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions and what may answer them ("Receiving and Responding to Interactions"). In: an interaction's JSON, a
//! response's JSON. Out: what of the first decides where it goes; whether the second may answer the first.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// `flags` of a message that only the user sees ("Message Flags").
pub const EPHEMERAL: u64 = 1 << 6;

/// Bounds of "Interaction Callback Data Structure" and "Message".
const MAX_CHOICES: usize = 25;
const MAX_EMBEDS: usize = 10;
const MAX_CONTENT: usize = 2_000;
const MAX_TITLE: usize = 45;
const MAX_CUSTOM_ID: usize = 100;
const MAX_MODAL_ROWS: usize = 5;

/// What kind of interaction it is ("Interaction Type").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InteractionKind {
    /// Discord looks whether anybody is there.
    Ping,
    /// A command of the application.
    Command,
    /// A button or a select menu.
    Component,
    /// A user is typing a command's option.
    Autocomplete,
    /// A modal was sent off.
    Modal,
    /// One that this version doesn't know.
    Other(u64),
}

/// How an interaction is answered ("Interaction Callback Type").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallbackKind {
    /// 1: answers a ping.
    Pong,
    /// 4: a message.
    Message,
    /// 5: a message follows; the user sees that it is thought about.
    DeferredMessage,
    /// 6: the component's message may be edited later; the user sees nothing.
    DeferredUpdate,
    /// 7: the component's message is edited.
    Update,
    /// 8: choices for an option.
    Choices,
    /// 9: a modal.
    Modal,
    /// 10 (deprecated).
    PremiumRequired,
    /// 12.
    LaunchActivity,
    /// One that this version doesn't know.
    Other(u64),
}

/// What of an interaction decides where it goes and how it may be answered.
#[derive(Deserialize)]
pub struct Interaction<'a> {
    #[serde(rename = "type")]
    kind: u64,
    /// The interaction.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// The application that it is for.
    #[serde(borrow, default)]
    pub application_id: Cow<'a, str>,
    /// What it is answered by; a secret.
    #[serde(borrow, default)]
    pub token: Cow<'a, str>,
    /// Its guild, where it came from one.
    #[serde(borrow, default)]
    pub guild_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(default)]
    message: Option<IgnoredAny>,
}

impl fmt::Debug for Interaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interaction").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    custom_id: Option<Cow<'a, str>>,
}

/// Why a response can't answer an interaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// The body is no response at all.
    #[error("the response is no JSON object with a number as `type`")]
    Malformed,
    /// The response is for others.
    #[error("a response of type {callback} can't answer {kind}")]
    Kind {
        /// Its type.
        callback: u64,
        /// What it was to answer.
        kind: InteractionKind,
    },
    /// Something in its data that Discord refuses.
    #[error("{0}")]
    Data(&'static str),
}

impl InteractionKind {
    /// As routing keys and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Command => "command",
            Self::Component => "component",
            Self::Autocomplete => "autocomplete",
            Self::Modal => "modal",
            Self::Other(_) => "other",
        }
    }
}

impl std::fmt::Display for InteractionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(number) => write!(f, "an interaction of type {number}"),
            known => write!(f, "an interaction of kind {}", known.name()),
        }
    }
}

impl From<u64> for InteractionKind {
    fn from(number: u64) -> Self {
        match number {
            1 => Self::Ping,
            2 => Self::Command,
            3 => Self::Component,
            4 => Self::Autocomplete,
            5 => Self::Modal,
            other => Self::Other(other),
        }
    }
}

impl From<u64> for CallbackKind {
    fn from(number: u64) -> Self {
        match number {
            1 => Self::Pong,
            4 => Self::Message,
            5 => Self::DeferredMessage,
            6 => Self::DeferredUpdate,
            7 => Self::Update,
            8 => Self::Choices,
            9 => Self::Modal,
            10 => Self::PremiumRequired,
            12 => Self::LaunchActivity,
            other => Self::Other(other),
        }
    }
}

impl<'a> Interaction<'a> {
    /// Reads an interaction. What isn't asked for is passed over.
    ///
    /// # Errors
    /// The body is no interaction.
    pub fn parse(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> InteractionKind {
        self.kind.into()
    }

    /// The command's name; of components and modals the `custom_id`. Empty where there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        let data = self.data.as_ref();
        data.and_then(|data| data.name.as_deref().or(data.custom_id.as_deref())).unwrap_or_default()
    }

    /// Whether it belongs to a message: of a component, or of a modal that a component opened.
    #[must_use]
    pub fn has_message(&self) -> bool {
        self.message.is_some()
    }
}

/// Whether a response may answer an interaction: its type for this kind, and what Discord says about its data. Unknown
/// types and fields are passed on.
///
/// # Errors
/// Why it may not.
pub fn check(
    kind: InteractionKind,
    has_message: bool,
    response: &Value,
) -> Result<CallbackKind, NotAnAnswer> {
    let number = response.get("type").and_then(Value::as_u64).ok_or(NotAnAnswer::Malformed)?;
    let callback = CallbackKind::from(number);
    if !may_answer(callback, kind, has_message) {
        return Err(NotAnAnswer::Kind { callback: number, kind });
    }
    let none = Value::Null;
    check_data(callback, response.get("data").unwrap_or(&none)).map_err(NotAnAnswer::Data)?;
    Ok(callback)
}

fn may_answer(callback: CallbackKind, kind: InteractionKind, has_message: bool) -> bool {
    use CallbackKind::{
        Choices, DeferredMessage, DeferredUpdate, LaunchActivity, Message, Modal, Other, Pong,
        PremiumRequired, Update,
    };
    match (kind, callback) {
        (_, Other(_)) | (InteractionKind::Other(_), _) => true,
        (InteractionKind::Ping, callback) => callback == Pong,
        (InteractionKind::Autocomplete, callback) => callback == Choices,
        (_, Pong | Choices) => false,
        (_, Message | DeferredMessage | PremiumRequired | LaunchActivity) => true,
        (InteractionKind::Command | InteractionKind::Component, Modal) => true,
        (InteractionKind::Component, DeferredUpdate | Update) => true,
        (InteractionKind::Modal, DeferredUpdate | Update) => has_message,
        (InteractionKind::Command, DeferredUpdate | Update) | (InteractionKind::Modal, Modal) => false,
    }
}

/// Whether a response's message has nothing in it, as far as the JSON says: Discord takes it with a file only.
#[must_use]
pub fn is_empty_message(callback: CallbackKind, response: &Value) -> bool {
    let data = &response["data"];
    let says = |key: &str| match &data[key] {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let fields = ["content", "embeds", "components", "attachments", "poll", "sticker_ids"];
    callback == CallbackKind::Message && !fields.into_iter().any(says)
}

fn check_data(callback: CallbackKind, data: &Value) -> Result<(), &'static str> {
    let list = |key: &str| data.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    let length = |key: &str| data.get(key).and_then(Value::as_str).map(|text| text.chars().count());
    match callback {
        CallbackKind::Message | CallbackKind::Update => {
            if length("content").is_some_and(|length| length > MAX_CONTENT) {
                return Err("data.content has more than 2,000 characters");
            }
            if list("embeds") > MAX_EMBEDS {
                return Err("data.embeds has more than 10 of them");
            }
            if callback == CallbackKind::Message && !data.is_object() {
                return Err("data is missing: a message has some");
            }
        }
        CallbackKind::Choices if !data.get("choices").is_some_and(Value::is_array) => {
            return Err("data.choices is missing, or no list");
        }
        CallbackKind::Choices if list("choices") > MAX_CHOICES => {
            return Err("data.choices has more than 25 of them");
        }
        CallbackKind::Modal => {
            if !length("custom_id").is_some_and(|length| (1..=MAX_CUSTOM_ID).contains(&length)) {
                return Err("data.custom_id has to have 1 to 100 characters");
            }
            if !length("title").is_some_and(|length| (1..=MAX_TITLE).contains(&length)) {
                return Err("data.title has to have 1 to 45 characters");
            }
            if !(1..=MAX_MODAL_ROWS).contains(&list("components")) {
                return Err("data.components has to have 1 to 5 of them");
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decides_is_read_whatever_else_is_there() {
        let body =
            br#"{"version":1,"type":3,"id":"12","application_id":"7","token":"se\"cret","guild_id":"9",
            "data":{"component_type":2,"custom_id":"vote:yes"},"message":{"id":"1"},"new_field":[{}]}"#;
        let interaction = Interaction::parse(body).unwrap();
        assert_eq!(interaction.kind(), InteractionKind::Component);
        assert_eq!(
            (interaction.name(), &*interaction.id, &*interaction.token),
            ("vote:yes", "12", "se\"cret")
        );
        assert_eq!(interaction.guild_id.as_deref(), Some("9"));
        assert!(interaction.has_message());
        let ping = Interaction::parse(br#"{"type":1}"#).unwrap();
        assert_eq!((ping.kind(), ping.name(), ping.has_message()), (InteractionKind::Ping, "", false));
        assert_eq!(Interaction::parse(br#"{"type":77}"#).unwrap().kind(), InteractionKind::Other(77));
        for broken in ["", "[]", "{}", r#"{"type":"2"}"#, r#"{"type":2"#, "\u{0}"] {
            assert!(Interaction::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    /// Each type of response against each kind of interaction, as the notes below the documentation's tables say.
    #[test]
    fn each_kind_takes_its_own_responses() {
        let all = [1, 4, 5, 6, 7, 8, 9, 10, 12, 99];
        let takes = |kind, has_message| -> Vec<u64> {
            let fits = |callback: &u64| check(kind, has_message, &response(*callback)).is_ok();
            all.into_iter().filter(fits).collect()
        };
        assert_eq!(takes(InteractionKind::Ping, false), [1, 99]);
        assert_eq!(takes(InteractionKind::Command, false), [4, 5, 9, 10, 12, 99]);
        assert_eq!(takes(InteractionKind::Component, true), [4, 5, 6, 7, 9, 10, 12, 99]);
        assert_eq!(takes(InteractionKind::Autocomplete, false), [8, 99]);
        assert_eq!(takes(InteractionKind::Modal, false), [4, 5, 10, 12, 99]);
        assert_eq!(takes(InteractionKind::Modal, true), [4, 5, 6, 7, 10, 12, 99]);
        assert_eq!(takes(InteractionKind::Other(9), false), all);
    }

    #[test]
    fn what_discord_refuses_is_refused_before_it_is_sent() {
        let refused = |kind, callback: u64, data: Value| {
            check(kind, false, &json!({ "type": callback, "data": data })).is_err()
        };
        let message = |data| refused(InteractionKind::Command, 4, data);
        assert!(message(json!({ "content": "ä".repeat(2_001) })));
        assert!(!message(json!({ "content": "ä".repeat(2_000) })));
        assert!(message(json!({ "embeds": vec![json!({}); 11] })));
        assert!(message(Value::Null));
        let choices = |data| refused(InteractionKind::Autocomplete, 8, data);
        assert!(choices(json!({})) && choices(json!({ "choices": vec![json!({}); 26] })));
        assert!(!choices(json!({ "choices": [] })));
        let modal = |id: &str, title: &str, rows: usize| {
            let data = json!({ "custom_id": id, "title": title, "components": vec![json!({}); rows] });
            refused(InteractionKind::Command, 9, data)
        };
        assert!(!modal("x", "y", 5));
        assert!(modal("", "y", 1) && modal("x", "", 1) && modal("x", "y", 0) && modal("x", "y", 6));
        assert!(modal(&"x".repeat(101), "y", 1) && modal("x", &"y".repeat(46), 1));
        for nonsense in [json!(null), json!([]), json!({}), json!({ "type": "4" }), json!(4)] {
            assert_eq!(check(InteractionKind::Command, false, &nonsense), Err(NotAnAnswer::Malformed));
        }
    }

    fn response(callback: u64) -> Value {
        let data = match callback {
            8 => json!({ "choices": [] }),
            9 => json!({ "custom_id": "x", "title": "y", "components": [{}] }),
            _ => json!({ "content": "" }),
        };
        json!({ "type": callback, "data": data })
    }
}
