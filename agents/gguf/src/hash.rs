//! Hashes of files.

use std::io::{self, Read, Seek};
use std::path::Path;

use artel_model::{PieceHashes, open_regular_file, piece_paths};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Compares the SHA-256 of a model's file with the expected one, or that of each of its pieces.
///
/// # Errors
/// [`Error::HashMismatch`] names the file that is another one; or the hashes are not as many as the files.
pub fn verify_sha256(path: &Path, expected: &PieceHashes) -> Result<(), Error> {
    let paths = piece_paths(path);
    if paths.len() != expected.count() {
        return Err(Error::HashCount { path: path.to_owned(), pieces: paths.len(), hashes: expected.count() });
    }
    paths.iter().zip(expected.iter()).try_for_each(|(path, expected)| verify_file(path, expected))
}

fn verify_file(path: &Path, expected: &str) -> Result<(), Error> {
    let actual: String = content_hash(path)?.iter().map(|byte| format!("{byte:02x}")).collect();
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::HashMismatch { path: path.to_owned(), expected: expected.to_owned(), actual })
}

/// The SHA-256 of one file.
///
/// # Errors
/// The file cannot be read.
pub fn content_hash(path: &Path) -> Result<[u8; 32], Error> {
    let read = |source| Error::of_read(path, source);
    let mut file = open_regular_file(path).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// A hash of a file's size, its head and 64 evenly spaced samples: enough to tell models apart in milliseconds, where a hash of
/// the whole file would take minutes. That of a model in pieces is made of those of all pieces.
pub fn sampled_hash(path: &Path) -> Result<[u8; 32], Error> {
    let hashes = piece_paths(path).iter().map(|path| sampled_file_hash(path)).collect::<Result<Vec<_>, _>>()?;
    match hashes[..] {
        [whole] => Ok(whole),
        _ => Ok(Sha256::digest(hashes.concat()).into()),
    }
}

fn sampled_file_hash(path: &Path) -> Result<[u8; 32], Error> {
    const HEAD_BYTES: u64 = 1 << 20;
    const SAMPLE_BYTES: u64 = 1 << 16;
    const SAMPLES: u64 = 64;
    let read = |source| Error::of_read(path, source);
    let mut file = open_regular_file(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut add = |from: u64, length: u64| -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(from))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
        Ok(())
    };
    add(0, HEAD_BYTES).map_err(read)?;
    let step = size / SAMPLES;
    (1..SAMPLES).try_for_each(|n| add(n * step, SAMPLE_BYTES.min(step))).map_err(read)?;
    add(size.saturating_sub(SAMPLE_BYTES), SAMPLE_BYTES).map_err(read)?;
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_hash_mismatch_names_both_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, b"abc").unwrap();
        verify_sha256(&path, &hashes(&["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"])).unwrap();
        let error = verify_sha256(&path, &hashes(&["00"])).unwrap_err().to_string();
        assert!(error.contains("ba7816bf") && error.contains("states 00"), "{error}");
    }

    #[test]
    fn a_change_between_the_samples_changes_the_hash_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let hash_of = |byte: u8| {
            let mut text = vec![0; 16 << 20];
            text[(5 << 20) - 1] = byte;
            std::fs::write(&path, text).unwrap();
            (sampled_hash(&path).unwrap(), content_hash(&path).unwrap())
        };
        let (one, other) = (hash_of(1), hash_of(2));
        assert_eq!(one.0, other.0, "the samples miss it");
        assert_ne!(one.1, other.1);
    }

    fn hashes(hashes: &[&str]) -> PieceHashes {
        PieceHashes::new(hashes.iter().map(|hash| (*hash).to_owned()).collect()).unwrap()
    }

    #[test]
    fn each_piece_has_a_hash_of_its_own() {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let dir = tempfile::tempdir().unwrap();
        let path = |at: u32| dir.path().join(format!("m-0000{at}-of-00002.gguf"));
        (1..=2).for_each(|at| std::fs::write(path(at), b"abc").unwrap());
        verify_sha256(&path(2), &hashes(&[ABC, ABC])).unwrap();
        let error = verify_sha256(&path(1), &hashes(&[ABC, "00"])).unwrap_err().to_string();
        assert!(error.contains("m-00002-of-00002.gguf: its sha256 is ba7816bf"), "{error}");
        let error = verify_sha256(&path(1), &hashes(&[ABC])).unwrap_err().to_string();
        assert!(error.contains("the model has 2 files and `sha256` has 1 hashes"), "{error}");
    }

    #[test]
    fn the_sampled_hash_of_a_model_covers_all_of_its_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = |at: u32| dir.path().join(format!("m-0000{at}-of-00002.gguf"));
        (1..=2).for_each(|at| std::fs::write(path(at), b"abc").unwrap());
        let before = sampled_hash(&path(1)).unwrap();
        assert_eq!(sampled_hash(&path(2)).unwrap(), before);
        std::fs::write(path(2), b"abd").unwrap();
        assert_ne!(sampled_hash(&path(1)).unwrap(), before);
        std::fs::remove_file(path(2)).unwrap();
        assert!(matches!(sampled_hash(&path(1)), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_missing_file_is_told_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("m.gguf");
        assert!(matches!(verify_sha256(&nowhere, &hashes(&["00"])), Err(Error::Missing { .. })));
        assert!(matches!(sampled_hash(&nowhere), Err(Error::Missing { .. })));
        assert!(matches!(verify_sha256(dir.path(), &hashes(&["00"])), Err(Error::Read { .. })));
    }
}
