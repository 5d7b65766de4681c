//! `artel cert create`: the files of a home network's certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use artel_tests::Cli;
use serde_json::Value;

fn create(dir: &Path) -> Cli {
    Cli::new(["cert", "create", "--json", "--dir"]).arg(dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn certificates_are_made_once_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("my tls");
    let (code, out, err) = create(&tls).arg("--name").arg("desk.local").arg("--name").arg("192.168.1.20").run().await;
    assert_eq!(code, 0, "{out}{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let names = ["desk.local", "localhost", "127.0.0.1", "192.168.1.20", "::1"];
    assert_eq!(made["names"], serde_json::json!(names));
    let settings = format!("tls: {{certificate: \"{0}/server.pem\", key: \"{0}/server-key.pem\"}}", tls.display());
    assert_eq!(made["settings"], format!("{settings}\nhttp: {{hosts: [desk.local]}}"));
    assert_eq!((mode(&tls.join("server-key.pem")), mode(&tls.join("ca-key.pem"))), (0o600, 0o600));

    let before = fs::read(tls.join("server.pem")).unwrap();
    let (code, out, err) = create(&tls).run().await;
    assert!(code == 1 && err.contains("there is a certificate already"), "{code} {out}{err}");
    assert_eq!(fs::read(tls.join("server.pem")).unwrap(), before);

    let (code, out, err) = create(&tls).arg("--client").arg("laptop").run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(mode(&tls.join("client-laptop-key.pem")), 0o600);
    let (code, _, err) = create(&tls).arg("--client").arg("../laptop").run().await;
    assert!(code == 1 && err.contains("no name of a client"), "{code} {err}");
}

#[tokio::test]
async fn a_client_needs_an_authority_and_the_default_directory_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cli = |args: [&str; 2]| Cli::new(args).env("ARTEL_DATA", &data);
    let (code, out, err) = cli(["cert", "create"]).arg("--client").arg("laptop").run().await;
    assert!(code == 1 && err.contains("`artel cert create` makes one"), "{code} {out}{err}");
    let (code, out, err) = cli(["cert", "create"]).run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("tls: {certificate: ") && out.contains("--ca ca.pem"), "{out}");
    assert_eq!((mode(&data), mode(&data.join("tls"))), (0o700, 0o700));
    assert!(!out.contains("PRIVATE KEY") && !err.contains("PRIVATE KEY"), "no key is shown");
}
