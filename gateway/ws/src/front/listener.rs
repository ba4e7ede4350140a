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
use tokio_websockets::ServerBuilder;
use tracing::{debug, warn};

use super::{
    Front, client, direct,
    link::{About, Ended, Link, Reading, Writing},
    merge,
    opening::{self, Serving},
    outgoing::{Outgoing, Transport},
    query::{Head, Query, Refused},
    socket::{self, Incoming, Writer},
    splice,
};
use crate::frames::FrameReader;

/// A request's head is a few hundred bytes; browsers' are below this.
const MAX_HEAD: usize = 8 * 1024;
/// "Rate Limiting": payloads a minute from a client.
const PAYLOADS_A_MINUTE: usize = 120;
/// By how much a client that another replica brings may exceed what others may: a byte of a binary is six as JSON.
const SPLICE_SLACK: usize = 8;
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
        // Boxed: a connection would be held room for it as long as it lives.
        upgraded = timeout(within, Box::pin(upgrade(&front, tcp, peer, tls))) => upgraded,
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
            Box::pin(link.close(&Refused::new(4000, "restarting"))).await;
            return;
        }
        opened = opening::open(&front, &mut link) => opened,
    };
    match opened {
        Ok((Serving::Other(other), Some(opening))) => {
            if let Some(link) = Box::pin(splice::run(&front, link, other, &opening)).await {
                let tasks = front.tasks.clone();
                tasks.spawn("client without session", reopen(front, link, connected));
            }
        }
        Ok((serving, opening)) => {
            let Some(runtime) = serving.runtime().cloned() else {
                return Box::pin(link.close(&Refused::new(4000, "the shard has moved: come again"))).await;
            };
            let tasks = front.tasks.clone();
            let link = Box::new(link);
            tasks.spawn_on(&runtime, "client", async move {
                let over = match serving {
                    Serving::One(hub) => {
                        let Some(opening) = opening else { return };
                        let client = direct::open(&front, &hub, link, opening);
                        client::run(Arc::clone(&front), client).await
                    }
                    // Boxed: it would be held room for in every client's task.
                    Serving::Several(part, prepared) => {
                        let client = merge::open(&front, part, link, prepared);
                        Box::pin(client::run(Arc::clone(&front), client)).await
                    }
                    Serving::Lent(loan) => {
                        let client = Ok(merge::lend(&front, loan, link));
                        Box::pin(client::run(Arc::clone(&front), client)).await
                    }
                    Serving::Other(_) => None,
                };
                if let Some(link) = over {
                    let tasks = front.tasks.clone();
                    tasks.spawn("client without session", reopen(front, link, connected));
                }
            });
        }
        Err(Ended::Gone(_)) => {}
        Err(Ended::Refused(refused)) => {
            front.metrics.closed(refused.code);
            debug!(code = refused.code, reason = refused.reason, peer = %link.about.peer, "client refused");
            Box::pin(link.close(&refused)).await;
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
    let (bytes, end) = read_head(&mut incoming).await?;
    let head = Head::parse(&bytes[..end]);
    let Some(head) = head.filter(|head| head.websocket) else {
        let path = Head::parse(&bytes[..end]).map(|head| head.path);
        answer(front, &mut writer, path.as_deref()).await;
        return None;
    };
    if head.path != "/" {
        let _ = respond(&mut writer, &Page::status(404, "The gateway is at /.\n")).await;
        return None;
    }
    let brought = match head.ticket.as_deref().map(|ticket| splice::admit(front, ticket)).transpose() {
        Ok(ticket) => ticket,
        Err((status, reason)) => {
            let _ = respond(&mut writer, &Page::status(status, reason)).await;
            return None;
        }
    };
    let (head_only, first) = (bytes[..end].to_vec(), bytes[end..].to_vec());
    incoming.unread(head_only);
    let control = incoming.control();
    // The other replica has held its client to the bounds. What was ETF is longer as JSON, and comes in other minutes.
    let slack = if brought.is_some() { SPLICE_SLACK } else { 1 };
    // The library answers the request; it sees nothing of what follows.
    let (_request, socket) = ServerBuilder::new().accept(incoming).await.ok()?;
    let frames = FrameReader::new(true, front.settings.max_frame_bytes * slack, first);
    let (query, refused) = match Query::parse(&head.query) {
        Ok(query) => (query, None),
        Err(refused) => (Query::plain(), Some(refused)),
    };
    let stored =
        front.settings.stored_zlib && peer.ip().is_loopback() && query.transport == Transport::ZlibStream;
    let out = Outgoing::new(query.encoding, query.transport, stored);
    let reading = Reading::new(socket.into_inner(), frames, query.encoding, PAYLOADS_A_MINUTE * slack);
    let number = front.next_connection();
    let leg = brought.filter(|ticket| ticket.leg).map(|ticket| ticket.shard);
    let (peer, spliced) = (brought.map_or(peer, |ticket| ticket.peer), brought.is_some());
    let about = About { query, peer, number, invalidated: false, spliced, leg };
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

/// Reads a request's head, and where in what was read it ends: behind its empty line.
async fn read_head(incoming: &mut Incoming) -> Option<(Vec<u8>, usize)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(at) = memchr::memmem::find(&bytes, END) {
            return Some((bytes, at + END.len()));
        }
        if bytes.len() >= MAX_HEAD || incoming.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
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
        403 => "Forbidden",
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
