// SPDX-License-Identifier: AGPL-3.0-only
//! A simulated Discord, a broker under a prefix of its own, the service between them, and a worker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_broker::{
    Binding, Broker, BrokerSettings, Consumer, ConsumerOptions, Delivery, HEADER_REASON, HEADER_TRACE,
    HEADER_WEBHOOK, Message, Publication, Queue, QueueKind, Requester, Topology,
};
use holdfast_contract::v1::{
    DeleteWebhookMessage, EditWebhookMessage, Error, ErrorCode, ExecuteWebhook, WebhookMessage, WebhookReply,
    webhook_message::Operation,
};
use holdfast_service::Service;
use holdfast_simulator::{Bucket, Options, Refill, RestLimits, Simulator};
use holdfast_webhook::Config;
use tokio_util::sync::CancellationToken;

/// How long anything may take that isn't bound by a limit.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What every message of a worker's is traced by.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672";
const REDIS: &str = "redis://127.0.0.1:6379";
const EXECUTE: &str = "POST /webhooks/{webhook_id}/{webhook_token}";

/// See the module.
pub(crate) struct Stage {
    pub(crate) discord: Simulator,
    pub(crate) config: Config,
    pub(crate) broker: Broker,
    pub(crate) worker: Requester,
    /// What the worker needs; where the broker is in memory, the service, too.
    own: Service,
    dead: Consumer,
}

/// The service in this process.
pub(crate) struct Running {
    pub(crate) service: Service,
    shutdown: CancellationToken,
}

impl Stage {
    /// With RabbitMQ, and the store of this machine.
    pub(crate) async fn rabbit(change: impl FnOnce(&mut RestLimits)) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let prefix = format!("holdfast-test-{now}");
        let mut store = holdfast_cluster::Settings::at(REDIS).expect("an address");
        store.prefix.clone_from(&prefix);
        let broker = BrokerSettings { prefix, ..BrokerSettings::at(RABBITMQ) };
        Self::of(Some(broker), Some(store), change).await
    }

    /// With a broker in memory, and nothing shared.
    pub(crate) async fn memory(change: impl FnOnce(&mut RestLimits)) -> Self {
        Self::of(None, None, change).await
    }

    async fn of(
        broker: Option<BrokerSettings>,
        cluster: Option<holdfast_cluster::Settings>,
        change: impl FnOnce(&mut RestLimits),
    ) -> Self {
        let discord = Simulator::start(Options::default()).await.expect("starts");
        let mut limits = RestLimits::default();
        change(&mut limits);
        discord.set_rest_limits(limits);
        let own = Service::new(CancellationToken::new());
        let shared = Broker::of_process(broker.as_ref(), &own).await.expect("lets us in");
        let dead = shared.names().dead();
        let queue = format!("{dead}.seen");
        let bound = Queue { max_length: Some(1_000), ..Queue::new(&queue, QueueKind::Quorum) };
        let topology = Topology {
            queues: vec![bound],
            bindings: vec![Binding::queue(dead, &queue, "#")],
            ..Topology::default()
        };
        shared.declare(&topology).await.expect("declared");
        let config = Config {
            api_url: discord.api_url().to_owned(),
            partitions: 2,
            broker,
            cluster,
            ..Config::default()
        };
        let (dead, worker) = (shared.consume(ConsumerOptions::new(queue)), shared.requester(1_000));
        Self { discord, config, broker: shared, worker, own, dead }
    }

    /// Starts the service.
    pub(crate) async fn start(&self) -> Running {
        self.start_as(|_| {}).await
    }

    /// Starts the service with settings that a test chooses.
    pub(crate) async fn start_as(&self, configure: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config.clone();
        configure(&mut config);
        let service =
            if config.broker.is_some() { Service::new(CancellationToken::new()) } else { self.own.clone() };
        let shutdown = CancellationToken::new();
        let webhook = holdfast_webhook::start(config, &service, shutdown.clone()).await.expect("starts");
        service.tasks.spawn("webhook", async move { webhook.wait().await.expect("nothing refuses") });
        until(|| service.readiness.unmet().is_empty()).await;
        Running { service, shutdown }
    }

    /// Has something done, and hears what became of it.
    pub(crate) async fn ask(&self, message: WebhookMessage) -> WebhookReply {
        let reply = self.worker.request(self.publication(&message), SOON).await.expect("a reply");
        reply.decode(usize::MAX).expect("a WebhookReply")
    }

    /// Has something done without wanting to hear of it.
    pub(crate) async fn tell(&self, message: WebhookMessage) {
        self.broker.publish(self.publication(&message)).await.expect("confirmed");
    }

    pub(crate) fn publication(&self, message: &WebhookMessage) -> Publication {
        let mut body = Message::of(message)
            .header(HEADER_WEBHOOK, message.webhook_id.to_string())
            .header(HEADER_TRACE, TRACE);
        body.properties.persistent = true;
        Publication::new(self.broker.names().webhook(), "", body).mandatory()
    }

    /// The next dead letter, and why it is one.
    pub(crate) async fn dead(&mut self) -> (Delivery, String) {
        let dead = tokio::time::timeout(SOON, self.dead.next()).await.expect("soon").expect("runs");
        let reason = dead.message.headers.text(HEADER_REASON).expect("a reason").to_owned();
        (dead, reason)
    }

    /// What a webhook's messages say, in their order.
    pub(crate) fn said(&self, webhook: u64) -> Vec<String> {
        let sent = self.discord.webhook_messages();
        let of = sent.iter().filter(|it| it.webhook == webhook && !it.deleted);
        of.map(|it| it.body["content"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Takes away what this test has made at the broker.
    pub(crate) async fn end(self) {
        let names = self.broker.names();
        let mut topology = Topology::default();
        let queues = (0..self.config.partitions).map(|number| names.webhook_queue(number));
        for name in queues.chain([format!("{}.seen", names.dead())]) {
            topology.queues.push(Queue::new(name, QueueKind::Quorum));
        }
        for name in [names.webhook(), names.dead()] {
            topology
                .exchanges
                .push(holdfast_broker::Exchange::new(name, holdfast_broker::ExchangeKind::Topic));
        }
        self.broker.delete(&topology).await;
    }
}

impl Running {
    /// Asks the service to end, and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.service.tasks.finish(SOON).await.expect("everything ends");
    }

    /// What `/metrics` says.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.service.metrics.encode();
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_default().parse().unwrap_or_default()
    }
}

/// A message of a webhook that says something.
pub(crate) fn say(webhook_id: u64, content: &str) -> WebhookMessage {
    let body = format!(r#"{{"content":"{content}"}}"#).into();
    of(webhook_id, Operation::Execute(ExecuteWebhook { body, wait: true, ..ExecuteWebhook::default() }))
}

/// A change of what a message says.
pub(crate) fn edit(webhook_id: u64, message_id: u64, content: &str) -> WebhookMessage {
    let body = format!(r#"{{"content":"{content}"}}"#).into();
    of(webhook_id, Operation::Edit(EditWebhookMessage { message_id, body, ..EditWebhookMessage::default() }))
}

/// The end of a message.
pub(crate) fn delete(webhook_id: u64, message_id: u64) -> WebhookMessage {
    of(webhook_id, Operation::Delete(DeleteWebhookMessage { message_id }))
}

pub(crate) fn of(webhook_id: u64, operation: Operation) -> WebhookMessage {
    let token = "to-ken".to_owned();
    WebhookMessage { schema: 1, webhook_id, token, operation: Some(operation), ..WebhookMessage::default() }
}

/// The code of a failure, and the status of Discord's answer, where there are such.
pub(crate) fn outcome(reply: &WebhookReply) -> (Option<ErrorCode>, Option<u32>) {
    (reply.error.as_ref().map(Error::code), reply.response.as_ref().map(|response| response.status))
}

/// So many messages of one webhook in so many seconds.
pub(crate) fn limited(limits: &mut RestLimits, limit: u32, seconds: f64) {
    limits.buckets = vec![Bucket {
        routes: vec![EXECUTE.to_owned()],
        hash: "0123456789abcdef".to_owned(),
        limit,
        seconds,
        refill: Refill::Fixed,
        shared: false,
        sub_limits: Vec::new(),
    }];
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(unix.as_millis()).expect("a while left")
}

/// Waits until something holds that nothing tells of.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it holds soon");
}
