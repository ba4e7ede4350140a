// SPDX-License-Identifier: AGPL-3.0-only
//! What the tests are told with beside [`crate::support`]: names of their own at RabbitMQ, settings of the AMQP front,
//! and what a consumer has got.

mod inbox;
mod proxy;
mod witness;

pub(crate) use inbox::{Arrival, Body, Inbox};
pub(crate) use proxy::Proxy;
pub(crate) use witness::Witness;

use std::time::Duration;

use holdfast_broker::{Broker, BrokerSettings, Exchange, ExchangeKind, Queue, QueueKind, Topology};
use holdfast_service::Service;
use holdfast_simulator::Simulator;
use tokio_util::sync::CancellationToken;

use crate::support::{Holdfast, Setup};

/// Where RabbitMQ is.
pub(crate) const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// A queue that gets everything, `{prefix}.all`.
pub(crate) const ALL_EVENTS: &str = "[[ws.amqp.queues]]\nname = \"all\"\nbindings = [\"#\"]\n";

/// A connection to RabbitMQ under a prefix that no other test has.
pub(crate) struct Stage {
    pub(crate) broker: Broker,
    service: Service,
    /// Queues that the test knows of, which go at its end.
    queues: Vec<String>,
}

/// Settings of the AMQP front.
pub(crate) struct Front<'a> {
    /// Where Holdfast looks for RabbitMQ.
    pub(crate) url: &'a str,
    /// Lines of `[ws]`.
    pub(crate) ws: &'a str,
    /// Lines of `[ws.log]`.
    pub(crate) log: &'a str,
    /// Lines of `[ws.amqp]`.
    pub(crate) amqp: &'a str,
    /// Tables below it.
    pub(crate) queues: &'a str,
    /// Further lines of `[broker]`.
    pub(crate) broker: &'a str,
    /// Lines of `[discord]`.
    pub(crate) discord: &'a str,
}

impl Default for Front<'_> {
    fn default() -> Self {
        Self { url: RABBITMQ, ws: "", log: "", amqp: "", queues: ALL_EVENTS, broker: "", discord: "" }
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let prefix = format!("test-{:x}-{:x}", std::process::id(), since.as_nanos());
        let service = Service::new(CancellationToken::new());
        let settings = BrokerSettings { prefix, ..BrokerSettings::at(RABBITMQ) };
        let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
        Self { broker, service, queues: Vec::new() }
    }

    /// A name below the prefix.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.broker.names().prefix())
    }

    /// Starts Holdfast with the AMQP front, before a simulated Discord.
    pub(crate) async fn holdfast(&self, discord: &Simulator, front: &Front<'_>) -> Holdfast {
        self.holdfast_at(discord.api_url(), front).await
    }

    /// The same before whatever is at an address.
    pub(crate) async fn holdfast_at(&self, api_url: &str, front: &Front<'_>) -> Holdfast {
        let ws = format!(
            "{}\n[ws.log]\n{}\n[ws.amqp]\n{}\n{}\n[broker]\nurl = \"{}\"\nprefix = \"{}\"\nreconnect_max = \"1s\"\n{}\n",
            front.ws,
            front.log,
            front.amqp,
            front.queues,
            front.url,
            self.broker.names().prefix(),
            front.broker
        );
        Holdfast::start_at(api_url, &Setup { ws: &ws, discord: front.discord, ..Setup::default() }).await
    }

    /// What comes into a queue below the prefix.
    pub(crate) fn inbox(&mut self, queue: &str) -> Inbox {
        self.queues.push(self.name(queue));
        Inbox::new(&self.broker, self.name(queue))
    }

    /// Declares a queue of the test's own, bound to the exchange of events, which must be there.
    pub(crate) async fn queue(&mut self, name: &str, exchange: &str, key: &str) -> Inbox {
        let name = self.name(name);
        let queue =
            Queue { expires: Some(Duration::from_secs(300)), ..Queue::new(&name, QueueKind::Classic) };
        let bindings = vec![holdfast_broker::Binding::queue(exchange, &name, key)];
        let topology = Topology { queues: vec![queue], bindings, ..Topology::default() };
        self.broker.declare(&topology).await.expect("declared");
        self.queues.push(name.clone());
        Inbox::new(&self.broker, name)
    }

    /// Takes away what is below the prefix.
    pub(crate) async fn end(self) {
        let names = self.broker.names();
        let exchanges = [names.events(), names.dead(), names.unrouted(), names.partitions()];
        let topology = Topology {
            exchanges: exchanges.map(|name| Exchange::new(name, ExchangeKind::Topic)).into(),
            queues: self.queues.iter().map(|name| Queue::new(name, QueueKind::Quorum)).collect(),
            ..Topology::default()
        };
        self.broker.delete(&topology).await;
        let _ = self.service.tasks.finish(Duration::from_secs(5)).await;
    }
}
