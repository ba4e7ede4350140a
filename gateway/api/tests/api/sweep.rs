// SPDX-License-Identifier: AGPL-3.0-only
//! Every operation that Discord's own description of its API has, once.

use holdfast_discord::rest::find;
use http::StatusCode;

use super::support::{configured, request};

#[tokio::test]
async fn every_operation_reaches_discord_under_its_template() {
    let stage = configured(
        |limits| limits.global_per_second = 10_000,
        |config| {
            config.limits.global_limit = 10_000;
            config.gateway = false;
        },
    )
    .await;
    let mut swept = 0;
    for operation in holdfast_simulator::operations() {
        let (method, template) = operation.split_once(' ').expect("method and template");
        let path: Vec<_> = template.split('/').map(example).collect();
        let path = path.join("/");
        assert_eq!(find(method, &path).id.route().name, operation);
        let answer = stage.api.send(request(method, &format!("/api/v10{path}"), "")).await;
        assert!(answer.header("holdfast-error").is_none(), "{operation}: {answer:?}");
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{operation}");
        let reached = stage.discord.requests().pop().and_then(|request| request.route);
        assert_eq!(reached.as_deref(), Some(operation));
        swept += 1;
    }
    assert_eq!(swept, 242);
}

/// A piece of a path in the place of a template's.
fn example(piece: &str) -> &str {
    match piece {
        "{emoji_name}" => "%F0%9F%94%A5",
        "{webhook_token}" | "{interaction_token}" | "{code}" => "aW50ZXJhY3Rpb24tdG9rZW4",
        piece if piece.starts_with('{') => "81384788765712384",
        piece => piece,
    }
}
