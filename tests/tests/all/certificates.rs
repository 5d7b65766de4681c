//! TLS, tokens and client certificates in one daemon, for plain clients and for the verbs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_tests::https::{exchange, tls};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, daemon};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a test looks whether it has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The name of the daemon's host.
const HOST: &str = "localhost";

/// An authority, and what it signs.
struct HomeAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, in PEM.
type PemPair = [String; 2];

impl HomeAuthority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, params: &CertificateParams) -> PemPair {
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()]
    }

    fn server(&self) -> PemPair {
        self.sign(&CertificateParams::new([HOST.to_owned()]).unwrap())
    }

    fn expired_server(&self) -> PemPair {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    fn client(&self, name: &str) -> PemPair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }
}

fn write(dir: &Path, name: &str, pair: &PemPair) -> [PathBuf; 2] {
    let paths = [dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem"))];
    paths.iter().zip(pair).for_each(|(path, text)| fs::write(path, text).unwrap());
    paths
}

/// A daemon with TLS whose clients may show certificates of the same authority.
async fn start(authority: &HomeAuthority) -> Daemon {
    let settings = "tls: {certificate: catalog/server.pem, key: catalog/server-key.pem, client_ca: catalog/ca.pem}\n";
    let [certificate, key] = authority.server();
    let daemon = daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).with_settings(settings);
    let daemon = daemon.with_file("ca.pem", authority.certificate.as_bytes());
    daemon.with_file("server.pem", certificate.as_bytes()).with_file("server-key.pem", key.as_bytes()).start().await
}

fn port(daemon: &Daemon) -> &str {
    daemon.address.rsplit_once(':').unwrap().1
}

/// The status of a call of `/metrics`, or why there is no connection.
fn metrics(daemon: &Daemon, name: &str, trusted: &str, token: Option<&str>) -> Result<u16, String> {
    let stream =
        tls(daemon.address.strip_prefix("http://").unwrap(), name, trusted).map_err(|error| error.to_string())?;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("host", HOST)];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    let answer = exchange(stream, "GET /metrics", &headers, b"").map_err(|error| error.to_string())?;
    Ok(answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_a_token_are_needed_together_and_each_fault_is_refused() {
    let (authority, stranger) = (HomeAuthority::new(), HomeAuthority::new());
    let daemon = start(&authority).await;
    // Over the socket, which needs no encryption.
    let create =
        Cli::new(["token", "create", "--name=grafana", "--scopes=read", "--data"]).arg(daemon.dir().join("data"));
    let (code, token, err) = create.run().await;
    assert_eq!(code, 0, "{err}");
    let token = token.trim_end();
    let trusted = authority.certificate.as_str();
    assert_eq!(metrics(&daemon, HOST, trusted, Some(token)), Ok(200));
    assert_eq!(metrics(&daemon, HOST, trusted, None), Ok(401), "without a token");
    assert_eq!(metrics(&daemon, HOST, trusted, Some("artel_wrong")), Ok(401), "with a wrong token");
    let wrong_name = metrics(&daemon, "other.example", trusted, Some(token)).unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let unknown = metrics(&daemon, HOST, &stranger.certificate, Some(token)).unwrap_err();
    assert!(unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"), "{unknown}");
    write(&daemon.dir().join("catalog"), "server", &authority.expired_server());
    let expired = async {
        loop {
            match metrics(&daemon, HOST, trusted, Some(token)) {
                Err(error) => return error,
                Ok(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    };
    let expired = tokio::time::timeout(TEST_TIMEOUT, expired).await.expect("the certificate is reloaded");
    assert!(expired.contains("expired"), "{expired}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_show_a_client_certificate_which_stands_for_the_token_of_its_name() {
    let (authority, stranger) = (HomeAuthority::new(), HomeAuthority::new());
    let daemon = start(&authority).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &authority.certificate).unwrap();
    let create =
        Cli::new(["token", "create", "--name=laptop", "--scopes=read", "--data"]).arg(daemon.dir().join("data"));
    assert_eq!(create.run().await.0, 0);
    let address = format!("https://{HOST}:{}", port(&daemon));
    let verb = |shown: Option<[PathBuf; 2]>| {
        let list = Cli::new(["task", "list", "--address", &address, "--ca"]).arg(&ca);
        // Another data directory, so that the owner's token is not at hand.
        let list = list.env("ARTEL_DATA", dir.path());
        match shown {
            Some([certificate, key]) => list.env("ARTEL_CLIENT_CERT", certificate).arg("--client-key").arg(key).run(),
            None => list.run(),
        }
    };
    let shown = |name: &str, authority: &HomeAuthority| Some(write(dir.path(), name, &authority.client(name)));
    let (code, out, err) = verb(shown("laptop", &authority)).await;
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = verb(None).await;
    assert!(code == 1 && err.contains("a token is needed"), "without a certificate: {code} {err}");
    let (code, _, err) = verb(shown("toaster", &authority)).await;
    assert!(code == 1 && err.contains("no token has the name of the client certificate"), "{code} {err}");
    assert!(err.contains("toaster.pem names the caller"), "{err}");
    let (code, _, err) = verb(shown("laptop", &stranger)).await;
    assert!(code == 3, "of another authority: {code} {err}");
    // Its scopes are those of the token.
    let [certificate, key] = shown("laptop", &authority).unwrap();
    let run = Cli::new(["run", "--role", "writer", "Hello", "--address", &address, "--ca"]).arg(&ca);
    let run = run.arg("--client-cert").arg(&certificate).arg("--client-key").arg(&key).env("ARTEL_DATA", dir.path());
    let (code, _, err) = run.run().await;
    assert!(code == 1 && err.contains("lacks the scope `submit`"), "{code} {err}");
    // What is wrong with the files is said.
    let flags = |flags: &[&Path]| {
        let list = Cli::new(["task", "list", "--address", &address, "--ca"]).arg(&ca);
        let names = ["--client-cert", "--client-key"];
        names.into_iter().zip(flags).fold(list, |list, (name, path)| list.arg(name).arg(path)).run()
    };
    let (code, _, err) = flags(&[&certificate]).await;
    assert!(code == 2 && err.contains("--client-cert needs --client-key"), "{code} {err}");
    let (code, _, err) = flags(&[&certificate, Path::new("/nowhere/key.pem")]).await;
    assert!(code == 2 && err.contains("failed to read /nowhere/key.pem"), "{code} {err}");
    let (code, _, err) = flags(&[&certificate, &ca]).await;
    assert!(code == 2 && err.contains("cannot be used"), "{code} {err}");
}
