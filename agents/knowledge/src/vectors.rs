//! Vectors in memory: compared exactly, all of them, in two passes. The first reads a byte for each dimension and keeps the best;
//! the second compares these by 16 bits. They are parts of the largest value of a vector, so that all are as fine: an f16 of a value
//! in a unit vector has an error some seven times as large, and confuses neighbours that are nearly as near.

/// A unit vector as it is stored: 16 bits for each dimension, as parts of its largest value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredVector {
    /// The largest value; 0 for what is like nothing.
    largest: f32,
    values: Vec<i16>,
}

impl StoredVector {
    /// The direction of a vector. That of zeros, or with a value that is no number, is like nothing.
    pub(crate) fn of(values: &[f32]) -> Self {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        if !norm.is_normal() {
            return Self { largest: 0.0, values: vec![0; values.len()] };
        }
        let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let values = values.iter().map(|v| (v / largest * FINE_FACTOR).round() as i16).collect();
        Self { largest: largest / norm, values }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (largest, values) = bytes.split_first_chunk::<4>()?;
        let (pairs, []) = values.as_chunks::<2>() else { return None };
        let values = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
        Some(Self { largest: f32::from_le_bytes(*largest), values }).filter(|vector| vector.largest.is_finite())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let values = self.values.iter().flat_map(|v| v.to_le_bytes());
        self.largest.to_le_bytes().into_iter().chain(values).collect()
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        self.values.iter().map(|value| f32::from(*value) * self.largest / FINE_FACTOR).collect()
    }
}

/// The largest value of 16 bits.
const FINE_FACTOR: f32 = 32_767.0;
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
    fine: Vec<i16>,
    /// The largest value of each vector.
    largest: Vec<f32>,
}

impl VectorBlock {
    pub(crate) fn new(dimensions: usize) -> Self {
        Self { dimensions, ..Self::default() }
    }

    /// Appends a vector, or the place of one that is missing.
    pub(crate) fn push(&mut self, vector: Option<&StoredVector>) {
        let dimensions = self.dimensions;
        let Some(StoredVector { largest, values }) = vector.filter(|vector| vector.dimensions() == dimensions) else {
            self.coarse.resize(self.coarse.len() + dimensions, 0);
            self.fine.resize(self.fine.len() + dimensions, 0);
            self.largest.push(0.0);
            return;
        };
        self.coarse.extend(values.iter().map(|v| (f32::from(*v) / FINE_FACTOR * COARSE_FACTOR).round() as i8));
        self.fine.extend_from_slice(values);
        self.largest.push(*largest);
    }

    /// Appends the vector of another block.
    pub(crate) fn push_from(&mut self, other: &Self, slot: usize) {
        if other.dimensions != self.dimensions {
            return self.push(None);
        }
        let range = slot * self.dimensions..(slot + 1) * self.dimensions;
        self.coarse.extend_from_slice(&other.coarse[range.clone()]);
        self.fine.extend_from_slice(&other.fine[range]);
        self.largest.push(other.largest[slot]);
    }

    pub(crate) fn reserve(&mut self, slots: usize) {
        self.coarse.reserve_exact(slots * self.dimensions);
        self.fine.reserve_exact(slots * self.dimensions);
        self.largest.reserve_exact(slots);
    }

    /// Calls `take` with each slot that has a vector and about how alike it is.
    pub(crate) fn scan(&self, query: &PreparedQuery, mut take: impl FnMut(usize, f32)) {
        if self.dimensions == 0 || query.dimensions() != self.dimensions {
            return;
        }
        let rows = self.coarse.chunks_exact(self.dimensions).zip(&self.largest).enumerate();
        for (slot, (row, largest)) in rows.filter(|(_, (_, largest))| **largest != 0.0) {
            take(slot, dot(row, &query.coarse) as f32 * (largest / COARSE_FACTOR) * query.scale);
        }
    }

    /// The cosine of a slot's vector with the query; `None` without one.
    pub(crate) fn cosine(&self, slot: usize, query: &PreparedQuery) -> Option<f32> {
        if self.dimensions == 0 || query.dimensions() != self.dimensions || self.largest[slot] == 0.0 {
            return None;
        }
        let values = &self.fine[slot * self.dimensions..(slot + 1) * self.dimensions];
        let sum: f32 = values.iter().zip(&query.exact).map(|(a, b)| f32::from(*a) * b).sum();
        Some(sum * self.largest[slot] / FINE_FACTOR)
    }

    /// The bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.coarse.capacity() + self.fine.capacity() * 2 + self.largest.capacity() * 4
    }
}

/// Written so that the compiler uses the processor's instruction which multiplies and adds pairs of 16 bits, which it does not where
/// each sum is checked: none can overflow.
fn dot(row: &[i8], query: &[i16]) -> i32 {
    let products = row.iter().zip(query).map(|(a, b)| i32::from(i16::from(*a)) * i32::from(*b));
    products.fold(0, i32::wrapping_add)
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
            prop_assert!((block.cosine(1, &query).unwrap() - cosine).abs() < 1e-4);
            prop_assert_eq!(block.cosine(0, &query), None);
        }

        #[test]
        fn vectors_are_read_back_as_written((a, _) in vectors()) {
            let vector = StoredVector::of(&a);
            prop_assert_eq!(StoredVector::decode(&vector.encode()), Some(vector.clone()));
            let norm = a.iter().map(|x| x * x).sum::<f32>().sqrt();
            prop_assume!(norm > 0.1);
            for (stored, value) in vector.values().iter().zip(&a) {
                prop_assert!((stored - value / norm).abs() < 2e-5, "{stored} and {value}");
            }
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
