//! Vectors in memory: compared exactly, all of them, in two passes. The first reads a byte for each dimension and keeps the best;
//! the second compares these by their halves (f16), which is as good as comparing in full.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

/// A unit vector as it is stored: two bytes for each dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredVector(Vec<f16>);

impl StoredVector {
    /// The direction of a vector. That of zeros, or with a value that is no number, is like nothing.
    pub(crate) fn of(values: &[f32]) -> Self {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        let factor = if norm.is_normal() { norm.recip() } else { 0.0 };
        Self(values.iter().map(|v| f16::from_f32(if factor == 0.0 { 0.0 } else { v * factor })).collect())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (pairs, []) = bytes.as_chunks::<2>() else { return None };
        Some(Self(pairs.iter().map(|pair| f16::from_le_bytes(*pair)).collect()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        self.0.iter().map(|value| value.to_f32()).collect()
    }
}

/// The largest value of a byte, and of the query, which is kept finer: products of both fit into 32 bits up to 16,000 dimensions.
const COARSE_FACTOR: f32 = 127.0;
const QUERY_FACTOR: f32 = 1023.0;

/// A query's vector in both forms.
#[derive(Debug, Clone)]
pub(crate) struct PreparedQuery {
    exact: Vec<f32>,
    coarse: Vec<i16>,
    scale: f32,
}

impl PreparedQuery {
    pub(crate) fn of(values: &[f32]) -> Self {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        let factor = if norm.is_normal() { norm.recip() } else { 0.0 };
        let exact: Vec<f32> = values.iter().map(|v| if factor == 0.0 { 0.0 } else { v * factor }).collect();
        let largest = exact.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
        let coarse = exact.iter().map(|v| (v / largest * QUERY_FACTOR).round() as i16).collect();
        Self { exact, coarse, scale: largest / QUERY_FACTOR }
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.exact.len()
    }
}

/// The vectors of a segment, in both forms. A chunk without a vector has zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct VectorBlock {
    dimensions: usize,
    coarse: Vec<i8>,
    scales: Vec<f32>,
    exact: Vec<f16>,
}

impl VectorBlock {
    pub(crate) fn new(dimensions: usize) -> Self {
        Self { dimensions, ..Self::default() }
    }

    /// Appends a vector, or the place of one that is missing.
    pub(crate) fn push(&mut self, vector: Option<&StoredVector>) {
        let dimensions = self.dimensions;
        let Some(StoredVector(values)) = vector.filter(|vector| vector.0.len() == dimensions) else {
            self.coarse.resize(self.coarse.len() + dimensions, 0);
            self.exact.resize(self.exact.len() + dimensions, f16::ZERO);
            self.scales.push(0.0);
            return;
        };
        let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.to_f32().abs()));
        let factor = if largest > 0.0 { COARSE_FACTOR / largest } else { 0.0 };
        self.coarse.extend(values.iter().map(|v| (v.to_f32() * factor).round() as i8));
        self.scales.push(largest / COARSE_FACTOR);
        self.exact.extend_from_slice(values);
    }

    /// Appends the vector of another block.
    pub(crate) fn push_from(&mut self, other: &Self, slot: usize) {
        if other.dimensions != self.dimensions {
            return self.push(None);
        }
        let range = slot * self.dimensions..(slot + 1) * self.dimensions;
        self.coarse.extend_from_slice(&other.coarse[range.clone()]);
        self.exact.extend_from_slice(&other.exact[range]);
        self.scales.push(other.scales[slot]);
    }

    pub(crate) fn reserve(&mut self, slots: usize) {
        self.coarse.reserve_exact(slots * self.dimensions);
        self.exact.reserve_exact(slots * self.dimensions);
        self.scales.reserve_exact(slots);
    }

    /// Calls `take` with each slot that has a vector and about how alike it is.
    pub(crate) fn scan(&self, query: &PreparedQuery, mut take: impl FnMut(usize, f32)) {
        if self.dimensions == 0 || query.dimensions() != self.dimensions {
            return;
        }
        let rows = self.coarse.chunks_exact(self.dimensions).zip(&self.scales).enumerate();
        for (slot, (row, scale)) in rows.filter(|(_, (_, scale))| **scale != 0.0) {
            take(slot, dot(row, &query.coarse) as f32 * scale * query.scale);
        }
    }

    /// The cosine of a slot's vector with the query; `None` without one.
    pub(crate) fn cosine(&self, slot: usize, query: &PreparedQuery) -> Option<f32> {
        if self.dimensions == 0 || query.dimensions() != self.dimensions || self.scales[slot] == 0.0 {
            return None;
        }
        let mut values = vec![0.0_f32; self.dimensions];
        self.exact[slot * self.dimensions..(slot + 1) * self.dimensions].convert_to_f32_slice(&mut values);
        Some(values.iter().zip(&query.exact).map(|(a, b)| a * b).sum())
    }

    /// The bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.coarse.capacity() + self.exact.capacity() * 2 + self.scales.capacity() * 4
    }
}

/// Written so that the compiler uses the processor's instruction which multiplies and adds pairs of 16 bits.
fn dot(row: &[i8], query: &[i16]) -> i32 {
    row.iter().zip(query).map(|(a, b)| i32::from(i16::from(*a)) * i32::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vectors() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (prop::collection::vec(-1.0_f32..1.0, 48), prop::collection::vec(-1.0_f32..1.0, 48))
    }

    proptest! {
        #[test]
        fn both_passes_are_near_the_cosine((a, b) in vectors()) {
            let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
            prop_assume!(norm(&a) > 0.1 && norm(&b) > 0.1);
            let cosine = a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>() / norm(&a) / norm(&b);
            let mut block = VectorBlock::new(48);
            block.push(None);
            block.push(Some(&StoredVector::of(&a)));
            let query = PreparedQuery::of(&b);
            let mut seen = Vec::new();
            block.scan(&query, |slot, score| seen.push((slot, score)));
            prop_assert_eq!(seen.len(), 1);
            prop_assert_eq!(seen[0].0, 1);
            prop_assert!((seen[0].1 - cosine).abs() < 0.02, "{} and {}", seen[0].1, cosine);
            prop_assert!((block.cosine(1, &query).unwrap() - cosine).abs() < 0.001);
            prop_assert_eq!(block.cosine(0, &query), None);
        }

        #[test]
        fn vectors_are_read_back_as_written((a, _) in vectors()) {
            let vector = StoredVector::of(&a);
            prop_assert_eq!(StoredVector::decode(&vector.encode()), Some(vector));
        }
    }

    #[test]
    fn what_is_no_vector_is_like_nothing() {
        for values in [vec![0.0; 4], vec![f32::NAN; 4], vec![f32::INFINITY; 4]] {
            let mut block = VectorBlock::new(4);
            block.push(Some(&StoredVector::of(&values)));
            block.scan(&PreparedQuery::of(&[1.0, 0.0, 0.0, 0.0]), |_, _| panic!("{values:?}"));
        }
    }
}
