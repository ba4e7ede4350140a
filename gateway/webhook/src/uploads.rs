// SPDX-License-Identifier: AGPL-3.0-only
//! Files that lie at `api`. In: the address that it gave. Out: the file as it comes, and how long it is. Only addresses
//! of the form that `api` gives are asked.

use std::time::Duration;

use bytes::Bytes;
use holdfast_rest::{Connector, RestError, connector};
use http::{Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Where uploads are, at every `api`.
const PATH: &str = "/holdfast/uploads/";

/// What an upload's name consists of.
const NAME: usize = 32;

/// How long `api` may take to begin.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    pool: Client<Connector, Empty<Bytes>>,
}

/// A file on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) body: Incoming,
    pub(crate) bytes: u64,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// It is none of ours, or has gone.
    #[error("the upload is not there: it has expired, or its api was restarted")]
    Unknown,
    /// It may come later.
    #[error("the upload cannot be fetched: {0}")]
    Unreachable(String),
}

impl Uploads {
    pub(crate) fn new() -> Result<Self, RestError> {
        Ok(Self { pool: Client::builder(TokioExecutor::new()).build(connector()?) })
    }

    /// Begins to fetch a file.
    pub(crate) async fn open(&self, url: &str) -> Result<Upload, UploadError> {
        let away = |reason: String| UploadError::Unreachable(reason);
        let uri = address(url).ok_or(UploadError::Unknown)?;
        let answer = tokio::time::timeout(TIMEOUT, self.pool.get(uri)).await;
        let answer = answer.map_err(|_| away("no answer in time".to_owned()))?;
        let response: Response<Incoming> = answer.map_err(|error| away(error.to_string()))?;
        match (response.status(), response.body().size_hint().exact()) {
            (StatusCode::OK, Some(bytes)) => Ok(Upload { body: response.into_body(), bytes }),
            (StatusCode::NOT_FOUND | StatusCode::OK, _) => Err(UploadError::Unknown),
            (status, _) => Err(away(format!("status {status}"))),
        }
    }
}

/// An address of the form that `api` gives; no other is asked, whoever wants it.
fn address(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let name = uri.path().strip_prefix(PATH)?;
    let fits = name.len() == NAME && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let there = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    (fits && there).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uploads_are_fetched() {
        let name = "0123456789abcdef0123456789abcdef";
        assert!(address(&format!("http://api:7979/holdfast/uploads/{name}")).is_some());
        for other in [
            format!("http://api:7979/holdfast/uploads/{name}?x=1"),
            format!("http://api:7979/holdfast/uploads/../{name}"),
            format!("file:///holdfast/uploads/{name}"),
            format!("/holdfast/uploads/{name}"),
            "http://metadata/latest".to_owned(),
        ] {
            assert!(address(&other).is_none(), "{other}");
        }
    }
}
