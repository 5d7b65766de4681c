//! `artel cert`: certificates for a daemon that listens beyond this machine, and for its clients.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use artel_args::{CertCommand, CertCreateArgs, GlobalArgs};
use artel_cert::{
    CertFiles, CertPair, ClientName, CreatedCertificates, HostNames, create_for_client, create_for_server,
};
use artel_terminal::{BOLD, CommandOutput, GOOD, StyledText};
use serde_json::json;

use crate::journal::exit_code;
use crate::serve::config::Config;

/// The directory of certificates in the data directory.
const CERTIFICATES_DIR: &str = "tls";
/// Of `--days`.
const DAY: Duration = Duration::from_secs(86_400);

/// Runs a command; exit code 1 if no certificate is made.
pub(crate) fn run(command: &CertCommand, global: &GlobalArgs) -> ExitCode {
    let CertCommand::Create(args) = command;
    exit_code(create(args, &mut CommandOutput::new(global)).map(|()| true), global)
}

fn create(args: &CertCreateArgs, output: &mut CommandOutput) -> Result<()> {
    let dir = directory(args)?;
    let lifetime = DAY * args.days;
    match &args.client {
        Some(name) => {
            let created = create_for_client(&dir, &ClientName::parse(name)?, lifetime)?;
            show_client(name, &CertFiles::in_dir(&dir).server(), &created, output)
        }
        None => {
            let names = if args.names.is_empty() { HostNames::of_this_host() } else { HostNames::parse(&args.names) }?;
            let created = create_for_server(&dir, &names, lifetime)?;
            show_server(&names, &created, output)
        }
    }
}

/// The directory of the command line, or that of the data directory, absolute: settings name files by these paths.
fn directory(args: &CertCreateArgs) -> Result<PathBuf> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => {
            let data = Config::at(&args.data)?.data;
            artel_journal::prepare(&data).map_err(|e| anyhow!("{e}"))?;
            data.join(CERTIFICATES_DIR)
        }
    };
    std::path::absolute(&dir).with_context(|| format!("failed to find {}", dir.display()))
}

fn show_server(names: &HostNames, created: &CreatedCertificates, output: &mut CommandOutput) -> Result<()> {
    let CreatedCertificates { authority, is_new_authority, pair } = created;
    let settings = match names.remote_names().as_slice() {
        [] => settings(pair, None),
        hosts => format!("{}\nhttp: {{hosts: [{}]}}", settings(pair, None), hosts.join(", ")),
    };
    let json = json!({
        "certificate": pair.certificate,
        "key": pair.key,
        "authority": authority.certificate,
        "new_authority": is_new_authority,
        "names": names.shown(),
        "settings": settings,
    });
    output.show(&json, |out| {
        written(&[&pair.certificate, &pair.key], out);
        if *is_new_authority {
            written(&[&authority.certificate, &authority.key], out);
        } else {
            out.push(format_args!("signed by the authority that was there, {}", authority.certificate.display()))
                .newline();
        }
        out.push(format_args!("valid for {}", names.shown().join(", "))).newline();
        out.newline().push("In the settings file of the daemon:").newline();
        for line in settings.lines() {
            out.push("  ").push_styled(BOLD, line).newline();
        }
        out.newline()
            .push("Copy the certificate of the authority to each client, never a key, and name it there, with a file that has the")
            .newline()
            .push("client's token:")
            .newline();
        let host = names.remote_host().unwrap_or_else(|| "HOST".to_owned());
        let command = format!("ARTEL_TOKEN_FILE=token artel --ca ca.pem --address https://{host}:7430 devices");
        out.push("  ").push_styled(BOLD, command).newline();
        let more =
            "`artel cert create --client NAME` makes a certificate for a client, to be shown in place of a token.";
        out.newline().push(more).newline();
    })?;
    Ok(())
}

fn show_client(name: &str, server: &CertPair, created: &CreatedCertificates, output: &mut CommandOutput) -> Result<()> {
    let CreatedCertificates { authority, pair, .. } = created;
    let settings = settings(server, Some(&authority.certificate));
    let json = json!({
        "client": name,
        "certificate": pair.certificate,
        "key": pair.key,
        "authority": authority.certificate,
        "settings": settings,
    });
    output.show(&json, |out| {
        written(&[&pair.certificate, &pair.key], out);
        out.newline().push("In the settings file of the daemon, so that it asks clients for certificates:").newline();
        out.push("  ").push_styled(BOLD, &settings).newline().newline();
        out.push(format_args!(
            "Copy both files to the client, together with {}. The client has the rights of the token `{name}`.",
            authority.certificate.display()
        ));
        out.newline();
    })?;
    Ok(())
}

/// The line of a settings file that names a certificate, and the authority of clients if they have certificates.
fn settings(server: &CertPair, client_ca: Option<&Path>) -> String {
    let client_ca = client_ca.map(|path| format!(", client_ca: {}", quoted(path))).unwrap_or_default();
    format!("tls: {{certificate: {}, key: {}{client_ca}}}", quoted(&server.certificate), quoted(&server.key))
}

fn written(paths: &[&PathBuf], out: &mut StyledText) {
    for path in paths {
        out.push_styled(GOOD, "written").push(format_args!(": {}", path.display())).newline();
    }
}

/// A path as YAML takes it for text: quoted as JSON.
fn quoted(path: &Path) -> String {
    json!(path.to_string_lossy()).to_string()
}
