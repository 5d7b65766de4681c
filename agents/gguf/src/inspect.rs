//! Opens the file of a model or an adapter and checks that it is what its user takes it for.
//!
//! Source: the GGUF specification, versions 2 and 3.

use std::path::Path;

use artel_model::piece_paths;

use crate::error::Error;
use crate::header::GgufHeader;
use crate::parse::SPLIT_COUNT_KEY;
use crate::pieces::{open_file, open_model};
use crate::tensor::{TensorInfo, WeightTotals};

/// The part of an architecture that a message repeats: the names of llama.cpp are shorter.
const MAX_SHOWN_CHARS: usize = 32;
/// What to do with an adapter in pieces.
const MERGE: &str = "merge it with llama.cpp's `llama-gguf-split --merge`";

/// Reads and checks the header of a model: of its file, or of all pieces of one that is split, whichever of them is named.
pub fn inspect(path: &Path) -> Result<GgufHeader, Error> {
    inspect_each(path, &mut |_| ())
}

/// Reads and checks the header of a model as [`inspect`] does, with the descriptions of all of its tensors, in order.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_tensors(path: &Path) -> Result<(GgufHeader, Vec<TensorInfo>), Error> {
    let mut tensors = Vec::new();
    Ok((inspect_each(path, &mut |tensor| tensors.push(tensor))?, tensors))
}

fn inspect_each(path: &Path, on_tensor: &mut dyn FnMut(TensorInfo)) -> Result<GgufHeader, Error> {
    let header = open_model(path, &mut |_, tensor| on_tensor(tensor))?.header;
    if header.metadata.get("general.type").is_some_and(|kind| kind == "adapter") {
        let reason = "this is an adapter; a model's `file` must name the base model".to_owned();
        return Err(Error::WrongKind { path: path.to_owned(), reason });
    }
    Ok(header)
}

/// Reads and checks the header of an adapter's file, whichever model it is for.
pub fn inspect_any_adapter(path: &Path) -> Result<GgufHeader, Error> {
    inspect_each_of_adapter(path, &mut |_| ())
}

fn inspect_each_of_adapter(path: &Path, on_tensor: &mut dyn FnMut(TensorInfo)) -> Result<GgufHeader, Error> {
    let wrong_kind = |reason: String| Err(Error::WrongKind { path: path.to_owned(), reason });
    if let pieces @ 2.. = piece_paths(path).len() {
        return wrong_kind(format!("an adapter is one file, and this is the name of one of {pieces} pieces; {MERGE}"));
    }
    let header = open_file(path, WeightTotals::default(), on_tensor)?;
    if header.metadata.get("general.type").is_none_or(|kind| kind != "adapter") {
        // What a file says of itself is repeated as far as it is a word.
        let architecture: String =
            header.architecture.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
        return wrong_kind(format!(
            "not an adapter: its `general.type` is not `adapter`, and it is a model of architecture `{architecture}`; name a LoRA in \
             GGUF form"
        ));
    }
    if header.metadata.get(SPLIT_COUNT_KEY).and_then(|count| count.parse().ok()).is_some_and(|count: u64| count > 1) {
        return wrong_kind(format!("an adapter is one file, and this is a piece of one; {MERGE}"));
    }
    Ok(header)
}

/// Reads and checks the header of an adapter's file for a model of `architecture`.
pub fn inspect_adapter(path: &Path, architecture: &str) -> Result<GgufHeader, Error> {
    require_architecture(path, inspect_any_adapter(path)?, architecture)
}

/// Reads and checks the header of an adapter as [`inspect_adapter`] does, with the descriptions of its tensors, in order.
///
/// # Errors
/// As [`inspect_adapter`].
pub fn inspect_adapter_tensors(path: &Path, architecture: &str) -> Result<(GgufHeader, Vec<TensorInfo>), Error> {
    let mut tensors = Vec::new();
    let header = inspect_each_of_adapter(path, &mut |tensor| tensors.push(tensor))?;
    Ok((require_architecture(path, header, architecture)?, tensors))
}

fn require_architecture(path: &Path, header: GgufHeader, architecture: &str) -> Result<GgufHeader, Error> {
    if header.architecture == architecture {
        return Ok(header);
    }
    let mismatch = format!("this adapter is for `{}`, the model is `{architecture}`", header.architecture);
    let reason = format!("{mismatch}; name an adapter that was trained for this model");
    Err(Error::WrongKind { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse;

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
    fn a_complete_file_is_accepted_and_every_truncation_is_refused() {
        let whole = file();
        let (_dir, path) = written(&whole);
        assert_eq!(inspect(&path).unwrap().required_bytes, whole.len() as u64);
        for length in [0, 3, 4, 10, 30, 60, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(inspect(&path).is_err(), "truncated to {length} bytes");
        }
    }

    #[test]
    fn the_error_for_another_format_does_not_repeat_its_content() {
        for content in [&b"root:$6$salt"[..], b"ro", b""] {
            let (_dir, path) = written(content);
            let error = inspect(&path).unwrap_err();
            let message = error.to_string().replace(&*path.to_string_lossy(), "FILE");
            assert_eq!(
                message, "FILE: not a GGUF file: it does not begin with `GGUF`; convert the model to GGUF",
                "{content:?}"
            );
        }
        assert!(matches!(inspect(Path::new("/nowhere/m.gguf")), Err(Error::Missing { .. })));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket.gguf");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [socket.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = inspect(path).unwrap_err();
            assert!(error.to_string().contains("not a regular file") && !error.is_transient(), "{error}");
        }
    }

    #[test]
    fn an_adapter_in_pieces_is_refused() {
        let (dir, path) = written(&file());
        let named = dir.path().join("lora-00001-of-00002.gguf");
        std::fs::rename(path, &named).unwrap();
        let error = inspect_adapter(&named, "llama").unwrap_err().to_string();
        assert!(error.contains("an adapter is one file") && error.contains("one of 2 pieces; merge it"), "{error}");
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
            prop_assert!(header.map_or(true, |h| h.file_bytes == size));
        }
    }
}
