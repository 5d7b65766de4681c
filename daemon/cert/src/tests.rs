//! The certificates, as TLS libraries see them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::{CertFiles, CertPair, ClientName, Error, HostNames, create_for_client, create_for_server};

const DAY: Duration = Duration::from_secs(86_400);

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn roots(dir: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&dir.join("ca.pem"))).unwrap();
    Arc::new(roots)
}

/// Whether a client that trusts the authority of `dir` accepts the daemon's certificate for a name at a time from now.
fn is_accepted(dir: &Path, name: &str, after: Duration) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(dir), provider).build().unwrap();
    let (server, name) = (certificate(&dir.join("server.pem")), ServerName::try_from(name).unwrap());
    let time = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after);
    verifier.verify_server_cert(&server, &[], &name, &[], time).map(drop)
}

fn is_accepted_client(dir: &Path, pair: &CertPair) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(dir), provider).build().unwrap();
    verifier.verify_client_cert(&certificate(&pair.certificate), &[], UnixTime::now()).map(drop)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names() -> HostNames {
    HostNames::parse(&["desk.local", "192.168.1.20"]).unwrap()
}

#[test]
fn the_pair_of_a_daemon_is_valid_for_its_names_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("tls");
    let created = create_for_server(&dir, &names(), DAY * 30).unwrap();
    assert!(created.is_new_authority);
    assert_eq!(created.pair, CertFiles::in_dir(&dir).server());
    for name in ["desk.local", "localhost", "127.0.0.1", "::1", "192.168.1.20"] {
        is_accepted(&dir, name, Duration::ZERO).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["other.local", "192.168.1.21"] {
        assert!(is_accepted(&dir, name, Duration::ZERO).is_err(), "{name}");
    }
    is_accepted(&dir, "desk.local", DAY * 29).unwrap();
    assert!(is_accepted(&dir, "desk.local", DAY * 31).is_err(), "it has expired");
    let key = PrivateKeyDer::from_pem_file(&created.pair.key).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    config.with_single_cert(vec![certificate(&created.pair.certificate)], key).unwrap();
}

#[test]
fn only_the_owner_can_read_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let created = create_for_server(dir.path(), &names(), DAY).unwrap();
    let client = create_for_client(dir.path(), &ClientName::parse("laptop").unwrap(), DAY).unwrap();
    for pair in [&created.authority, &created.pair, &client.pair] {
        assert_eq!((mode(&pair.key), mode(&pair.certificate)), (0o600, 0o644), "{pair:?}");
    }
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    let names = ["ca-key.pem", "ca.pem", "client-laptop-key.pem", "client-laptop.pem", "server-key.pem", "server.pem"];
    assert_eq!(files, names, "no other file is left");
}

#[test]
fn nothing_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    create_for_server(dir.path(), &names(), DAY).unwrap();
    let read = || {
        ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"].map(|name| fs::read(dir.path().join(name)).unwrap())
    };
    let before = read();
    let error = create_for_server(dir.path(), &names(), DAY).unwrap_err();
    assert!(matches!(&error, Error::Exists(paths) if paths.len() == 2), "{error}");
    assert!(error.to_string().contains("move these files away"), "{error}");
    assert_eq!(read(), before);
    let laptop = ClientName::parse("laptop").unwrap();
    create_for_client(dir.path(), &laptop, DAY).unwrap();
    assert!(matches!(create_for_client(dir.path(), &laptop, DAY), Err(Error::Exists(_))));
}

#[test]
fn a_client_is_trusted_as_a_client_and_not_as_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let server = create_for_server(dir.path(), &names(), DAY).unwrap();
    let client = create_for_client(dir.path(), &ClientName::parse("laptop").unwrap(), DAY).unwrap();
    is_accepted_client(dir.path(), &client.pair).unwrap();
    assert!(is_accepted_client(dir.path(), &server.pair).is_err(), "a daemon's certificate is none of a client");
    let der = certificate(&client.pair.certificate);
    assert!(der.windows(6).any(|bytes| bytes == b"laptop"), "the common name is in it");
}

#[test]
fn the_authority_stays_when_the_daemon_gets_another_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let first = create_for_server(dir.path(), &names(), DAY).unwrap();
    let authority = fs::read(&first.authority.certificate).unwrap();
    fs::remove_file(&first.pair.certificate).unwrap();
    fs::remove_file(&first.pair.key).unwrap();
    let second = create_for_server(dir.path(), &HostNames::parse(&["new.local"]).unwrap(), DAY).unwrap();
    assert!(!second.is_new_authority);
    assert_eq!(fs::read(&second.authority.certificate).unwrap(), authority);
    is_accepted(dir.path(), "new.local", Duration::ZERO).unwrap();
    assert!(is_accepted(dir.path(), "desk.local", Duration::ZERO).is_err());
}

#[test]
fn an_authority_that_is_not_whole_signs_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let laptop = ClientName::parse("laptop").unwrap();
    assert!(matches!(create_for_client(dir.path(), &laptop, DAY), Err(Error::NoAuthority(_))));
    create_for_server(dir.path(), &names(), DAY).unwrap();
    create_for_server(other.path(), &names(), DAY).unwrap();
    fs::copy(other.path().join("ca-key.pem"), dir.path().join("ca-key.pem")).unwrap();
    assert!(matches!(create_for_client(dir.path(), &laptop, DAY), Err(Error::OtherKey { .. })));
    fs::write(dir.path().join("ca-key.pem"), "no key").unwrap();
    assert!(matches!(create_for_client(dir.path(), &laptop, DAY), Err(Error::InvalidAuthority { .. })));
    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    assert!(matches!(create_for_client(dir.path(), &laptop, DAY), Err(Error::HalfAuthority { .. })));
    assert!(!dir.path().join("client-laptop.pem").exists());
}
