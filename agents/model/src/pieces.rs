//! Models in pieces: the names of their files, which of them are meant, and a hash for each.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The most pieces of a model: models of a terabyte are published in fewer than 200, and each one costs a request and an open file.
pub const MAX_PIECE_FILES: u32 = 1000;
/// llama.cpp writes the numbers of pieces with at least this many characters, all of them digits. Source: `llama_split_path`.
const NUMBER_CHARS: usize = 5;
/// The end of the name of a piece. llama.cpp finds the other pieces by their names, and by no other end.
const EXTENSION: &str = ".gguf";
/// The numbers that a message repeats: enough to see which download or copy was interrupted.
const MAX_SHOWN_ITEMS: usize = 8;

/// The name of a piece of a model, such as `big-00002-of-00005.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceName {
    prefix: String,
    number: u32,
    count: u32,
}

/// Why a name with the form of a piece's is that of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPieceName {
    /// The pieces are numbered from 1.
    #[error("there is no piece {number} of {count}; name the first piece, `-00001-of-{count:05}.gguf`")]
    Number {
        /// Which one it says it is.
        number: u32,
        /// How many it says there are.
        count: u32,
    },
    /// It has more pieces than this program takes.
    #[error(
        "a model has at most {MAX_PIECE_FILES} pieces, and this name says {0}; merge some of them with `llama-gguf-split --merge`"
    )]
    Count(u32),
    /// Its end is written in another way.
    #[error(
        "the name of a piece ends with `.gguf` in small letters; rename all pieces: llama.cpp finds them by their names"
    )]
    Extension,
}

impl PieceName {
    /// Reads the name of a file; none if it is that of a whole model, as that of the only piece of one is too.
    ///
    /// # Errors
    /// It has the form of a piece's name, and there cannot be such a piece.
    pub fn parse(name: &str) -> Result<Option<Self>, InvalidPieceName> {
        let Some((stem, extension)) = name.len().checked_sub(EXTENSION.len()).and_then(|at| name.split_at_checked(at))
        else {
            return Ok(None);
        };
        let Some((rest, count)) = stem.rsplit_once("-of-") else { return Ok(None) };
        let Some((prefix, number)) = rest.rsplit_once('-') else { return Ok(None) };
        let (Some(number), Some(count)) = (digits(number), digits(count)) else { return Ok(None) };
        if !extension.eq_ignore_ascii_case(EXTENSION) || prefix.is_empty() || (number, count) == (1, 1) {
            return Ok(None);
        }
        if extension != EXTENSION {
            return Err(InvalidPieceName::Extension);
        }
        if count > MAX_PIECE_FILES {
            return Err(InvalidPieceName::Count(count));
        }
        match (1..=count).contains(&number) {
            true => Ok(Some(Self { prefix: prefix.to_owned(), number, count })),
            false => Err(InvalidPieceName::Number { number, count }),
        }
    }

    /// What the names of all pieces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Which piece it is, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many there are, at least 2.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The name of the piece of this number.
    pub fn of(&self, number: u32) -> String {
        format!("{}-{number:0NUMBER_CHARS$}-of-{:0NUMBER_CHARS$}{EXTENSION}", self.prefix, self.count)
    }

    /// The names of all pieces, in their order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|number| self.of(number))
    }
}

/// A number of five digits, or of more without a zero before them, as `%05d` writes it.
fn digits(text: &str) -> Option<u32> {
    let is_padded = text.len() == NUMBER_CHARS || (text.len() > NUMBER_CHARS && !text.starts_with('0'));
    let is_number = is_padded && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// The paths of all files of a model of which one is named: the pieces in their order, or this one file.
pub fn piece_paths(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| PieceName::parse(name).ok().flatten()) {
        Some(piece) => piece.names().map(|name| path.with_file_name(name)).collect(),
        None => vec![path.to_owned()],
    }
}

/// The path by which llama.cpp loads a model of which a file is named: the first piece, or this one file.
pub fn first_piece(path: &Path) -> PathBuf {
    piece_paths(path).swap_remove(0)
}

/// Some pieces of a model, in words: `pieces 2 and 3 of 5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceNumbers {
    /// Which ones, from 1 and in their order.
    pub numbers: Vec<u32>,
    /// How many the model has.
    pub count: u32,
}

impl fmt::Display for PieceNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.numbers.iter().take(MAX_SHOWN_ITEMS).map(u32::to_string).collect();
        let more = self.numbers.len() - shown.len();
        f.write_str(if self.numbers.len() == 1 { "piece " } else { "pieces " })?;
        match (shown.split_last(), more) {
            (Some((last, before)), 0) if !before.is_empty() => write!(f, "{} and {last}", before.join(", "))?,
            (_, 0) => f.write_str(&shown.concat())?,
            (_, more) => write!(f, "{} and {more} more", shown.join(", "))?,
        }
        write!(f, " of {}", self.count)
    }
}

/// The SHA-256 of each file of a model, in hexadecimal digits and in the order of its pieces: one for a whole file.
///
/// They are several, and not one of all bytes together, because these are what the hub states and what `sha256sum` prints: each piece
/// is verified when it is complete, and the one that is wrong is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PieceHashes(Vec<String>);

impl PieceHashes {
    /// Of these, of which there is at least one.
    pub fn new(hashes: Vec<String>) -> Option<Self> {
        (!hashes.is_empty()).then_some(Self(hashes))
    }

    /// The number of pieces.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// That of a piece, from 0.
    pub fn get(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(String::as_str)
    }

    /// All, in the order of the pieces.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// A text that tells models apart: the hash of a whole file as it is, or the hashes of all pieces one after the other.
    pub fn concatenated(&self) -> String {
        self.0.concat()
    }
}

impl From<String> for PieceHashes {
    fn from(hash: String) -> Self {
        Self(vec![hash])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_names_all_others() {
        let piece = PieceName::parse("a-b-00002-of-00003.gguf").unwrap().unwrap();
        assert_eq!((piece.prefix(), piece.number(), piece.count()), ("a-b", 2, 3));
        let names: Vec<String> = piece.names().collect();
        assert_eq!(names, ["a-b-00001-of-00003.gguf", "a-b-00002-of-00003.gguf", "a-b-00003-of-00003.gguf"]);
        assert_eq!(first_piece(Path::new("/m/a-b-00002-of-00003.gguf")), Path::new("/m/a-b-00001-of-00003.gguf"));
        assert_eq!(piece_paths(Path::new("x-00001-of-00002.gguf"))[1], Path::new("x-00002-of-00002.gguf"));
    }

    #[test]
    fn other_names_are_those_of_whole_files() {
        for name in [
            "m.gguf",
            "m-00001-of-00001.gguf",
            "m-1-of-3.gguf",
            "m-0001-of-00003.gguf",
            "m-000001-of-000003.gguf",
            "m-00001-of-00003.bin",
            "-00001-of-00003.gguf",
            "m-00001-of-0000x.gguf",
            "m-00001-of-00003-00ab.bf16.gguf",
            "of-.gguf",
            "é",
            "",
        ] {
            assert_eq!(PieceName::parse(name), Ok(None), "{name}");
            assert_eq!(piece_paths(Path::new(name)), [Path::new(name)], "{name}");
        }
    }

    #[test]
    fn a_piece_that_cannot_be_is_refused() {
        let error = |name: &str| PieceName::parse(name).unwrap_err().to_string();
        assert!(
            error("m-00004-of-00003.gguf")
                .starts_with("there is no piece 4 of 3; name the first piece, `-00001-of-00003")
        );
        assert!(error("m-00000-of-00003.gguf").contains("no piece 0 of 3"));
        assert!(error("m-00001-of-01001.gguf").contains("at most 1000 pieces, and this name says 1001"));
        assert!(error("m-00001-of-99999999999.gguf").contains("at most 1000 pieces"));
        assert!(error("m-00001-of-00003.GGUF").contains("small letters"));
    }

    #[test]
    fn some_pieces_are_named_in_words() {
        let words = |numbers: &[u32]| PieceNumbers { numbers: numbers.to_vec(), count: 20 }.to_string();
        assert_eq!(words(&[2]), "piece 2 of 20");
        assert_eq!(words(&[2, 3]), "pieces 2 and 3 of 20");
        assert_eq!(words(&[2, 3, 9]), "pieces 2, 3 and 9 of 20");
        assert_eq!(words(&(1..=20).collect::<Vec<_>>()), "pieces 1, 2, 3, 4, 5, 6, 7, 8 and 12 more of 20");
    }

    #[test]
    fn the_hash_of_a_whole_file_stands_for_itself() {
        assert_eq!(PieceHashes::from("ab".to_owned()).concatenated(), "ab");
        let two = PieceHashes::new(vec!["ab".to_owned(), "cd".to_owned()]).unwrap();
        assert_eq!((two.count(), two.get(1), two.concatenated()), (2, Some("cd"), "abcd".to_owned()));
        assert_eq!(PieceHashes::new(Vec::new()), None);
    }
}
