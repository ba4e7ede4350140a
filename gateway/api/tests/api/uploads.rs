// SPDX-License-Identifier: AGPL-3.0-only
//! Files that wait for `webhook`.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::support::{Answer, Stage, configured, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_comes_back_from_its_address_until_it_expires() {
    let stage = configured(|_| {}, |config| config.upload_expiry = Duration::from_secs(2)).await;
    let file: Bytes = (0..300_000u32).map(|number| number as u8).collect::<Vec<_>>().into();
    let taken = put(&stage, file.clone(), None).await;
    assert_eq!((taken.status, taken.json()["size"].clone()), (StatusCode::CREATED, 300_000.into()));
    assert_eq!(stage.api.metric("holdfast_api_uploads_bytes"), 300_000.0);
    let path = path(&taken);
    let given = get(&stage, &path).await;
    assert_eq!((given.status, given.header("content-length")), (StatusCode::OK, Some("300000")));
    assert!(given.body == file);
    until(|| stage.api.metric("holdfast_api_uploads_bytes") == 0.0).await;
    let gone = get(&stage, &path).await;
    assert_eq!((gone.status, gone.header("holdfast-error")), (StatusCode::NOT_FOUND, Some("upload")));
    assert!(stage.discord.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_bounded_and_need_what_requests_need() {
    let stage = configured(
        |_| {},
        |config| {
            config.uploads = 1_000;
            config.secret = Some(holdfast_service::Secret::new("proxy-secret"));
        },
    )
    .await;
    let file = |bytes: usize| Bytes::from(vec![7; bytes]);
    assert_eq!(put(&stage, file(10), None).await.header("holdfast-error"), Some("access"));
    let first = put(&stage, file(600), Some("proxy-secret")).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let full = put(&stage, file(600), Some("proxy-secret")).await;
    assert_eq!(
        (full.status, full.header("holdfast-error")),
        (StatusCode::INSUFFICIENT_STORAGE, Some("uploads-full"))
    );
    let large = put(&stage, file(1_001), Some("proxy-secret")).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(put(&stage, file(400), Some("proxy-secret")).await.status, StatusCode::CREATED);
    // `webhook` has no secret; the name is one.
    assert_eq!(get(&stage, &path(&first)).await.body, file(600));
    assert_eq!(get(&stage, "/holdfast/uploads/0123").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&stage, "/holdfast/uploads").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

async fn put(stage: &Stage, file: Bytes, secret: Option<&str>) -> Answer {
    let mut request = Request::post("/holdfast/uploads").body(Full::from(file)).expect("a request");
    if let Some(secret) = secret {
        request.headers_mut().insert("holdfast-secret", secret.parse().expect("a value"));
    }
    stage.api.send(request).await
}

async fn get(stage: &Stage, path: &str) -> Answer {
    stage.api.send(Request::get(path).body(Full::default()).expect("a request")).await
}

/// The path of an upload's address, which is this service's.
fn path(taken: &Answer) -> String {
    let url: http::Uri = taken.json()["url"].as_str().expect("an address").parse().expect("an address");
    url.path().to_owned()
}
