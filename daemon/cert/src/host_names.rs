//! The names of a daemon and of a client, as certificates have them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::unistd::gethostname;

use crate::error::Error;

/// The longest name of a client: that of a token.
const MAX_CLIENT_NAME_BYTES: usize = 63;
/// The longest host name, and the longest of its parts (RFC 1035).
const MAX_HOST_NAME_BYTES: usize = 253;
const MAX_HOST_PART_BYTES: usize = 63;

/// The host names and IP addresses by which clients reach a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    pub(crate) names: BTreeSet<String>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// The name of a client, which is that of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(String);

impl HostNames {
    /// These names and addresses, and those that only this machine itself uses.
    ///
    /// # Errors
    /// A text is neither.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Error> {
        let mut names = Self::local();
        for text in texts.iter().map(AsRef::as_ref) {
            if let Ok(address) = text.parse() {
                names.addresses.insert(address);
            } else if is_host_name(text) {
                names.names.insert(text.to_lowercase());
            } else {
                return Err(Error::HostName(text.chars().take(MAX_HOST_NAME_BYTES).collect()));
            }
        }
        Ok(names)
    }

    /// The name of this machine and the addresses of its networks.
    ///
    /// # Errors
    /// The system does not tell them.
    pub fn of_this_host() -> Result<Self, Error> {
        let mut names = Self::local();
        let host = gethostname().map_err(Error::Host)?.to_string_lossy().to_lowercase();
        // A machine without a name of its own is called `(none)`, which no client can look up.
        names.names.extend(Some(host).filter(|host| is_host_name(host)));
        names.addresses.extend(getifaddrs().map_err(Error::Host)?.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip()))).filter(is_reachable)
        }));
        Ok(names)
    }

    /// `localhost` and the loopback.
    fn local() -> Self {
        Self {
            names: BTreeSet::from(["localhost".to_owned()]),
            addresses: BTreeSet::from([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        }
    }

    /// All of them as text: names, then addresses.
    pub fn shown(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect()
    }

    /// The names by which other machines know the host, without patterns.
    pub fn remote_names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).filter(|name| *name != "localhost" && !name.starts_with('*')).collect()
    }

    /// A name or an address by which other machines reach it, as a URL has it.
    pub fn remote_host(&self) -> Option<String> {
        let address = || self.addresses.iter().find(|address| !address.is_loopback());
        let bracketed = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        self.remote_names().first().map(|name| (*name).to_owned()).or_else(|| address().map(bracketed))
    }
}

impl ClientName {
    /// A name that can be part of a file's name.
    ///
    /// # Errors
    /// It cannot.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let begins_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        match begins_well && text.len() <= MAX_CLIENT_NAME_BYTES && text.bytes().all(is_plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::ClientName(text.chars().take(MAX_CLIENT_NAME_BYTES).collect())),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether other machines can connect to an address without naming an interface.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_unspecified(),
    }
}

/// Whether a text is a host name; the first part may be `*`.
fn is_host_name(text: &str) -> bool {
    let is_part = |(at, part): (usize, &str)| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let is_label = (1..=MAX_HOST_PART_BYTES).contains(&part.len()) && part.bytes().all(is_plain);
        (is_label && !part.starts_with('-') && !part.ends_with('-')) || (at == 0 && part == "*" && text.contains('.'))
    };
    text.len() <= MAX_HOST_NAME_BYTES && text.split('.').enumerate().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let names = HostNames::parse(&["Desk.local", "192.168.1.20", "fd00::7", "*.home.arpa"]).unwrap();
        let shown = ["*.home.arpa", "desk.local", "localhost", "127.0.0.1", "192.168.1.20", "::1", "fd00::7"];
        assert_eq!(names.shown(), shown);
        assert_eq!((names.remote_names(), names.remote_host().as_deref()), (vec!["desk.local"], Some("desk.local")));
        let remote = |text: &str| HostNames::parse(&[text]).unwrap().remote_host();
        assert_eq!(
            ["192.168.1.20", "fd00::7", "*.home.arpa"].map(remote)[..2],
            [Some("192.168.1.20".to_owned()), Some("[fd00::7]".to_owned())]
        );
        assert_eq!(remote("*.home.arpa"), None);
        for bad in ["", "a b", "https://desk", "desk:7430", "-desk", "a..b", "*", "x.*", "ключ", &"a".repeat(64)] {
            assert!(HostNames::parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_and_no_address_of_a_single_link() {
        let names = HostNames::of_this_host().unwrap();
        assert!(names.names.contains("localhost") && names.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(names.addresses.iter().all(is_reachable), "{names:?}");
    }

    #[test]
    fn the_name_of_a_client_is_part_of_a_file_name() {
        assert_eq!(ClientName::parse("laptop-1.home").unwrap().as_str(), "laptop-1.home");
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", &"a".repeat(64)] {
            assert!(ClientName::parse(bad).is_err(), "{bad}");
        }
    }
}
