//! Files of the safetensors format: a header of JSON, and the numbers of the tensors behind it.
//!
//! The crate `safetensors` checks what a header says; here its size has a limit before it is read, and numbers are read
//! matrix by matrix instead of all at once.

use std::io::{self, Read};
use std::path::Path;

use artel_model::open_regular_file;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{ConvertError, shown};

/// The length of the header comes first.
const LENGTH_BYTES: u64 = 8;
/// The largest header: a tensor takes about 150 bytes of it.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// The most tensors: the largest models have about two thousand for all of their linear layers.
const MAX_TENSORS: usize = 16_384;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: Dtype,
    /// From the start of the file.
    pub(crate) offset: u64,
}

/// The tensors of a file, in the order of their numbers.
pub(crate) fn stored_tensors(path: &Path) -> Result<Vec<StoredTensor>, ConvertError> {
    let damaged = |reason: String| ConvertError::damaged(path, reason);
    let mut file = open_regular_file(path).map_err(ConvertError::read(path))?;
    let file_bytes = file.metadata().map_err(ConvertError::read(path))?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is too short for safetensors".to_owned()),
        _ => ConvertError::read(path)(error),
    })?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(damaged(format!("its header has {header_bytes} bytes, the limit is {MAX_HEADER_BYTES}")));
    }
    if header_bytes > file_bytes - LENGTH_BYTES {
        return Err(damaged(format!("its header has {header_bytes} bytes, and the file {file_bytes}")));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(ConvertError::read(path))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| damaged(format!("its header is not that of safetensors: {}", shown(&error.to_string()))))?;
    let data_offset = LENGTH_BYTES + header_bytes;
    if data_offset.checked_add(metadata.data_len() as u64) != Some(file_bytes) {
        let needed = metadata.data_len();
        return Err(damaged(format!("it has {file_bytes} bytes, and its tensors need {needed} behind the header")));
    }
    let names = metadata.offset_keys();
    if names.len() > MAX_TENSORS {
        return Err(damaged(format!("it has {} tensors, the limit is {MAX_TENSORS}", names.len())));
    }
    let tensor = |name: String| {
        let info = metadata.info(&name)?;
        let shape = info.shape.iter().map(|length| *length as u64).collect();
        let offset = data_offset + info.data_offsets.0 as u64;
        Some(StoredTensor { name, shape, dtype: info.dtype, offset })
    };
    Ok(names.into_iter().filter_map(tensor).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<StoredTensor>, ConvertError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_model.safetensors");
        fs::write(&path, bytes).unwrap();
        stored_tensors(&path)
    }

    fn refused(bytes: &[u8]) -> String {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, ConvertError::Damaged { .. }), "{error}");
        error.to_string()
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn written() -> Vec<u8> {
        let view = |shape: [usize; 2], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
        let matrices = [("a", view([2, 3], &[1; 24])), ("b", view([1, 2], &[2; 8]))];
        safetensors::serialize(matrices, None).unwrap()
    }

    #[test]
    fn what_the_crate_writes_is_read() {
        let bytes = written();
        let tensors = read(&bytes).unwrap();
        let found: Vec<_> = tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..])).collect();
        assert_eq!(found, [("a", &[2, 3][..]), ("b", &[1, 2])]);
        let [a, b] = [0, 1].map(|at| tensors[at].offset as usize);
        assert_eq!((&bytes[a..b], &bytes[b..]), (&[1; 24][..], &[2; 8][..]));
    }

    #[test]
    fn a_header_that_is_larger_than_its_limit_or_the_file_is_not_read() {
        assert!(refused(&u64::MAX.to_le_bytes()).contains("the limit is 4194304"));
        assert!(refused(&(MAX_HEADER_BYTES + 1).to_le_bytes()).contains("the limit is 4194304"));
        assert!(refused(&1000u64.to_le_bytes()).contains("and the file 8"));
        assert!(refused(b"GGUF").contains("too short"));
    }

    #[test]
    fn a_header_that_does_not_fit_the_numbers_is_refused() {
        let tensor = |shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        read(&with_header(&tensor("[1,2]", "[0,8]"), &[0; 8])).unwrap();
        let max = u64::MAX;
        let wrong = [
            ("[1,2]".to_owned(), "[0,4]".to_owned()),
            ("[1,2]".to_owned(), "[8,16]".to_owned()),
            ("[1,2]".to_owned(), "[8,0]".to_owned()),
            (format!("[{max},{max}]"), "[0,8]".to_owned()),
            (format!("[{max}]"), format!("[0,{max}]")),
        ];
        for (shape, offsets) in wrong {
            assert!(refused(&with_header(&tensor(&shape, &offsets), &[0; 8])).contains("not that of safetensors"));
        }
        assert!(refused(&with_header(&tensor("[1,2]", "[0,8]"), &[0; 7])).contains("its tensors need 8"));
        assert!(refused(&with_header("{", &[])).contains("not that of safetensors"));
        assert!(refused(&with_header("\u{1}", &[])).contains("not that of safetensors"));
    }

    #[test]
    fn too_many_tensors_are_refused() {
        let tensors: Vec<String> = (0..=MAX_TENSORS)
            .map(|at| format!(r#""{at}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
            .collect();
        let refusal = refused(&with_header(&format!("{{{}}}", tensors.join(",")), &[]));
        assert!(refusal.contains("16385 tensors, the limit is 16384"), "{refusal}");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0..200usize, byte: u8, cut in 0..300usize) {
            let mut bytes = written();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            let _ = read(&bytes).map_err(|error| error.to_string());
        }
    }
}
