// SPDX-License-Identifier: AGPL-3.0-only
//! Stands between Holdfast and RabbitMQ: lets nobody through, cuts, and plays a RabbitMQ without its plugin.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const RABBITMQ: &str = "127.0.0.1:5672";
/// What RabbitMQ knows with the plugin, and what it knows not.
const HASH: (&[u8], &[u8]) = (b"x-consistent-hash", b"x-consistent-hasX");

/// See the module.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    open: AtomicBool,
    without_plugin: AtomicBool,
    /// Bytes that Holdfast may still send before everything is cut; negative: no bound.
    left: AtomicI64,
    connections: Mutex<CancellationToken>,
}

impl Proxy {
    /// Lets through.
    pub(crate) async fn open() -> Self {
        let proxy = Self::closed().await;
        proxy.let_through();
        proxy
    }

    /// Accepts, and hangs up at once.
    pub(crate) async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("amqp://guest:guest@{}/%2f", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared {
            open: AtomicBool::new(false),
            without_plugin: AtomicBool::new(false),
            left: AtomicI64::new(-1),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accepts");
                if serving.open.load(Ordering::SeqCst) {
                    tokio::spawn(serve(Arc::clone(&serving), client));
                }
            }
        });
        Self { url, shared }
    }

    pub(crate) fn let_through(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }

    /// Cuts all connections once Holdfast has sent so many bytes more: most likely within a message.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.shared.left.load(Ordering::SeqCst) < 0
    }

    /// RabbitMQ is asked for an exchange of a type that it doesn't know, and its answer names the right one.
    pub(crate) fn hide_plugin(&self) {
        self.shared.without_plugin.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn cut(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *connections).cancel();
    }

    /// Takes the bytes out of the allowance; how many of them may still pass.
    fn allowed(&self, bytes: usize) -> Option<usize> {
        let left = self.left.load(Ordering::SeqCst);
        if left < 0 {
            return None;
        }
        let bytes = i64::try_from(bytes).expect("small");
        self.left.store(if bytes >= left { -1 } else { left - bytes }, Ordering::SeqCst);
        (bytes >= left).then(|| usize::try_from(left).expect("not negative"))
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let cut = shared.connections.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let server = TcpStream::connect(RABBITMQ).await.expect("RabbitMQ runs");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = cut.cancelled() => {}
        _ = pass(&shared, from_client, to_server, true) => {}
        _ = pass(&shared, from_server, to_client, false) => {}
    }
}

async fn pass(
    shared: &Shared,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    upwards: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let bytes = &mut buffer[..read];
        if shared.without_plugin.load(Ordering::SeqCst) {
            let (known, unknown) = HASH;
            if upwards { replace(bytes, known, unknown) } else { replace(bytes, unknown, known) }
        }
        let allowed = if upwards { shared.allowed(read) } else { None };
        to.write_all(&bytes[..allowed.unwrap_or(read)]).await?;
        if allowed.is_some() {
            shared.cut();
            return Ok(());
        }
    }
}

/// Both are of the same length.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}
