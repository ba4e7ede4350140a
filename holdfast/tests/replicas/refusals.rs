// SPDX-License-Identifier: AGPL-3.0-only
//! Fleets that may not begin, and what they are told.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Fleet, Holdfast, Server, Setup, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_with_another_count_of_shards_is_refused() {
    let fleet = Fleet::new(4, 8).await;
    let first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    let settings = format!("shards.total = 8\n{}", fleet.settings(""));
    let mut other = start(fleet.discord.api_url(), &settings).await;
    let code = other.ended().await.code();
    let said = other.output();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("replicas with 4 shards work under the prefix"), "{said}");
    assert!(said.contains("set ws.shards.total = 4"), "{said}");
    fleet.settled(&[&first]).await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bot_on_the_same_prefix_is_refused() {
    let fleet = Fleet::new(2, 4).await;
    let first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    let api = another_bot(fleet.discord.gateway_url()).await;
    let mut other = start(&api, &fleet.settings("")).await;
    let code = other.ended().await.code();
    let said = other.output();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("another bot") && said.contains("give each bot its own cluster.prefix"), "{said}");
    fleet.settled(&[&first]).await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_shown() {
    let port = free_port();
    let _store = Server::start_at(port, &["--requirepass", "the-right-one"]);
    let mut fleet = Fleet::new(2, 4).await;
    fleet.cluster = format!("url = \"redis://:the-wrong-one@127.0.0.1:{port}\"");
    let mut replica = start(fleet.discord.api_url(), &fleet.settings("")).await;
    let code = replica.ended().await.code();
    let said = replica.output();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the shared store refuses us") && said.contains("WRONGPASS"), "{said}");
    assert!(!said.contains("the-wrong-one"), "{said}");
    assert_eq!(fleet.discord.records(2).len(), 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_go_with_shared_shards_are_refused() {
    let fleet = Fleet::new(2, 4).await;
    let wrong = [
        ("shards.start = 1\nshards.total = 2", "ws.shards.start", "replicas share out all shards"),
        ("shards.end = 1", "ws.shards.end", "replicas share out all shards"),
    ];
    for (line, key, reason) in wrong {
        let settings = format!("{line}\n{}", fleet.settings(""));
        let setup = Setup { ws: &settings, cache: "", ..Setup::default() };
        let (code, said) = setup.refused(fleet.discord.api_url()).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(key) && said.contains(reason), "{said}");
    }
    let settings = fleet.settings("");
    let setup = Setup { ws: &settings, cache: "", state: Some(""), ..Setup::default() };
    let (code, said) = setup.refused(fleet.discord.api_url()).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ws.state_dir") && said.contains("the replica's name are kept in it"), "{said}");
    fleet.end().await;
}

async fn start(api_url: &str, settings: &str) -> Holdfast {
    Holdfast::start_at(api_url, &Setup { ws: settings, cache: "", ..Setup::default() }).await
}

/// Discord's API as far as a bot with another application needs it to begin.
async fn another_bot(gateway: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let limit = "{\"total\":1000,\"remaining\":1000,\"reset_after\":0,\"max_concurrency\":2}";
    let bot = format!("{{\"url\":\"{gateway}\",\"shards\":2,\"session_start_limit\":{limit}}}");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = tcp.read(&mut request).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            let body = if asked.contains("/applications/@me") { "{\"id\":\"42\"}" } else { &bot };
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    url
}
