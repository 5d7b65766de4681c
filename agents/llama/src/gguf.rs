//! The header of a GGUF file, read in plain Rust with every size checked, so that a damaged file is refused with words.
//!
//! Source: the GGUF specification, versions 2 and 3.

mod anatomy;
mod kinds;
mod read;
mod recast;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use anatomy::{Anatomy, Layer, Unreckoned};
use read::{Tensor, parse};
pub use recast::{Half, recast, sweep};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{path}: no such file; check `file` in the model's YAML or fetch the model into the models directory")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path}: not a GGUF file: it begins with {found} where `GGUF` belongs")]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// A version that nobody wrote when this program was written.
    #[error("{path}: GGUF version {version} is not supported, versions 2 and 3 are")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it states.
        version: u32,
    },
    /// Its header makes no sense.
    #[error("{path}: the GGUF header is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What makes no sense.
        what: String,
    },
    /// It ends too early.
    #[error("{path}: the file is truncated: it has {actual} bytes and needs at least {needed}; fetch it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the header speaks of.
        needed: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// It cannot be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not the file that was meant.
    #[error("{path}: its sha256 is {actual}, the YAML states {stated}: fetch it again or correct `sha256`")]
    Hash {
        /// The file.
        path: PathBuf,
        /// What the YAML states.
        stated: String,
        /// What the file has.
        actual: String,
    },
    /// It is an adapter where a model belongs, or the other way round, or for another architecture, or a piece of a model.
    #[error("{path}: {what}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    /// `general.architecture`, such as `llama` or `bert`.
    pub architecture: String,
    /// The scalars and strings of the metadata, as text.
    pub metadata: BTreeMap<String, String>,
    /// How many tensors it has.
    pub tensors: u64,
    /// Bytes from the beginning to the end of the last tensor.
    pub needed: u64,
    /// Bytes that the file has.
    pub size: u64,
    /// Where the metadata ends and the tensors are described.
    described: u64,
    /// Where the tensors' bytes begin, and what each one's place is a multiple of.
    data: u64,
    alignment: u64,
    /// The short arrays of whole numbers in the metadata.
    numbers: BTreeMap<String, Vec<i64>>,
    /// Where the bytes of the tensors are.
    weights: Weights,
}

/// The bytes of the tensors, by where they belong.
#[derive(Debug, Clone, Default, PartialEq)]
struct Weights {
    /// Of each layer that has some.
    layers: Vec<u64>,
    /// Of each layer that has some, once it is recast.
    recast: Vec<u64>,
    /// Of all layers, in types that llama.cpp multiplies slowly.
    slow: u64,
    /// Before the first layer.
    input: u64,
    /// After the last layer, and whatever else is in none.
    output: u64,
    /// Of the embedding of tokens.
    tokens: u64,
    /// Tokens that this embedding has a row for.
    vocabulary: u64,
    /// Whether the output has a matrix of its own rather than the embedding of tokens.
    own_output: bool,
    /// Whether there are tensors whose type has no size that we know.
    unknown: bool,
}

/// Reads and checks the header of a model's file.
pub fn inspect(path: &Path) -> Result<Header, Error> {
    let header = open(path)?;
    if header.metadata.get("general.type").is_some_and(|kind| kind == "adapter") {
        let what = "this is an adapter; a model's `file` names the base model".to_owned();
        return Err(Error::Kind { path: path.to_owned(), what });
    }
    if let Some(pieces) =
        header.metadata.get("split.count").filter(|count| count.parse().is_ok_and(|count: i64| count > 1))
    {
        let merge = "merge them with llama.cpp's `llama-gguf-split --merge` and name the file that it makes";
        return Err(Error::Kind {
            path: path.to_owned(),
            what: format!("this is one of {pieces} pieces of a model: {merge}"),
        });
    }
    Ok(header)
}

/// Reads and checks the header of an adapter's file for a model of `architecture`.
pub fn inspect_adapter(path: &Path, architecture: &str) -> Result<Header, Error> {
    let header = open(path)?;
    let kind = |what: String| Err(Error::Kind { path: path.to_owned(), what });
    if header.metadata.get("general.type").is_none_or(|kind| kind != "adapter") {
        return kind("this is no adapter: its `general.type` is not `adapter`".to_owned());
    }
    if header.architecture != architecture {
        return kind(format!("this adapter is for `{}`, the model is `{architecture}`", header.architecture));
    }
    Ok(header)
}

/// What a model's file says of the memory that the model takes.
pub fn anatomy(path: &Path) -> Result<Anatomy, Error> {
    Anatomy::of(&inspect(path)?).map_err(|what| Error::Damaged { path: path.to_owned(), what })
}

/// Compares a file's SHA-256 with the one stated, in hexadecimal.
pub fn verify_hash(path: &Path, stated: &str) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let actual: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if actual.eq_ignore_ascii_case(stated) {
        return Ok(());
    }
    Err(Error::Hash { path: path.to_owned(), stated: stated.to_owned(), actual })
}

/// A hash of a file's size, its beginning and 64 pieces that lie evenly in it: enough to tell models apart in milliseconds,
/// where a hash of the whole would take minutes.
pub fn sample(path: &Path) -> Result<[u8; 32], Error> {
    const BEGINNING: u64 = 1 << 20;
    const PIECE: u64 = 1 << 16;
    const PIECES: u64 = 64;
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut piece = |from: u64, length: u64| -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(from))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
        Ok(())
    };
    piece(0, BEGINNING).map_err(read)?;
    let step = size / PIECES;
    (1..PIECES).try_for_each(|n| piece(n * step, PIECE.min(step))).map_err(read)?;
    piece(size.saturating_sub(PIECE), PIECE).map_err(read)?;
    Ok(hash.finalize().into())
}

fn open(path: &Path) -> Result<Header, Error> {
    open_telling(path, &mut |_| ())
}

/// As [`open`]; `each` takes the tensors, in order.
fn open_telling(path: &Path, each: &mut dyn FnMut(Tensor)) -> Result<Header, Error> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Read { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let header = parse(BufReader::new(file), size, each).map_err(|fault| fault.at(path, size))?;
    if header.needed > size {
        return Err(Error::Truncated { path: path.to_owned(), needed: header.needed, actual: size });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A model of one tensor of 64 floats.
    fn file() -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
        bytes.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
        bytes.extend([string("t"), 1u32.to_le_bytes().to_vec(), 64u64.to_le_bytes().to_vec()].concat());
        bytes.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
        bytes
    }

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn a_whole_file_is_accepted_and_every_cut_is_refused() {
        let whole = file();
        let (_dir, path) = written(&whole);
        assert_eq!(inspect(&path).unwrap().needed, whole.len() as u64);
        for length in [0, 3, 4, 10, 30, 60, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(inspect(&path).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn what_is_no_gguf_says_what_it_is() {
        let (_dir, path) = written(b"PK\x03\x04 zip");
        assert!(inspect(&path).unwrap_err().to_string().contains(r"begins with `PK\x03\x04`"));
        assert!(matches!(inspect(Path::new("/nowhere/m.gguf")), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_piece_of_a_model_is_to_be_merged() {
        let count = [string("split.count"), 2u32.to_le_bytes().to_vec(), 3u16.to_le_bytes().to_vec()].concat();
        let mut bytes = file();
        bytes[16] = 2;
        bytes.splice(24..24, count);
        bytes.resize(bytes.len() + 64, 0);
        let (_dir, path) = written(&bytes);
        assert!(inspect(&path).unwrap_err().to_string().contains("one of 3 pieces of a model: merge them"));
    }

    #[test]
    fn a_wrong_hash_names_both() {
        let (_dir, path) = written(b"abc");
        verify_hash(&path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(verify_hash(&path, "00").unwrap_err().to_string().contains("ba7816bf"));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0..200usize, byte: u8, cut in 0..400usize) {
            let mut bytes = file();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.max(1));
            let size = bytes.len() as u64;
            let header = parse(&bytes[..], size, &mut |_| ());
            prop_assert!(header.map_or(true, |h| h.size == size));
        }
    }
}
