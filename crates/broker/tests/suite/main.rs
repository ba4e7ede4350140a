// SPDX-License-Identifier: AGPL-3.0-only
//! What holds of a broker, tried on RabbitMQ and on the one in memory.

/// Makes of each function that takes a stage one test per broker.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod rabbit {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::stage::Stage::rabbit().await).await;
            })+
        }
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::stage::Stage::memory()).await;
            })+
        }
    };
}

mod ordered;
mod queues;
mod rabbitmq;
mod requests;
mod routing;
mod stage;
