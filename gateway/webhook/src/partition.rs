// SPDX-License-Identifier: AGPL-3.0-only
//! One queue of webhooks. In: its messages. Out: each one's reply, its acknowledgement once it is over, and a dead letter
//! where it wasn't done. One task; all its messages are futures of that task. A message that waits or is left alone stays
//! unacknowledged, so that whoever is next gets it again, in its place.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use holdfast_broker::{Broker, ConsumerOptions, Request};
use holdfast_contract::SCHEMA;
use holdfast_contract::v1::{Error, ErrorCode, WebhookReply};
use prost::Message as _;
use tokio::select;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::job::{Job, Taken};
use crate::metrics::Metrics;
use crate::parking::{Bounds, Coming, Parking, Place};
use crate::send::{Ending, Sender};
use crate::settings::Config;

/// What all partitions share.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) sender: Sender,
    pub(crate) metrics: Metrics,
    pub(crate) config: Config,
}

/// A message that can be sent.
struct Parked {
    request: Request,
    job: Job,
    taken: Instant,
}

/// Ends with the webhook whose turn is over, if it had one.
type Sending = FuturesUnordered<BoxFuture<'static, Option<u64>>>;

/// Takes a queue's messages until the service stops; then what is sent already ends.
pub(crate) async fn run(shared: Arc<Shared>, number: u32, stop: CancellationToken) {
    let config = &shared.config;
    let queue = shared.broker.names().webhook_queue(number);
    let mut queue =
        shared.broker.respond(ConsumerOptions { prefetch: config.in_flight, ..ConsumerOptions::new(queue) });
    let share = config.parked_memory / config.partitions.max(1) as usize;
    let mut parking = Parking::new(Bounds { each: config.parked, bytes: share });
    let mut sending = Sending::new();
    loop {
        let before = parking.waiting();
        select! { biased;
            () = stop.cancelled() => break,
            // First whoever has had its turn: that makes room.
            Some(over) = sending.next(), if !sending.is_empty() => {
                if let Some(next) = over.and_then(|webhook| parking.over(webhook)) {
                    sending.push(Box::pin(see_through(Arc::clone(&shared), next, stop.clone())));
                }
            }
            request = queue.next() => match request {
                Some(request) => sending.extend(take(&shared, request, &mut parking, &stop)),
                None => break,
            },
        }
        shared.count(before, parking.waiting());
    }
    shared.count(parking.waiting(), (0, 0));
    while sending.next().await.is_some() {}
}

/// What follows from a message that has come, unless it waits.
fn take(
    shared: &Arc<Shared>,
    request: Request,
    parking: &mut Parking<Parked>,
    stop: &CancellationToken,
) -> Option<BoxFuture<'static, Option<u64>>> {
    let now = Instant::now();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let taken = Taken { now, unix_ms: unix_ms as u64, max_wait: shared.config.max_wait };
    let base = shared.sender.forwarder.upstream().base();
    let shared = Arc::clone(shared);
    let job = match Job::read(request.message(), base, taken) {
        Ok(job) => job,
        Err(error) => {
            return Some(Box::pin(async move { shared.refuse(request, 0, "unknown", error).await }));
        }
    };
    let deadline = request.deadline().map_or(job.deadline, |at| job.deadline.min(Instant::from_std(at)));
    let (webhook, bytes) = (job.webhook, request.message().body.len());
    let again = request.redelivered();
    let item = Parked { request, job: Job { deadline, again, ..job }, taken: now };
    match parking.come(Coming { webhook, item, bytes, again }, |waits| waits.request.is_live()) {
        Place::Goes(parked) => Some(Box::pin(see_through(shared, parked, stop.clone()))),
        Place::Waits => None,
        Place::Full(Parked { request, job, .. }) => {
            let error = Error::new(ErrorCode::QueueFull, "too many messages of this webhook wait already");
            Some(Box::pin(async move { shared.refuse(request, webhook, job.operation, error).await }))
        }
    }
}

/// Sees a message through to its end.
async fn see_through(shared: Arc<Shared>, parked: Parked, stop: CancellationToken) -> Option<u64> {
    let Parked { request, job, taken } = parked;
    // A connection that is lost while a message waits gives it to whoever is next, maybe to us: it is left to that.
    let stop = stop.child_token();
    while request.is_live() && !stop.is_cancelled() {
        if let Some(reply) = shared.known(&job).await {
            shared.metrics.repeated.inc();
            shared.end(request, job.operation, &reply).await;
            break;
        }
        let sent = request.stopped_when_lost(&stop, shared.send(&request, &job, &stop)).await;
        if let Some(reply) = sent {
            shared.metrics.seconds.observe(taken.elapsed().as_secs_f64());
            shared.end(request, job.operation, &reply).await;
            break;
        }
    }
    Some(job.webhook)
}

/// Counts a message under way as long as it lives.
struct Counted<'m>(&'m Metrics);

impl<'m> Counted<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.sending.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.sending.dec();
    }
}

impl Shared {
    /// Sends a message, and notes what came of it. `None`: it isn't done, and is left to whoever has it next, or whoever
    /// has done it meanwhile.
    async fn send(&self, request: &Request, job: &Job, stop: &CancellationToken) -> Option<WebhookReply> {
        let _sending = Counted::new(&self.metrics);
        // It may have waited for long.
        let wanted = || async { request.is_live() && self.known(job).await.is_none() };
        let (response, error) = match self.sender.send(job, &self.metrics, stop, wanted).await {
            Ending::Done(response) => (Some(response), None),
            Ending::Failed(error, response) => (response, Some(error)),
            Ending::Left => return None,
        };
        let reply = WebhookReply { schema: SCHEMA, webhook_id: job.webhook, response, error };
        let may_be_done = reply.error.as_ref().is_none_or(|error| error.code() == ErrorCode::NoAnswer);
        if let (Some(key), true) = (&job.key, may_be_done) {
            self.sender.forwarder.limits().ledger().done(key, reply.encode_to_vec().into()).await;
        }
        Some(reply)
    }

    /// What came of a message that was done before, by its key.
    async fn known(&self, job: &Job) -> Option<WebhookReply> {
        let known = self.sender.forwarder.limits().ledger().outcome(job.key.as_ref()?).await?;
        Some(WebhookReply::decode(known).unwrap_or_default())
    }

    /// A message that isn't even tried.
    async fn refuse(
        &self,
        request: Request,
        webhook_id: u64,
        operation: &'static str,
        error: Error,
    ) -> Option<u64> {
        let reply = WebhookReply { schema: SCHEMA, webhook_id, response: None, error: Some(error) };
        self.end(request, operation, &reply).await;
        None
    }

    /// Tells whoever wants to know, and settles the message.
    async fn end(&self, request: Request, operation: &'static str, reply: &WebhookReply) {
        if let Err(error) = request.answer(reply).await {
            debug!(%error, "a reply can't be delivered");
            self.metrics.replies_undelivered.inc();
        }
        let Some(error) = &reply.error else {
            self.metrics.over(operation, "DONE");
            return request.done();
        };
        let reason = error.code().name();
        debug!(reason, operation, webhook = reply.webhook_id, "a webhook's message was not done");
        self.metrics.over(operation, reason);
        if let Err(error) = request.reject(reason).await {
            debug!(%error, "a dead letter could not be set aside: the message comes again");
        }
    }

    /// What waits has changed.
    fn count(&self, before: (usize, usize), now: (usize, usize)) {
        let change = |before: usize, now: usize| now as i64 - before as i64;
        self.metrics.parked.inc_by(change(before.0, now.0));
        self.metrics.parked_bytes.inc_by(change(before.1, now.1));
    }
}
