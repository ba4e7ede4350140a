// SPDX-License-Identifier: AGPL-3.0-only
//! Pages that are the same wherever they are asked for: a path comes in, a status and a body go out. The admin
//! listener serves them, and any other listener that is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;

use crate::{Feed, Metrics, Readiness, Secret};

/// The type of the text that `/metrics` answers with.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

type Render = Arc<dyn Fn() -> Page + Send + Sync>;
type RenderBelow = Arc<dyn Fn(&str) -> Page + Send + Sync>;
type Act = Arc<dyn Fn(Posted) -> BoxFuture<'static, Page> + Send + Sync>;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Value of the `content-type` header.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Page {
    /// Plain text, status 200.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: PLAIN, body: body.into() }
    }

    /// JSON text, status 200.
    #[must_use]
    pub fn json(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: JSON, body: body.into() }
    }

    /// What a browser shows, status 200.
    #[must_use]
    pub fn html(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: HTML, body: body.into() }
    }

    /// OpenMetrics text, status 200.
    #[must_use]
    pub fn metrics(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: OPENMETRICS, body: body.into() }
    }

    /// Plain text with another status.
    #[must_use]
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: PLAIN, body: body.into() }
    }
}

/// A request to do something.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The `authorization` header; empty without one.
    pub authorization: Secret,
    /// What stands behind the `?` of its path.
    pub query: String,
}

impl Posted {
    /// The value of a parameter of the query, as it is written there.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The pages of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Pages {
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    pages: BTreeMap<String, Render>,
    below: BTreeMap<String, RenderBelow>,
    actions: BTreeMap<String, Act>,
    feeds: BTreeMap<String, Feed>,
}

impl Pages {
    /// `/healthz`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn new(metrics: &Metrics, readiness: &Readiness) -> Self {
        let pages = Self::default();
        pages.add("/healthz", || Page::text("ok\n"));
        let readiness = readiness.clone();
        pages.add("/readyz", move || match readiness.unmet() {
            unmet if unmet.is_empty() => {
                let lines = ["ready".to_owned()].into_iter().chain(readiness.remarks());
                Page::text(lines.map(|line| line + "\n").collect::<String>())
            }
            unmet => Page::status(503, unmet.join("\n") + "\n"),
        });
        let metrics = metrics.clone();
        pages.add("/metrics", move || Page::metrics(metrics.encode()));
        pages
    }

    /// Adds a page, or replaces it. `render` runs on each request; it may compute for a while, and must not wait.
    pub fn add(&self, path: impl Into<String>, render: impl Fn() -> Page + Send + Sync + 'static) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.pages.insert(path.into(), Arc::new(render));
    }

    /// Adds all pages whose path begins so (`/guilds/`); `render` gets the rest of it, which isn't empty.
    pub fn add_below(&self, path: impl Into<String>, render: impl Fn(&str) -> Page + Send + Sync + 'static) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.below.insert(path.into(), Arc::new(render));
    }

    /// Adds what `POST` does at a path. Only the admin listener offers it.
    pub fn on_post<F>(&self, path: impl Into<String>, act: impl Fn(Posted) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Page> + Send + 'static,
    {
        let act: Act = Arc::new(move |posted| Box::pin(act(posted)));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.actions.insert(path.into(), act);
    }

    /// Adds server-sent events at a path. Only the admin listener offers them.
    pub fn add_feed(&self, path: impl Into<String>, feed: &Feed) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.feeds.insert(path.into(), feed.clone());
    }

    /// The server-sent events at a path, if there are any.
    #[must_use]
    pub fn feed(&self, path: &str) -> Option<Feed> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).feeds.get(path).cloned()
    }

    /// Does what `POST` at a path does, if it does something.
    pub async fn post(&self, path: &str, posted: Posted) -> Option<Page> {
        let act = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.actions.get(path).map(Arc::clone)
        };
        Some(act?(posted).await)
    }

    /// The page at a path (without query), if there is one.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Page> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(render) = known.pages.get(path).cloned() {
            drop(known);
            return Some(render());
        }
        let (rest, render) = known.below.iter().find_map(|(begin, render)| {
            let rest = path.strip_prefix(begin.as_str()).filter(|rest| !rest.is_empty())?;
            Some((rest, Arc::clone(render)))
        })?;
        drop(known);
        Some(render(rest))
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(known.pages.keys().chain(known.below.keys())).finish()
    }
}
