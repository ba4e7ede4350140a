// SPDX-License-Identifier: AGPL-3.0-only
//! A network that fails on demand: stands between replicas and a server. In: connections, and how they shall fare.
//! Out: bytes, or none. Ends with the test's runtime.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How connections fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server at this port of the machine.
    To(u16),
    /// They are accepted, and nothing comes or goes any more.
    Stalled,
    /// What is asked arrives, what is answered doesn't.
    Unanswered,
    /// They end at once.
    Cut,
}

/// A proxy before a server.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way::To(port));
        tokio::spawn(accept(listener, way.subscribe()));
        Proxy { address, way }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes how connections fare, those that are there too.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn accept(listener: TcpListener, way: watch::Receiver<Way>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        tokio::spawn(connect(client, way.clone()));
    }
}

async fn connect(client: TcpStream, mut way: watch::Receiver<Way>) {
    let began = *way.borrow_and_update();
    let Way::To(port) = began else {
        // A stalled one is kept open until things change.
        if began == Way::Stalled {
            let _ = way.changed().await;
        }
        return;
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        carry(from_client, to_server, way.clone(), [began, Way::Unanswered]),
        carry(from_server, to_client, way, [began, began])
    );
}

/// Carries bytes as long as the way is one of those that are `open`; waits while it is shut; ends when it is another.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    open: [Way; 2],
) {
    let mut buffer = vec![0; 64 << 10];
    let reads = way.clone();
    let ended = async move {
        let shut = [Way::Stalled, Way::Unanswered];
        let _ = way.wait_for(|way| !open.contains(way) && !shut.contains(way)).await.is_ok();
    };
    tokio::pin!(ended);
    loop {
        let length = tokio::select! { biased;
            () = &mut ended => return,
            read = read_while_open(&mut from, &mut buffer, reads.clone(), open) => read,
        };
        match length {
            Some(length) if to.write_all(&buffer[..length]).await.is_ok() => {}
            _ => return,
        }
    }
}

/// Reads once the way is open.
async fn read_while_open(
    from: &mut OwnedReadHalf,
    buffer: &mut [u8],
    mut way: watch::Receiver<Way>,
    open: [Way; 2],
) -> Option<usize> {
    way.wait_for(|way| open.contains(way)).await.ok()?;
    let length = from.read(buffer).await.ok().filter(|length| *length > 0)?;
    // What arrived while it was shut stays in the network until it no longer is.
    way.wait_for(|way| open.contains(way)).await.ok()?;
    Some(length)
}
