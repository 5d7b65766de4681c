//! How many points go into one message.

use prost::Message as _;
use qdrant_client::qdrant::PointStruct;

/// The most points of a message: the batches that Qdrant's own clients send have 64 to 256.
const MAX_BATCH_POINTS: usize = 256;
/// The most bytes of a message, unless one point has more: a fourth of what gRPC servers take unless they are told otherwise.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Cuts points into batches, in order; only a batch of one point has more than [`MAX_BATCH_BYTES`].
pub(crate) fn batches(points: impl IntoIterator<Item = PointStruct>) -> impl Iterator<Item = Vec<PointStruct>> {
    let mut points = points.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = points.next()?;
        let mut bytes = first.encoded_len();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH_POINTS {
            let fits = |point: &PointStruct| bytes + point.encoded_len() <= MAX_BATCH_BYTES;
            let Some(point) = points.next_if(fits) else { break };
            bytes += point.encoded_len();
            batch.push(point);
        }
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::Value;

    use super::*;

    fn point(bytes: usize) -> PointStruct {
        let text = Value::from("x".repeat(bytes));
        PointStruct { payload: [("page_content".to_owned(), text)].into(), ..PointStruct::default() }
    }

    fn lengths(points: impl IntoIterator<Item = PointStruct>) -> Vec<usize> {
        batches(points).map(|batch| batch.len()).collect()
    }

    #[test]
    fn a_batch_has_at_most_256_points() {
        assert_eq!(lengths([]), [0; 0]);
        assert_eq!(lengths((0..256).map(|_| point(10))), [256]);
        assert_eq!(lengths((0..600).map(|_| point(10))), [256, 256, 88]);
    }

    #[test]
    fn a_batch_has_at_most_a_mebibyte_unless_one_point_has_more() {
        assert_eq!(lengths((0..5).map(|_| point(400 << 10))), [2, 2, 1]);
        assert_eq!(lengths([point(10), point(3 << 20), point(10), point(10)]), [1, 1, 2]);
    }
}
