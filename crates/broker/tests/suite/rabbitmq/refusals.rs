// SPDX-License-Identifier: AGPL-3.0-only
//! What trying again doesn't heal is told at once, with what to do, and without the password.

use holdfast_broker::{Broker, BrokerSettings, Refusal};
use holdfast_service::Service;
use tokio_util::sync::CancellationToken;

use crate::stage::{RABBITMQ, in_time, settings};

async fn refused(settings: &BrokerSettings) -> Refusal {
    let service = Service::new(CancellationToken::new());
    let refusal = in_time(Broker::connect(settings, &service)).await.expect_err("it refuses");
    let said = format!("{refusal} {refusal:?} {:?}", service.readiness.unmet());
    assert!(!said.contains("hunter2"), "{said}");
    refusal
}

#[tokio::test]
async fn a_wrong_password() {
    let refusal = refused(&settings("amqp://guest:hunter2@127.0.0.1:5672")).await;
    assert!(matches!(refusal, Refusal::Credentials(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("correct broker.url"), "{refusal}");
}

#[tokio::test]
async fn a_wrong_virtual_host() {
    let refusal = refused(&settings(&format!("{RABBITMQ}/nowhere"))).await;
    assert!(matches!(refusal, Refusal::VirtualHost(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("nowhere"), "{refusal}");
}

#[tokio::test]
async fn an_authority_that_cannot_be_read() {
    let settings = BrokerSettings { ca: Some("/nowhere/ca.pem".into()), ..settings(RABBITMQ) };
    let refusal = refused(&settings).await;
    assert!(matches!(refusal, Refusal::Certificate(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("/nowhere/ca.pem"), "{refusal}");
}
