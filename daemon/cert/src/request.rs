//! What a person asks for: certificates for the daemon, or for a client.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::authority::Authority;
use crate::error::Error;
use crate::files::{CertFiles, CertPair};
use crate::host_names::{ClientName, HostNames};

/// The files that a call has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedCertificates {
    /// Those of the authority.
    pub authority: CertPair,
    /// Whether the authority is new. Clients that know an older one still trust what it signs.
    pub is_new_authority: bool,
    /// Those of the daemon or the client.
    pub pair: CertPair,
}

/// Makes a certificate for a daemon that is reached by these names, and an authority if the directory has none.
///
/// # Errors
/// The daemon has a certificate there already; or a file cannot be read or written.
pub fn create_for_server(dir: &Path, names: &HostNames, lifetime: Duration) -> Result<CreatedCertificates, Error> {
    let (files, now) = (CertFiles::in_dir(dir), SystemTime::now());
    files.server().refuse_existing()?;
    let (authority, is_new) = match files.read_authority()? {
        Some(authority) => (authority, false),
        None => (Authority::new(&authority_host(names), now)?, true),
    };
    let signed = authority.sign_server(names, now, lifetime)?;
    if is_new {
        files.write_authority(&authority)?;
    }
    let pair = files.write(files.server(), &signed)?;
    Ok(CreatedCertificates { authority: files.authority(), is_new_authority: is_new, pair })
}

/// Makes a certificate for a client, signed by the authority of the directory.
///
/// # Errors
/// There is no authority, or the client has a certificate already; or a file cannot be read or written.
pub fn create_for_client(dir: &Path, name: &ClientName, lifetime: Duration) -> Result<CreatedCertificates, Error> {
    let files = CertFiles::in_dir(dir);
    files.client(name).refuse_existing()?;
    let authority = files.read_authority()?.ok_or_else(|| Error::NoAuthority(dir.to_owned()))?;
    let signed = authority.sign_client(name, SystemTime::now(), lifetime)?;
    let pair = files.write(files.client(name), &signed)?;
    Ok(CreatedCertificates { authority: files.authority(), is_new_authority: false, pair })
}

/// The name of the machine, for the name of its authority: a person may see several.
fn authority_host(names: &HostNames) -> String {
    names.names.iter().find(|name| *name != "localhost").cloned().unwrap_or_else(|| "localhost".to_owned())
}
