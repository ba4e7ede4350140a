// SPDX-License-Identifier: AGPL-3.0-only
//! TLS of a listener: two PEM files come in, a server configuration goes out.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::settings::Section;

/// Certificate and key of a listener, as every listener's `tls = { cert, key }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM, the listener's own first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The setting that names both, such as `ws.tls`.
    pub setting: String,
}

/// A listener's certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds nothing of the kind.
    #[error("{setting}: cannot use {file} for TLS: {reason}")]
    File {
        /// The key that names it.
        setting: String,
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The two don't fit.
    #[error("{setting}: certificate and key for TLS don't go together: {reason}")]
    Mismatch {
        /// The key that names them.
        setting: String,
        /// What is wrong with them.
        reason: rustls::Error,
    },
}

impl Tls {
    /// Reads the key `tls` of a listener's section; `None` means plain TCP.
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let pair = |tls: &Section<'_>| (tls.optional_path("cert"), tls.optional_path("key"));
        match section.optional_section("tls", pair)? {
            (Some(cert), Some(key)) => Some(Self { cert, key, setting: section.path_of("tls") }),
            _ => {
                section.problem("tls", "both cert and key are needed, each the path of a PEM file");
                None
            }
        }
    }

    /// Loads both files.
    ///
    /// # Errors
    /// A file can't be read, holds nothing of the kind, or the two don't fit.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let wrong = |key: &str, file: &PathBuf, reason: String| TlsError::File {
            setting: format!("{}.{key}", self.setting),
            file: file.clone(),
            reason,
        };
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong("cert", &self.cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong("cert", &self.cert, "no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| wrong("key", &self.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|reason| TlsError::Mismatch { setting: self.setting.clone(), reason })?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_holds_no_certificate_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cert.pem");
        let tls = Tls { cert: file.clone(), key: file.clone(), setting: "ws.tls".to_owned() };
        let said = |tls: &Tls| tls.server_config().expect_err("it can't be used").to_string();
        let named = format!("ws.tls.cert: cannot use {}", file.display());
        assert!(said(&tls).starts_with(&named), "{}", said(&tls));
        std::fs::write(&file, "no certificate").expect("writes");
        assert!(said(&tls).starts_with(&named), "{}", said(&tls));
    }
}
