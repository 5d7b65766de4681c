//! The files of an identity: a certificate with its chain, its key, and the authority of clients.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::certificate::{CertificateError, CertificateValidity};

/// The protocols that a client may choose from, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// More than any chain of certificates or list of authorities; what is larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why TLS cannot be served with some files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: there is no {what} in PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The certificate is damaged.
    #[error("{path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("{certificate} and {key}: {source}")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authority of clients cannot be used.
    #[error("{path}: {message}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// The files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to an authority.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show. A client without one is served all the same, and needs a token.
    pub client_ca: Option<PathBuf>,
}

/// What tells two versions of a file apart.
pub(crate) type FileStamp = Option<(SystemTime, u64, u64)>;

impl TlsFiles {
    /// Reads the files, and tells for how long the certificate is valid.
    ///
    /// # Errors
    /// TLS cannot be served with them.
    pub fn check(&self) -> Result<CertificateValidity, TlsError> {
        self.load().map(|(_, validity)| validity)
    }

    /// What TLS is served with.
    pub(crate) fn load(&self) -> Result<(Arc<ServerConfig>, CertificateValidity), TlsError> {
        let chain = certificates(&self.certificate)?;
        let validity = CertificateValidity::of(&chain[0], SystemTime::now());
        let validity = validity.map_err(|source| TlsError::Certificate { path: self.certificate.clone(), source })?;
        let key = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key);
        let key = key.map_err(|source| TlsError::Pem { path: self.key.clone(), what: "private key", source })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of all versions");
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let failed = |error: &dyn std::error::Error| TlsError::Authority {
                    path: path.clone(),
                    message: error.to_string(),
                };
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|error| failed(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.allow_unauthenticated().build().map_err(|error| failed(&error))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        if self.client_ca.is_some() {
            // A session that is resumed would keep the client's certificate beyond its end.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok((Arc::new(config), validity))
    }

    /// The versions of all files.
    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        let files = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        files.into_iter().flatten().map(|path| stamp(path)).collect()
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Io { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(failed(io::Error::other(format!("the file has {bytes} bytes, the limit is {MAX_FILE_BYTES}"))));
    }
    fs::read(path).map_err(failed)
}

/// The version of a file; none while it is missing.
fn stamp(path: &Path) -> FileStamp {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}
