//! The address of a daemon.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The port of an address without one.
const DEFAULT_PORT: u16 = 7430;

/// The address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonAddress {
    host: String,
    port: u16,
}

impl FromStr for DaemonAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("https://") {
            return Err("the daemon does not support TLS: use http://".to_owned());
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|e| format!("not a HOST:PORT: {e}"))?;
        match (uri.scheme_str(), uri.host(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some("http"), Some(host), "/") if !host.is_empty() && !whole.contains('@') => {
                // `Uri` parses an invalid port as none.
                let bare = uri.authority().is_some_and(|authority| authority.as_str() == host);
                let port = uri.port_u16().or(bare.then_some(DEFAULT_PORT));
                Ok(Self { host: host.to_owned(), port: port.ok_or("the port is not a number up to 65535")? })
            }
            _ => Err("use the form HOST:PORT or http://HOST:PORT".to_owned()),
        }
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
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
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in ["", "https://localhost", "http://", "localhost:x", "localhost:99999", "a b", "h:1/path", "u@h:1"] {
            assert!(parsed(text).starts_with("error: "), "{text:?} is taken as {}", parsed(text));
        }
    }
}
