// SPDX-License-Identifier: AGPL-3.0-only
//! What runs beside Holdfast, as far as the settings name it: the broker with the exchanges that the services need, and the
//! store. Connects as they do, and leaves nothing there that they wouldn't.

use std::time::Duration;

use holdfast_broker::{Broker, BrokerSettings, DeclareError, Exchange, State, Topology};
use holdfast_cluster::{RestStore, StoreState};
use holdfast_service::Service;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Finding, Report, broken_of, warning_of};
use crate::services::Settings;

/// How long each may take for what it is asked.
const WITHIN: Duration = Duration::from_secs(5);

/// Looks at all.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let service = Service::new(CancellationToken::new());
    if let Some(broker) = &settings.services.ws.broker {
        let connected = connect(broker, &service).await;
        let (broker, finding) = connected.unwrap_or_else(|finding| (None, finding));
        report.add("broker", finding);
        if let Some(broker) = broker {
            report.add("exchanges", exchanges(&broker, settings).await);
        }
    }
    if let Some(cluster) = &settings.services.ws.cluster {
        report.add("store", store(cluster, &service).await);
    }
    // They are asked to end; whether they do in time is nobody's concern any more.
    let _ = service.tasks.finish(WITHIN).await;
}

/// The broker, if it can be asked more.
async fn connect(settings: &BrokerSettings, service: &Service) -> Result<(Option<Broker>, Finding), Finding> {
    let broker =
        Broker::connect(settings, service).await.map_err(|refusal| broken_of(refusal.to_string(), SAID))?;
    let mut state = broker.state();
    let _ = timeout(WITHIN, state.wait_for(|state| !matches!(state, State::Connecting { .. }))).await;
    let state = state.borrow().clone();
    match state {
        State::Connected => {
            Ok((Some(broker), Finding::Well(format!("connected, prefix {}", settings.prefix))))
        }
        State::Blocked { reason } => {
            let mend = "give RabbitMQ memory or disk, or empty its queues; events wait in the log meanwhile";
            Ok((Some(broker), warning_of(format!("it takes no messages for now: {reason}"), mend)))
        }
        State::Refused(refusal) => Err(broken_of(refusal.to_string(), SAID)),
        State::Connecting { reason } => {
            let mend = "start RabbitMQ, or correct host and port in broker.url";
            Err(broken_of(format!("it can't be reached: {reason}"), mend))
        }
    }
}

/// A refusal's own words say what to do.
const SAID: &str = "as it says";

/// Whether the exchanges are of the right type, and the plugins there that they need.
async fn exchanges(broker: &Broker, settings: &Settings) -> Finding {
    let exchanges = settings.services.exchanges(broker.names());
    let mut names: Vec<_> = exchanges.iter().map(|Exchange { name, .. }| name.clone()).collect();
    names.sort();
    names.dedup();
    let topology = Topology { exchanges, ..Topology::default() };
    match timeout(WITHIN, broker.declare(&topology)).await {
        Ok(Ok(())) => Finding::Well(names.join(", ")),
        Ok(Err(DeclareError::Refused(refusal))) => broken_of(refusal.to_string(), SAID),
        Ok(Err(DeclareError::Closed)) | Err(_) => {
            broken_of("the broker doesn't answer".to_owned(), "look at RabbitMQ's log")
        }
    }
}

async fn store(settings: &holdfast_cluster::Settings, service: &Service) -> Finding {
    let store = match RestStore::start(settings, &service.tasks) {
        Ok(store) => store,
        Err(error) => return broken_of(error.to_string(), "correct cluster.ca"),
    };
    let mut state = store.state();
    let decided = |state: &StoreState| match state {
        StoreState::Connected => true,
        StoreState::Down { why, .. } => why.is_refused(),
    };
    let _ = timeout(WITHIN, state.wait_for(decided)).await;
    let state = state.borrow().clone();
    match state {
        StoreState::Connected => Finding::Well(format!("connected, prefix {}", settings.prefix)),
        StoreState::Down { why, .. } => broken_of(
            why.to_string(),
            "start Redis or Valkey, or correct cluster.url and what stands beside it",
        ),
    }
}
