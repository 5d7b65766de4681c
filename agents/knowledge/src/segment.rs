//! Chunks in memory: immutable segments, and what of them was removed since.

use std::collections::HashSet;
use std::sync::Arc;

use crate::postings::Postings;
use crate::vectors::{StoredVector, VectorBlock};
use artel_terms::ChunkTerms;
use artel_terms::Language;

/// The chunks of a segment at most: a merge then copies 10 MB and takes milliseconds.
pub(crate) const MAX_SEGMENT_CHUNKS: usize = 8192;

/// A chunk as memory holds it.
#[derive(Debug, Clone)]
pub(crate) struct IndexedChunk {
    pub(crate) id: i64,
    pub(crate) entry: i64,
    pub(crate) terms: ChunkTerms,
    pub(crate) vector: Option<StoredVector>,
}

/// Chunks that do not change, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) ids: Vec<i64>,
    pub(crate) entries: Vec<i64>,
    /// The number of words of each chunk.
    pub(crate) words: Vec<u32>,
    pub(crate) vectors: VectorBlock,
    pub(crate) postings: Postings,
}

impl Segment {
    fn of(chunks: &[IndexedChunk], dimensions: usize) -> Self {
        let mut vectors = VectorBlock::new(dimensions);
        vectors.reserve(chunks.len());
        for chunk in chunks {
            vectors.push(chunk.vector.as_ref());
        }
        let terms: Vec<_> = chunks.iter().map(|chunk| chunk.terms.clone()).collect();
        Self {
            ids: chunks.iter().map(|chunk| chunk.id).collect(),
            entries: chunks.iter().map(|chunk| chunk.entry).collect(),
            words: chunks.iter().map(|chunk| chunk.terms.words).collect(),
            vectors,
            postings: Postings::of(&terms),
        }
    }

    fn bytes(&self) -> usize {
        self.ids.len() * 20 + self.vectors.bytes() + self.postings.bytes()
    }
}

/// A segment without the chunks that were removed from it.
#[derive(Debug, Clone)]
pub(crate) struct LiveSegment {
    pub(crate) segment: Arc<Segment>,
    /// A bit for each slot that was removed; empty if none was.
    removed: Arc<Vec<u64>>,
    removed_chunks: usize,
}

impl LiveSegment {
    fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(segment), removed: Arc::default(), removed_chunks: 0 }
    }

    pub(crate) fn is_removed(&self, slot: usize) -> bool {
        self.removed.get(slot / 64).is_some_and(|bits| bits >> (slot % 64) & 1 == 1)
    }

    fn live_chunks(&self) -> usize {
        self.segment.ids.len() - self.removed_chunks
    }

    fn remove(&mut self, slot: usize) {
        if self.is_removed(slot) {
            return;
        }
        let bits = Arc::make_mut(&mut self.removed);
        bits.resize(self.segment.ids.len().div_ceil(64), 0);
        bits[slot / 64] |= 1 << (slot % 64);
        self.removed_chunks += 1;
    }

    /// One segment of the chunks that are left of several in a row.
    fn merged(parts: &[Self], dimensions: usize) -> Self {
        let mut merged = Segment { vectors: VectorBlock::new(dimensions), ..Segment::default() };
        merged.vectors.reserve(parts.iter().map(Self::live_chunks).sum());
        let mut slots: Vec<Vec<Option<u16>>> = Vec::with_capacity(parts.len());
        for part in parts {
            let mut of_part = Vec::with_capacity(part.segment.ids.len());
            for slot in 0..part.segment.ids.len() {
                let new = u16::try_from(merged.ids.len()).expect("a merged segment is within its limit");
                of_part.push((!part.is_removed(slot)).then_some(new));
                if !part.is_removed(slot) {
                    merged.ids.push(part.segment.ids[slot]);
                    merged.entries.push(part.segment.entries[slot]);
                    merged.words.push(part.segment.words[slot]);
                    merged.vectors.push_from(&part.segment.vectors, slot);
                }
            }
            slots.push(of_part);
        }
        let postings: Vec<_> = parts.iter().zip(&slots).map(|(part, of)| (&part.segment.postings, &**of)).collect();
        merged.postings = Postings::merged(&postings);
        Self::new(merged)
    }
}

/// The chunks of a generation in one committed state. Cheap to clone; a change makes another one.
#[derive(Debug, Clone, Default)]
pub(crate) struct GenerationView {
    pub(crate) dimensions: usize,
    /// In whose words the stems of its chunks are.
    pub(crate) languages: Arc<[Language]>,
    /// In the order of the ids of their chunks.
    pub(crate) segments: Vec<LiveSegment>,
}

impl GenerationView {
    pub(crate) fn new(dimensions: usize, languages: &[Language]) -> Self {
        Self { dimensions, languages: languages.into(), segments: Vec::new() }
    }

    /// Appends chunks, whose ids are higher than those before, and merges segments where that is due.
    pub(crate) fn append(&mut self, chunks: &[IndexedChunk]) {
        for part in chunks.chunks(MAX_SEGMENT_CHUNKS) {
            self.segments.push(LiveSegment::new(Segment::of(part, self.dimensions)));
            self.merge_last();
        }
    }

    /// Merges the last segments until each is twice as large as its successor: a chunk is copied a few times in all, and there
    /// are few segments.
    fn merge_last(&mut self) {
        let (mut count, mut chunks) = (0, 0);
        for segment in self.segments.iter().rev() {
            let live = segment.live_chunks();
            if count > 0 && (live > 2 * chunks || live + chunks > MAX_SEGMENT_CHUNKS) {
                break;
            }
            (count, chunks) = (count + 1, chunks + live);
        }
        if count > 1 {
            let last = self.segments.split_off(self.segments.len() - count);
            self.segments.push(LiveSegment::merged(&last, self.dimensions));
        }
    }

    /// Removes chunks by their ids.
    pub(crate) fn remove(&mut self, ids: &[i64]) {
        for id in ids {
            if let Some((at, slot)) = self.locate(*id) {
                self.segments[at].remove(slot);
            }
        }
        // A segment that is mostly empty would cost as much as a full one.
        let dimensions = self.dimensions;
        for segment in &mut self.segments {
            if segment.removed_chunks * 2 > segment.segment.ids.len() {
                *segment = LiveSegment::merged(std::slice::from_ref(segment), dimensions);
            }
        }
        self.segments.retain(|segment| segment.live_chunks() > 0);
    }

    /// The segment and the slot of a chunk.
    pub(crate) fn locate(&self, id: i64) -> Option<(usize, usize)> {
        let at = self.segments.partition_point(|segment| segment.segment.ids.last().is_some_and(|last| *last < id));
        let slot = self.segments.get(at)?.segment.ids.binary_search(&id).ok()?;
        Some((at, slot))
    }

    /// The number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        self.segments.iter().map(LiveSegment::live_chunks).sum()
    }

    /// The bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.segment.bytes()).sum()
    }
}

/// The entries that a search is limited to.
#[derive(Debug, Clone, Default)]
pub(crate) enum EntryFilter {
    /// All of them.
    #[default]
    All,
    /// These, by their ids.
    Only(HashSet<i64>),
}

impl EntryFilter {
    pub(crate) fn allows(&self, entry: i64) -> bool {
        match self {
            Self::All => true,
            Self::Only(entries) => entries.contains(&entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn chunk(id: i64) -> IndexedChunk {
        let terms = ChunkTerms::of(&format!("all number{id}"), &Language::ALL);
        IndexedChunk { id, entry: id / 3, terms, vector: Some(StoredVector::of(&[1.0, id as f32])) }
    }

    fn live(view: &GenerationView) -> BTreeSet<i64> {
        let of = |segment: &LiveSegment| {
            let ids = segment.segment.ids.iter().enumerate();
            ids.filter(|(slot, _)| !segment.is_removed(*slot)).map(|(_, id)| *id).collect::<Vec<_>>()
        };
        view.segments.iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn a_view_has_what_was_appended_and_not_removed(steps in prop::collection::vec((1..6_i64, prop::collection::vec(0..200_i64, 0..6)), 0..40)) {
            let mut view = GenerationView::new(2, &[]);
            let mut expected = BTreeSet::new();
            let mut next = 0;
            for (added, removed) in steps {
                let before = (view.clone(), expected.clone());
                let ids: Vec<_> = (next..next + added).collect();
                next += added;
                view.append(&ids.iter().copied().map(chunk).collect::<Vec<_>>());
                expected.extend(ids);
                view.remove(&removed);
                expected.retain(|id| !removed.contains(id));
                prop_assert_eq!(live(&view), expected.clone());
                prop_assert_eq!(view.chunks(), expected.len());
                prop_assert_eq!(live(&before.0), before.1, "a view that a query holds does not change");
                for id in &expected {
                    let (at, slot) = view.locate(*id).unwrap();
                    let segment = &view.segments[at].segment;
                    prop_assert_eq!((segment.ids[slot], segment.entries[slot]), (*id, *id / 3));
                }
            }
            prop_assert!(view.segments.len() <= 12, "{}", view.segments.len());
        }
    }
}
