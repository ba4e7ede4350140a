// SPDX-License-Identifier: AGPL-3.0-only
//! Stands between a client and RabbitMQ, and knows AMQP's frames: cuts, freezes, and says `connection.blocked` where
//! RabbitMQ itself would say it to everybody.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const RABBITMQ: &str = "127.0.0.1:5672";

/// See the module.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    refuses: AtomicBool,
    /// Bytes that clients may still send before what is next; negative: no bound.
    left: AtomicI64,
    /// Whether clients are held up then, and not cut.
    holds: AtomicBool,
    held: watch::Sender<bool>,
    frozen: watch::Sender<bool>,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    /// What the client calls it.
    name: Arc<Mutex<String>>,
    cut: CancellationToken,
    /// Frames for the client.
    say: mpsc::Sender<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let shared = Arc::new(Shared { left: AtomicI64::new(-1), ..Shared::default() });
        let proxy = Self { address: listener.local_addr().expect("bound"), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accepts");
                if !shared.refuses.load(Ordering::SeqCst) {
                    tokio::spawn(serve(Arc::clone(&shared), client));
                }
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}", self.address)
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Ends all connections once clients have sent so many bytes, most likely within a frame.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Once clients have sent so many bytes, takes no more from them, and goes on bringing what comes for them.
    pub(crate) fn hold_after(&self, bytes: i64) {
        self.shared.holds.store(true, Ordering::SeqCst);
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Takes again what clients send.
    pub(crate) fn release(&self) {
        self.shared.holds.store(false, Ordering::SeqCst);
        self.shared.held.send_replace(false);
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Whether nothing passes any more, without a word.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.frozen.send_replace(frozen);
    }

    /// Says `connection.blocked` to the connection of a name.
    pub(crate) async fn block(&self, name: &str, reason: &str) {
        let mut payload = vec![0, 10, 0, 60, u8::try_from(reason.len()).expect("short")];
        payload.extend_from_slice(reason.as_bytes());
        self.say(name, &payload).await;
    }

    /// Says `connection.unblocked`.
    pub(crate) async fn unblock(&self, name: &str) {
        self.say(name, &[0, 10, 0, 61]).await;
    }

    async fn say(&self, name: &str, payload: &[u8]) {
        let mut frame = vec![1, 0, 0];
        frame.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(0xCE);
        let say = {
            let connections = self.shared.connections.lock().expect("unpoisoned");
            let named = |connection: &&Connection| *connection.name.lock().expect("unpoisoned") == name;
            connections.iter().rev().find(named).expect("connected").say.clone()
        };
        say.send(frame).await.expect("connected");
    }
}

impl Shared {
    fn cut(&self) {
        for connection in self.connections.lock().expect("unpoisoned").drain(..) {
            connection.cut.cancel();
        }
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let server = TcpStream::connect(RABBITMQ).await.expect("RabbitMQ runs");
    client.set_nodelay(true).expect("set");
    server.set_nodelay(true).expect("set");
    let (say, said) = mpsc::channel(8);
    let (name, cut) = (Arc::<Mutex<String>>::default(), CancellationToken::new());
    let connection = Connection { name: Arc::clone(&name), cut: cut.clone(), say };
    shared.connections.lock().expect("unpoisoned").push(connection);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = cut.cancelled() => {}
        _ = upwards(&shared, from_client, to_server, &name) => {}
        _ = downwards(&shared, from_server, to_client, said) => {}
    }
}

/// Bytes from the client.
async fn upwards(
    shared: &Shared,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    name: &Mutex<String>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut frozen = shared.frozen.subscribe();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let _ = frozen.wait_for(|frozen| !frozen).await;
        let bytes = &buffer[..read];
        find_name(bytes, name);
        let left = shared.left.load(Ordering::SeqCst);
        if left >= 0 {
            let sent = i64::try_from(read).expect("small");
            if sent >= left {
                shared.left.store(-1, Ordering::SeqCst);
                let (now, later) = bytes.split_at(usize::try_from(left).expect("not negative"));
                to.write_all(now).await?;
                if !shared.holds.load(Ordering::SeqCst) {
                    shared.cut();
                    return Ok(());
                }
                let mut held = shared.held.subscribe();
                shared.held.send_replace(true);
                let _ = held.wait_for(|held| !held).await;
                to.write_all(later).await?;
                continue;
            }
            shared.left.fetch_sub(sent, Ordering::SeqCst);
        }
        to.write_all(bytes).await?;
    }
}

/// Our connections are called `holdfast events` and the like, in the frame that opens them.
fn find_name(bytes: &[u8], name: &Mutex<String>) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((_, rest)) = text.split_once("holdfast ") {
        let mut name = name.lock().expect("unpoisoned");
        if name.is_empty() {
            *name = rest.chars().take_while(char::is_ascii_lowercase).collect();
        }
    }
}

/// Frames from RabbitMQ, and what is to be said between them.
async fn downwards(
    shared: &Shared,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut said: mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let mut frozen = shared.frozen.subscribe();
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            biased;
            Some(frame) = said.recv() => to.write_all(&frame).await?,
            read = from.read(&mut buffer) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                kept.extend_from_slice(&buffer[..read]);
            }
        }
        let _ = frozen.wait_for(|frozen| !frozen).await;
        while let Some(frame) = take_frame(&mut kept) {
            to.write_all(&frame).await?;
        }
    }
}

/// A whole frame: kind, channel, size, that many bytes, end.
fn take_frame(kept: &mut Vec<u8>) -> Option<Vec<u8>> {
    let size: [u8; 4] = kept.get(3..7)?.try_into().ok()?;
    let whole = 7 + usize::try_from(u32::from_be_bytes(size)).ok()? + 1;
    (kept.len() >= whole).then(|| kept.drain(..whole).collect())
}
