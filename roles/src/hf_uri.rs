//! URIs of files on Hugging Face: `hf:org/repo/file.gguf`, `hf:org/repo@revision/folder/file.gguf`.

use std::fmt;
use std::path::PathBuf;

use artel_model::{InvalidPieceName, PieceName};

/// The scheme of such a URI.
pub(crate) const SCHEME: &str = "hf:";
/// The revision of a URI that names none.
const DEFAULT_REVISION: &str = "main";
/// The longest part of a URI: file systems take no longer names.
const MAX_PART_BYTES: usize = 255;

const FORM: &str = "an `hf:` URI is written `hf:org/repo/file.gguf` or `hf:org/repo@revision/file.gguf`";

/// Why a text is no such URI. Its message is that of a [`Problem`](crate::Problem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHfUri {
    /// It has another form.
    #[error("{FORM}")]
    Form,
    /// Organisation, repository or revision is no plain name.
    #[error("the {part} of an `hf:` URI has letters, digits, `.`, `_` and `-`; {FORM}")]
    Part {
        /// Which of them.
        part: &'static str,
    },
    /// The file's path leads out of the repository.
    #[error("the file's path is not a path within the repository; {FORM}")]
    Path,
    /// It names no GGUF file.
    #[error("an `hf:` URI names one file, and its name ends with `.gguf`")]
    NotGguf,
    /// It names a piece of a model that cannot be.
    #[error(transparent)]
    Piece(#[from] InvalidPieceName),
}

/// A file on Hugging Face, or a model in pieces there: any of them stands for all, and is kept as the first. Every part is a plain name of a file or a directory, so that its path cannot leave the models
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HfUri {
    org: String,
    repo: String,
    revision: Option<String>,
    file: Vec<String>,
}

impl HfUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidHfUri> {
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidHfUri::Form)?;
        let mut parts = rest.split('/');
        let (Some(org), Some(repo)) = (parts.next(), parts.next()) else { return Err(InvalidHfUri::Form) };
        let mut file: Vec<String> = parts.map(str::to_owned).collect();
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision.to_owned())),
            None => (repo, None),
        };
        let Some(name) = file.last() else { return Err(InvalidHfUri::Form) };
        for (name, part) in
            [(org, "organisation"), (repo, "repository"), (revision.as_deref().unwrap_or(DEFAULT_REVISION), "revision")]
        {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if !is_name(name) || !name.chars().all(plain) {
                return Err(InvalidHfUri::Part { part });
            }
        }
        if !file.iter().all(|part| is_name(part)) {
            return Err(InvalidHfUri::Path);
        }
        if !name.to_lowercase().ends_with(".gguf") {
            return Err(InvalidHfUri::NotGguf);
        }
        if let Some(piece) = PieceName::parse(name)? {
            file.pop();
            file.push(piece.of(1));
        }
        Ok(Self { org: org.to_owned(), repo: repo.to_owned(), revision, file })
    }

    /// Its path in the models directory: `hf/org/repo/revision/file`.
    pub fn path(&self) -> PathBuf {
        ["hf", &self.org, &self.repo, self.revision()].into_iter().chain(self.file.iter().map(String::as_str)).collect()
    }

    /// The address of each of its pieces, in their order; itself if it is a whole file.
    pub fn pieces(&self) -> Vec<Self> {
        let name = self.file.last().map(String::as_str).unwrap_or_default();
        let Ok(Some(piece)) = PieceName::parse(name) else { return vec![self.clone()] };
        let with_name = |name: String| {
            let mut piece = self.clone();
            piece.file.pop();
            piece.file.push(name);
            piece
        };
        piece.names().map(with_name).collect()
    }

    /// The organisation or person.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The repository, within its organisation.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit; `main` if the URI names none.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The file's path in the repository, name by name.
    pub fn file(&self) -> impl Iterator<Item = &str> {
        self.file.iter().map(String::as_str)
    }
}

/// As YAML writes it.
impl fmt::Display for HfUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { org, repo, revision, file } = self;
        write!(f, "{SCHEME}{org}/{repo}")?;
        revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))?;
        write!(f, "/{}", file.join("/"))
    }
}

/// Whether it can be the name of a file, and cannot leave a directory.
fn is_name(part: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != '\\';
    !matches!(part, "" | "." | "..") && part.len() <= MAX_PART_BYTES && part.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_a_path_of_its_own() {
        let uri = HfUri::parse("hf:org/Repo-1.5/a b/m.gguf").unwrap();
        assert_eq!((uri.org(), uri.repo(), uri.revision()), ("org", "Repo-1.5", "main"));
        assert_eq!(uri.path(), PathBuf::from("hf/org/Repo-1.5/main/a b/m.gguf"));
        let pinned = HfUri::parse("hf:org/repo@v2/m.GGUF").unwrap();
        assert_eq!(pinned.path(), PathBuf::from("hf/org/repo/v2/m.GGUF"));
        assert_eq!(pinned.to_string(), "hf:org/repo@v2/m.GGUF");
        assert_eq!(uri.file().collect::<Vec<_>>(), ["a b", "m.gguf"]);
    }

    #[test]
    fn no_uri_leaves_the_models_directory() {
        for text in [
            "hf:org/repo",
            "hf:m.gguf",
            "hf:org/repo/",
            "hf:../repo/m.gguf",
            "hf:org/../m.gguf",
            "hf:org/repo@../m.gguf",
            "hf:org/repo@/m.gguf",
            "hf:org/repo/../m.gguf",
            "hf:org/repo//m.gguf",
            "hf:org/repo/a\\m.gguf",
            "hf:org/re po/m.gguf",
            "hf:org/repo/m.bin",
            "hf:org/repo/m-00004-of-00003.gguf",
            "hf:org/repo/m-00001-of-00003.GGUF",
        ] {
            assert!(HfUri::parse(text).is_err(), "{text}");
        }
        assert!(HfUri::parse("hf:org/repo/m-00001-of-00001.gguf").is_ok());
    }

    #[test]
    fn any_piece_stands_for_the_model() {
        let uri = HfUri::parse("hf:org/repo@v1/q8/m-00002-of-00002.gguf").unwrap();
        assert_eq!(uri.to_string(), "hf:org/repo@v1/q8/m-00001-of-00002.gguf");
        assert_eq!(uri, HfUri::parse("hf:org/repo@v1/q8/m-00001-of-00002.gguf").unwrap());
        let pieces: Vec<PathBuf> = uri.pieces().iter().map(HfUri::path).collect();
        let path = |name: &str| PathBuf::from("hf/org/repo/v1/q8").join(name);
        assert_eq!(pieces, [path("m-00001-of-00002.gguf"), path("m-00002-of-00002.gguf")]);
        let whole = HfUri::parse("hf:org/repo/m.gguf").unwrap();
        assert_eq!(whole.pieces(), std::slice::from_ref(&whole));
        let error = HfUri::parse("hf:org/repo/m-00003-of-00002.gguf").unwrap_err().to_string();
        assert!(error.starts_with("there is no piece 3 of 2"), "{error}");
    }
}
