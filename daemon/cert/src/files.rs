//! The files of a directory of certificates.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::authority::{Authority, SignedPair};
use crate::error::Error;
use crate::host_names::ClientName;

/// A key is for the eyes of its owner.
const KEY_MODE: u32 = 0o600;
/// A certificate is shown to each client anyway.
const CERTIFICATE_MODE: u32 = 0o644;

/// The names of the files in a directory of certificates.
#[derive(Debug, Clone)]
pub struct CertFiles {
    dir: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertPair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl CertFiles {
    /// In this directory, which need not exist.
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Those of the authority. Clients need its certificate.
    pub fn authority(&self) -> CertPair {
        self.pair("ca")
    }

    /// Those of the daemon.
    pub fn server(&self) -> CertPair {
        self.pair("server")
    }

    /// Those of a client.
    pub fn client(&self, name: &ClientName) -> CertPair {
        self.pair(&format!("client-{}", name.as_str()))
    }

    fn pair(&self, name: &str) -> CertPair {
        CertPair { certificate: self.dir.join(format!("{name}.pem")), key: self.dir.join(format!("{name}-key.pem")) }
    }

    /// The authority of the directory; none if both of its files are missing.
    pub(crate) fn read_authority(&self) -> Result<Option<Authority>, Error> {
        let CertPair { certificate, key } = self.authority();
        match (is_there(&certificate), is_there(&key)) {
            (false, false) => return Ok(None),
            (true, false) => return Err(Error::HalfAuthority { missing: key, found: certificate }),
            (false, true) => return Err(Error::HalfAuthority { missing: certificate, found: key }),
            (true, true) => {}
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(|cause| file_error("read", path, cause));
        let (certificate_pem, key_pem) = (read(&certificate)?, read(&key)?);
        let invalid = |cause| Error::InvalidAuthority { path: certificate.clone(), cause };
        let authority = Authority::from_pem(&certificate_pem, &key_pem).map_err(invalid)?;
        match authority.owns_its_certificate() {
            true => Ok(Some(authority)),
            false => Err(Error::OtherKey { certificate, key }),
        }
    }

    /// Writes the files of a new authority.
    pub(crate) fn write_authority(&self, authority: &Authority) -> Result<CertPair, Error> {
        let pair = SignedPair { certificate: authority.certificate.clone(), key: authority.key() };
        self.write(self.authority(), &pair)
    }

    /// Writes a pair, the key first: a certificate whose key is missing would be of no use.
    pub(crate) fn write(&self, pair: CertPair, content: &SignedPair) -> Result<CertPair, Error> {
        fs::create_dir_all(&self.dir).map_err(|cause| file_error("create", &self.dir, cause))?;
        self.write_file(&pair.key, &content.key, KEY_MODE)?;
        self.write_file(&pair.certificate, &content.certificate, CERTIFICATE_MODE)?;
        Ok(pair)
    }

    /// Writes a file that appears with its whole content, and never in place of another one.
    fn write_file(&self, path: &Path, text: &str, mode: u32) -> Result<(), Error> {
        let failed = |cause: io::Error| file_error("write", path, cause);
        // Its mode is 0600 until it is complete.
        let mut file = NamedTempFile::new_in(&self.dir).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist_noclobber(path).map(drop).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(vec![path.to_owned()]),
            _ => failed(e.error),
        })
    }
}

impl CertPair {
    /// Fails if one of its files exists.
    pub(crate) fn refuse_existing(&self) -> Result<(), Error> {
        let found: Vec<PathBuf> =
            [&self.certificate, &self.key].into_iter().filter(|path| is_there(path)).cloned().collect();
        if found.is_empty() { Ok(()) } else { Err(Error::Exists(found)) }
    }
}

/// Whether there is something of this name, if only a broken link.
fn is_there(path: &Path) -> bool {
    path.exists() || path.is_symlink()
}

fn file_error(action: &'static str, path: &Path, cause: io::Error) -> Error {
    Error::File { action, path: path.to_owned(), cause }
}
