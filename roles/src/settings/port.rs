//! `http` and `tls`: the rules of the daemon's port, and what it is encrypted with.

use std::path::{Path, PathBuf};

use artel_yaml::{Diagnostics, YamlNode, YamlValue, shown};

use crate::decode::{MapReader, integer, text, texts};
use crate::keys;

/// The most names of hosts, and the most origins: each request is compared with all of them.
const MAX_HTTP_ITEMS: usize = 64;
/// The longest name of a host or an origin: that of the domain name system, with a scheme and a port.
const MAX_HTTP_CHARS: usize = 300;
/// The longest path.
const MAX_PATH_CHARS: usize = 4096;
/// The word that leaves encryption to a proxy.
const PROXY_WORD: &str = "proxy";

/// `http`: which requests are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// `hosts`: names by which the daemon is called, beside those of the loopback and its address.
    pub hosts: Vec<String>,
    /// `origins`: the origins of pages that may call from a browser.
    pub origins: Vec<String>,
    /// `requests`: the most requests that are answered at once.
    pub requests: Option<u32>,
}

/// `tls`: what encrypts connections over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSettings {
    /// The daemon, with these files in PEM.
    Files {
        /// `certificate`: the certificate and its chain.
        certificate: PathBuf,
        /// `key`: its private key.
        key: PathBuf,
        /// `client_ca`: the authorities of clients' certificates.
        client_ca: Option<PathBuf>,
    },
    /// A proxy in front of it.
    Proxy,
}

impl HttpSettings {
    pub(super) fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Self> {
        let mut f = MapReader::open(node, "`http`", &keys::HTTP, report)?;
        let hosts = f.get("hosts").map(|n| hosts(n, report)).unwrap_or_default();
        let origins = f.get("origins").map(|n| origins(n, report)).unwrap_or_default();
        let requests = f.get("requests").and_then(|n| integer(n, "`requests`", 1..=1_000_000, report));
        f.finish(&[], report);
        Some(Self { hosts, origins, requests })
    }
}

impl TlsSettings {
    pub(super) fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Self> {
        if let YamlValue::Str(word, _) = &node.value {
            if word == PROXY_WORD {
                return Some(Self::Proxy);
            }
            let message = format!("`tls` is `{PROXY_WORD}`, or a map of files, not `{}`", shown(word));
            report.error_with_hint(node.span, message, "write `tls: {certificate: cert.pem, key: key.pem}`");
            return None;
        }
        let mut f = MapReader::open(node, "`tls`", &keys::TLS, report)?;
        let dir = report.source.dir.clone();
        let file = |node: &YamlNode, what: &str, report: &mut Diagnostics<'_>| {
            let path = text(node, what, 1..=MAX_PATH_CHARS, report)?;
            Some(dir.as_deref().unwrap_or(Path::new("")).join(path))
        };
        let certificate = f.need("certificate", report).and_then(|n| file(n, "`certificate`", report));
        let key = f.need("key", report).and_then(|n| file(n, "`key`", report));
        let client_ca = f.get("client_ca").and_then(|n| file(n, "`client_ca`", report));
        f.finish(&[], report);
        Some(Self::Files { certificate: certificate?, key: key?, client_ca })
    }
}

fn hosts(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<String> {
    let hosts = texts(node, "`hosts`", MAX_HTTP_ITEMS, MAX_HTTP_CHARS, report);
    if let Some(wrong) = hosts.iter().find(|host| !is_host(host)) {
        let message = format!("an item of `hosts` is a name or an address, not `{}`", shown(wrong));
        report.error_with_hint(node.span, message, "write it without a scheme, a port and a path: `artel.home`");
    }
    hosts
}

fn origins(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<String> {
    let origins = texts(node, "`origins`", MAX_HTTP_ITEMS, MAX_HTTP_CHARS, report);
    if let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) {
        let message = format!("an item of `origins` is a scheme, a host and a port, not `{}`", shown(wrong));
        report.error_with_hint(node.span, message, "write it as a browser sends it: `https://desk.example`");
    }
    origins
}

/// Whether a text is a name or an address, without a port.
fn is_host(text: &str) -> bool {
    let is_address = || text.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    is_address() || text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// Whether a text looks like an origin; the daemon parses it.
fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, host)| host);
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', '*']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_port_and_origins_no_path() {
        assert!(["artel.home", "10.0.0.1", "::1", "[::1]"].into_iter().all(is_host));
        assert!(!["artel.home:7430", "http://artel.home", "a b", "*"].into_iter().any(is_host));
        assert!(["https://desk.example", "http://127.0.0.1:5173"].into_iter().all(is_origin));
        assert!(!["desk.example", "https://desk.example/", "https://*.example", "null"].into_iter().any(is_origin));
    }
}
