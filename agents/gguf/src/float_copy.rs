//! Copies of whole models without quantized weights: every quantized tensor becomes F16, the embedding and the output too.
//!
//! llama.cpp rounds what it multiplies with quantized weights to 8 bits. From such a copy it computes with the numbers that the
//! quantized weights stand for, as a trainer does that dequantizes the same file. F32, F16 and BF16 are copied unchanged, so
//! that nothing is lost that the file has; the result is one file, also of a model in pieces. What the metadata say of the
//! file's type stays: llama.cpp reads the type of each tensor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::dequantize::{BlockConverter, Conversion, HalfType};
use crate::error::Error;
use crate::pieces::open_model;
use crate::tensor::TensorInfo;

/// What became of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatCopy {
    /// The copy is written, with this many bytes.
    Written {
        /// Its size.
        bytes: u64,
    },
    /// No tensor of the model is quantized: it is used as it is, and nothing was written.
    NotNeeded,
}

/// The size in bytes that a copy without quantized weights takes, but for some padding; `None` if the model has none.
///
/// # Errors
/// If the model cannot be read.
pub fn float_copy_bytes(from: &Path) -> Result<Option<u64>, Error> {
    let (mut is_quantized, mut bytes) = (false, 0u64);
    let model = open_model(from, &mut |_, tensor| {
        let half = tensor.half_bytes();
        is_quantized |= half.is_some();
        bytes = bytes.saturating_add(half.unwrap_or(tensor.bytes));
    })?;
    Ok(is_quantized.then(|| bytes.saturating_add(model.header.data_offset)))
}

/// Writes a copy of a model to `to` whose quantized weights are F16, with at most `max_bytes`. It is written to
/// [`partial_path`] and renamed, so that `to` is whole whenever it exists; a partial file that a killed process left is
/// replaced. Blocks until done.
///
/// # Errors
/// If the model cannot be read or converted, or the file cannot be written or would exceed `max_bytes`; then no file is left.
pub fn write_float_copy(
    from: &Path,
    to: &Path,
    max_bytes: u64,
    convert: BlockConverter<'_>,
) -> Result<FloatCopy, Error> {
    if float_copy_bytes(from)?.is_none() {
        return Ok(FloatCopy::NotNeeded);
    }
    let write = |source| Error::Write { path: to.to_owned(), source };
    let partial = partial_path(to);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(error)),
        _ => {}
    }
    let copy = Conversion { from, half: HalfType::F16, new_bytes: TensorInfo::half_bytes, max_bytes };
    let written = copy.write(&partial, convert, &|_| {});
    let written = written.and_then(|()| {
        let bytes = fs::metadata(&partial).map_err(write)?.len();
        fs::rename(&partial, to).map_err(write)?;
        Ok(FloatCopy::Written { bytes })
    });
    if written.is_err() {
        // If that fails too, the next copy to the same place removes it.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Where [`write_float_copy`] writes before it renames the file to `to`.
pub fn partial_path(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    to.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::inspect;
    use crate::test_model::TestModel;

    /// Blocks of Q4_0, whose bytes are repeated.
    fn convert(ggml_type: u32, blocks: &[u8], half: HalfType) -> Option<Vec<u8>> {
        assert_eq!((ggml_type, half), (2, HalfType::F16));
        Some(blocks.chunks(18).flat_map(|block| block.iter().cycle().take(64).copied()).collect())
    }

    /// The type of each tensor.
    fn types(path: &Path) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        open_model(path, &mut |_, tensor| found.push((tensor.name, tensor.ggml_type))).unwrap();
        found
    }

    fn model() -> TestModel {
        let mut model = TestModel::with_layers("llama", 3);
        // The embedding, and experts of a layer.
        model.tensors[0].2 = 2;
        model.tensors.push(("blk.2.ffn_up_exps.weight".to_owned(), vec![32, 4, 3], 2));
        model.tensors.push(("output_norm.weight".to_owned(), vec![32], 0));
        model
    }

    #[test]
    fn every_quantized_tensor_becomes_f16_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (model().write(&dir.path().join("m.gguf")), dir.path().join("m.f16.gguf"));
        let estimate = float_copy_bytes(&from).unwrap().unwrap();
        fs::write(partial_path(&to), "what a killed process left").unwrap();
        let FloatCopy::Written { bytes } = write_float_copy(&from, &to, estimate, &convert).unwrap() else {
            panic!("its weights are quantized");
        };
        assert!(estimate.abs_diff(bytes) < 1024, "{bytes} bytes instead of {estimate}");
        let of = |(name, ggml_type): (String, u32)| (name, if ggml_type == 2 { 1 } else { ggml_type });
        assert_eq!(types(&to), types(&from).into_iter().map(of).collect::<Vec<_>>());
        assert!(!partial_path(&to).exists());
        assert_eq!(float_copy_bytes(&to).unwrap(), None);
        let other = dir.path().join("n.gguf");
        let again = write_float_copy(&to, &other, u64::MAX, &convert).unwrap();
        assert!(again == FloatCopy::NotNeeded && !other.exists());
    }

    #[test]
    fn a_model_in_pieces_becomes_the_file_of_the_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let whole = model().write(&dir.path().join("w.gguf"));
        let pieces = model().write_pieces(dir.path(), "m", 3);
        let copy = |from: &Path, name: &str| {
            let to = dir.path().join(name);
            write_float_copy(from, &to, u64::MAX, &convert).unwrap();
            to
        };
        let (of_whole, of_pieces) = (copy(&whole, "a.gguf"), copy(&pieces[1], "b.gguf"));
        assert_eq!(types(&of_pieces), types(&of_whole));
        assert_eq!(inspect(&of_pieces).unwrap().tensor_count, inspect(&of_whole).unwrap().tensor_count);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (model().write(&dir.path().join("m.gguf")), dir.path().join("m.f16.gguf"));
        let error = write_float_copy(&from, &to, 300, &convert).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("only 300 bytes of disk space"), "{error}");
        let error = write_float_copy(&from, &to, u64::MAX, &|_, _, _| None).unwrap_err();
        assert!(error.to_string().contains("has no conversion"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the model alone");
    }
}
