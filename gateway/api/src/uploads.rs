// SPDX-License-Identifier: AGPL-3.0-only
//! Files on their way to a webhook: a body comes in by POST, its address goes out; GET at that address gives it back. In
//! files without a name, so that nothing is left of them after whatever end. Bounded by bytes, number and age.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use holdfast_rest::{Body, BodyError};
use holdfast_service::unguessable;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::answer::{Problem, json_response};
use crate::metrics::Metrics;
use crate::settings::Config;

/// Where they are, whatever else is asked for here.
const PATH: &str = "/holdfast/uploads";

/// Files that are kept: each is an open one.
const FILES: usize = 1_024;

/// As much as is read at once.
const PIECE: usize = 64 << 10;

/// How often those that are too old are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// See the module. Clones share them.
#[derive(Clone)]
pub(crate) struct Uploads {
    shared: Arc<Shared>,
}

struct Shared {
    /// What stands before an upload's name.
    base: String,
    bytes: u64,
    most: u64,
    expiry: Duration,
    pause: Duration,
    dir: Option<PathBuf>,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    files: HashMap<String, Upload>,
    /// Of those, and of what is coming in.
    bytes: u64,
    coming: usize,
}

#[derive(Clone)]
struct Upload {
    file: Arc<File>,
    /// Given back when nobody reads it any more.
    room: Arc<Room>,
    until: Instant,
}

/// A part of the bytes that may be kept.
struct Room {
    shared: Arc<Shared>,
    bytes: u64,
    /// It isn't whole yet.
    coming: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'p> {
    All,
    One(&'p str),
}

/// What a path asks for, if it is about uploads.
pub(crate) fn place(path: &str) -> Option<Place<'_>> {
    match path.strip_prefix(PATH)? {
        "" => Some(Place::All),
        rest => rest.strip_prefix('/').map(Place::One),
    }
}

impl Uploads {
    /// None so far; `address` is where callers and `webhook` reach this listener. `None` where the settings leave no room.
    pub(crate) fn new(config: &Config, address: &str, metrics: Arc<Metrics>) -> Option<Self> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let shared = Shared {
            base: format!("{scheme}://{address}{PATH}/"),
            bytes: config.uploads,
            most: config.max_body.min(config.uploads),
            expiry: config.upload_expiry,
            pause: config.body_timeout,
            dir: config.uploads_dir.clone(),
            metrics,
            kept: Mutex::default(),
        };
        (config.uploads > 0).then(|| Self { shared: Arc::new(shared) })
    }

    /// Lets those go that are too old, until the service ends.
    pub(crate) async fn sweep(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            let now = Instant::now();
            let mut kept = self.shared.lock();
            let old: Vec<_> =
                kept.files.iter().filter(|(_, it)| it.until <= now).map(|(name, _)| name.clone()).collect();
            let old: Vec<_> = old.iter().filter_map(|name| kept.files.remove(name)).collect();
            // What they give back is behind the same lock.
            drop(kept);
            drop(old);
        }
    }

    /// Answers a request about uploads. Who may send requests may upload; who knows an upload's name may have it.
    pub(crate) async fn answer(
        &self,
        place: Place<'_>,
        head: &Parts,
        body: Incoming,
        access: &Access,
    ) -> Result<Response<Body>, Problem> {
        match (place, &head.method) {
            (Place::All, &Method::POST) if !access.admits(&head.headers) => Err(Problem::access()),
            (Place::All, &Method::POST) => self.take(body).await,
            (Place::One(name), &Method::GET) => self.give(name),
            _ => Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "uploads are for POST, and then GET",
            )),
        }
    }

    async fn take(&self, mut body: Incoming) -> Result<Response<Body>, Problem> {
        let shared = &self.shared;
        let size = body.size_hint();
        if size.lower() > shared.most {
            return Err(too_large());
        }
        let mut room = Room::begin(shared)?;
        room.add(size.exact().unwrap_or(0))?;
        let dir = shared.dir.clone();
        let open = move || dir.map_or_else(tempfile::tempfile, tempfile::tempfile_in);
        let file = tokio::task::spawn_blocking(open).await.map_err(|_| disk())?.map_err(|_| disk())?;
        let mut file = tokio::fs::File::from_std(file);
        let mut bytes = 0;
        loop {
            let frame = tokio::time::timeout(shared.pause, body.frame()).await.map_err(|_| {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "the body did not come in time")
            })?;
            let Some(frame) = frame else { break };
            let ended = |_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body ended early");
            let Ok(data) = frame.map_err(ended)?.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > shared.most {
                return Err(too_large());
            }
            room.add(bytes.saturating_sub(room.bytes))?;
            file.write_all(&data).await.map_err(|_| disk())?;
        }
        file.flush().await.map_err(|_| disk())?;
        Ok(self.keep(file.into_std().await, room))
    }

    fn keep(&self, file: File, mut room: Room) -> Response<Body> {
        let shared = &self.shared;
        let (name, bytes) = (unguessable(), room.bytes);
        let mut kept = shared.lock();
        kept.coming -= 1;
        room.coming = false;
        let until = Instant::now() + shared.expiry;
        let upload = Upload { file: Arc::new(file), room: Arc::new(room), until };
        kept.files.insert(name.clone(), upload);
        drop(kept);
        let url = format!("{}{name}", shared.base);
        let said = json!({ "url": url, "size": bytes, "expires_in": shared.expiry.as_secs() });
        json_response(StatusCode::CREATED, &said)
    }

    fn give(&self, name: &str) -> Result<Response<Body>, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, "upload", "there is no such upload, or no more");
        let upload = self.shared.lock().files.get(name).cloned().ok_or_else(missing)?;
        let bytes = upload.room.bytes;
        let pieces = stream::try_unfold((upload, 0), |(upload, at)| async move {
            let left = upload.room.bytes - at;
            if left == 0 {
                return Ok::<_, BodyError>(None);
            }
            let file = Arc::clone(&upload.file);
            let read = move || {
                let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
                file.read_exact_at(&mut piece, at).map(|()| piece)
            };
            let piece = tokio::task::spawn_blocking(read).await??;
            let next = at + piece.len() as u64;
            Ok(Some((Frame::data(Bytes::from(piece)), (upload, next))))
        });
        let mut response = Response::new(Body::Made(UnsyncBoxBody::new(StreamBody::new(pieces.boxed()))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Ok(response)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// A place for one more file.
    fn begin(shared: &Arc<Shared>) -> Result<Self, Problem> {
        let mut kept = shared.lock();
        if kept.files.len() + kept.coming >= FILES {
            return Err(full());
        }
        kept.coming += 1;
        Ok(Self { shared: Arc::clone(shared), bytes: 0, coming: true })
    }

    fn add(&mut self, bytes: u64) -> Result<(), Problem> {
        let mut kept = self.shared.lock();
        if kept.bytes + bytes > self.shared.bytes {
            return Err(full());
        }
        kept.bytes += bytes;
        self.bytes += bytes;
        self.shared.metrics.uploads_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut kept = self.shared.lock();
        kept.bytes -= self.bytes;
        kept.coming -= usize::from(self.coming);
        self.shared.metrics.uploads_bytes.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is larger than api.max_body or api.uploads")
}

fn full() -> Problem {
    let message = "as many uploads as may be are kept already (api.uploads): they go after api.upload_expiry";
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "uploads-full", message)
}

fn disk() -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "uploads-full", "it can't be written (api.uploads_dir)")
}
