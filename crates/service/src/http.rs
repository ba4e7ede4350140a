// SPDX-License-Identifier: AGPL-3.0-only
//! Connections of HTTP callers: HTTP/1.1 and HTTP/2, with or without TLS. In: a listener, bounds, what answers. Out:
//! requests to that, each with who sends it. One task per connection, which belongs to the given owner.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Tasks, Tls, TlsError};

/// The pause after the system has refused a connection for want of something.
const PAUSE: Duration = Duration::from_millis(50);

/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 1_024;

/// What callers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpBounds {
    /// Most connections.
    pub max_connections: usize,
    /// Largest head of a request.
    pub max_header_bytes: usize,
    /// How long a connection may be idle, and a head may take to come.
    pub idle_timeout: Duration,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Number of the connection within this process.
    pub connection: u64,
}

/// A listener of HTTP requests.
pub struct HttpListener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    bounds: HttpBounds,
    connections: Gauge<i64, AtomicI64>,
}

/// What answers requests.
pub trait Answers: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Answers one. It is dropped when its caller leaves.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

impl HttpListener {
    /// Takes over a listener; open connections are counted in `connections`.
    ///
    /// # Errors
    /// Certificate or key can't be used.
    pub fn new(
        listener: TcpListener,
        tls: Option<&Tls>,
        bounds: HttpBounds,
        connections: Gauge<i64, AtomicI64>,
    ) -> Result<Self, TlsError> {
        Ok(Self { listener, tls: tls.map(acceptor).transpose()?, bounds, connections })
    }

    /// Accepts connections until `tasks` end, which have them, too; each ends with the answer that is under way then.
    pub async fn serve<A: Answers>(self, answers: Arc<A>, tasks: Tasks) {
        let places = Arc::new(Semaphore::new(self.bounds.max_connections));
        let (builder, ended) = (Arc::new(self.builder()), tasks.token().clone());
        let numbers = AtomicU64::new(0);
        loop {
            // First a place, then a connection: beyond the bound they wait in the system's queue.
            let accepted = tokio::select! { biased;
                () = ended.cancelled() => return,
                accepted = async {
                    let place = Arc::clone(&places).acquire_owned().await;
                    (place, self.listener.accept().await)
                } => accepted,
            };
            let (Ok(place), Ok((stream, address))) = accepted else {
                warn!("a connection could not be accepted: are there enough open files?");
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let peer = Peer { address: address.ip(), connection: numbers.fetch_add(1, Ordering::Relaxed) };
            let connection = Connection {
                answers: Arc::clone(&answers),
                builder: Arc::clone(&builder),
                tls: self.tls.clone(),
                within: self.bounds.idle_timeout,
                ended: ended.clone(),
                peer,
            };
            let open = self.connections.clone();
            tasks.spawn("connection", async move {
                open.inc();
                connection.run(stream).await;
                open.dec();
                drop(place);
            });
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let bounds = self.bounds;
        let mut builder = Builder::new(TokioExecutor::new());
        let buffer = bounds.max_header_bytes.max(8 << 10);
        let timeout = bounds.idle_timeout;
        builder.http1().timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(buffer);
        let header_list = u32::try_from(bounds.max_header_bytes).unwrap_or(u32::MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(header_list)
            .keep_alive_interval(timeout / 2);
        builder
    }
}

/// TLS with both versions of HTTP.
fn acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let mut config = (*tls.server_config()?).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Connection<A> {
    answers: Arc<A>,
    builder: Arc<Builder<TokioExecutor>>,
    tls: Option<TlsAcceptor>,
    within: Duration,
    ended: CancellationToken,
    peer: Peer,
}

impl<A: Answers> Connection<A> {
    async fn run(self, stream: TcpStream) {
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            return self.converse(stream).await;
        };
        let handshake = tokio::time::timeout(self.within, tls.accept(stream));
        let Some(handshake) = self.ended.run_until_cancelled(handshake).await else { return };
        match handshake {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => debug!(%error, "no TLS"),
            Err(_) => debug!("no TLS in time"),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let Self { answers, builder, ended, peer, .. } = self;
        let service = service_fn(move |request| {
            let answers = Arc::clone(&answers);
            async move { Ok::<_, Infallible>(answers.answer(request, peer).await) }
        });
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
}
