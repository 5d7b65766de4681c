//! Why a file is not downloaded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_model::{PieceNumbers, format_bytes};
use artel_roles::hf_uri::HfUri;

use crate::disk::{self, SpaceShortage};
use crate::interruption::Interruption;

/// Why a file is not here. Clones go to every request that waits for it; each message says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Downloads are disabled.
    #[error(
        "{address} is missing at {path}, and downloads are disabled (offline): copy the file there, or allow downloads"
    )]
    Offline {
        /// The address of the file.
        address: Box<HfUri>,
        /// Where it is expected.
        path: PathBuf,
    },
    /// Downloads are disabled, and a model is not here with all of its pieces.
    #[error(
        "{address}: {missing} not found in {dir}, and downloads are disabled (offline): copy them there, or allow downloads"
    )]
    OfflinePieces {
        /// The address of the first piece.
        address: Box<HfUri>,
        /// Which are not here.
        missing: PieceNumbers,
        /// The directory in which they are expected.
        dir: PathBuf,
    },
    /// The hub has not all pieces of the model.
    #[error(
        "{address}: the hub lacks {missing} in {}/{}, revision `{}`, and nothing is fetched; check the address in the YAML",
        .address.org(), .address.repo(), .address.revision()
    )]
    PiecesNotFound {
        /// The address of the first piece.
        address: Box<HfUri>,
        /// Which the hub has not.
        missing: PieceNumbers,
    },
    /// The YAML has not a hash for each piece.
    #[error(
        "{address}: the model has {pieces} files and `sha256` has {hashes} hashes; give one for each, in their order"
    )]
    HashCount {
        /// The address of the first piece.
        address: Box<HfUri>,
        /// The number of files.
        pieces: usize,
        /// The number of hashes.
        hashes: usize,
    },
    /// `HF_ENDPOINT` is no address of a hub.
    #[error("HF_ENDPOINT is not an HTTP URL: {0}; set it to the URL of a mirror, or unset it")]
    InvalidEndpoint(String),
    /// The token of the hub is none. It is not shown.
    #[error(
        "the token of the hub (HF_TOKEN, or the file that the settings name) has characters that are invalid in a token; \
         copy it again from the settings of the account"
    )]
    InvalidToken,
    /// The file with the token of the hub cannot be read.
    #[error("failed to read the token of the hub from {path}: {cause}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: Arc<io::Error>,
    },
    /// No thread could be started for the download.
    #[error("failed to start a thread to download {address}: {cause}; the next request tries again")]
    Thread {
        /// The address of the file.
        address: Box<HfUri>,
        /// The system's error.
        cause: Arc<io::Error>,
    },
    /// The download was stopped before its end.
    #[error("{0}: the download was stopped; the next request resumes it")]
    Stopped(Box<HfUri>),
    /// No attempt made progress.
    #[error("{address}: {cause}; given up after {attempts} attempts without progress, and the next request resumes it")]
    GivenUp {
        /// The address of the file.
        address: Box<HfUri>,
        /// How many attempts there were.
        attempts: u32,
        /// What ended the last one.
        cause: Interruption,
    },
    /// The hub does not say what it has, asked once.
    #[error("{address}: {cause}")]
    Unanswered {
        /// The address of the file.
        address: Box<HfUri>,
        /// What became of the request.
        cause: Interruption,
    },
    /// The thread of a request ended early.
    #[error("{0}: the request to the hub was ended")]
    Cancelled(Box<HfUri>),
    /// The server's certificate is invalid, or it does not speak TLS.
    #[error("{server} cannot be trusted: {cause}; check the package ca-certificates and the clock of this machine")]
    Untrusted {
        /// The host name.
        server: String,
        /// The error of the handshake.
        cause: String,
    },
    /// The hub does not show this repository with this token, or without one.
    #[error(
        "{address}: the hub answers {status}: {}/{} is gated, private or missing{}",
        .address.org(), .address.repo(), access_advice(*.has_token)
    )]
    Forbidden {
        /// The address of the file.
        address: Box<HfUri>,
        /// The HTTP status.
        status: u16,
        /// Whether `HF_TOKEN` was sent.
        has_token: bool,
    },
    /// The hub has no such file.
    #[error("{address}: {}; check the address in the YAML", .part.describe(.address))]
    NotFound {
        /// The address of the file.
        address: Box<HfUri>,
        /// What of it does not exist.
        part: MissingPart,
    },
    /// The server rejects the request.
    #[error("{address}: {server} answers {status}; check HF_ENDPOINT and the proxy of the network")]
    Rejected {
        /// The address of the file.
        address: Box<HfUri>,
        /// The host name.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// Each server names another one.
    #[error("{0}: too many redirects; check HF_ENDPOINT and the proxy of the network")]
    TooManyRedirects(Box<HfUri>),
    /// The server names no other address.
    #[error("{server} sent a redirect without a valid target; check HF_ENDPOINT and the proxy of the network")]
    InvalidRedirect {
        /// The host name.
        server: String,
    },
    /// The server names an address without encryption.
    #[error(
        "{server} redirects from https to http, which is not allowed; check HF_ENDPOINT and the proxy of the network"
    )]
    UnsafeRedirect {
        /// The host name.
        server: String,
    },
    /// The hub's file has another hash than the YAML states.
    #[error(
        "{address}: the hub has another file than expected: its sha256 is {stated}, the YAML states {wanted}; correct \
         `sha256`, or name the revision that has the file"
    )]
    OtherFile {
        /// The address of the file.
        address: Box<HfUri>,
        /// The hash that the hub states.
        stated: String,
        /// The hash that the YAML states.
        wanted: String,
    },
    /// The received bytes have another hash than stated.
    #[error(
        "{address}: the downloaded file is wrong and was deleted: its sha256 is {actual}, {source_of_hash} states {wanted}; \
         {}", .source_of_hash.advice()
    )]
    WrongHash {
        /// The address of the file.
        address: Box<HfUri>,
        /// The hash of the received bytes.
        actual: String,
        /// The stated hash.
        wanted: String,
        /// What states it.
        source_of_hash: HashSource,
    },
    /// The received bytes are something else.
    #[error(
        "{0}: the downloaded file is no GGUF file (perhaps a web page) and was deleted; check HF_ENDPOINT and the proxy of the \
         network"
    )]
    NotGguf(Box<HfUri>),
    /// What a revision means has changed since all pieces were asked for.
    #[error(
        "{0}: the hub has another version of this file now than when it was asked for all pieces, and pieces of two versions are no \
         model; the next request asks again. Name a revision that does not change, such as a commit, or state `sha256`"
    )]
    VersionChanged(Box<HfUri>),
    /// A piece that is here is not of the version that the hub has of the others.
    #[error(
        "{address}: the file {path} is of another version than the hub has of this model in revision `{}`: {difference}; pieces of two \
         versions are no model: remove the file, or name the revision that it is from", .address.revision()
    )]
    OtherVersion {
        /// The address of the piece.
        address: Box<HfUri>,
        /// The file that is here.
        path: PathBuf,
        /// How it differs.
        difference: VersionDifference,
    },
    /// The disk has no space for the file.
    #[error(
        "{address}: {} are missing, and the disk of {path} has {} free{}; free disk space, and the next request resumes the \
         download", format_bytes(*.missing_bytes), format_bytes(*.free_bytes), claimed(*.claimed_bytes)
    )]
    NoSpace {
        /// The address of the file.
        address: Box<HfUri>,
        /// The path that it would have.
        path: PathBuf,
        /// Bytes that are still to be downloaded.
        missing_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes of them that other downloads will take.
        claimed_bytes: u64,
    },
    /// The disk became full: the server does not say how large the file is, or others write there.
    #[error(
        "{address}: the disk of {path} is full after {} of the file: it has {} free, and {} stay free; free disk space, and the next \
         request resumes the download", format_bytes(*.done_bytes), format_bytes(*.free_bytes), format_bytes(disk::RESERVED_BYTES)
    )]
    DiskFull {
        /// The address of the file.
        address: Box<HfUri>,
        /// The path that it would have.
        path: PathBuf,
        /// Bytes of it that are here.
        done_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The server sends more than it announced.
    #[error("{address}: the server sent more than the {} that it announced; check HF_ENDPOINT", format_bytes(*.limit_bytes))]
    TooLarge {
        /// The address of the file.
        address: Box<HfUri>,
        /// The bytes that it announced.
        limit_bytes: u64,
    },
    /// A file or directory of the models directory cannot be used.
    #[error("failed to {action} {path}: {cause}; {}", file_advice(.cause))]
    File {
        /// What was done to it.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        cause: Arc<io::Error>,
    },
}

impl Error {
    /// Whether the same request may succeed later without a change of a file, a setting or the hub.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Thread { .. } | Self::Stopped(_) | Self::GivenUp { .. } => true,
            Self::NoSpace { .. } | Self::DiskFull { .. } => true,
            Self::Unanswered { .. } | Self::Cancelled(_) | Self::VersionChanged(_) => true,
            // A page of a network's login, or bytes that were changed on their way: the next download has others.
            Self::NotGguf(_) | Self::WrongHash { source_of_hash: HashSource::Hub, .. } => true,
            Self::File { cause, .. } => !matches!(
                cause.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ),
            _ => false,
        }
    }

    /// [`Error::NoSpace`].
    pub(crate) fn no_space(address: &HfUri, path: &Path, shortage: SpaceShortage) -> Self {
        let SpaceShortage { missing_bytes, free_bytes, claimed_bytes } = shortage;
        let (address, path) = (Box::new(address.clone()), path.to_owned());
        Self::NoSpace { address, path, missing_bytes, free_bytes, claimed_bytes }
    }

    /// [`Error::File`].
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self::File { action, path: path.into(), cause: Arc::new(cause) }
    }
}

/// What of an address does not exist on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPart {
    /// The repository.
    Repository,
    /// The revision of the repository.
    Revision,
    /// The file in this revision.
    File,
}

impl MissingPart {
    fn describe(self, address: &HfUri) -> String {
        let (org, repo, revision) = (address.org(), address.repo(), address.revision());
        match self {
            Self::Repository => format!("the hub has no repository {org}/{repo}"),
            Self::Revision => format!("{org}/{repo} has no revision `{revision}`"),
            Self::File => {
                let file: Vec<&str> = address.file().collect();
                format!("there is no file `{}` in {org}/{repo}, revision `{revision}`", file.join("/"))
            }
        }
    }
}

/// How a file differs from what the hub states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionDifference {
    /// In its size.
    #[error("it has {here_bytes} bytes, the hub states {stated_bytes}")]
    Size {
        /// The bytes of the file.
        here_bytes: u64,
        /// The bytes that the hub states.
        stated_bytes: u64,
    },
    /// In its content.
    #[error("its sha256 is {here}, the hub states {stated}")]
    Hash {
        /// The hash of the file.
        here: String,
        /// The hash that the hub states.
        stated: String,
    },
}

/// What states the hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSource {
    /// `sha256` of the model.
    Yaml,
    /// The response of the hub.
    Hub,
}

impl HashSource {
    fn advice(self) -> &'static str {
        match self {
            Self::Yaml => "correct `sha256`, or fetch it again",
            Self::Hub => "fetch it again",
        }
    }
}

impl std::fmt::Display for HashSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yaml => "the YAML",
            Self::Hub => "the hub",
        })
    }
}

/// What is not free for long, in words.
fn claimed(claimed_bytes: u64) -> String {
    match claimed_bytes {
        0 => String::new(),
        bytes => format!(", of which other downloads take {}", format_bytes(bytes)),
    }
}

fn access_advice(has_token: bool) -> &'static str {
    match has_token {
        true => ", and the token that was sent may not read it; request access on its page",
        false => "; for a gated or private repository, name the file of a token in the settings, or set HF_TOKEN",
    }
}

fn file_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free disk space, and the next request resumes the download"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make the directory writable for this user, or name another one with --models"
        }
        _ => "check the directory and its disk",
    }
}
