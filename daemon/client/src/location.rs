//! Where a daemon is, and what a client presents to it.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_access::{OWNER_FILE, PublishedAddress, Secret};
use artel_args::{DaemonAddress, GlobalArgs, default_data_dir};
use artel_model::open_regular_file;

use crate::error::Error;

/// The socket in the data directory of a daemon.
const SOCKET_FILE: &str = "artel.sock";
/// The variable with a token itself.
const TOKEN_VARIABLE: &str = "ARTEL_TOKEN";
/// The variable with the path of a file that holds a token.
const TOKEN_FILE_VARIABLE: &str = "ARTEL_TOKEN_FILE";
/// A token has some dozen bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where a daemon is, and what a client presents to it. Cheap to clone.
#[derive(Clone)]
pub struct DaemonLocation(Arc<FoundDaemon>);

struct FoundDaemon {
    address: DaemonAddress,
    token: Option<Secret>,
    /// Where the token is from, or why there is none, in words.
    token_origin: String,
    /// The data directory whose daemon must be the one that listens at the address, since its owner's token is sent there.
    proven_by: Option<PathBuf>,
    /// The certificates to trust; `None`: those of the system.
    ca: Option<PathBuf>,
    identity: Option<ClientIdentity>,
}

/// The certificate that a client shows, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl ClientIdentity {
    fn of(global: &GlobalArgs) -> Result<Option<Self>, Error> {
        match (global.client_cert.clone(), global.client_key.clone()) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::Usage("--client-cert needs --client-key, the file of its key".to_owned())),
            (None, Some(_)) => {
                Err(Error::Usage("--client-key needs --client-cert, the file of its certificate".to_owned()))
            }
        }
    }
}

impl DaemonLocation {
    /// The daemon that these flags and the environment name. The token is that of `ARTEL_TOKEN`, or else of the file
    /// `ARTEL_TOKEN_FILE`, or else the owner's in the data directory, unless a client certificate names the caller. The owner's is
    /// sent to the daemon of that directory alone, on this machine.
    ///
    /// # Errors
    /// A named file cannot be read; or the token would be readable on its way.
    pub fn find(global: &GlobalArgs) -> Result<Self, Error> {
        let data = global.data.clone().or_else(default_data_dir);
        let identity = ClientIdentity::of(global)?;
        let found = find_in(global.address.clone(), data.as_deref(), identity, |name| env::var_os(name));
        found.map(|found| Self(Arc::new(FoundDaemon { ca: global.ca.clone(), ..found })))
    }

    /// A daemon that this program has started itself: with the owner's token in its data directory.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn of_own(address: DaemonAddress, data: &Path) -> Result<Self, Error> {
        let path = data.join(OWNER_FILE);
        let token = read_token(&path).map_err(|error| unreadable(&path, &error))?;
        Ok(Self::with(address, Some(token), origin_of_file(&path)))
    }

    /// A daemon at an address, for a caller with this token, or for a stranger.
    pub fn at(address: DaemonAddress, token: Option<String>) -> Self {
        Self::with(address, token.map(Secret::new), "what it was given".to_owned())
    }

    fn with(address: DaemonAddress, token: Option<Secret>, token_origin: String) -> Self {
        let (proven_by, ca, identity) = (None, None, None);
        Self(Arc::new(FoundDaemon { address, token, token_origin, proven_by, ca, identity }))
    }

    /// The address.
    pub fn address(&self) -> &DaemonAddress {
        &self.0.address
    }

    pub(crate) fn token(&self) -> Option<&Secret> {
        self.0.token.as_ref()
    }

    pub(crate) fn token_origin(&self) -> &str {
        &self.0.token_origin
    }

    /// The data directory whose daemon must be the one that listens at the address.
    pub(crate) fn proven_by(&self) -> Option<&Path> {
        self.0.proven_by.as_deref()
    }

    pub(crate) fn ca(&self) -> Option<&Path> {
        self.0.ca.as_deref()
    }

    pub(crate) fn identity(&self) -> Option<&ClientIdentity> {
        self.0.identity.as_ref()
    }
}

impl std::fmt::Debug for DaemonLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DaemonLocation").field(self.address()).finish()
    }
}

fn find_in(
    address: Option<DaemonAddress>,
    data: Option<&Path>,
    identity: Option<ClientIdentity>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<FoundDaemon, Error> {
    let socket = || data.map(|data| data.join(SOCKET_FILE)).filter(|path| path.exists());
    let published = data.and_then(PublishedAddress::of);
    let address = address
        .or_else(|| socket().map(DaemonAddress::Unix))
        .or_else(|| published.map(DaemonAddress::of_listener))
        .unwrap_or_else(DaemonAddress::default_tcp);
    let mut proven_by = None;
    let (token, token_origin) = match named_token(variable)? {
        Some((_, origin)) if address.is_readable_by_others() => {
            let problem = format!("{address} is on another machine, and {origin} would be sent to it unencrypted");
            return Err(Error::Usage(format!("{problem}: use https, or a tunnel to this machine")));
        }
        Some((token, origin)) => (Some(token), origin),
        None => {
            let (token, origin) = owner_token(&address, data, published, identity.as_ref());
            // Over TLS, the certificate proves what listens.
            proven_by = data.filter(|_| token.is_some() && !address.is_encrypted()).map(Path::to_owned);
            (token, origin)
        }
    };
    Ok(FoundDaemon { address, token, token_origin, proven_by, ca: None, identity })
}

/// The token that the environment names, and where it is from.
fn named_token(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<(Secret, String)>, Error> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(token) = set(TOKEN_VARIABLE) {
        let token = token.into_string().map_err(|_| Error::Usage(format!("{TOKEN_VARIABLE} is not UTF-8 text")))?;
        return Ok(Some((Secret::new(token.trim().to_owned()), format!("the token of {TOKEN_VARIABLE}"))));
    }
    let Some(path) = set(TOKEN_FILE_VARIABLE).map(PathBuf::from) else { return Ok(None) };
    let token = read_token(&path).map_err(|error| unreadable(&path, &error))?;
    Ok(Some((token, origin_of_file(&path))))
}

/// The owner's token, if it may be sent to this address, and where it is from or why there is none.
fn owner_token(
    address: &DaemonAddress,
    data: Option<&Path>,
    published: Option<SocketAddr>,
    identity: Option<&ClientIdentity>,
) -> (Option<Secret>, String) {
    let unset = format!("{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are not set");
    if matches!(address, DaemonAddress::Unix(_)) {
        return (None, format!("no token, because {unset}, and the socket knows its owner without one"));
    }
    if !address.is_local() {
        return (
            None,
            format!("no token, because {unset}; the token of the data directory is not sent to other machines"),
        );
    }
    if address.is_encrypted()
        && let Some(ClientIdentity { certificate, .. }) = identity
    {
        return (
            None,
            format!("no token, because {unset}, and the certificate {} names the caller", certificate.display()),
        );
    }
    let Some(data) = data else {
        return (None, format!("no token, because {unset}, and there is no data directory: set --data"));
    };
    let path = data.join(OWNER_FILE);
    if !address.is_encrypted() && !published.is_some_and(|published| address.may_reach(published)) {
        let problem = match published {
            Some(listening) => format!("the daemon of {} listens on {listening}", data.display()),
            None => format!("no daemon that runs has its address in {}", data.display()),
        };
        return (
            None,
            format!(
                "no token, because {unset}, and {problem}: the token in {} is sent elsewhere if {TOKEN_FILE_VARIABLE} names it",
                path.display()
            ),
        );
    }
    match read_token(&path) {
        Ok(token) => (Some(token), origin_of_file(&path)),
        Err(error) => (None, format!("no token, because {unset}, and {} cannot be read: {error}", path.display())),
    }
}

fn read_token(path: &Path) -> io::Result<Secret> {
    let mut text = String::with_capacity(MAX_TOKEN_BYTES as usize);
    open_regular_file(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    // Zeroed when it is dropped; the text moves into it.
    let whole = Secret::new(text);
    Ok(Secret::new(whole.expose().trim().to_owned()))
}

fn origin_of_file(path: &Path) -> String {
    format!("the token in {}", path.display())
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::Usage(format!("failed to read the token in {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The address, the token and its origin.
    fn found(address: Option<&str>, data: &Path, variables: &[(&str, &str)]) -> Result<[String; 3], String> {
        let address = address.map(|address| address.parse().unwrap());
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let found = find_in(address, Some(data), None, variable).map_err(|error| error.to_string())?;
        let token = found.token.map(|token| token.expose().to_owned()).unwrap_or_default();
        Ok([found.address.to_string(), token, found.token_origin])
    }

    #[test]
    fn the_owner_finds_its_daemon_and_token_in_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let [address, token, origin] = found(None, data, &[]).unwrap();
        assert_eq!((address.as_str(), token.as_str()), ("http://127.0.0.1:7430", ""));
        assert!(
            origin.contains("ARTEL_TOKEN and ARTEL_TOKEN_FILE are not set") && origin.contains("no daemon that runs")
        );
        fs::write(data.join("token"), "artel_x\n").unwrap();
        let [address, token, origin] = found(None, data, &[("ARTEL_TOKEN", "")]).unwrap();
        assert_eq!((address.as_str(), token.as_str()), ("http://127.0.0.1:7430", ""), "anybody may listen there");
        assert!(origin.contains("no daemon that runs") && origin.contains("if ARTEL_TOKEN_FILE names it"), "{origin}");
        let published = PublishedAddress::publish(data, ([127, 0, 0, 1], 9).into()).unwrap();
        let [address, token, origin] = found(None, data, &[]).unwrap();
        assert_eq!((address.as_str(), token.as_str()), ("http://127.0.0.1:9", "artel_x"));
        assert_eq!(origin, format!("the token in {}/token", data.display()));
        let [address, token, origin] = found(Some("127.0.0.1:10"), data, &[]).unwrap();
        assert_eq!((address.as_str(), token.as_str()), ("http://127.0.0.1:10", ""));
        assert!(origin.contains("listens on 127.0.0.1:9"), "{origin}");
        fs::write(data.join("artel.sock"), "").unwrap();
        let [address, token, _] = found(None, data, &[]).unwrap();
        assert_eq!((address, token), (format!("unix:{}/artel.sock", data.display()), String::new()));
        let [address, token, _] = found(Some("localhost:9"), data, &[]).unwrap();
        assert_eq!((address.as_str(), token.as_str()), ("http://localhost:9", "artel_x"));
        drop(published);
        assert_eq!(found(Some("localhost:9"), data, &[]).unwrap()[1], "");
    }

    #[test]
    fn a_client_certificate_stands_in_the_place_of_the_owners_token() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "artel_x").unwrap();
        let identity = ClientIdentity { certificate: "me.pem".into(), key: "me.key".into() };
        let token = |address: &str, identity: Option<&ClientIdentity>, variables: &[(&str, &str)]| {
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let found = find_in(Some(address.parse().unwrap()), Some(dir.path()), identity.cloned(), variable).unwrap();
            found.token.map(|token| token.expose().to_owned())
        };
        assert_eq!(token("https://localhost", None, &[]).as_deref(), Some("artel_x"));
        assert_eq!(token("https://localhost", Some(&identity), &[]), None);
        let named = [("ARTEL_TOKEN", "artel_y")];
        assert_eq!(token("https://localhost", Some(&identity), &named).as_deref(), Some("artel_y"));
    }

    #[test]
    fn the_owners_token_stays_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "artel_x").unwrap();
        for address in ["https://box.example", "http://box.example", "10.0.0.1"] {
            let [_, token, origin] = found(Some(address), dir.path(), &[]).unwrap();
            assert!(token.is_empty() && origin.contains("not sent to other machines"), "{address}: {origin}");
        }
    }

    #[test]
    fn a_named_token_goes_where_others_cannot_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine");
        fs::write(&file, "artel_file\n").unwrap();
        let file = file.to_str().unwrap();
        let both = [("ARTEL_TOKEN", "artel_text"), ("ARTEL_TOKEN_FILE", file)];
        for address in ["https://box.example", "127.0.0.1:1", "unix:/run/artel.sock"] {
            assert_eq!(found(Some(address), dir.path(), &both).unwrap()[1], "artel_text", "{address}");
            assert_eq!(found(Some(address), dir.path(), &both[1..]).unwrap()[1], "artel_file", "{address}");
        }
        let error = found(Some("box.example"), dir.path(), &both).unwrap_err();
        assert!(error.contains("the token of ARTEL_TOKEN would be sent to it unencrypted"), "{error}");
        assert!(!error.contains("artel_text"), "{error}");
        let error = found(None, dir.path(), &[("ARTEL_TOKEN_FILE", "/nowhere")]).unwrap_err();
        assert!(error.contains("failed to read the token in /nowhere"), "{error}");
    }
}
