//! TLS on the port, with files that may change while it is served.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artel_accept::LogThrottle;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::{CertificateValidity, common_name};
use crate::tls_files::{FileStamp, TlsError, TlsFiles};

/// How often the files are looked at, if there are handshakes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a certificate that ends soon, or has ended, is mentioned.
const VALIDITY_LOG_INTERVAL: Duration = Duration::from_secs(86_400);

/// What the port is encrypted with: the newest files that are valid.
#[derive(Debug)]
pub struct TlsIdentity {
    files: TlsFiles,
    state: Mutex<IdentityState>,
    failures: Mutex<LogThrottle>,
}

#[derive(Debug)]
struct IdentityState {
    config: Arc<ServerConfig>,
    /// The versions of the files that were read last, valid or not.
    stamps: Vec<FileStamp>,
    checked_at: Instant,
    /// When the log was last told how long the certificate is valid.
    validity_logged_at: Instant,
    /// Whether the files are being looked at: on a disk that hangs, by one thread alone.
    is_reading: bool,
}

impl TlsIdentity {
    /// Reads the files. An expired certificate is served, and the log says so.
    ///
    /// # Errors
    /// TLS cannot be served with them.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        // The stamps first, so that a change while the files are read is not missed.
        let stamps = files.stamps();
        let (config, validity) = files.load()?;
        log_validity(&files, &validity);
        let now = Instant::now();
        let state = IdentityState { config, stamps, checked_at: now, validity_logged_at: now, is_reading: false };
        Ok(Arc::new(Self { files, state: Mutex::new(state), failures: Mutex::default() }))
    }

    /// Encrypts a connection: its stream, and the common name of the certificate that the client has shown, if it has. `None`
    /// if the handshake failed.
    pub(crate) async fn accept<S>(self: &Arc<Self>, io: S, peer: SocketAddr) -> Option<(TlsStream<S>, Option<String>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match TlsAcceptor::from(self.config().await).accept(io).await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let name = certificates.and_then(|chain| common_name(chain.first()?));
                Some((stream, name))
            }
            Err(error) => {
                let failed = self.failures.lock().unwrap_or_else(PoisonError::into_inner).count();
                if let Some(failed) = failed {
                    tracing::warn!(%peer, %error, failed, "TLS handshakes failed");
                }
                None
            }
        }
    }

    /// The newest configuration.
    async fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.is_due() {
            let identity = self.clone();
            // A disk may hang, which a handshake's deadline ends, and others go on with what there is.
            let look = move || {
                identity.reload();
                identity.state().is_reading = false;
            };
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                self.state().is_reading = false;
                tracing::error!(%error, "looking at the files of TLS panicked");
            }
        }
        self.state().config.clone()
    }

    /// Whether it is time to look at the files. It is not again for a while, so that one handshake looks at them.
    fn is_due(&self) -> bool {
        let mut state = self.state();
        let is_due = !state.is_reading && state.checked_at.elapsed() >= CHECK_INTERVAL;
        if is_due {
            (state.checked_at, state.is_reading) = (Instant::now(), true);
        }
        is_due
    }

    /// Reads the files if they have changed.
    fn reload(&self) {
        let stamps = self.files.stamps();
        let is_log_due = self.state().validity_logged_at.elapsed() >= VALIDITY_LOG_INTERVAL;
        if self.state().stamps == stamps && !is_log_due {
            return;
        }
        let loaded = self.files.load();
        let mut state = self.state();
        let is_changed = state.stamps != stamps;
        (state.stamps, state.validity_logged_at) = (stamps, Instant::now());
        match loaded {
            Ok((config, validity)) => {
                state.config = config;
                drop(state);
                if is_changed {
                    tracing::info!(certificate = %self.files.certificate.display(), "reloaded the certificate");
                }
                log_validity(&self.files, &validity);
            }
            // A pair of which only one file was written yet is such a case: the other one is a change as well.
            Err(error) => tracing::error!(%error, "failed to reload the certificate; the one before stays"),
        }
    }

    fn state(&self) -> MutexGuard<'_, IdentityState> {
        // Nothing in here panics in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_validity(files: &TlsFiles, validity: &CertificateValidity) {
    let certificate = files.certificate.display();
    match validity {
        CertificateValidity::Valid { .. } => {}
        CertificateValidity::EndsSoon { .. } => tracing::warn!(%certificate, "{validity}"),
        CertificateValidity::Expired { .. } | CertificateValidity::Future { .. } => {
            tracing::error!(%certificate, "{validity}: clients refuse it until the file is replaced");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    fn write_pair(dir: &TempDir) -> String {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        cert.pem()
    }

    fn files(dir: &TempDir) -> TlsFiles {
        let path = |name| dir.path().join(name);
        TlsFiles { certificate: path("cert.pem"), key: path("key.pem"), client_ca: None }
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(&dir);
        let identity = TlsIdentity::load(files(&dir)).unwrap();
        let config = || Arc::as_ptr(&identity.state().config);
        let first = config();
        identity.reload();
        assert_eq!(config(), first, "nothing has changed");
        write_pair(&dir);
        identity.reload();
        let second = config();
        assert_ne!(second, first);
        fs::write(dir.path().join("key.pem"), "no key").unwrap();
        identity.reload();
        assert_eq!(config(), second);
        fs::remove_file(dir.path().join("cert.pem")).unwrap();
        identity.reload();
        assert_eq!(config(), second);
        write_pair(&dir);
        identity.reload();
        assert_ne!(config(), second);
    }

    #[test]
    fn files_that_cannot_be_served_are_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |files: TlsFiles| files.check().unwrap_err().to_string();
        assert!(refused(files(&dir)).contains("cert.pem: No such file"), "{}", refused(files(&dir)));
        write_pair(&dir);
        let authority = TlsFiles { client_ca: Some(dir.path().join("key.pem")), ..files(&dir) };
        assert!(refused(authority.clone()).contains("no certificate in PEM"), "{}", refused(authority));
        let CertifiedKey { signing_key, .. } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        assert!(matches!(files(&dir).check(), Err(TlsError::Pair { .. })), "the key of another certificate");
    }

    #[test]
    fn an_expired_certificate_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2021, 1, 1);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        assert!(matches!(files(&dir).check(), Ok(CertificateValidity::Expired { .. })));
    }
}
