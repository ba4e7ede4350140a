// SPDX-License-Identifier: AGPL-3.0-only
//! The publishing task of one ordered stream in memory. Nothing is ever on its way here: a message is stored, or it
//! isn't.

use std::sync::Arc;
use std::time::Duration;

use holdfast_service::Backoff;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::error::{Cause, PublishError};
use crate::publisher::{Batch, Intake, Positioned, Undelivered};

/// Pauses after a full queue has refused a message, or its exchange wasn't there.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    intake: Intake,
    shutdown: CancellationToken,
    epoch: u64,
    pause: Backoff,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, intake: Intake, shutdown: CancellationToken) -> Self {
        Self { shared, intake, shutdown, epoch: 0, pause: Backoff::new(PAUSE_MIN, PAUSE_MAX) }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        while let Some(Some(batch)) = shutdown.run_until_cancelled(self.intake.batches.recv()).await {
            if batch.epoch != self.epoch {
                continue;
            }
            if let Err(cause) = self.publish(batch) {
                self.shared.metrics.interruptions.inc();
                self.epoch = self.intake.interrupt(cause);
                let pause = tokio::time::sleep(self.pause.failed());
                if shutdown.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        }
    }

    fn publish(&mut self, batch: Batch) -> Result<(), Cause> {
        for Positioned { position, publication } in batch.messages {
            let (exchange, key) = (publication.exchange.clone(), publication.key.clone());
            let kind = publication.message.properties.kind.clone();
            let undelivered = |reason| Undelivered {
                exchange: exchange.to_string(),
                key: key.to_string(),
                kind: kind.map(String::from),
                reason,
            };
            match self.shared.publish(publication) {
                Ok(()) => {}
                Err(PublishError::Unrouted) => {
                    self.intake.undelivered(&undelivered(crate::Reason::Unrouted));
                }
                Err(PublishError::Unsendable(why)) => {
                    self.intake.undelivered(&undelivered(crate::Reason::Unsendable(why)));
                }
                Err(PublishError::Nacked) => return Err(Cause::Nacked),
                Err(other) => return Err(Cause::Channel(other.to_string())),
            }
            self.intake.confirm(position);
            self.pause.succeeded();
        }
        Ok(())
    }
}
