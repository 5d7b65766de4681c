//! Vectors as they come in, and how two are compared.

use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{Vectors, vector};
use tonic::Status;

/// The one dense vector without a name.
pub(crate) fn unnamed(vectors: Option<Vectors>) -> Result<Vec<f32>, Status> {
    match vectors.and_then(|vectors| vectors.vectors_options) {
        Some(VectorsOptions::Vector(vector)) => match vector.vector {
            Some(vector::Vector::Dense(dense)) => Ok(dense.data),
            _ => Err(Status::unimplemented("only dense vectors are served here")),
        },
        _ => Err(Status::invalid_argument("Wrong input: Not existing vector name error: ")),
    }
}

/// The vector at length one, as Qdrant keeps it.
pub(crate) fn unit(vector: Vec<f32>, dimensions: u64) -> Result<Vec<f32>, Status> {
    if vector.len() as u64 != dimensions {
        let found = vector.len();
        let text = format!("Wrong input: Vector dimension error: expected dim: {dimensions}, got {found}");
        return Err(Status::invalid_argument(text));
    }
    let length = dot(&vector, &vector).sqrt();
    if length == 0.0 { Ok(vector) } else { Ok(vector.into_iter().map(|value| value / length).collect()) }
}

pub(crate) fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}
