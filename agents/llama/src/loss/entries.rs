//! Which tokens of the samples a batch holds, decided before anything is computed.

use artel_engine::Token;
use artel_engine::backend::{BatchToken, Slot};

use super::sample::TokenSample;

/// A token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The index of its sample.
    pub(super) sample: usize,
    pub(super) sequence: u32,
    position: u32,
    token: i32,
    /// The answer token that follows it.
    pub(super) target: Option<i32>,
    /// Whether it is the last one of its sample.
    pub(super) is_last: bool,
}

impl Entry {
    pub(super) fn batch_token(&self) -> BatchToken {
        let Self { sequence, position, token, target, .. } = *self;
        BatchToken { slot: Slot(sequence), position, token: Token(token), needs_logits: target.is_some() }
    }
}

/// The tokens of all samples, in batches of at most `batch_tokens` and of parts of at most `sequences` samples. One sample comes after
/// another, and one that does not fit into what is left of a batch begins the next one: so each is divided as it is alone. Kernels sum
/// in another order where a piece is not a multiple of their tiles, and rounding of the products with quantized weights makes a
/// difference of a hundredth of a nat of that.
pub(super) fn batches(
    samples: &[TokenSample],
    batch_tokens: usize,
    sequences: u32,
) -> impl Iterator<Item = Vec<Entry>> + '_ {
    let entries = samples.iter().enumerate().flat_map(move |(index, sample)| entries(index, sample, sequences));
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        let first = entries.next()?;
        let mut batch = vec![first];
        let fits = |entry: &Entry, used: usize| {
            let needed = if entry.position == 0 { computed_tokens(&samples[entry.sample]) } else { 1 };
            // The sequence of an earlier sample is free once its batch is computed.
            used.saturating_add(needed) <= batch_tokens && entry.sample - first.sample < sequences as usize
        };
        while let Some(entry) = entries.next_if(|entry| fits(entry, batch.len())) {
            batch.push(entry);
        }
        Some(batch)
    })
}

/// All but the last token of a sample, after which nothing is judged.
fn computed_tokens(sample: &TokenSample) -> usize {
    sample.prompt.len() + sample.answer.len() - 1
}

/// The tokens of a sample that are computed.
fn entries(index: usize, sample: &TokenSample, sequences: u32) -> impl Iterator<Item = Entry> + '_ {
    let tokens = sample.prompt.iter().chain(&sample.answer).copied();
    let targets = tokens.clone().skip(1);
    let (first_target, end) = (sample.prompt.len(), computed_tokens(sample));
    (1..=end).zip(tokens.zip(targets)).map(move |(next, (token, target))| Entry {
        sample: index,
        sequence: (index % sequences as usize) as u32,
        position: (next - 1) as u32,
        token,
        target: (next >= first_target).then_some(target),
        is_last: next == end,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answer_tokens_are_judged_after_what_precedes_them() {
        let sample = TokenSample { prompt: vec![1, 2, 3], answer: vec![4, 5] };
        let found: Vec<_> = batches(&[sample], 8, 1).flatten().map(|e| (e.token, e.target, e.is_last)).collect();
        assert_eq!(found, [(1, None, false), (2, None, false), (3, Some(4), false), (4, Some(5), true)]);
    }

    proptest! {
        #[test]
        fn every_token_is_in_one_batch_and_each_sample_is_divided_as_it_is_alone(
            lengths in prop::collection::vec((1..9usize, 1..9usize), 1..20),
            batch_tokens in 1..12usize,
            sequences in 1..5u32,
        ) {
            let of = |(prompt, answer): (usize, usize)| TokenSample { prompt: vec![0; prompt], answer: vec![1; answer] };
            let samples: Vec<_> = lengths.iter().copied().map(of).collect();
            let batches: Vec<_> = batches(&samples, batch_tokens, sequences).collect();
            let all: Vec<_> = batches.iter().flatten().map(|entry| (entry.sample, entry.position as usize)).collect();
            let computed = |(index, (prompt, answer)): (usize, &(usize, usize))| {
                (0..prompt + answer - 1).map(move |position| (index, position))
            };
            prop_assert_eq!(all, lengths.iter().enumerate().flat_map(computed).collect::<Vec<_>>());
            let targets = batches.iter().flatten().filter(|entry| entry.target.is_some()).count();
            prop_assert_eq!(targets, lengths.iter().map(|(_, answer)| answer).sum::<usize>());
            for batch in &batches {
                prop_assert!(batch.len() <= batch_tokens);
                for sample in batch.iter().map(|entry| entry.sample) {
                    let positions: Vec<_> = batch.iter().filter(|e| e.sample == sample).map(|e| e.position as usize).collect();
                    let is_whole = positions[0].is_multiple_of(batch_tokens);
                    let (prompt, answer) = lengths[sample];
                    let rest = prompt + answer - 1 - positions[0];
                    prop_assert!(is_whole && positions.len() == rest.min(batch_tokens));
                }
                let sample_of = |sequence: u32| batch.iter().filter(move |e| e.sequence == sequence).map(|e| e.sample);
                for entry in batch {
                    prop_assert!(sample_of(entry.sequence).all(|sample| sample == entry.sample));
                }
            }
        }
    }
}
