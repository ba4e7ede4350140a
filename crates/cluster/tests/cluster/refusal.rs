// SPDX-License-Identifier: AGPL-3.0-only
//! Stores that don't let us in, or not everywhere; and TLS.

use std::path::Path;
use std::time::Duration;

use holdfast_cluster::{Cluster, Identity, ReplicaId, Settings, ShardId};

use crate::support::{LASTING, Server, World, eventually, settings, standing, take, within};

const SHARD: ShardId = ShardId::new(0, 1);

#[tokio::test]
async fn a_wrong_password_is_a_refusal_that_names_the_setting_and_not_the_password() {
    let server = Server::start(&["--requirepass", "hush"]);
    for url in [server.url(), format!("redis://:sshh@127.0.0.1:{}", server.port)] {
        let why = refused(&World::at(&url, LASTING)).await;
        assert!(why.contains("cluster.url"), "{why}");
        assert!(!why.contains("sshh"), "{why}");
    }
    World::at(&format!("redis://:hush@127.0.0.1:{}", server.port), LASTING).replica("a").await;
}

#[tokio::test]
async fn a_user_without_rights_to_listen_or_to_ask_about_the_server_can_still_share() {
    let server = Server::start(&[]);
    let rights = ["SETUSER", "me", "on", ">hush", "~*", "resetchannels", "+@all", "-info", "-role"];
    let () = server.tell("ACL", &rights);
    let world = World::through(
        &format!("redis://me:hush@127.0.0.1:{}", server.port),
        &server.url(),
        crate::support::BRIEF,
    );
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(1)).await.unwrap();
    let lease = crate::support::take_in_time(&a, SHARD).await;
    a.release(&[lease]).await.unwrap();
    take(&b, SHARD).await;
}

#[tokio::test]
async fn a_user_without_rights_to_the_keys_is_refused() {
    let server = Server::start(&[]);
    let () = server.tell("ACL", &["SETUSER", "me", "on", ">hush", "~other*", "&*", "+@all"]);
    let world = World::through(&format!("redis://me:hush@127.0.0.1:{}", server.port), &server.url(), LASTING);
    let error = world.replica("a").await.owners(&[SHARD]).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("NOPERM"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_full_says_so_and_the_connection_stays() {
    let server = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let a = World::at(&server.url(), LASTING).replica("a").await;
    let error = a.heartbeat(&standing(1)).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    assert!(a.state().borrow().is_connected());
}

#[tokio::test]
async fn a_store_with_tls_is_trusted_by_the_file_that_signed_its_certificate_only() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let port = crate::support::free_port().to_string();
    let server = Server::start(&[
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &file("cert.pem"),
        "--tls-key-file",
        &file("key.pem"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
    ]);
    let url = format!("url = \"rediss://localhost:{port}\"\n");
    let trusted = settings(&format!("{url}ca_file = \"{}\"", file("ca.pem")));
    let (a, tasks) = start(&trusted);
    within(a.connected()).await.unwrap();
    a.heartbeat(&standing(1)).await.unwrap();
    a.leave().await.unwrap();
    let there: bool = server.tell("EXISTS", &["holdfast:{42}:contact"]);
    assert!(there);
    drop((a, tasks));

    let (stranger, _tasks) = start(&settings(&url));
    eventually("it is told why", async || match &*stranger.state().borrow() {
        holdfast_cluster::StoreState::Down { why, .. } => {
            why.to_string().contains("certificate").then_some(())
        }
        holdfast_cluster::StoreState::Connected => panic!("nobody signed that"),
    })
    .await;
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for file in [empty, dir.path().join("absent.pem")] {
        let settings = settings(&format!("url = \"rediss://localhost\"\nca_file = \"{}\"", file.display()));
        let tasks = holdfast_service::Tasks::new(tokio_util::sync::CancellationToken::new());
        let error = Cluster::start(&settings, identity(), &tasks).unwrap_err();
        assert!(error.to_string().contains("cluster.ca_file"), "{error}");
    }
}

/// Why a replica in this world is refused.
pub(crate) async fn refused(world: &World) -> String {
    let replica = Cluster::start(&world.settings(), identity(), world.tasks()).unwrap();
    let why = tokio::time::timeout(Duration::from_secs(20), replica.connected()).await.unwrap().unwrap_err();
    assert!(why.is_refused(), "{why}");
    why.to_string()
}

fn start(settings: &Settings) -> (Cluster, holdfast_service::Tasks) {
    let tasks = holdfast_service::Tasks::new(tokio_util::sync::CancellationToken::new());
    (Cluster::start(settings, identity(), &tasks).unwrap(), tasks)
}

fn identity() -> Identity {
    Identity { id: ReplicaId::random(), application: 42, address: "a".to_owned() }
}

/// A certificate for localhost, with its key, and the one that signed it.
fn certificates(dir: &Path) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    for (name, text) in
        [("ca.pem", ca_cert.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(dir.join(name), text).unwrap();
    }
}
