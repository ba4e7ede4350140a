// SPDX-License-Identifier: AGPL-3.0-only
//! One connection to RabbitMQ, from its first byte to its last. In: settings. Out: a [`Session`], or why there is
//! none. Nothing is recovered here: a session that ends is followed by another (`link.rs`).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Error};
use socket2::{SockRef, Socket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::refusal::{During, refusal, words};
use crate::address::Address;
use crate::error::Refusal;
use crate::settings::BrokerSettings;
use crate::state::Role;

/// Closing in order takes one round trip. A process gives its last tasks 2 s.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Why something at the broker did not work.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Trying again doesn't help.
    Refused(Refusal),
    /// It may.
    Failed(String),
}

impl Failure {
    pub(super) fn of(error: &Error, during: During) -> Self {
        match refusal(error, during) {
            Some(refusal) => Self::Refused(refusal),
            None => Self::Failed(words(error)),
        }
    }
}

/// What is needed to connect, read once.
pub(super) struct Connector {
    address: Address,
    tls: OwnedTLSConfig,
    name: &'static str,
    within: Duration,
}

/// A connection that is there, until `lost` says otherwise.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Cancelled when the connection has ended.
    pub(super) lost: CancellationToken,
    socket: Socket,
}

/// Where the socket is kept while a connection is being made.
type Kept = Arc<Mutex<Option<Socket>>>;

impl Connector {
    pub(super) fn new(settings: &BrokerSettings, role: Role) -> Result<Self, Refusal> {
        let mut address = Address::parse(&settings.url).map_err(Refusal::Address)?;
        let seconds = settings.heartbeat.as_secs().clamp(1, u64::from(u16::MAX));
        address.uri.query.heartbeat = u16::try_from(seconds).ok();
        let mut tls = OwnedTLSConfig::default();
        if let Some(file) = &settings.ca {
            let unreadable = |error| Refusal::Certificate(format!("cannot read {}: {error}", file.display()));
            tls.cert_chain = Some(std::fs::read_to_string(file).map_err(unreadable)?);
        }
        Ok(Self { address, tls, name: role.name(), within: settings.connect_timeout })
    }

    /// Makes one attempt.
    pub(super) async fn connect(&self) -> Result<Session, Failure> {
        let kept = Kept::default();
        let outcome = self.open(&kept).await;
        let socket = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, socket) {
            (Ok(connection), Some(socket)) => {
                Ok(Session { connection, lost: CancellationToken::new(), socket })
            }
            (Ok(_), None) => Err(Failure::Failed("the connection has no socket".to_owned())),
            (Err(failure), socket) => {
                // A broker that accepts and then says nothing would keep the library's thread for ever.
                socket.iter().for_each(cut);
                Err(failure)
            }
        }
    }

    async fn open(&self, kept: &Kept) -> Result<Connection, Failure> {
        let failed = |error| Failure::of(&error, During::Connect);
        let runtime = lapin::runtime::default_runtime().map_err(failed)?;
        let name = format!("holdfast {}", self.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let (tls, within, keep) = (self.tls.clone(), self.within, Arc::clone(kept));
        // Written within the call, since the runtime's type has no name here.
        let connecting = Connection::connector(
            self.address.uri.clone(),
            runtime,
            async move |uri, runtime| {
                let open = async {
                    let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
                    let stream = plain.connect_with_config_async(TLSConfig::default(), &runtime).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        *keep.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(prepare(SockRef::from(stream.get_ref()))?);
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls.as_ref()).await,
                    }
                };
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
                timeout(within, open).await.unwrap_or_else(late).map_err(Error::from)
            },
            properties,
        );
        match timeout(self.within, connecting).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(Failure::Failed(format!("no answer from {} in time", self.address.place()))),
        }
    }
}

impl Session {
    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        self.connection.create_channel().await
    }

    /// Ends it in order, or by force when that takes too long.
    pub(super) async fn close(&self) {
        let closed = timeout(CLOSE_WITHIN, self.connection.close(200, "OK".into())).await;
        if !matches!(closed, Ok(Ok(()))) {
            self.cut();
        }
        self.lost.cancel();
    }

    /// Ends it at once. What was written and has not left this machine is thrown away.
    pub(super) fn cut(&self) {
        cut(&self.socket);
    }
}

/// A second handle on the socket. What an ended connection has not yet sent must not arrive after what its successor
/// sends, so closing throws it away.
fn prepare(socket: SockRef<'_>) -> io::Result<Socket> {
    socket.set_linger(Some(Duration::ZERO))?;
    socket.try_clone()
}

fn cut(socket: &Socket) {
    // It may have ended by itself.
    let _ = socket.shutdown(std::net::Shutdown::Both);
}
