// SPDX-License-Identifier: AGPL-3.0-only
//! `amqps://`, with an authority of one's own, through something that takes the TLS off.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_broker::{Broker, BrokerSettings, Publication, Refusal};
use holdfast_service::Service;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::stage::{classic, end, in_time, message, next, settings, text};

/// RabbitMQ over TLS as `localhost`; where, and the certificate.
async fn tls() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
        })
        .expect("usable");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("accepts");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect("127.0.0.1:5672").await.expect("RabbitMQ runs");
                // Either side may end it in any way.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, made.cert.pem())
}

fn url(address: SocketAddr) -> String {
    format!("amqps://guest:guest@localhost:{}", address.port())
}

#[tokio::test]
async fn messages_pass_through_tls_with_an_authority_of_one_s_own() {
    let (address, certificate) = tls().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate).expect("written");
    let settings = BrokerSettings { ca: Some(ca), ..settings(&url(address)) };
    let service = Service::new(CancellationToken::new());
    let broker = in_time(Broker::connect(&settings, &service)).await.expect("connected");
    let queue = format!("{}.queue", settings.prefix);
    let topology = holdfast_broker::Topology { queues: vec![classic(&queue)], ..Default::default() };
    in_time(broker.declare(&topology)).await.expect("declared");
    let publication = Publication::new("", queue.clone(), message("over TLS")).mandatory();
    in_time(broker.publish(publication)).await.expect("published");
    let mut consumer = broker.consume(holdfast_broker::ConsumerOptions::new(&queue));
    assert_eq!(text(&next(&mut consumer).await), "over TLS");
    end(&broker, &service, topology).await;
}

#[tokio::test]
async fn a_certificate_of_nobody_one_trusts_is_refused() {
    let (address, _) = tls().await;
    let service = Service::new(CancellationToken::new());
    let refusal = in_time(Broker::connect(&settings(&url(address)), &service)).await.expect_err("untrusted");
    assert!(matches!(refusal, Refusal::Certificate(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("broker.ca"), "{refusal}");
}
