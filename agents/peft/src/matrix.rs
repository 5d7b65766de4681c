//! Matrices in files, and their numbers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use artel_model::open_regular_file;

use crate::error::{AdapterRefusal, ConvertError, shown};

/// A type of numbers that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberType {
    F32,
    F16,
    Bf16,
}

impl NumberType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Little-endian numbers as F32, which holds each of them exactly.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match self {
            Self::F32 => {
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
            }
            Self::F16 => pairs().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
            Self::Bf16 => pairs().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
        }
    }
}

/// A matrix of a LoRA as its file describes it; row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredMatrix {
    /// The tensor's name.
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) columns: u64,
    pub(crate) number_type: NumberType,
    /// From the start of the file; the numbers are within it.
    pub(crate) offset: u64,
}

/// A file from which matrices are read.
pub(crate) struct MatrixFile {
    path: PathBuf,
    file: File,
}

impl MatrixFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ConvertError> {
        let file = open_regular_file(path).map_err(ConvertError::read(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The numbers of a matrix, whose size its caller has bounded.
    pub(crate) fn read(&mut self, matrix: &StoredMatrix) -> Result<Vec<f32>, ConvertError> {
        let elements = usize::try_from(matrix.rows * matrix.columns).expect("a matrix within the limits");
        let mut bytes = vec![0; elements * matrix.number_type.bytes()];
        let read = self.file.seek(SeekFrom::Start(matrix.offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(ConvertError::read(&self.path))?;
        let numbers = matrix.number_type.decode(&bytes);
        require_finite(&numbers, &matrix.name).map_err(ConvertError::refused(&self.path))?;
        Ok(numbers)
    }
}

/// Refuses numbers with which a model would say nothing but noise.
pub(crate) fn require_finite(numbers: &[f32], tensor: &str) -> Result<(), AdapterRefusal> {
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err(AdapterRefusal::NotFinite(shown(tensor))),
    }
}

/// Numbers as little-endian F32.
pub(crate) fn encode(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_type_become_the_same_f32() {
        let numbers = [1.0, -0.5, 0.0, 1.5];
        assert_eq!(NumberType::F32.decode(&encode(&numbers)), numbers);
        let half: Vec<u8> = [0x3C00u16, 0xB800, 0, 0x3E00].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_eq!(NumberType::F16.decode(&half), numbers);
        let brain: Vec<u8> = [0x3F80u16, 0xBF00, 0, 0x3FC0].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_eq!(NumberType::Bf16.decode(&brain), numbers);
        assert_eq!(NumberType::F16.decode(&[1, 0]), [2f32.powi(-24)], "the smallest of all");
    }

    #[test]
    fn numbers_that_are_none_are_refused_by_name() {
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(require_finite(&[0.0, number], "x"), Err(AdapterRefusal::NotFinite("x".to_owned())));
        }
    }
}
