//! Embeddings, which an engine computes and the signals compare.

use std::sync::Arc;

/// The embedding of a text: a unit vector, as long as that of every other text by the same model.
pub type Embedding = Arc<[f32]>;

/// The cosine of the angle between two unit vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_directions_are_near_and_right_angles_are_far() {
        assert!((cosine(&[0.6, 0.8], &[0.6, 0.8]) - 1.0).abs() < 1e-6);
        assert!(cosine(&[1.0, 0.0], &[0.0, 1.0]).abs() < 1e-6);
        assert!((cosine(&[1.0, 0.0], &[-1.0, 0.0]) + 1.0).abs() < 1e-6);
    }
}
