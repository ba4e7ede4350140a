// SPDX-License-Identifier: AGPL-3.0-only
//! One connection to the server that takes writes. In: its address, or Sentinels that know it. Out: a connection with
//! the scripts loaded, and the task that drives it. Owned by the link, which dials again when it ends.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use holdfast_service::Secret;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult, Value};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio_rustls::TlsConnector;

use super::address::{Address, Host};
use super::link::judge;
use super::reply::{Reply, text};
use super::script;
use crate::unavailable::Cause;
use crate::{Settings, Unavailable};

/// `cluster.ca_file` can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cluster.ca_file: cannot use {} for TLS: {reason}", file.display())]
pub struct CaFileError {
    /// The file.
    pub file: PathBuf,
    /// Why not.
    pub reason: String,
}

/// What hears of pushed messages.
pub(super) type Listener = Arc<dyn Fn(PushInfo) -> Result<(), Infallible> + Send + Sync>;

/// Everything that is needed to connect.
#[derive(Clone)]
pub(super) struct Dialler {
    address: Address,
    tls: Option<TlsConnector>,
    channel: Option<(String, Listener)>,
    pub(super) timeout: std::time::Duration,
}

/// A connection, and what moves its bytes as long as it is polled.
pub(super) struct Dialled {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) server: Server,
}

/// Which server process it is that answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// Another one with each start; empty where we may not ask.
    pub(super) run: String,
    /// When it began, milliseconds on its own clock, rounded towards now; `None` where we may not ask.
    pub(super) began_ms: Option<u64>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialler {
    pub(super) fn new(settings: &Settings) -> Result<Dialler, CaFileError> {
        let tls = match settings.address.tls {
            true => Some(TlsConnector::from(Arc::new(tls(settings.ca_file.as_ref())?))),
            false => None,
        };
        let timeout = settings.times.timeout;
        Ok(Dialler { address: settings.address.clone(), tls, channel: None, timeout })
    }

    /// The same, for connections that hear what is published on a channel.
    pub(super) fn listening(&self, channel: String, listener: Listener) -> Dialler {
        Dialler { channel: Some((channel, listener)), ..self.clone() }
    }

    /// Connects, and makes the connection ready for calls.
    pub(super) async fn dial(&self) -> Result<Dialled, Unavailable> {
        let mut hosts = self.address.hosts.clone();
        if let Some(sentinel) = &self.address.sentinel {
            hosts = vec![self.ask_sentinels(&sentinel.service, sentinel.password.as_ref()).await?];
        }
        let Some(host) = hosts.first() else {
            return Err(Cause::Unreachable("no address".to_owned()).into());
        };
        let mut info = RedisConnectionInfo::default()
            .set_db(i64::from(self.address.database))
            .set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.address.user {
            info = info.set_username(user);
        }
        let (connection, driver) = self.open(host, info, self.address.password.as_ref()).await?;
        self.prepare(connection, driver).await.map_err(|error| judge(&error))
    }

    /// Loads the scripts, subscribes, asks who is there.
    async fn prepare(
        &self,
        mut connection: MultiplexedConnection,
        mut driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> RedisResult<Dialled> {
        let setup = async {
            takes_writes(&mut connection).await?;
            let mut load = redis::pipe();
            for script in script::ALL {
                load.add_command(script.load());
            }
            for loaded in connection.send_packed_commands(&load, 0, script::ALL.len()).await? {
                loaded.extract_error()?;
            }
            if let Some((channel, _)) = &self.channel
                && let Err(error) = connection.subscribe(channel).await
            {
                if !is_forbidden(&error) {
                    return Err(error);
                }
                tracing::warn!(
                    "the shared store's user may not subscribe: hand-overs wait for the next poll"
                );
            }
            server(&mut connection).await
        };
        let server = select! { biased;
            server = setup => server?,
            () = &mut driver => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
        };
        Ok(Dialled { connection, driver, server })
    }

    /// The first answer that a Sentinel gives.
    async fn ask_sentinels(&self, service: &str, password: Option<&Secret>) -> Result<Host, Unavailable> {
        let mut why = Unavailable::from(Cause::Starting);
        for host in &self.address.hosts {
            match self.ask_sentinel(host, service, password).await {
                Ok(Some(host)) => return Ok(host),
                Ok(None) => {
                    let unknown = format!("the Sentinel at {host} doesn't know the service \"{service}\"");
                    why = Cause::Refused(unknown).into();
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn ask_sentinel(
        &self,
        host: &Host,
        service: &str,
        password: Option<&Secret>,
    ) -> Result<Option<Host>, Unavailable> {
        let asking = async {
            let (mut connection, mut driver) =
                self.open(host, RedisConnectionInfo::default(), password).await?;
            let mut question = redis::cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            let answer = select! { biased;
                answer = ask(&mut connection, &question) => answer.map_err(|error| judge(&error))?,
                () = &mut driver => return Err(Cause::Unreachable(format!("{host} hung up")).into()),
            };
            if answer == Value::Nil {
                return Ok(None);
            }
            let mut answer = Reply::list(answer)?;
            Ok(Some(Host { name: answer.text()?, port: answer.parsed()? }))
        };
        // One that is silent must not keep us from the next.
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(Cause::Unreachable(format!("the Sentinel at {host} is silent")).into()),
        }
    }

    async fn open(
        &self,
        host: &Host,
        info: RedisConnectionInfo,
        password: Option<&Secret>,
    ) -> Result<(MultiplexedConnection, Pin<Box<dyn Future<Output = ()> + Send>>), Unavailable> {
        let unreachable = |error: std::io::Error| Cause::Unreachable(format!("{host}: {error}"));
        let tcp = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(host.name.clone())
                    .map_err(|_| Cause::Refused(format!("{} is no name for TLS", host.name)))?;
                Box::new(tls.connect(name, tcp).await.map_err(unreachable)?)
            }
        };
        // How long an answer may take is for the callers to say.
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let (Some((_, listener)), ProtocolVersion::RESP3) = (&self.channel, info.protocol()) {
            let listener = Arc::clone(listener);
            config = config.set_push_sender(move |push| listener(push));
        }
        let info = password.into_iter().fold(info, |info, password| info.set_password(password.expose()));
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| judge(&error))?;
        Ok((connection, Box::pin(driver)))
    }
}

/// Refuses a replica: after a failover, a Sentinel or a name may still lead to the server that was the primary.
async fn takes_writes(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role = match ask(connection, &redis::cmd("ROLE")).await {
        Err(error) if is_forbidden(&error) => return Ok(()),
        role => role?,
    };
    let role = Reply::list(role).and_then(|mut role| role.text());
    match role.as_deref() {
        Ok("master") => Ok(()),
        _ => Err(std::io::Error::other("it is a replica, which takes no writes").into()),
    }
}

/// Asks the server which run of it this is, and when that began.
async fn server(connection: &mut MultiplexedConnection) -> RedisResult<Server> {
    let asked = ask(connection, redis::cmd("INFO").arg("server")).await;
    let told = match asked {
        Err(error) if is_forbidden(&error) => return Ok(Server::default()),
        told => told?,
    };
    let told = match told {
        Value::VerbatimString { text, .. } => text,
        told => text(told).unwrap_or_default(),
    };
    let field = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let time = ask(connection, &redis::cmd("TIME")).await?;
    let seconds: Option<u64> = Reply::list(time).and_then(|mut time| time.parsed()).ok();
    let uptime: Option<u64> = field("uptime_in_seconds").and_then(|uptime| uptime.parse().ok());
    // Both are rounded down; a second more is on the safe side.
    let began_ms = seconds.zip(uptime).map(|(now, uptime)| (now + 1).saturating_sub(uptime) * 1000);
    Ok(Server { run: field("run_id").unwrap_or_default().to_owned(), began_ms })
}

/// Asks one thing; an error that comes as an answer is an error.
async fn ask(connection: &mut MultiplexedConnection, question: &Cmd) -> RedisResult<Value> {
    connection.send_packed_command(question).await?.extract_error()
}

fn is_forbidden(error: &redis::RedisError) -> bool {
    error.code() == Some("NOPERM")
}

fn tls(ca_file: Option<&PathBuf>) -> Result<ClientConfig, CaFileError> {
    let roots = match ca_file {
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        Some(file) => {
            let wrong = |reason: String| CaFileError { file: file.clone(), reason };
            let mut roots = RootCertStore::empty();
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("no certificate in it".to_owned()));
            }
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map(|versions| versions.with_root_certificates(roots).with_no_client_auth());
    config.map_err(|error| CaFileError {
        file: ca_file.cloned().unwrap_or_default(),
        reason: error.to_string(),
    })
}
