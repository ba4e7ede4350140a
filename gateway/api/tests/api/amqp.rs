// SPDX-License-Identifier: AGPL-3.0-only
//! Requests by AMQP: the same account as by HTTP, over RabbitMQ and in memory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use holdfast_api::Config;
use holdfast_broker::{Broker, BrokerSettings, Message, Publication, Requester};
use holdfast_contract::v1::rest_reply::Result as Outcome;
use holdfast_contract::v1::{ErrorCode, RestHeader, RestReply, RestRequest};
use holdfast_simulator::{Refill, RestFault, RestLimits};

use super::support::{Door, SEND, SOON, Stage, TOKEN, bucket, configured, request, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_with_discords_answer_over_rabbitmq() {
    answered(Worker::rabbit(|_| {}, |_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_with_discords_answer_in_memory() {
    answered(Worker::memory(|_| {}, |_| {}).await).await;
}

async fn answered(worker: Worker) {
    let (status, body) = worker.done(asked("GET", "/api/v10/users/@me")).await;
    assert_eq!((status, &body["username"]), (200, &"simulated".into()));
    let (status, body) = worker.done(asked("GET", "/guilds/1?with_counts=true")).await;
    assert_eq!((status, &body["code"]), (404, &10_004.into()));
    let paths: Vec<_> = worker.stage.discord.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/v10/users/@me", "/api/v10/guilds/1?with_counts=true"]);
    let without = RestRequest { headers: Vec::new(), ..asked("GET", "/users/@me") };
    assert_eq!(worker.done(without).await.0, 401);
    assert_eq!(worker.stage.api.metric(r#"holdfast_api_amqp_requests_total{outcome="4xx"}"#), 2.0);
    until(|| worker.stage.api.metric("holdfast_api_amqp_in_flight") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_fronts_have_one_account() {
    let worker =
        Worker::memory(|limits| limits.buckets = vec![bucket(&[SEND], 5, 1.0, Refill::Fixed)], |_| {}).await;
    let by_http = join_all(
        (0..8).map(|_| worker.stage.api.send(request("POST", "/api/v10/channels/1/messages", "{}"))),
    );
    let by_amqp = join_all((0..8).map(|_| worker.done(asked("POST", "/channels/1/messages"))));
    tokio::join!(by_http, by_amqp);
    assert_eq!((worker.stage.discord.requests().len(), worker.stage.answered(429)), (16, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_sent_once_and_its_answer_given_again() {
    let worker = Worker::rabbit(|limits| limits.latency_ms = [200, 200], |_| {}).await;
    let keyed =
        |key: &str| RestRequest { idempotency_key: key.to_owned(), ..asked("POST", "/channels/1/typing") };
    let (first, meanwhile) = tokio::join!(worker.ask(keyed("a")), async {
        until(|| worker.stage.api.metric("holdfast_rest_in_flight") == 1.0).await;
        worker.ask(keyed("a")).await
    });
    assert_eq!(code(&meanwhile), Some(ErrorCode::Undecided));
    assert_eq!((code(&first), worker.ask(keyed("a")).await), (None, first));
    assert_eq!(worker.stage.discord.requests().len(), 1);
    // Another token's is another one.
    let other = RestRequest { headers: vec![authorization("Bot other-token")], ..keyed("a") };
    assert_eq!(code(&worker.ask(other).await), None);
    assert_eq!(worker.stage.discord.requests().len(), 2);
    // What wasn't done may be tried again; of what may have been done nothing more is known.
    worker.stage.discord.rest_fault(RestFault::HangUp);
    assert_eq!(code(&worker.ask(keyed("b")).await), Some(ErrorCode::NoAnswer));
    assert_eq!(code(&worker.ask(keyed("b")).await), Some(ErrorCode::Undecided));
    let late = RestRequest { deadline_ms: 1, ..keyed("c") };
    assert_eq!(code(&worker.ask(late).await), Some(ErrorCode::DeadlineExceeded));
    assert_eq!(code(&worker.ask(keyed("c")).await), None);
    assert_eq!(worker.stage.api.metric("holdfast_api_amqp_repeated_total"), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_answered_with_a_code() {
    let configure = |config: &mut Config| config.only_own_token = true;
    let worker = Worker::memory(|_| {}, configure).await;
    for (request, expected) in [
        (asked("GET", "/api/v10/../x"), ErrorCode::InvalidArgument),
        (asked("CONNECT", "/x"), ErrorCode::InvalidArgument),
        (asked("GET GET", "/x"), ErrorCode::InvalidArgument),
        (
            RestRequest { headers: vec![authorization("a\nb")], ..asked("GET", "/x") },
            ErrorCode::InvalidArgument,
        ),
        (
            RestRequest { headers: vec![authorization("Bot other")], ..asked("GET", "/x") },
            ErrorCode::Forbidden,
        ),
        (RestRequest { idempotency_key: "k".repeat(256), ..asked("GET", "/x") }, ErrorCode::InvalidArgument),
        (RestRequest { body: vec![0; 300_000].into(), ..asked("POST", "/x") }, ErrorCode::TooLarge),
    ] {
        assert_eq!(code(&worker.ask(request).await), Some(expected));
    }
    let message = Message::new("something", "else");
    let reply = worker.requester.request(worker.publication(message), SOON).await.expect("a reply");
    assert_eq!(code(&reply.decode(usize::MAX).expect("a RestReply")), Some(ErrorCode::Unsupported));
    assert!(worker.stage.discord.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stands_still_is_none() {
    let patience = |config: &mut Config| config.upstream_timeout = Duration::from_millis(500);
    let worker = Worker::memory(|limits| limits.latency_ms = [200, 200], patience).await;
    let pins = || worker.ask(asked("GET", "/channels/1/pins"));
    worker.stage.discord.rest_fault(RestFault::Stall);
    assert_eq!(code(&pins().await), Some(ErrorCode::NoAnswer));
    worker.stage.discord.rest_fault(RestFault::Stall);
    let (first, joined) = tokio::join!(pins(), async {
        until(|| worker.stage.api.metric("holdfast_rest_in_flight") == 1.0).await;
        pins().await
    });
    assert_eq!((code(&first), code(&joined)), (Some(ErrorCode::NoAnswer), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_in_time_is_answered_at_once_with_when() {
    let worker = Worker::memory(|_| {}, |_| {}).await;
    worker.stage.discord.rest_fault(RestFault::Shared { seconds: 30.0 });
    let urgent = || RestRequest { deadline_ms: unix_ms() + 500, ..asked("GET", "/channels/1/pins") };
    assert_eq!(worker.done(urgent()).await.0, 429);
    let Some(Outcome::Error(error)) = worker.ask(urgent()).await.result else { unreachable!("it is held") };
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    assert!((28_000..=30_000).contains(&error.retry_after_ms), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_leaves_what_waits_to_another() {
    let worker = Worker::rabbit(|_| {}, |_| {}).await;
    worker.stage.discord.rest_fault(RestFault::Shared { seconds: 2.0 });
    let waits = worker.ask(asked("POST", "/channels/1/typing"));
    let moves = async {
        until(|| worker.stage.answered(429) == 1 && worker.stage.api.metric("holdfast_rest_waiting") == 1.0)
            .await;
        worker.stage.api.shutdown.cancel();
        let broker = worker.broker.clone();
        super::support::api(worker.stage.discord.api_url(), |config| config.broker = broker).await
    };
    let (reply, next) = tokio::join!(waits, moves);
    // It was given back unsent, so whoever has it now can't tell: only what may be done twice is sent.
    assert_eq!(code(&reply), Some(ErrorCode::Interrupted));
    assert_eq!(next.metric(r#"holdfast_api_amqp_requests_total{outcome="INTERRUPTED"}"#), 1.0);
    next.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_the_connection_is_lost_is_sent_once() {
    let door = Door::to("127.0.0.1:5672").await;
    let url = format!("amqp://guest:guest@{}", door.address);
    let worker = Worker::rabbit(
        |_| {},
        |config| config.broker.as_mut().expect("RabbitMQ").url = holdfast_service::Secret::new(url),
    )
    .await;
    worker.stage.discord.rest_fault(RestFault::Shared { seconds: 2.0 });
    let waits = worker.done(asked("PUT", "/channels/1/pins/5"));
    let cut = async {
        until(|| worker.stage.answered(429) == 1 && worker.stage.api.metric("holdfast_rest_waiting") == 1.0)
            .await;
        door.shut();
        door.open();
    };
    let ((status, _), ()) = tokio::join!(waits, cut);
    until(|| worker.stage.api.metric("holdfast_api_amqp_in_flight") == 0.0).await;
    assert_eq!((status, worker.stage.discord.requests().len()), (204, 2));
}

/// A worker beside the service.
struct Worker {
    stage: Stage,
    requester: Requester,
    names: holdfast_broker::Names,
    broker: Option<BrokerSettings>,
    _own: holdfast_service::Service,
}

impl Worker {
    async fn rabbit(change: impl FnOnce(&mut RestLimits), configure: impl FnOnce(&mut Config)) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let url = "amqp://guest:guest@127.0.0.1:5672";
        let settings = BrokerSettings { prefix: format!("holdfast-test-{now}"), ..BrokerSettings::at(url) };
        Self::of(Some(settings), change, configure).await
    }

    async fn memory(change: impl FnOnce(&mut RestLimits), configure: impl FnOnce(&mut Config)) -> Self {
        Self::of(None, change, configure).await
    }

    async fn of(
        settings: Option<BrokerSettings>,
        change: impl FnOnce(&mut RestLimits),
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let stage = configured(change, |config| {
            config.broker.clone_from(&settings);
            configure(config);
        })
        .await;
        let own = match &settings {
            Some(_) => holdfast_service::Service::new(Default::default()),
            None => stage.api.service.clone(),
        };
        let broker = Broker::of_process(settings.as_ref(), &own).await.expect("lets us in");
        let (requester, names) = (broker.requester(1_000), broker.names().clone());
        let worker = Self { stage, requester, names, broker: settings, _own: own };
        // The queue is there once the service has declared it.
        let first = asked("GET", "/gateway");
        while worker.requester.request(worker.publication(Message::of(&first)), SOON).await.is_err() {}
        worker
    }

    async fn ask(&self, request: RestRequest) -> RestReply {
        let publication = self.publication(Message::of(&request));
        let reply = self.requester.request(publication, SOON).await.expect("a reply");
        reply.decode(usize::MAX).expect("a RestReply")
    }

    fn publication(&self, message: Message) -> Publication {
        Publication::new(self.names.requests(), holdfast_broker::Names::REST_KEY, message)
    }

    /// Status and body of Discord's answer.
    async fn done(&self, request: RestRequest) -> (u32, serde_json::Value) {
        match self.ask(request).await.result {
            Some(Outcome::Response(response)) => {
                (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
            }
            other => unreachable!("{other:?}"),
        }
    }
}

fn asked(method: &str, path: &str) -> RestRequest {
    let headers = vec![authorization(&format!("Bot {TOKEN}"))];
    RestRequest { method: method.to_owned(), path: path.to_owned(), headers, ..RestRequest::default() }
}

fn authorization(value: &str) -> RestHeader {
    RestHeader { name: "Authorization".to_owned(), value: value.to_owned().into() }
}

fn code(reply: &RestReply) -> Option<ErrorCode> {
    match &reply.result {
        Some(Outcome::Error(error)) => Some(error.code()),
        _ => None,
    }
}

fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(unix.as_millis()).unwrap_or(0)
}
