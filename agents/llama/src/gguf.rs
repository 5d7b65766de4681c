//! The header of a GGUF file, read in plain Rust with every size checked, so that a damaged file is refused with words.
//!
//! Source: the GGUF specification, versions 2 and 3.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Metadata entries; models of today have some fifty.
const MAX_ENTRIES: u64 = 65_536;
/// Tensors; the largest mixtures of experts have some ten thousand.
const MAX_TENSORS: u64 = 1_000_000;
/// Bytes of one string; chat templates reach some hundred kilobytes.
const MAX_STRING: u64 = 16 << 20;
/// Elements of one array; vocabularies reach some 300,000.
const MAX_ARRAY: u64 = 16 << 20;

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
    /// It is an adapter where a model belongs, or the other way round, or for another architecture.
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
}

/// Reads and checks the header of a model's file.
pub fn inspect(path: &Path) -> Result<Header, Error> {
    let header = open(path)?;
    if header.metadata.get("general.type").is_some_and(|kind| kind == "adapter") {
        let what = "this is an adapter; a model's `file` names the base model".to_owned();
        return Err(Error::Kind { path: path.to_owned(), what });
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
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Read { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let header = parse(BufReader::new(file), size).map_err(|fault| fault.at(path, size))?;
    if header.needed > size {
        return Err(Error::Truncated { path: path.to_owned(), needed: header.needed, actual: size });
    }
    Ok(header)
}

enum Fault {
    NotGguf(Vec<u8>),
    Version(u32),
    Damaged(String),
    Read(io::Error),
}

impl Fault {
    fn at(self, path: &Path, size: u64) -> Error {
        let path = path.to_owned();
        match self {
            Self::NotGguf(bytes) => Error::NotGguf { path, found: format!("`{}`", bytes.escape_ascii()) },
            Self::Version(version) => Error::Version { path, version },
            Self::Damaged(what) => Error::Damaged { path, what },
            Self::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Truncated { path, needed: size + 1, actual: size }
            }
            Self::Read(source) => Error::Read { path, source },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

/// Counts the bytes that it passes on, since tensors begin at the next aligned byte after the header.
struct Reader<R> {
    inner: R,
    at: u64,
    size: u64,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn count(&mut self, most: u64, what: &str) -> Result<u64, Fault> {
        match self.u64()? {
            count if count <= most => Ok(count),
            count => Err(Fault::Damaged(format!("it states {count} {what}, the limit is {most}"))),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let length = self.count(MAX_STRING, "bytes of a string")?;
        // What is not there need not be allocated.
        if length > self.size.saturating_sub(self.at) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes)?;
        self.at += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A metadata value as text; arrays are passed over.
    fn value(&mut self, kind: u32) -> Result<Option<String>, Fault> {
        Ok(Some(match kind {
            0 => u8::from_le_bytes(self.bytes()?).to_string(),
            1 => i8::from_le_bytes(self.bytes()?).to_string(),
            2 => u16::from_le_bytes(self.bytes()?).to_string(),
            3 => i16::from_le_bytes(self.bytes()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.bytes()?).to_string(),
            6 => f32::from_le_bytes(self.bytes()?).to_string(),
            7 => (self.bytes::<1>()?[0] != 0).to_string(),
            8 => self.string()?,
            9 => return self.array().map(|()| None),
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.bytes()?).to_string(),
            12 => f64::from_le_bytes(self.bytes()?).to_string(),
            other => return Err(Fault::Damaged(format!("there is no value type {other}"))),
        }))
    }

    fn array(&mut self) -> Result<(), Fault> {
        let kind = self.u32()?;
        if kind == 9 {
            return Err(Fault::Damaged("an array of arrays".to_owned()));
        }
        let count = self.count(MAX_ARRAY, "elements of an array")?;
        (0..count).try_for_each(|_| self.value(kind).map(|_| ()))
    }
}

fn parse(inner: impl Read, size: u64) -> Result<Header, Fault> {
    let mut reader = Reader { inner, at: 0, size };
    let mut magic = Vec::new();
    reader.inner.by_ref().take(4).read_to_end(&mut magic)?;
    reader.at = 4;
    if magic != b"GGUF" {
        return Err(Fault::NotGguf(magic));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Fault::Version(version));
    }
    let tensors = reader.count(MAX_TENSORS, "tensors")?;
    let entries = reader.count(MAX_ENTRIES, "metadata entries")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.string()?;
        let kind = reader.u32()?;
        if let Some(value) = reader.value(kind)? {
            metadata.insert(key, value);
        }
    }
    let end = tensor_end(&mut reader, tensors)?;
    let alignment = metadata.get("general.alignment").and_then(|a| a.parse().ok()).unwrap_or(32u64);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(Fault::Damaged(format!("an alignment of {alignment}")));
    }
    let data = reader.at.next_multiple_of(alignment);
    let needed = data.checked_add(end).ok_or_else(|| Fault::Damaged("tensor sizes overflow".to_owned()))?;
    let architecture = metadata.get("general.architecture").cloned();
    let architecture = architecture.ok_or_else(|| Fault::Damaged("it names no architecture".to_owned()))?;
    Ok(Header { architecture, metadata, tensors, needed: if tensors > 0 { needed } else { reader.at }, size })
}

/// Where the last tensor ends, counted from the beginning of the data.
fn tensor_end(reader: &mut Reader<impl Read>, tensors: u64) -> Result<u64, Fault> {
    let overflow = || Fault::Damaged("tensor sizes overflow".to_owned());
    let mut end = 0u64;
    for _ in 0..tensors {
        let name = reader.string()?;
        let dimensions = reader.u32()?;
        if dimensions > 4 {
            return Err(Fault::Damaged(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut elements = 1u64;
        for _ in 0..dimensions {
            elements = elements.checked_mul(reader.u64()?).ok_or_else(overflow)?;
        }
        let kind = reader.u32()?;
        let offset = reader.u64()?;
        // An unknown type is llama.cpp's to judge; its size counts as nothing here.
        let (block, bytes) = block_of(kind).unwrap_or((1, 0));
        let length = (elements / block).checked_mul(bytes).ok_or_else(overflow)?;
        end = end.max(offset.checked_add(length).ok_or_else(overflow)?);
    }
    Ok(end)
}

/// Elements and bytes of a block of a ggml type.
fn block_of(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        24 => (1, 1),
        27 | 28 => (1, 8),
        _ => return None,
    })
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
            let header = parse(&bytes[..], size);
            prop_assert!(header.map_or(true, |h| h.size == size));
        }
    }
}
