// SPDX-License-Identifier: AGPL-3.0-only
//! Connections of callers: HTTP/1.1 and HTTP/2, with or without TLS. In: a listener. Out: requests to the front, each
//! with who sends it. One task per connection, which belongs to the service.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_rest::Caller;
use holdfast_service::{Tasks, Tls, TlsError};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::front::Front;

/// The pause after the system has refused a connection for want of something.
const PAUSE: Duration = Duration::from_millis(50);

/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 1_024;

/// Numbers that no address gives: connections from this machine are callers of their own.
static LOCAL: AtomicU64 = AtomicU64::new(0);

/// TLS of the listener, with both versions of HTTP.
pub(crate) fn tls(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let mut config = (*tls.server_config()?).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until the owner ends.
pub(crate) async fn serve(front: Arc<Front>, listener: TcpListener, tls: Option<TlsAcceptor>, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(front.config().max_connections));
    let builder = Arc::new(builder(&front));
    let ended = tasks.token().clone();
    loop {
        // First a place, then a connection: beyond the bound they wait in the system's queue.
        let accepted = tokio::select! { biased;
            () = ended.cancelled() => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((stream, address))) = accepted else {
            warn!("a connection could not be accepted: are there enough open files?");
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (front, builder, tls, ended) =
            (Arc::clone(&front), Arc::clone(&builder), tls.clone(), ended.clone());
        tasks.spawn("connection", async move {
            front.metrics().connections.inc();
            connection(&front, &builder, stream, address, tls, ended).await;
            front.metrics().connections.dec();
            drop(place);
        });
    }
}

fn builder(front: &Front) -> Builder<TokioExecutor> {
    let config = front.config();
    let mut builder = Builder::new(TokioExecutor::new());
    let buffer = config.max_header_bytes.max(8 << 10);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.idle_timeout).max_buf_size(buffer);
    let header_list = u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(header_list)
        .keep_alive_interval(config.idle_timeout / 2);
    builder
}

async fn connection(
    front: &Arc<Front>,
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    ended: CancellationToken,
) {
    // Answers are written whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let caller = caller(address.ip());
    let Some(tls) = tls else {
        return converse(front, builder, stream, caller, ended).await;
    };
    match tokio::time::timeout(front.config().idle_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(front, builder, stream, caller, ended).await,
        Ok(Err(error)) => debug!(%error, "no TLS"),
        Err(_) => debug!("no TLS in time"),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    front: &Arc<Front>,
    builder: &Builder<TokioExecutor>,
    stream: S,
    caller: Caller,
    ended: CancellationToken,
) {
    let service = service_fn(move |request| Arc::clone(front).answer(request, caller));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! { biased;
        () = ended.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        debug!(error, "a connection ended early");
    }
}

/// Who sends requests: an address; on this machine, where all have the same, a connection.
fn caller(address: IpAddr) -> Caller {
    match address {
        address if address.is_loopback() => Caller(LOCAL.fetch_add(1, Ordering::Relaxed)),
        // Above all connections of this machine.
        IpAddr::V4(address) => Caller(1 << 63 | u64::from(address.to_bits())),
        IpAddr::V6(address) => Caller(1 << 63 | u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
    }
}
