//! The names by which a daemon may be called.
//!
//! A page whose name is made to resolve to this machine (DNS rebinding) is of the same origin as the daemon in the eyes of a
//! browser. Its requests still name the page's host, and are refused here.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use crate::refusal::{Refusal, shown};

/// Names of the loopback.
const LOOPBACK_NAMES: [&str; 2] = ["localhost", "localhost."];

/// The hosts that a request may name: the loopback, the address at which its connection arrived, and these names.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    names: Arc<[String]>,
}

impl HostRules {
    /// With these names and addresses, without ports.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().map(|name| normal(&name)).collect() }
    }

    /// Checks every host that a request names, and that it names one. `local` is the address at which the connection arrived.
    pub(crate) fn check<B>(&self, request: &Request<B>, local: IpAddr) -> Result<(), Refusal> {
        let mut is_named = false;
        for host in hosts(request) {
            is_named = true;
            let host = host?;
            if !self.allows(host.host(), local) {
                return Err(Refusal::UnknownHost(shown(host.host())));
            }
        }
        if is_named { Ok(()) } else { Err(Refusal::NoHost) }
    }

    fn allows(&self, host: &str, local: IpAddr) -> bool {
        let host = normal(host);
        if LOOPBACK_NAMES.contains(&host.as_str()) || self.names.contains(&host) {
            return true;
        }
        let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
        address.is_ok_and(|address| address.is_loopback() || address == local.to_canonical())
    }
}

/// The hosts in the target and in the headers of a request; what is none is refused.
fn hosts<B>(request: &Request<B>) -> impl Iterator<Item = Result<Authority, Refusal>> {
    let target = request.uri().authority().cloned().map(Ok);
    let headers = request.headers().get_all(HOST).iter().map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.parse::<Authority>().map_err(|_| Refusal::UnknownHost(shown(&text)))
    });
    target.into_iter().chain(headers)
}

/// A name in lower case; an address without brackets.
fn normal(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(uri: &str, hosts: &[&str]) -> bool {
        let rules = HostRules::new(["Artel.Home".to_owned(), "10.0.0.9".to_owned()]);
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        rules.check(&request.body(()).unwrap(), "192.168.1.5".parse().unwrap()).is_ok()
    }

    #[test]
    fn the_loopback_the_own_address_and_listed_names_are_allowed() {
        for host in
            ["127.0.0.1:7430", "localhost", "LOCALHOST:1", "[::1]:7430", "192.168.1.5:7430", "artel.home", "10.0.0.9"]
        {
            assert!(is_allowed("/", &[host]), "{host}");
            assert!(is_allowed(&format!("http://{host}/"), &[]), "{host} as a target");
        }
    }

    #[test]
    fn other_hosts_are_refused_wherever_they_stand() {
        for host in
            ["evil.example", "evil.example:7430", "127.0.0.1.evil.example", "192.168.1.6", "localhost.evil", "a b", ""]
        {
            assert!(!is_allowed("/", &[host]), "{host}");
        }
        assert!(!is_allowed("/", &[]), "none is named");
        assert!(!is_allowed("http://evil.example/", &["localhost"]));
        assert!(!is_allowed("http://localhost/", &["evil.example"]));
        assert!(!is_allowed("/", &["localhost", "evil.example"]));
    }

    #[test]
    fn a_user_in_an_authority_does_not_hide_its_host() {
        assert!(!is_allowed("/", &["localhost@evil.example"]));
    }
}
