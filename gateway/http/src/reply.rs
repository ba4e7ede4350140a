// SPDX-License-Identifier: AGPL-3.0-only
//! A worker's reply to an interaction. In: its bytes and what they say they are. Out: a response that may answer it, as
//! Discord takes it: at once as it is, or later as a message's.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use holdfast_contract::v1::{Error, ErrorCode};
use holdfast_discord::interaction::{CallbackKind, NotAnAnswer, check, is_empty_message};
use holdfast_service::unguessable;
use serde_json::Value;

use crate::ticket::Ticket;

const JSON: &str = "application/json";
/// The part of a multipart body that has the JSON ("Uploading Files").
const PAYLOAD: &str = "payload_json";
/// Parts of a message: ten files and the JSON, and some that this version doesn't know.
const MAX_PARTS: usize = 32;

/// A reply as it came.
#[derive(Clone, Default)]
pub(crate) struct Raw {
    /// Empty: JSON.
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
    /// With which type the worker has told Discord to wait; 0: it hasn't.
    pub(crate) deferred_with: u32,
}

/// A reply that may answer its interaction.
pub(crate) struct Reply {
    pub(crate) callback: CallbackKind,
    response: Value,
    files: Vec<Part>,
    raw: Raw,
}

/// A file, or what else comes with the JSON.
struct Part {
    /// Its header `Content-Disposition`, as it came.
    disposition: String,
    content_type: Option<String>,
    body: Bytes,
}

impl Raw {
    /// Reads it, and judges whether it may answer the interaction. It has at most `max` bytes.
    pub(crate) async fn read(self, ticket: &Ticket, max: usize) -> Result<Reply, Error> {
        if self.body.len() > max {
            return Err(Error::new(ErrorCode::TooLarge, "the reply is larger than http.max_reply"));
        }
        let (response, files) = match boundary(&self.content_type) {
            Some(boundary) => parts(&self.body, boundary).await?,
            None if is_json(&self.content_type) => (serde_json::from_slice(&self.body).ok(), Vec::new()),
            None => {
                let text = "the content type is neither application/json nor multipart/form-data";
                return Err(Error::new(ErrorCode::InvalidArgument, text));
            }
        };
        let response = response.ok_or_else(|| invalid(&NotAnAnswer::Malformed))?;
        let callback =
            check(ticket.kind(), ticket.has_message, &response).map_err(|error| invalid(&error))?;
        if files.is_empty() && is_empty_message(callback, &response) {
            return Err(Error::new(ErrorCode::InvalidArgument, "the message is empty: Discord takes none"));
        }
        Ok(Reply { callback, response, files, raw: self })
    }
}

impl Reply {
    /// As the answer itself: content type and body, as the worker sent them.
    pub(crate) fn answer(self) -> (String, Bytes) {
        let Raw { content_type, body, .. } = self.raw;
        (if content_type.is_empty() { JSON.to_owned() } else { content_type }, body)
    }

    /// As a message of its own: content type and body.
    pub(crate) fn message(self) -> (String, Bytes) {
        let data = self.response.get("data").map_or_else(|| "{}".to_owned(), Value::to_string);
        if self.files.is_empty() {
            return (JSON.to_owned(), data.into());
        }
        // A file that knew it could end its part and add others.
        let (boundary, mut body) = (unguessable(), BytesMut::new());
        put(&mut body, &boundary, &format!("form-data; name=\"{PAYLOAD}\""), Some(JSON), data.as_bytes());
        for part in &self.files {
            put(&mut body, &boundary, &part.disposition, part.content_type.as_deref(), &part.body);
        }
        body.put_slice(format!("--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body.freeze())
    }
}

fn invalid(error: &NotAnAnswer) -> Error {
    Error::new(ErrorCode::InvalidArgument, error.to_string())
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.is_empty() || kind.eq_ignore_ascii_case(JSON)
}

fn boundary(content_type: &str) -> Option<String> {
    multer::parse_boundary(content_type).ok()
}

/// The JSON among the parts of a body, and the others.
async fn parts(body: &Bytes, boundary: String) -> Result<(Option<Value>, Vec<Part>), Error> {
    let malformed = |error: multer::Error| {
        Error::new(ErrorCode::InvalidArgument, format!("the body is no multipart/form-data: {error}"))
    };
    let whole = stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
    let mut multipart = multer::Multipart::new(whole, boundary);
    let (mut response, mut files) = (None, Vec::new());
    while let Some(field) = multipart.next_field().await.map_err(malformed)? {
        if files.len() >= MAX_PARTS {
            return Err(Error::new(ErrorCode::InvalidArgument, "the body has too many parts"));
        }
        let disposition = field.headers().get(http::header::CONTENT_DISPOSITION);
        let disposition = disposition.and_then(|value| value.to_str().ok()).unwrap_or("form-data").to_owned();
        let content_type = field.content_type().map(ToString::to_string);
        let is_json = field.name() == Some(PAYLOAD);
        let body = field.bytes().await.map_err(malformed)?;
        if is_json {
            response = serde_json::from_slice(&body).ok();
        } else {
            files.push(Part { disposition, content_type, body });
        }
    }
    Ok((response, files))
}

fn put(body: &mut BytesMut, boundary: &str, disposition: &str, content_type: Option<&str>, part: &[u8]) {
    body.put_slice(format!("--{boundary}\r\nContent-Disposition: {disposition}\r\n").as_bytes());
    if let Some(content_type) = content_type {
        body.put_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
    }
    body.put_slice(b"\r\n");
    body.put_slice(part);
    body.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use holdfast_discord::interaction::InteractionKind;
    use serde_json::json;

    use super::*;

    const MAX: usize = 1_000;

    fn ticket() -> Ticket {
        Ticket::new(InteractionKind::Command, "token")
    }

    #[tokio::test]
    async fn json_goes_on_as_it_is() {
        let body = Bytes::from_static(br#"{"type" : 4, "data":{"content":"hello"}}"#);
        let raw = Raw { body: body.clone(), ..Raw::default() };
        let reply = raw.read(&ticket(), MAX).await.unwrap();
        assert_eq!(reply.callback, CallbackKind::Message);
        assert_eq!(reply.answer(), (JSON.to_owned(), body));
    }

    #[tokio::test]
    async fn files_come_along_when_the_reply_becomes_a_message() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"payload_json\"\r\nContent-Type: application/json\r\n\r\n\
            {\"type\":4,\"data\":{\"content\":\"see\",\"attachments\":[{\"id\":0}]}}\r\n\
            --x\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a b.png\"\r\nContent-Type: image/png\r\n\r\n\
            \u{1}\r\n--y\r\n\r\n--x--\r\n";
        let content_type = "multipart/form-data; boundary=x".to_owned();
        let raw = Raw { content_type: content_type.clone(), body: body.into(), ..Raw::default() };
        let reply = raw.clone().read(&ticket(), MAX).await.unwrap();
        assert_eq!(reply.answer(), (content_type, body.into()));
        let (other, _) = raw.clone().read(&ticket(), MAX).await.unwrap().message();
        let (content_type, message) = raw.read(&ticket(), MAX).await.unwrap().message();
        assert_ne!(content_type, other, "no file may know the boundary");
        let (payload, files) = parts(&message, boundary(&content_type).unwrap()).await.unwrap();
        assert_eq!(payload, Some(json!({ "content": "see", "attachments": [{ "id": 0 }] })));
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].disposition, "form-data; name=\"files[0]\"; filename=\"a b.png\"");
        assert_eq!(
            (files[0].content_type.as_deref(), &*files[0].body),
            (Some("image/png"), &b"\x01\r\n--y\r\n"[..])
        );
    }

    #[tokio::test]
    async fn nonsense_is_none() {
        for (content_type, body) in [
            ("", ""),
            ("", "hello"),
            ("", r#"{"type":6}"#),
            ("text/plain", r#"{"type":4,"data":{}}"#),
            ("multipart/form-data; boundary=x", "--x\r\n"),
            ("multipart/form-data; boundary=x", "--x--\r\n"),
            ("multipart/form-data", "--x--\r\n"),
        ] {
            let raw = Raw { content_type: content_type.to_owned(), body: body.into(), ..Raw::default() };
            let error = raw.read(&ticket(), MAX).await.err().expect(body);
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{body}");
        }
        let large = Raw { body: vec![b' '; MAX + 1].into(), ..Raw::default() };
        let error = large.read(&ticket(), MAX).await.err().expect("it is too large");
        assert_eq!(error.code(), ErrorCode::TooLarge);
    }
}
