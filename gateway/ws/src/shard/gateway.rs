// SPDX-License-Identifier: AGPL-3.0-only
//! Where Discord's gateway is, and who may identify when: shared by all shards of the process.
//!
//! In: `GET /gateway/bot`, asked at the start and again when sessions are lost. Out: connections, permits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_cluster::Permits;
use holdfast_rest::{GatewayBot, RestError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::upstream::{ConnectError, Connection, Connector};

/// No IDENTIFY for now.
#[derive(Debug, thiserror::Error)]
#[error("the day's sessions are used up, the next ones come in {} s", renewed_in.as_secs())]
pub(crate) struct PermitRefused {
    renewed_in: Duration,
}

/// The answer is asked for again at most this often: its budget is exact, our own count is nearly so.
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// Discord's gateway, as this process knows it.
pub(crate) struct Gateway {
    rest: holdfast_rest::Client,
    public_url: String,
    connector: Connector,
    permits: Permits,
    url: Mutex<(String, Instant)>,
    stale: AtomicBool,
    /// Connections of shards without a session wait here until an IDENTIFY is near: thousands that wait for
    /// their turn connected would be closed again.
    turns: Arc<Semaphore>,
}

impl Gateway {
    pub(crate) fn new(
        rest: holdfast_rest::Client,
        public_url: String,
        connector: Connector,
        permits: Permits,
        answer: &GatewayBot,
    ) -> Self {
        let concurrency = answer.session_start_limit.max_concurrency;
        Self {
            rest,
            public_url,
            connector,
            permits,
            url: Mutex::new((answer.url.clone(), Instant::now())),
            stale: AtomicBool::new(false),
            turns: Arc::new(Semaphore::new(usize::try_from(concurrency).unwrap_or(1).max(1) * 2)),
        }
    }

    /// Connects to the resume URL, or to the gateway's own address.
    pub(crate) async fn connect(&self, resume_url: Option<&str>) -> Result<Connection, ConnectError> {
        if let Some(url) = resume_url {
            return self.connector.connect(url).await;
        }
        let url = self.url().await;
        self.connector.connect(&url).await
    }

    /// Waits for the right to identify. The caller sends IDENTIFY at once.
    pub(crate) async fn permit(self: Arc<Self>, shard: u32) -> Result<(), PermitRefused> {
        self.permits
            .acquire(shard)
            .await
            .map_err(|exhausted| PermitRefused { renewed_in: exhausted.renewed_in })
    }

    /// Waits until a shard without a session may connect; hold it until IDENTIFY is sent.
    pub(crate) async fn turn(self: Arc<Self>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Discord refused an IDENTIFY that we thought was in time.
    pub(crate) fn refused(&self, shard: u32) {
        self.permits.refused(shard);
    }

    /// IDENTIFYs left today.
    pub(crate) fn identifies_remaining(&self) -> u32 {
        self.permits.remaining()
    }

    /// IDENTIFYs of a whole day.
    pub(crate) fn identifies_total(&self) -> u32 {
        self.permits.limit().total
    }

    /// Sessions were lost: the address and the budget are asked for again before the next connection.
    pub(crate) fn refresh_soon(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// How many shards Discord recommends; the budget that it tells with it is taken over.
    ///
    /// # Errors
    /// Discord can't be asked.
    pub(crate) async fn recommended(&self) -> Result<u32, RestError> {
        let answer = self.rest.gateway_bot(Some(&self.public_url)).await?;
        self.permits.update(limit(&answer));
        Ok(answer.shards)
    }

    async fn url(&self) -> String {
        let (url, asked) = self.url.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if asked.elapsed() < REFRESH_EVERY || !self.stale.swap(false, Ordering::Relaxed) {
            return url;
        }
        match self.rest.gateway_bot(Some(&self.public_url)).await {
            Ok(answer) => {
                self.permits.update(limit(&answer));
                *self.url.lock().unwrap_or_else(PoisonError::into_inner) =
                    (answer.url.clone(), Instant::now());
                answer.url
            }
            Err(error) => {
                // The address hardly ever changes; the connection will tell.
                debug!(%error, "the gateway's address can't be asked for");
                url
            }
        }
    }
}

/// The identify budget of an answer.
pub(crate) fn limit(answer: &GatewayBot) -> holdfast_discord::limits::SessionStartLimit {
    let limit = answer.session_start_limit;
    holdfast_discord::limits::SessionStartLimit {
        total: limit.total,
        remaining: limit.remaining,
        reset_after: limit.reset_after,
        max_concurrency: limit.max_concurrency,
    }
}
