//! The address of a server.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

/// The port on which Qdrant speaks gRPC; on 6333 it speaks HTTP.
const GRPC_PORT: u16 = 6334;

/// The address of a Qdrant server: `http://HOST:PORT`, or `https://HOST:PORT` for TLS. Without a port it is 6334. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    is_encrypted: bool,
    /// As it is written in a URL: an IPv6 address has its brackets.
    host: Arc<str>,
    port: u16,
}

/// A text that is not the address of a server. It is not quoted: some write secrets into addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of Qdrant is `http://HOST:PORT` or `https://HOST:PORT`, without a user and a path; PORT is that of gRPC, 6334 \
     unless Qdrant is told otherwise"
)]
pub struct InvalidAddress;

impl FromStr for ServerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let uri: Uri = text.parse().map_err(|_| InvalidAddress)?;
        let scheme = uri.scheme().ok_or(InvalidAddress)?;
        let authority = uri.authority().ok_or(InvalidAddress)?;
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let is_known = *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        if !is_known || has_path || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(InvalidAddress);
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => GRPC_PORT,
            _ => authority.port_u16().filter(|port| *port > 0).ok_or(InvalidAddress)?,
        };
        Ok(Self { is_encrypted: *scheme == Scheme::HTTPS, host: host.into(), port })
    }
}

impl ServerAddress {
    /// Whether what is sent there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for (text, shown, is_encrypted, is_loopback) in [
            ("http://127.0.0.1:6334", "http://127.0.0.1:6334", false, true),
            ("http://localhost", "http://localhost:6334", false, true),
            ("http://[::1]:7000/", "http://[::1]:7000", false, true),
            ("http://[::1]", "http://[::1]:6334", false, true),
            ("https://vectors.example", "https://vectors.example:6334", true, false),
            ("http://10.0.0.7:6334", "http://10.0.0.7:6334", false, false),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!((address.is_encrypted(), address.is_loopback()), (is_encrypted, is_loopback), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_without_being_quoted() {
        for text in [
            "",
            "127.0.0.1:6334",
            "http://:6334",
            "http://vectors.example:0",
            "http://vectors.example:",
            "grpc://vectors.example:6334",
            "http://user:secret@vectors.example:6334",
            "http://vectors.example:6334/collections",
            "http://vectors.example:6334/?key=secret",
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(InvalidAddress), "{text}");
        }
        assert!(!InvalidAddress.to_string().contains("secret"));
    }
}
