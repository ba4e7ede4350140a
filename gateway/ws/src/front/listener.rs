// SPDX-License-Identifier: AGPL-3.0-only
//! Accepts clients: TCP, TLS, the HTTP request, the upgrade.
//!
//! In: a listener. Out: a task for each connection, which ends in a client's task at its shard. Connections
//! beyond the bound are refused; each step has a deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use holdfast_service::Page;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_websockets::{Limits, ServerBuilder};
use tracing::{debug, warn};

use super::{
    Front, client,
    link::{About, Ended, Link, Reading, Writing},
    opening,
    outgoing::{Outgoing, Transport},
    query::{Head, Query, Refused},
    socket::{self, Incoming, Writer},
};

/// A request's head is a few hundred bytes; browsers' are below this.
const MAX_HEAD: usize = 8 * 1024;
/// "Rate Limiting": payloads a minute from a client.
const PAYLOADS_A_MINUTE: usize = 120;
/// When the system has no file or memory for a connection, the next is accepted after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves clients until the service stops.
pub(crate) async fn serve(front: Arc<Front>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(front.settings.max_clients));
    loop {
        let accepted = select! { biased;
            () = front.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!(%peer, "refused: max_clients are connected");
            front.metrics.rejected.inc();
            continue;
        };
        let task = connection(Arc::clone(&front), tcp, peer, tls.clone(), place);
        front.tasks.spawn("connection", task);
    }
}

/// One connection up to its first session.
async fn connection(
    front: Arc<Front>,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: OwnedSemaphorePermit,
) {
    let within = front.settings.handshake_timeout;
    let upgraded = select! { biased;
        () = front.stopping.cancelled() => return,
        upgraded = timeout(within, upgrade(&front, tcp, peer, tls)) => upgraded,
    };
    let link = match upgraded {
        Ok(Some(link)) => link,
        Ok(None) => return,
        Err(_) => {
            debug!(%peer, "no WebSocket within handshake_timeout");
            return;
        }
    };
    let connected = Connected::new(&front, place);
    let mut link = link;
    if opening::hello(&front, &mut link).await.is_ok() {
        open(front, link, connected).await;
    }
}

/// Counts a client as connected for as long as it lives.
struct Connected {
    front: Arc<Front>,
    _place: OwnedSemaphorePermit,
}

impl Connected {
    fn new(front: &Arc<Front>, place: OwnedSemaphorePermit) -> Self {
        front.metrics.connections.inc();
        Self { front: Arc::clone(front), _place: place }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.front.metrics.connections.dec();
    }
}

/// Reads IDENTIFY or RESUME, then hands the client to its shard's thread; as often as its session ends and
/// the client begins anew.
async fn open(front: Arc<Front>, mut link: Link, connected: Connected) {
    let opened = select! { biased;
        () = front.stopping.cancelled() => {
            link.close(&Refused::new(4000, "restarting")).await;
            return;
        }
        opened = opening::open(&front, &mut link) => opened,
    };
    match opened {
        Ok((hub, opening)) => {
            let runtime = hub.runtime.clone();
            let tasks = front.tasks.clone();
            tasks.spawn_on(&runtime, "client", async move {
                if let Some(link) = client::run(Arc::clone(&front), hub, link, opening).await {
                    let tasks = front.tasks.clone();
                    tasks.spawn("client without session", reopen(front, link, connected));
                }
            });
        }
        Err(Ended::Gone(_)) => {}
        Err(Ended::Refused(refused)) => {
            front.metrics.closed(refused.code);
            debug!(code = refused.code, reason = refused.reason, peer = %link.about.peer, "client refused");
            link.close(&refused).await;
        }
    }
}

/// [`open`], boxed: a client may begin anew any number of times.
fn reopen(
    front: Arc<Front>,
    link: Link,
    connected: Connected,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(open(front, link, connected))
}

/// TCP connection in, WebSocket out. None: it was something else, and has been answered.
async fn upgrade(front: &Front, tcp: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) -> Option<Link> {
    tcp.set_nodelay(true).ok()?;
    let (mut incoming, mut writer) = match tls {
        None => socket::plain(tcp),
        Some(acceptor) => socket::tls(acceptor.accept(tcp).await.ok()?),
    };
    let bytes = read_head(&mut incoming).await?;
    let head = Head::parse(&bytes);
    let Some(head) = head.filter(|head| head.websocket) else {
        let path = Head::parse(&bytes).map(|head| head.path);
        answer(front, &mut writer, path.as_deref()).await;
        return None;
    };
    if head.path != "/" {
        let _ = respond(&mut writer, &Page::status(404, "The gateway is at /.\n")).await;
        return None;
    }
    incoming.unread(bytes);
    let control = incoming.control();
    let limits = Limits::default().max_payload_len(Some(front.settings.max_frame_bytes));
    let (_request, socket) = ServerBuilder::new().limits(limits).accept(incoming).await.ok()?;
    let (query, refused) = match Query::parse(&head.query) {
        Ok(query) => (query, None),
        Err(refused) => (Query::plain(), Some(refused)),
    };
    let stored =
        front.settings.stored_zlib && peer.ip().is_loopback() && query.transport == Transport::ZlibStream;
    let out = Outgoing::new(query.encoding, query.transport, stored);
    let reading = Reading::new(socket, query.encoding, PAYLOADS_A_MINUTE);
    let number = front.next_connection();
    let about = About { query, peer, number, invalidated: false };
    let mut link = Link { reading, writing: Writing { writer, out, control }, about };
    if let Some(refused) = refused {
        front.metrics.closed(refused.code);
        // The upgrade's response goes before the close.
        link.writing.flush().await.ok()?;
        link.close(&refused).await;
        return None;
    }
    Some(link)
}

/// Reads a request's head, up to and including its empty line.
async fn read_head(incoming: &mut Incoming) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if bytes.len() >= MAX_HEAD || incoming.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(bytes)
}

/// Answers a plain HTTP request: with a page that the settings name, or with what this is.
async fn answer(front: &Front, writer: &mut Writer, path: Option<&str>) {
    let page = path
        .filter(|path| front.settings.pages.iter().any(|page| page == path))
        .and_then(|path| front.pages.get(path))
        .unwrap_or_else(|| Page::status(426, "This is a Discord gateway: connect with a WebSocket.\n"));
    let _ = respond(writer, &page).await;
}

async fn respond(writer: &mut Writer, page: &Page) -> std::io::Result<()> {
    let reason = match page.status {
        200 => "OK",
        404 => "Not Found",
        426 => "Upgrade Required",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let upgrade = if page.status == 426 { "upgrade: websocket\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{upgrade}connection: close\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len(),
    );
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(page.body.as_bytes()).await?;
    writer.shutdown().await
}
