//! GGUF files of models and adapters: as written, and the paths at which they may be.

use std::path::{Path, PathBuf};

use artel_model::{PieceName, piece_paths};
use artel_yaml::{Diagnostics, YamlNode};

use crate::decode::text;
use crate::hf_uri::{HfUri, SCHEME};

/// The GGUF file of a model or an adapter, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GgufFile {
    /// A file on this machine; the first piece of a model in pieces, whichever was named.
    Path(PathBuf),
    /// A file on Hugging Face, downloaded when it is first needed.
    Hf(HfUri),
}

impl GgufFile {
    /// How many files it is: more than one for a model in pieces.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Path(path) => piece_paths(path).len(),
            Self::Hf(uri) => uri.pieces().len(),
        }
    }

    /// The URI that it is downloaded from.
    pub fn uri(&self) -> Option<&HfUri> {
        match self {
            Self::Path(_) => None,
            Self::Hf(uri) => Some(uri),
        }
    }
}

/// The paths at which a file may be: beside the YAML file that names it, then in the daemon's models directory. A file
/// from Hugging Face has one path, below the latter.
pub(crate) fn candidates(file: &GgufFile, dir: Option<&Path>, models_dir: &Path) -> Vec<PathBuf> {
    let file = match file {
        GgufFile::Hf(uri) => return vec![models_dir.join(uri.path())],
        GgufFile::Path(path) if path.is_absolute() => return vec![path.clone()],
        GgufFile::Path(path) => path,
    };
    let mut paths: Vec<PathBuf> = dir.into_iter().chain([models_dir]).map(|dir| dir.join(file)).collect();
    paths.dedup();
    paths
}

/// A GGUF file: a path, or an `hf:` URI.
pub(crate) fn decode(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<GgufFile> {
    let path = text(node, what, 1..=4096, report)?;
    let (message, hint) = if path.contains(|c: char| c.is_control()) {
        (format!("{what} is a path, which has no line breaks or control characters"), None)
    } else if path.starts_with(SCHEME) {
        match HfUri::parse(&path) {
            Ok(uri) => return Some(GgufFile::Hf(uri)),
            Err(error) => (error.to_string(), None),
        }
    } else if path.starts_with("~/") {
        ("`~` is not expanded here".to_owned(), Some("write the whole path, or one relative to this file"))
    } else if path.ends_with('/') {
        (format!("{what} is a file, and this is a directory"), None)
    } else {
        let path = PathBuf::from(path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match PieceName::parse(name) {
            Ok(None) => return Some(GgufFile::Path(path)),
            Ok(Some(piece)) => return Some(GgufFile::Path(path.with_file_name(piece.of(1)))),
            Err(error) => (error.to_string(), None),
        }
    };
    report.push_error(node.span, message, hint.map(str::to_owned));
    None
}

/// The GGUF file of an adapter, which is never in pieces: llama.cpp reads one file.
pub(crate) fn decode_whole(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<GgufFile> {
    let file = decode(node, what, report)?;
    if let pieces @ 2.. = file.pieces() {
        let message = format!("{what} is one file, and this is the name of one of {pieces} pieces");
        report.push_error(
            node.span,
            message,
            Some("merge them with llama.cpp's `llama-gguf-split --merge`".to_owned()),
        );
        return None;
    }
    Some(file)
}
