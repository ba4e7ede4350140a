// SPDX-License-Identifier: AGPL-3.0-only
//! Payloads as no encoder of ours would write them, from a gateway that sends texts as they stand.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_websockets::{Message, ServerBuilder};

use crate::stage::{Front, Proxy, Stage};
use crate::support::until;

/// The payload, the event's name, and its data.
fn payloads() -> Vec<(String, &'static str, String)> {
    let of = |payload: &str, name: &'static str, data: &str| (payload.to_owned(), name, data.to_owned());
    let text = r#"{"id":"7",  "content" : "a\u00e9 \ud83d\ude00 \\\" }", "guild_id" :"81384788765712384"}"#;
    let nested = "{\r\n\t\"d\" : {\"op\":0,\"t\":\"NO\",\"s\":99}, \"s\":1, \"t\" : \"NO\", \"x\":[ ]\n}";
    let big = format!("{{ \"x\" : \"{}\" }}", "y".repeat(300_000));
    vec![
        of(&format!(r#"{{"t":"MESSAGE_CREATE","s":2,"op":0,"d":{text}}}"#), "MESSAGE_CREATE", text),
        of(
            &format!(" {{ \"d\" : {text} ,\n\"op\" :0, \"s\":3,\t\"t\" :\"MESSAGE_CREATE\" }} "),
            "MESSAGE_CREATE",
            text,
        ),
        of(&format!(r#"{{"op":0,"d":{nested},"t":"TYPING_START","s":4}}"#), "TYPING_START", nested),
        of(
            &format!(r#"{{"s":5,"new":{{"d":1}},"t":"SOMETHING_NEW","op":0,"d":{nested}}}"#),
            "SOMETHING_NEW",
            nested,
        ),
        of(r#"{"t":"NUMBER","s":6,"op":0,"d":-1.50E+3}"#, "NUMBER", "-1.50E+3"),
        of(r#"{"t":"TEXT","s":7,"op":0,"d":"} \" ,"}"#, "TEXT", r#""} \" ,""#),
        of(r#"{"t":"LIST","s":8,"op":0,"d":[ 1 ,2 , [] ] }"#, "LIST", "[ 1 ,2 , [] ]"),
        of(r#"{"t":"TRUTH","s":9,"op":0,"d":true}"#, "TRUTH", "true"),
        of(r#"{"t":"USER_UPDATE","s":10,"op":0,"d":null}"#, "USER_UPDATE", "null"),
        of(r#"{"t":"BARE","s":11,"op":0}"#, "BARE", "null"),
        of(
            &format!(r#"{{"t":"CHANNEL_PINS_UPDATE","s":12,"op":0,"d":{big} }}"#),
            "CHANNEL_PINS_UPDATE",
            &big,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_payloads_keep_every_byte_out_of_memory_and_off_the_disk() {
    for from_disk in [false, true] {
        let api = gateway().await;
        let proxy = Proxy::closed().await;
        let mut stage = Stage::new().await;
        let front = Front {
            url: &proxy.url,
            discord: "compression = \"none\"",
            log: "memory_age = \"1s\"",
            ..Front::default()
        };
        let holdfast = stage.holdfast_at(&api, &front).await;
        until("all are there", async || holdfast.metric("holdfast_ws_events_total").await >= 11.0).await;
        if from_disk {
            until("memory is given back", async || {
                holdfast.metric("holdfast_ws_log_memory_bytes").await == 0.0
            })
            .await;
        }
        proxy.let_through();
        let mut inbox = stage.inbox("all");
        inbox.until_event("CHANNEL_PINS_UPDATE").await;
        let expected: Vec<_> =
            payloads().into_iter().map(|(_, name, data)| (name.to_owned(), data)).collect();
        let got: Vec<_> = inbox
            .events()
            .map(|event| (event.name.clone(), String::from_utf8(event.data.to_vec()).expect("text")))
            .collect();
        assert_eq!(got, expected, "from disk: {from_disk}");
        let guilds: Vec<u64> = inbox.events().take(3).map(|event| event.guild_id).collect();
        assert_eq!(guilds, [81_384_788_765_712_384, 81_384_788_765_712_384, 0]);
        drop(holdfast);
        stage.end().await;
    }
}

/// A gateway that takes one IDENTIFY and sends the payloads; the base of its API.
async fn gateway() -> String {
    let sockets = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let requests = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", sockets.local_addr().expect("bound"));
    let api = format!("http://{}/api/v10", requests.local_addr().expect("bound"));
    let limit = json!({ "total": 1000, "remaining": 999, "reset_after": 1000, "max_concurrency": 1 });
    let answer = json!({ "url": url, "shards": 1, "session_start_limit": limit }).to_string();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = requests.accept().await.expect("accepts");
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while tcp.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                    let response = format!("{head} {}\r\n\r\n{answer}", answer.len());
                    if tcp.write_all(response.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    tokio::spawn(async move {
        loop {
            let (tcp, _) = sockets.accept().await.expect("accepts");
            let url = url.clone();
            tokio::spawn(async move {
                let (_, mut socket) = ServerBuilder::new().accept(tcp).await.expect("a WebSocket");
                let hello = json!({ "op": 10, "d": { "heartbeat_interval": 41_250 } });
                socket.send(Message::text(hello.to_string())).await.expect("sent");
                while let Some(Ok(message)) = socket.next().await {
                    let Ok(payload) = serde_json::from_slice::<Value>(message.as_payload()) else { return };
                    for text in answers(&payload, &url) {
                        socket.send(Message::text(text)).await.expect("sent");
                    }
                }
            });
        }
    });
    api
}

fn answers(payload: &Value, url: &str) -> Vec<String> {
    match payload["op"].as_u64() {
        Some(1) => vec![json!({ "op": 11 }).to_string()],
        Some(2) => {
            let ready = json!({ "t": "READY", "s": 1, "op": 0, "d": {
                "v": 10, "user": { "id": "1" }, "guilds": [], "session_id": "s", "resume_gateway_url": url,
                "shard": [0, 1], "application": { "id": "2" },
            } });
            let mut answers = vec![ready.to_string()];
            answers.extend(payloads().into_iter().map(|(payload, ..)| payload));
            answers
        }
        _ => Vec::new(),
    }
}
