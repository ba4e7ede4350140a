// SPDX-License-Identifier: AGPL-3.0-only
//! What is refused for good: twilight understands the close code and gives up.

use twilight_gateway::ShardId;

use crate::stage::{BOTH, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_for_good() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 2).await;
        let bot = stage.bot_with("another-token", ShardId::ONE);
        assert_eq!(bot.given_up().await, Some(4004), "{target:?}");
    }
}
