//! The address of a collector.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;

/// The address of a collector: `http://HOST:PORT`, or `https://HOST:PORT` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorAddress(Uri);

/// A text that is not the address of a collector. It is not quoted: some write secrets into addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of a collector is `http://HOST:PORT` or `https://HOST:PORT`, without a user and a path")]
pub struct InvalidCollector;

impl FromStr for CollectorAddress {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, InvalidCollector> {
        let uri: Uri = text.parse().map_err(|_| InvalidCollector)?;
        let is_known = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let has_place = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some_and(|port| port > 0);
        if is_known && has_place && !has_user && !has_path { Ok(Self(uri)) } else { Err(InvalidCollector) }
    }
}

impl CollectorAddress {
    /// Whether what is sent there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for CollectorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.0.scheme_str().unwrap_or_default())?;
        write!(f, "{}", self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port() {
        for (text, is_encrypted, is_loopback) in [
            ("http://127.0.0.1:4317", false, true),
            ("http://[::1]:4317", false, true),
            ("http://localhost:4317", false, true),
            ("https://collector.example:4317", true, false),
            ("http://10.0.0.7:4317", false, false),
        ] {
            let address: CollectorAddress = text.parse().unwrap();
            assert_eq!((address.is_encrypted(), address.is_loopback()), (is_encrypted, is_loopback), "{text}");
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:4317",
            "http://collector.example",
            "http://:4317",
            "grpc://collector.example:4317",
            "http://user:word@collector.example:4317",
            "http://collector.example:4317/v1/traces",
            "http://collector.example:4317/?token=1",
        ] {
            assert_eq!(text.parse::<CollectorAddress>(), Err(InvalidCollector), "{text}");
        }
    }
}
