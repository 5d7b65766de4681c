//! Which chunks of a segment have a term, and how often.

use artel_terms::{ChunkTerms, TermId};

/// The chunks of a segment by term. A chunk is a slot of 16 bits, since a segment has few.
#[derive(Debug, Clone, Default)]
pub(crate) struct Postings {
    /// Sorted.
    terms: Vec<TermId>,
    /// Where the chunks of a term end; they begin where those of the term before it end.
    ends: Vec<u32>,
    slots: Vec<u16>,
    counts: Vec<u8>,
}

impl Postings {
    /// Those of these chunks, whose slots are their places in the list.
    pub(crate) fn of(chunks: &[ChunkTerms]) -> Self {
        let mut rows: Vec<(TermId, u16, u8)> = Vec::with_capacity(chunks.iter().map(|chunk| chunk.counts.len()).sum());
        for (slot, chunk) in chunks.iter().enumerate() {
            let slot = u16::try_from(slot).expect("a segment has fewer slots");
            rows.extend(chunk.counts.iter().map(|(term, count)| (*term, slot, *count)));
        }
        rows.sort_unstable_by_key(|(term, slot, _)| (*term, *slot));
        let mut postings = Self::default();
        for (term, slot, count) in rows {
            postings.push(term, slot, count);
        }
        postings.shrink();
        postings
    }

    /// Those of several segments in a row: `slots` gives the new slot of an old one, unless it is left out.
    pub(crate) fn merged(parts: &[(&Self, &[Option<u16>])]) -> Self {
        let mut merged = Self::default();
        let mut at = vec![0; parts.len()];
        // The least term that is left. A few parts are merged at a time, so looking at all of them is quick.
        let next = |at: &[usize]| parts.iter().zip(at).filter_map(|((part, _), at)| part.terms.get(*at)).min().copied();
        while let Some(term) = next(&at) {
            for ((part, slots), at) in parts.iter().zip(&mut at) {
                if part.terms.get(*at) != Some(&term) {
                    continue;
                }
                for (slot, count) in part.range(*at) {
                    if let Some(slot) = slots[usize::from(slot)] {
                        merged.push(term, slot, count);
                    }
                }
                *at += 1;
            }
        }
        merged.shrink();
        merged
    }

    fn push(&mut self, term: TermId, slot: u16, count: u8) {
        self.slots.push(slot);
        self.counts.push(count);
        let end = u32::try_from(self.slots.len()).expect("65,536 chunks have fewer terms");
        if self.terms.last() == Some(&term) {
            *self.ends.last_mut().expect("a term has an end") = end;
        } else {
            self.terms.push(term);
            self.ends.push(end);
        }
    }

    fn shrink(&mut self) {
        self.terms.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.slots.shrink_to_fit();
        self.counts.shrink_to_fit();
    }

    /// The chunks with a term, in order, and how often each has it.
    pub(crate) fn of_term(&self, term: TermId) -> impl Iterator<Item = (u16, u8)> {
        let at = self.terms.binary_search(&term).ok();
        at.map(|at| self.range(at)).into_iter().flatten()
    }

    /// The number of chunks with a term.
    pub(crate) fn frequency(&self, term: TermId) -> u32 {
        let Ok(at) = self.terms.binary_search(&term) else { return 0 };
        self.ends[at] - self.begin(at)
    }

    fn begin(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn range(&self, at: usize) -> impl Iterator<Item = (u16, u8)> {
        let range = self.begin(at) as usize..self.ends[at] as usize;
        self.slots[range.clone()].iter().copied().zip(self.counts[range].iter().copied())
    }

    /// The bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.terms.capacity() * 8 + self.ends.capacity() * 4 + self.slots.capacity() * 2 + self.counts.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn chunk(terms: &BTreeMap<u64, u8>) -> ChunkTerms {
        ChunkTerms { words: 1, counts: terms.iter().map(|(term, count)| (TermId(*term), *count)).collect() }
    }

    fn chunks() -> impl Strategy<Value = Vec<BTreeMap<u64, u8>>> {
        prop::collection::vec(prop::collection::btree_map(0_u64..20, 1_u8..5, 0..6), 0..8)
    }

    proptest! {
        #[test]
        fn a_merge_is_as_if_all_chunks_came_at_once(first in chunks(), second in chunks(), kept in any::<[bool; 16]>()) {
            let build = |chunks: &[BTreeMap<u64, u8>]| Postings::of(&chunks.iter().map(chunk).collect::<Vec<_>>());
            let all: Vec<_> = first.iter().chain(&second).cloned().collect();
            let mut next = 0;
            let slots: Vec<Option<u16>> = kept[..all.len()]
                .iter()
                .map(|kept| kept.then(|| { next += 1; next - 1 }))
                .collect();
            let left: Vec<_> = all.iter().zip(kept).filter(|(_, kept)| *kept).map(|(chunk, _)| chunk.clone()).collect();
            let (of_first, of_second) = slots.split_at(first.len());
            let merged = Postings::merged(&[(&build(&first), of_first), (&build(&second), of_second)]);
            let expected = build(&left);
            for term in (0..21).map(TermId) {
                prop_assert_eq!(merged.of_term(term).collect::<Vec<_>>(), expected.of_term(term).collect::<Vec<_>>());
                prop_assert_eq!(merged.frequency(term), u32::try_from(expected.of_term(term).count()).unwrap());
            }
        }
    }
}
