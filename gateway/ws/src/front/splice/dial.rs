// SPDX-License-Identifier: AGPL-3.0-only
//! Opens a connection to another replica's front. In: its address, a ticket, the client's name. Out: a WebSocket on
//! which it has said nothing yet.
//!
//! Over TLS if our own front has it: replicas share their settings. The certificate must be ours, or one that the public
//! trusts for the host of `ws.public_url`, so that replicas with the old and the new one reach each other.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{io::BufReader, net::TcpStream};
use tokio_rustls::TlsConnector;
use tokio_websockets::{ClientBuilder, Limits, WebSocketStream};

use super::ticket;
use crate::{settings::Config, start::WsError, upstream::Transport};

/// A connection to the owner of a client's shard.
pub(in crate::front) type Socket = WebSocketStream<BufReader<Transport>>;

/// As much as the front writes at once.
const READ_BUFFER: usize = 64 * 1024;
/// A guild as it is told to a client can outgrow what Discord once sent of it.
const GROWTH: usize = 4;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the replica can't be reached: {0}")]
    Io(#[from] std::io::Error),
    #[error("the replica doesn't take the client: {0}")]
    WebSocket(#[from] tokio_websockets::Error),
    #[error("its address, or the client's name, is none: {0}")]
    Request(#[from] http::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl DialError {
    /// Whether it has said that it doesn't have the shard.
    pub(super) fn says_no(&self) -> bool {
        use tokio_websockets::{Error, upgrade};
        matches!(self, Self::WebSocket(Error::Upgrade(upgrade::Error::DidNotSwitchProtocols(503))))
    }
}

/// Opens connections.
pub(super) struct Dialler {
    tls: Option<TlsConnector>,
    max_payload: usize,
}

impl Dialler {
    pub(super) fn new(config: &Config) -> Result<Self, WsError> {
        let tls = config.tls.as_ref().map(|tls| connector(&tls.cert, &config.public_url)).transpose()?;
        Ok(Self { tls, max_payload: config.discord.max_payload_bytes.saturating_mul(GROWTH) })
    }

    pub(super) async fn dial(
        &self,
        address: &str,
        ticket: &str,
        name: Option<&str>,
    ) -> Result<Socket, DialError> {
        let name = name.map(|name| format!("&name={name}")).unwrap_or_default();
        let uri: http::Uri =
            format!("ws://{address}/?v=10&encoding=json{name}").parse().map_err(http::Error::from)?;
        let header = HeaderValue::from_str(ticket).map_err(http::Error::from)?;
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let transport = match &self.tls {
            None => Transport::Plain(tcp),
            Some(tls) => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
                Transport::Tls(Box::new(tls.connect(name, tcp).await?))
            }
        };
        let (socket, _response) = ClientBuilder::from_uri(uri)
            .add_header(HeaderName::from_static(ticket::HEADER), header)?
            .limits(Limits::default().max_payload_len(Some(self.max_payload)))
            .connect_on(BufReader::with_capacity(READ_BUFFER, transport))
            .await?;
        Ok(socket)
    }
}

fn connector(cert: &std::path::Path, public_url: &str) -> Result<TlsConnector, WsError> {
    let own = CertificateDer::from_pem_file(cert).map_err(std::io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let public = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let host = public_url.parse::<http::Uri>().ok().and_then(|url| url.host().map(ToOwned::to_owned));
    let verifier = Fleet {
        own,
        host: host.and_then(|host| ServerName::try_from(host).ok()),
        public: public.build().map_err(std::io::Error::other)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Knows a replica of ours by its certificate: an address of the inner network isn't in it.
#[derive(Debug)]
struct Fleet {
    own: CertificateDer<'static>,
    /// What the public knows the fleet by.
    host: Option<ServerName<'static>>,
    public: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Fleet {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *certificate == self.own {
            return Ok(ServerCertVerified::assertion());
        }
        let host = self.host.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        self.public.verify_server_cert(certificate, chain, host, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.public.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.public.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.public.supported_verify_schemes()
    }
}
