//! The address of a daemon.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;

/// The port of an address without one.
const DEFAULT_PORT: u16 = 7430;

/// The address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonAddress {
    /// A host and a port.
    Tcp {
        /// Whether TLS is spoken: `https`.
        is_encrypted: bool,
        /// A name or an IP address, IPv6 in brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket of this machine: `unix:PATH`.
    Unix(PathBuf),
}

impl DaemonAddress {
    /// Where a daemon listens by default.
    pub fn default_tcp() -> Self {
        Self::Tcp { is_encrypted: false, host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
    }

    /// Whether what is sent there stays on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
            }
        }
    }

    /// That of a daemon of this machine that listens here, without encryption.
    pub fn of_listener(listening: SocketAddr) -> Self {
        let ip = match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        Self::Tcp { is_encrypted: false, host, port: listening.port() }
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tcp { is_encrypted: true, .. })
    }

    /// Whether a connection there may be one to what listens here: to know it, the connection is needed.
    pub fn may_reach(&self, listening: SocketAddr) -> bool {
        matches!(self, Self::Tcp { port, .. } if *port == listening.port()) && self.is_local()
    }

    /// Whether others can read what is sent there on its way.
    pub fn is_readable_by_others(&self) -> bool {
        !self.is_local() && !self.is_encrypted()
    }
}

impl FromStr for DaemonAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            let is_path = Path::new(path).is_absolute() && !path.contains('\0');
            return is_path
                .then(|| Self::Unix(path.into()))
                .ok_or_else(|| "the path of a socket begins with `/`: unix:/PATH".to_owned());
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|e| format!("not a HOST:PORT: {e}"))?;
        match (uri.scheme_str(), uri.host(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some(scheme @ ("http" | "https")), Some(host), "/") if !host.is_empty() && !whole.contains('@') => {
                // `Uri` parses an invalid port as none.
                let bare = uri.authority().is_some_and(|authority| authority.as_str() == host);
                let port = uri.port_u16().or(bare.then_some(DEFAULT_PORT));
                Ok(Self::Tcp {
                    is_encrypted: scheme == "https",
                    host: host.to_owned(),
                    port: port.ok_or("the port is not a number up to 65535")?,
                })
            }
            _ => Err("use the form HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH".to_owned()),
        }
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { is_encrypted: true, host, port } => write!(f, "https://{host}:{port}"),
            Self::Tcp { is_encrypted: false, host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<DaemonAddress>().map_or_else(|e| format!("error: {e}"), |address| address.to_string())
    }

    #[test]
    fn an_address_may_leave_out_scheme_and_port() {
        assert_eq!(parsed("http://127.0.0.1:7430"), "http://127.0.0.1:7430");
        assert_eq!(parsed("http://127.0.0.1:80/"), "http://127.0.0.1:80");
        assert_eq!(parsed("localhost:1234"), "http://localhost:1234");
        assert_eq!(parsed("localhost"), "http://localhost:7430");
        assert_eq!(parsed("[::1]:99"), "http://[::1]:99");
        assert_eq!(parsed("[::1]"), "http://[::1]:7430");
        assert_eq!(parsed("https://box.example"), "https://box.example:7430");
        assert_eq!(parsed("unix:/run/a b/artel.sock"), "unix:/run/a b/artel.sock");
        assert_eq!(parsed("unix:///run/artel.sock"), "unix:/run/artel.sock");
        assert_eq!(DaemonAddress::default_tcp().to_string(), parsed("127.0.0.1"));
    }

    #[test]
    fn a_listener_is_reached_at_an_address_of_this_machine() {
        let of = |text: &str| DaemonAddress::of_listener(text.parse().unwrap()).to_string();
        assert_eq!(of("127.0.0.1:9"), "http://127.0.0.1:9");
        assert_eq!((of("0.0.0.0:9").as_str(), of("[::]:9").as_str()), ("http://127.0.0.1:9", "http://[::1]:9"));
        let may_reach = |text: &str| text.parse::<DaemonAddress>().unwrap().may_reach(([127, 0, 0, 1], 9).into());
        assert!(may_reach("localhost:9") && may_reach("127.0.0.1:9"));
        assert!(!may_reach("localhost:8") && !may_reach("box.example:9") && !may_reach("unix:/run/artel.sock"));
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in
            ["", "ftp://localhost", "http://", "localhost:x", "localhost:99999", "a b", "h:1/path", "u@h:1", "unix:x"]
        {
            assert!(parsed(text).starts_with("error: "), "{text:?} is taken as {}", parsed(text));
        }
    }

    #[test]
    fn only_what_leaves_this_machine_in_the_clear_can_be_read_by_others() {
        let is_readable = |text: &str| text.parse::<DaemonAddress>().unwrap().is_readable_by_others();
        for text in ["127.0.0.1", "127.8.9.1:1", "localhost:1", "[::1]", "https://box.example", "unix:/run/artel.sock"]
        {
            assert!(!is_readable(text), "{text}");
        }
        for text in ["box.example", "localhost.example", "10.0.0.1", "[2001:db8::1]", "0.0.0.0"] {
            assert!(is_readable(text), "{text}");
        }
    }
}
