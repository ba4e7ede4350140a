// SPDX-License-Identifier: AGPL-3.0-only
//! A broker that says nothing more, without closing: heartbeats notice, and the next attempt doesn't wait for ever.

use std::time::Duration;

use holdfast_broker::{Broker, BrokerSettings, Publication, State, Topology};
use holdfast_service::Service;
use tokio_util::sync::CancellationToken;

use super::proxy::Proxy;
use crate::stage::{end, in_time, message, settings};

#[tokio::test]
async fn a_silent_broker_is_given_up_and_found_again() {
    let proxy = Proxy::start().await;
    let settings = BrokerSettings {
        heartbeat: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        ..settings(&proxy.url())
    };
    let service = Service::new(CancellationToken::new());
    let broker = Broker::connect(&settings, &service).await.expect("connected");
    let mut state = broker.state();
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    proxy.freeze(true);
    in_time(state.wait_for(|state| *state != State::Connected)).await.expect("lives");
    // Attempts meet a broker that accepts and says nothing.
    let silent =
        |state: &State| matches!(state, State::Connecting { reason } if reason.contains("no answer"));
    in_time(state.wait_for(silent)).await.expect("lives");
    proxy.cut();
    proxy.freeze(false);
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    let publication = Publication::new("", "nowhere", message("1"));
    in_time(broker.publish(publication)).await.expect("published");
    end(&broker, &service, Topology::default()).await;
}
