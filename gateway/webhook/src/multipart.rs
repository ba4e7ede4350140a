// SPDX-License-Identifier: AGPL-3.0-only
//! Bodies with files ("Uploading Files"): the JSON and each file as a part of `multipart/form-data`. In: a body and
//! files. Out: pieces, of which some are bytes and some are uploads to be fetched. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_contract::v1::{WebhookFile, webhook_file};
use holdfast_service::unguessable;

/// A body with files.
pub(crate) struct Form {
    /// Separates the parts. A file that knew it could end its part and add others.
    boundary: String,
    pieces: Vec<Piece>,
}

/// A part of the body.
#[derive(Clone)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// The content of an upload, by its address.
    Upload(String),
}

impl Form {
    /// The body with these files, in their order.
    ///
    /// # Errors
    /// The field that can't be used.
    pub(crate) fn new(json: Bytes, files: Vec<WebhookFile>) -> Result<Self, &'static str> {
        let (boundary, mut pieces, mut text) = (unguessable(), Vec::new(), BytesMut::new());
        if !json.is_empty() {
            begin(&mut text, &boundary, "payload_json", None, "application/json");
            text.put_slice(&json);
            text.put_slice(b"\r\n");
        }
        for (number, file) in files.into_iter().enumerate() {
            let plain = |byte: u8| (0x20..0x7f).contains(&byte);
            if !file.content_type.bytes().all(plain) {
                return Err("content_type");
            }
            begin(&mut text, &boundary, &format!("files[{number}]"), Some(&file.name), &file.content_type);
            pieces.push(Piece::Bytes(text.split().freeze()));
            pieces.push(match file.content {
                Some(webhook_file::Content::Data(data)) => Piece::Bytes(data),
                Some(webhook_file::Content::Upload(url)) => Piece::Upload(url),
                None => return Err("content"),
            });
            text.put_slice(b"\r\n");
        }
        text.put_slice(format!("--{boundary}--\r\n").as_bytes());
        pieces.push(Piece::Bytes(text.freeze()));
        Ok(Self { boundary, pieces })
    }

    /// `content-type` of the whole.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// All of it, if nothing has to be fetched.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let mut whole = BytesMut::new();
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => whole.put_slice(bytes),
                Piece::Upload(_) => return None,
            }
        }
        Some(whole.freeze())
    }
}

/// The head of a part.
fn begin(text: &mut BytesMut, boundary: &str, name: &str, file: Option<&str>, content_type: &str) {
    text.put_slice(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"").as_bytes());
    if let Some(file) = file {
        // As browsers write them (HTML, "Multipart form data").
        let file = file.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        text.put_slice(format!("; filename=\"{file}\"").as_bytes());
    }
    if !content_type.is_empty() {
        text.put_slice(format!("\r\nContent-Type: {content_type}").as_bytes());
    }
    text.put_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_files_are_parts_in_their_order() {
        let form =
            Form::new("{}".into(), vec![file("a.txt", "text/plain"), file("b\"\r\n", "")]).expect("fine");
        let whole = form.whole().expect("nothing to fetch");
        let expected = "--B\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\
             Content-Type: application/json\r\n\r\n{}\r\n\
             --B\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\
             Content-Type: text/plain\r\n\r\ndata\r\n\
             --B\r\nContent-Disposition: form-data; name=\"files[1]\"; filename=\"b%22%0D%0A\"\r\n\r\ndata\r\n\
             --B--\r\n";
        assert_eq!(whole, expected.replace("--B", &format!("--{}", form.boundary)));
        assert_eq!(form.content_type(), format!("multipart/form-data; boundary={}", form.boundary));
    }

    #[test]
    fn no_file_knows_the_boundary() {
        let boundary = || Form::new(Bytes::new(), vec![file("a", "")]).expect("fine").boundary;
        assert_ne!(boundary(), boundary());
    }

    #[test]
    fn a_header_in_a_type_and_a_file_without_content_are_refused() {
        let (wrong, empty) =
            (file("a", "text/plain\r\nx: y"), WebhookFile { content: None, ..file("a", "") });
        assert_eq!(Form::new(Bytes::new(), vec![wrong]).err(), Some("content_type"));
        assert_eq!(Form::new(Bytes::new(), vec![empty]).err(), Some("content"));
    }

    fn file(name: &str, content_type: &str) -> WebhookFile {
        let content = Some(webhook_file::Content::Data("data".into()));
        WebhookFile { name: name.to_owned(), content_type: content_type.to_owned(), content }
    }
}
