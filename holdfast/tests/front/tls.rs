// SPDX-License-Identifier: AGPL-3.0-only
//! The front with a certificate of its own.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use holdfast_simulator::{Simulator, Traffic};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use crate::support::{ALL, Holdfast, Ledger, TOKEN, discord, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_tls_gets_every_event() {
    let discord = discord(1, 4).await;
    let (holdfast, connector) = start(&discord).await;
    let mut socket = connect(&holdfast, &connector).await;
    let identify = json!({ "op": 2, "d": { "token": TOKEN, "intents": ALL, "properties": {} } });
    assert_eq!(next(&mut socket).await["op"], 10);
    socket.send(Message::text(identify.to_string())).await.expect("IDENTIFY is sent");
    assert_eq!(next(&mut socket).await["t"], "READY");
    for _ in 0..4 {
        assert_eq!(next(&mut socket).await["t"], "GUILD_CREATE");
    }
    discord.traffic(Traffic::burst(3_000));
    let sent = discord.finish_traffic().await.sent;
    let mut ledger = Ledger::default();
    while !ledger.has_last(&sent) {
        ledger.note(&next(&mut socket).await);
    }
    ledger.assert_each_once(&sent, &BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_turned_away_and_harms_nobody() {
    let discord = discord(1, 4).await;
    let (holdfast, connector) = start(&discord).await;
    let mut plain = TcpStream::connect(address(&holdfast)).await.expect("TCP connects");
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.expect("it is sent");
    let mut answer = Vec::new();
    let _ = within("the end of the connection", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(next(&mut connect(&holdfast, &connector).await).await["op"], 10);
}

/// Starts with a certificate; gives what trusts it.
async fn start(discord: &Simulator) -> (Holdfast, TlsConnector) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let connector = certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", file("cert.pem"), file("key.pem"));
    let holdfast = Holdfast::start(discord, &tls).await;
    // The files are read by then: the folder may go.
    holdfast.live().await;
    (holdfast, connector)
}

/// Writes a certificate for `localhost` and its key; gives what trusts it.
pub(crate) fn certificate(folder: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is made");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("it is written");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("it is written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate is a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn address(holdfast: &Holdfast) -> &str {
    holdfast.url.trim_start_matches("ws://")
}

pub(crate) async fn connect(
    holdfast: &Holdfast,
    connector: &TlsConnector,
) -> WebSocketStream<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address(holdfast)).await.expect("TCP connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = within("TLS", connector.connect(name, tcp)).await.expect("the certificate is trusted");
    let uri = "wss://localhost/?v=10&encoding=json".parse().expect("an address");
    let builder = ClientBuilder::from_uri(uri);
    within("the upgrade", builder.connect_on(tls)).await.expect("the upgrade succeeds").0
}

pub(crate) async fn next(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Value {
    let message = within("a payload", socket.next()).await.expect("the connection lives").expect("a message");
    serde_json::from_slice(message.as_payload()).expect("payloads are JSON")
}
