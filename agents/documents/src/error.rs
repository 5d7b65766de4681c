//! Why a file gives no chunks: one line for each file.

use serde::{Deserialize, Serialize};

/// Why a file gives no chunks. The messages are fragments that fit after "handbook.pdf: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentError {
    /// The path names something else than a regular file.
    #[error("is {kind}, not a file")]
    NotAFile {
        /// `a directory`, `a pipe`, `a socket`, `a device`.
        kind: String,
    },
    /// The system refuses to open or to read it.
    #[error("cannot be read: {cause}")]
    Unreadable {
        /// What the system said.
        cause: String,
    },
    /// It is larger than the limit for files.
    #[error("holds {bytes} bytes, and the limit for a file is {limit}: split it, or raise the limit")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It was written to while it was read, twice.
    #[error("changes while it is read: it is read again when it changes no more")]
    Changing,
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// It has pages or markup, and no text.
    #[error("has no text: a scanned document needs text recognition (OCR) first")]
    NoText,
    /// It was to be text and is not.
    #[error("is no text: byte {offset} is 0")]
    Binary {
        /// Where the first such byte is.
        offset: u64,
    },
    /// Neither its name nor its first bytes are of a known format.
    #[error("has a format that cannot be read: text, Markdown, HTML, PDF, DOCX, XLSX, CSV and source code can")]
    UnknownFormat,
    /// It is protected by a password.
    #[error("is encrypted: save it without a password")]
    Encrypted,
    /// It breaks the rules of its format.
    #[error("is no valid {format}: {cause}")]
    Malformed {
        /// The name of the format.
        format: String,
        /// What its parser said.
        cause: String,
    },
    /// Its extracted text is longer than the limit.
    #[error("has more than {limit} bytes of text, the limit for a file")]
    TextTooLong {
        /// The limit.
        limit: u64,
    },
    /// Its archive unpacks to more than the limit.
    #[error("unpacks to more than {limit} bytes, the limit for an archive")]
    UnpacksTooLarge {
        /// The limit.
        limit: u64,
    },
    /// It has too many of something.
    #[error("has more than {limit} {what}, the limit for a file")]
    TooMany {
        /// `pages`, `rows`, `columns`, `archive entries`, `chunks`.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Its elements are nested too deeply.
    #[error("nests elements deeper than {limit}, the limit for a file")]
    NestedTooDeep {
        /// The limit.
        limit: u64,
    },
    /// The extraction took longer than its deadline.
    #[error("was not read within {seconds} s, the limit for a file")]
    TimedOut {
        /// The deadline.
        seconds: u64,
    },
    /// The extraction needed more memory than its limit.
    #[error("needs more than {limit} bytes of memory to be read, the limit for a file")]
    OutOfMemory {
        /// The limit.
        limit: u64,
    },
    /// The extracting process ended at this file.
    #[error("ends the process that reads it: {cause}")]
    Crashed {
        /// Its exit, and the last line that it wrote.
        cause: String,
    },
    /// The extracting process cannot be used at all; the file may be fine.
    #[error("was not read: {cause}")]
    Unavailable {
        /// What failed.
        cause: String,
    },
}

impl DocumentError {
    /// Whether the same bytes may be read later: the fault lies with the moment, not with the content.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotAFile { .. } | Self::Unreadable { .. } | Self::Changing | Self::Unavailable { .. })
    }

    pub(crate) fn malformed(format: &str, cause: impl std::fmt::Display) -> Self {
        Self::Malformed { format: format.to_owned(), cause: one_line(&cause.to_string()) }
    }

    pub(crate) fn unreadable(cause: &std::io::Error) -> Self {
        Self::Unreadable { cause: cause.to_string() }
    }

    pub(crate) fn too_many(what: &str, limit: u64) -> Self {
        Self::TooMany { what: what.to_owned(), limit }
    }
}

/// A cause that a file can make as long as it likes is cut here.
const MAX_CAUSE_CHARS: usize = 200;

/// A text without line ends and control characters, of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.trim().chars().map(clean).take(MAX_CAUSE_CHARS).collect();
    if text.trim().chars().count() > MAX_CAUSE_CHARS {
        line.push('…');
    }
    line
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("its parser failed")
}
