//! The token of the hub: where it lies. Its text is read when the hub is first needed, and shown nowhere.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fmt};

use artel_model::open_regular_file;

use crate::error::Error;

/// The variable with the token itself. Another process of the same user may see it, unlike a file.
const TOKEN_VARIABLE: &str = "HF_TOKEN";
/// The variable of systemd with the directory of the credentials of a service.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The name of the credential.
const CREDENTIAL_NAME: &str = "hf_token";
/// A token has some dozen bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where the token of the hub lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubTokenSource {
    /// In a file that the settings name.
    File(PathBuf),
    /// In a credential of systemd.
    Credential(PathBuf),
    /// In the variable `HF_TOKEN`.
    Environment,
}

impl HubTokenSource {
    /// The file of the settings, or else the credential `hf_token`, or else `HF_TOKEN`; none if there is none of them.
    pub fn find(file: Option<&Path>) -> Option<Self> {
        Self::find_in(file, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn find_in(file: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let credential = || Some(Path::new(&variable(CREDENTIALS_VARIABLE)?).join(CREDENTIAL_NAME));
        let file = file.map(|path| Self::File(path.to_owned()));
        file.or_else(|| credential().filter(|path| path.exists()).map(Self::Credential))
            .or_else(|| variable(TOKEN_VARIABLE).map(|_| Self::Environment))
    }

    /// The token; none if it is empty.
    pub(crate) fn read(&self) -> Result<Option<String>, Error> {
        let text = match self {
            Self::File(path) | Self::Credential(path) => {
                read_file(path).map_err(|cause| Error::TokenFile { path: path.clone(), cause: Arc::new(cause) })?
            }
            Self::Environment => env::var(TOKEN_VARIABLE).unwrap_or_default(),
        };
        Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
    }
}

impl fmt::Display for HubTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Credential(path) => write!(f, "the credential {}", path.display()),
            Self::Environment => f.write_str(TOKEN_VARIABLE),
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_regular_file(path)?.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_TOKEN_BYTES {
        false => Ok(text),
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a token")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_named_file_comes_before_a_credential_and_that_before_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let both = |name: &str| match name {
            CREDENTIALS_VARIABLE => Some(dir.path().into()),
            _ => Some("hf_of_a_test".into()),
        };
        assert_eq!(HubTokenSource::find_in(None, |_| None), None);
        assert_eq!(
            HubTokenSource::find_in(None, both),
            Some(HubTokenSource::Environment),
            "there is no credential yet"
        );
        let credential = dir.path().join(CREDENTIAL_NAME);
        fs::write(&credential, "hf_of_a_test\n").unwrap();
        let found = HubTokenSource::find_in(None, both).unwrap();
        assert_eq!(found, HubTokenSource::Credential(credential));
        assert_eq!(found.read().unwrap().as_deref(), Some("hf_of_a_test"));
        assert!(!format!("{found} {found:?}").contains("of_a_test"));
        assert_eq!(HubTokenSource::find_in(Some(&file), both), Some(HubTokenSource::File(file)));
    }

    #[test]
    fn a_file_that_is_no_token_is_refused_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| HubTokenSource::File(dir.path().join(name)).read();
        let error = read("gone").unwrap_err().to_string();
        assert!(error.contains("failed to read the token of the hub") && error.contains("/gone"), "{error}");
        assert!(read("").is_err(), "a directory is no file");
        fs::write(dir.path().join("long"), "x".repeat(5000)).unwrap();
        let error = read("long").unwrap_err().to_string();
        assert!(error.contains("too long") && !error.contains("xxx"), "{error}");
        fs::write(dir.path().join("empty"), " \n").unwrap();
        assert_eq!(read("empty").unwrap(), None);
    }
}
