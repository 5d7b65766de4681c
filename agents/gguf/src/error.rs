//! Why a GGUF file cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use artel_model::PieceNumbers;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not exist.
    #[error("{path}: no such file; check `file` in the model's YAML or fetch the model into the models directory")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Some pieces of a model are not beside the others.
    #[error(
        "{path}: {missing} not found in {}; fetch them again, or copy them there: a model is loaded with all of its pieces",
        .path.parent().unwrap_or(Path::new(".")).display()
    )]
    MissingPieces {
        /// The first piece.
        path: PathBuf,
        /// The missing ones.
        missing: PieceNumbers,
    },
    /// A piece is not the one that its name says, or one of another model.
    #[error("{path}: {reason}; fetch or copy all pieces of the model together")]
    PieceMismatch {
        /// The piece.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A hash is needed for each piece.
    #[error("{path}: the model has {pieces} files and `sha256` has {hashes} hashes; give one for each, in their order")]
    HashCount {
        /// The model.
        path: PathBuf,
        /// The number of files.
        pieces: usize,
        /// The number of hashes.
        hashes: usize,
    },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}; {}", advice(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has another format.
    #[error("{path}: not a GGUF file: it does not begin with `GGUF`; convert the model to GGUF")]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// The GGUF version is newer or older than this crate supports.
    #[error("{path}: GGUF version {version} is not supported (supported: 2 and 3); convert the model to one of them")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        version: u32,
    },
    /// The header is inconsistent.
    #[error("{path}: the GGUF header is damaged: {reason}; fetch the file again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The inconsistency.
        reason: String,
    },
    /// The metadata takes more than a reader allows it.
    #[error("{path}: the GGUF metadata is too large: {reason}; fetch the file again, or convert the model again")]
    OverBudget {
        /// The file.
        path: PathBuf,
        /// The key and the budget.
        reason: String,
    },
    /// The file is shorter than its header requires.
    #[error(
        "{path}: the file is truncated: it has {actual_bytes} bytes and needs at least {required_bytes}; fetch it again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The size that the header requires.
        required_bytes: u64,
        /// The size of the file.
        actual_bytes: u64,
    },
    /// The file cannot be written.
    #[error("{path}: cannot be written: {source}; {}", advice(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file's SHA-256 differs from the expected one.
    #[error("{path}: its sha256 is {actual}, the YAML states {expected}: fetch it again or correct `sha256`")]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The hash in the YAML.
        expected: String,
        /// The hash of the file.
        actual: String,
    },
    /// An adapter instead of a model or the reverse, an adapter for another architecture, or a piece under another name.
    #[error("{path}: {reason}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What is wrong, and which file is needed.
        reason: String,
    },
    /// The model cannot serve the purpose that the YAML gives it.
    #[error("{path}: {reason}")]
    Purpose {
        /// The file.
        path: PathBuf,
        /// Why not, and which `use` fits.
        reason: String,
    },
    /// The weights have a type that cannot be converted.
    #[error("{path}: cannot be dequantized: {reason}; load the model with `weights: file`")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What cannot be converted.
        reason: String,
    },
}

impl Error {
    /// An error of the system while a file is opened or read.
    pub(crate) fn of_read(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    /// Whether the same call may succeed later without a change of the file or a setting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => is_transient(source),
            Self::Missing { .. }
            | Self::MissingPieces { .. }
            | Self::PieceMismatch { .. }
            | Self::HashCount { .. }
            | Self::NotGguf { .. }
            | Self::Version { .. }
            | Self::Damaged { .. }
            | Self::OverBudget { .. }
            | Self::Truncated { .. }
            | Self::HashMismatch { .. }
            | Self::WrongKind { .. }
            | Self::Purpose { .. }
            | Self::Unsupported { .. } => false,
        }
    }
}

/// All but the errors that say something about the file itself, which stays as it is.
fn is_transient(source: &io::Error) -> bool {
    use io::ErrorKind;
    !matches!(
        source.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::UnexpectedEof
    )
}

/// What to do about an error of the system.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "give the daemon's user access to it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free disk space",
        _ if is_transient(source) => "try again, and check the disk if it fails again",
        _ => "check the path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_system_that_may_pass_are_transient() {
        let of = |kind: io::ErrorKind| Error::of_read(Path::new("m.gguf"), kind.into());
        assert!(matches!(of(io::ErrorKind::NotFound), Error::Missing { .. }));
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied, io::ErrorKind::IsADirectory] {
            assert!(!of(kind).is_transient(), "{kind}");
        }
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            assert!(of(kind).is_transient(), "{kind}");
        }
        let damaged = Error::Truncated { path: "m.gguf".into(), required_bytes: 2, actual_bytes: 1 };
        assert!(!damaged.is_transient());
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let denied = Error::of_read(Path::new("m.gguf"), io::ErrorKind::PermissionDenied.into()).to_string();
        assert_eq!(denied, "m.gguf: cannot be read: permission denied; give the daemon's user access to it");
    }
}
