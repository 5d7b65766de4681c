//! The token of the owner: a file of the data directory, which the verbs of the same user read by themselves.

use std::path::Path;

use crate::error::Error;
use crate::private_file;
use crate::secret::{Secret, SecretHash};

/// The file in the data directory that holds the owner's token.
pub const OWNER_FILE: &str = "token";
/// A token and a line break, with some room.
const MAX_FILE_BYTES: u64 = 256;

/// The hash of the owner's token; makes the token if there is none. One that is damaged is replaced, and so is one that others
/// could read: it may be known to them.
pub(crate) fn open(dir: &Path) -> Result<SecretHash, Error> {
    let path = dir.join(OWNER_FILE);
    let failed = |source| Error::File { path: path.clone(), source };
    let fault = match private_file::read(&path, MAX_FILE_BYTES).map_err(failed)? {
        None => None,
        Some(found) => {
            let secret = found.text.map(|text| Secret::new(text.trim_end().to_owned()));
            match secret.filter(Secret::is_token) {
                Some(secret) if !found.is_exposed => return Ok(secret.hash()),
                Some(_) => Some("other users could read it"),
                None => Some("it does not hold a token"),
            }
        }
    };
    if let Some(fault) = fault {
        tracing::warn!(path = %path.display(), fault, "the owner's token is replaced; clients that have a copy need the new one");
    }
    let secret = Secret::random();
    private_file::write(&path, secret.expose()).map_err(failed)?;
    Ok(secret.hash())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn the_token_is_kept_unless_it_is_damaged_or_was_open_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OWNER_FILE);
        let text = || fs::read_to_string(&path).unwrap();
        let hash = open(dir.path()).unwrap();
        let first = text();
        assert!(Secret::new(first.clone()).hash().is(&hash));
        fs::write(&path, format!("{first}\n")).unwrap();
        assert!(open(dir.path()).unwrap().is(&hash), "a line break does no harm");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(!open(dir.path()).unwrap().is(&hash));
        let second = text();
        assert_eq!((second == first, fs::metadata(&path).unwrap().mode() & 0o777), (false, 0o600));
        for damage in ["", "artel_", &second[..40], &"x".repeat(10_000)] {
            fs::write(&path, damage).unwrap();
            open(dir.path()).unwrap();
            assert!(Secret::new(text()).is_token(), "{damage}");
        }
        fs::write(&path, [0xff; 70]).unwrap();
        open(dir.path()).unwrap();
        assert!(Secret::new(text()).is_token());
    }
}
