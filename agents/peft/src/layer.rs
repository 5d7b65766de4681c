//! The layers of an adapter: two matrices for each weight that it adapts, checked against the model.

use std::collections::BTreeMap;

use crate::architecture::AdaptedModule;
use crate::base_model::BaseModel;
use crate::error::AdapterRefusal;
use crate::matrix::StoredMatrix;

/// The largest rank: adapters have 4 to 256, those that are extracted from a trained model up to about 2048.
const MAX_RANK: u64 = 4096;
/// The most numbers of a matrix, which is held in memory: 256 MiB as F32. A head of 262,144 tokens has rank 256 with it.
const MAX_MATRIX_ELEMENTS: u64 = 64 << 20;

/// Which of the two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// From the inputs to the rank: a row for each rank.
    A,
    /// From the rank to the outputs: a row for each output.
    B,
}

/// What an adapter adds to one weight of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoraLayer {
    pub(crate) module: AdaptedModule,
    pub(crate) rank: u64,
    pub(crate) a: StoredMatrix,
    pub(crate) b: StoredMatrix,
}

/// The layers of an adapter's matrices, in the order of the model.
pub(crate) fn layers(
    matrices: impl IntoIterator<Item = (AdaptedModule, Side, StoredMatrix)>,
    base: &BaseModel,
) -> Result<Vec<LoraLayer>, AdapterRefusal> {
    let mut pairs: BTreeMap<AdaptedModule, (Option<StoredMatrix>, Option<StoredMatrix>)> = BTreeMap::new();
    for (module, side, matrix) in matrices {
        let pair = pairs.entry(module).or_default();
        let half = if side == Side::A { &mut pair.0 } else { &mut pair.1 };
        if half.replace(matrix).is_some() {
            return Err(AdapterRefusal::Twice(module.to_string()));
        }
    }
    if pairs.is_empty() {
        return Err(AdapterRefusal::Empty);
    }
    pairs.into_iter().map(|(module, pair)| layer(module, pair, base)).collect()
}

fn layer(
    module: AdaptedModule,
    (a, b): (Option<StoredMatrix>, Option<StoredMatrix>),
    base: &BaseModel,
) -> Result<LoraLayer, AdapterRefusal> {
    let unpaired = |missing| AdapterRefusal::Unpaired { module: module.to_string(), missing };
    let (a, b) = (a.ok_or_else(|| unpaired("A"))?, b.ok_or_else(|| unpaired("B"))?);
    let weight = base.shape(&module).ok_or_else(|| match module.layer() {
        Some(_) => AdapterRefusal::NotInModel { module: module.to_string(), weight: module.gguf_name() },
        None => AdapterRefusal::SharedHead(module.to_string()),
    })?;
    let rank = a.rows;
    let [outputs, inputs] = weight;
    if rank == 0 || [a.columns, b.rows, b.columns] != [inputs, outputs, rank] {
        let (a, b) = ([a.rows, a.columns], [b.rows, b.columns]);
        return Err(AdapterRefusal::Shape { module: module.to_string(), a, b, weight });
    }
    let elements = rank.saturating_mul(inputs.max(outputs));
    if rank > MAX_RANK || elements > MAX_MATRIX_ELEMENTS {
        let (max_rank, max_elements) = (MAX_RANK, MAX_MATRIX_ELEMENTS);
        return Err(AdapterRefusal::TooLarge { module: module.to_string(), rank, elements, max_rank, max_elements });
    }
    Ok(LoraLayer { module, rank, a, b })
}

/// The number of heads by which the rows of a layer's B are ordered; none if they stay as they are.
pub(crate) fn heads_of_rows(layer: &LoraLayer, heads: Option<u64>) -> Result<Option<usize>, AdapterRefusal> {
    let Some(heads) = heads else { return Ok(None) };
    match layer.b.rows % (2 * heads) {
        0 => Ok(Some(usize::try_from(heads).expect("no more heads than rows"))),
        _ => Err(AdapterRefusal::Heads { module: layer.module.to_string(), rows: layer.b.rows, heads }),
    }
}

/// The value that most have; of several, the one that comes first. None of no values.
pub(crate) fn most_frequent<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_value_is_taken_and_the_first_of_several() {
        assert_eq!(most_frequent([1, 2, 2, 3].into_iter()), Some(2));
        assert_eq!(most_frequent([3, 2, 2, 3].into_iter()), Some(3));
        assert_eq!(most_frequent([0u8; 0].into_iter()), None);
    }
}
