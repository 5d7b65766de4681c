//! Who sits where, and what those who left have left in their cells.

use std::collections::BTreeMap;

use crate::backend::{Lane, Slot, Token};

/// The slots of all lanes.
pub(crate) struct Seats<S> {
    /// Slots of each lane.
    count: u32,
    taken: BTreeMap<(Lane, Slot), S>,
    left: BTreeMap<(Lane, Slot), Left>,
    leavings: u64,
}

/// Cells of a free slot, which a later prompt may go on from.
struct Left {
    tokens: Vec<Token>,
    /// Which leaving it was; the oldest goes first.
    order: u64,
}

impl<S> Seats<S> {
    pub(crate) fn new(count: u32) -> Self {
        Self { count, taken: BTreeMap::new(), left: BTreeMap::new(), leavings: 0 }
    }

    pub(crate) fn taken(&self) -> &BTreeMap<(Lane, Slot), S> {
        &self.taken
    }

    pub(crate) fn get(&mut self, at: (Lane, Slot)) -> Option<&mut S> {
        self.taken.get_mut(&at)
    }

    pub(crate) fn has_free(&self, lane: Lane) -> bool {
        self.free(lane).next().is_some()
    }

    fn free(&self, lane: Lane) -> impl Iterator<Item = Slot> {
        let taken = self.taken.range((lane, Slot(0))..=(lane, Slot(u32::MAX)));
        let mut taken = taken.map(|((_, slot), _)| *slot).peekable();
        // Both are in order.
        (0..self.count).map(Slot).filter(move |slot| taken.next_if_eq(slot).is_none())
    }

    /// The free slot whose cells have the most of a prompt, and how many tokens that are, at most all but the last one. Of
    /// equal slots, one without cells, and then the one that was left first.
    pub(crate) fn best(&self, lane: Lane, prompt: &[Token]) -> Option<(Slot, usize)> {
        let most = prompt.len().saturating_sub(1);
        let rank = |slot: Slot| match self.left.get(&(lane, slot)) {
            None => (0, u64::MAX),
            Some(left) => (common(&left.tokens, prompt).min(most), u64::MAX - 1 - left.order),
        };
        self.free(lane)
            .map(|slot| (rank(slot), slot))
            .max_by_key(|(rank, slot)| (*rank, u32::MAX - slot.0))
            .map(|((tokens, _), slot)| (slot, tokens))
    }

    /// Takes a seat, whose left cells are no longer anybody's.
    pub(crate) fn sit(&mut self, at: (Lane, Slot), sequence: S) {
        self.left.remove(&at);
        self.taken.insert(at, sequence);
    }

    /// Leaves a seat with these tokens in its cells; without any, its cells are free.
    pub(crate) fn leave(&mut self, at: (Lane, Slot), tokens: Vec<Token>) -> Option<S> {
        let sequence = self.taken.remove(&at);
        if sequence.is_some() && !tokens.is_empty() {
            self.leavings += 1;
            self.left.insert(at, Left { tokens, order: self.leavings });
        }
        sequence
    }

    /// Forgets what is left in a lane where nobody sits.
    pub(crate) fn forget(&mut self, lane: Lane) {
        self.left.retain(|(l, _), _| *l != lane);
    }

    /// Everybody leaves.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = S> {
        self.left.clear();
        std::mem::take(&mut self.taken).into_values()
    }
}

fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    #[test]
    fn a_prompt_goes_where_most_of_it_is_and_else_where_nothing_is_lost() {
        let mut seats = Seats::new(3);
        let at = |slot| (Lane(0), Slot(slot));
        for (slot, text) in [(0, "abcd"), (1, "abxx")] {
            seats.sit(at(slot), ());
            seats.leave(at(slot), tokens(text));
        }
        assert_eq!(seats.best(Lane(0), &tokens("abcz")), Some((Slot(0), 3)));
        assert_eq!(seats.best(Lane(0), &tokens("abcd")), Some((Slot(0), 3)), "the last token is computed");
        assert_eq!(seats.best(Lane(0), &tokens("zzz")), Some((Slot(2), 0)), "an empty slot loses nothing");
        seats.sit(at(2), ());
        assert_eq!(seats.best(Lane(0), &tokens("zzz")), Some((Slot(0), 0)), "the oldest goes first");
        seats.sit(at(0), ());
        seats.sit(at(1), ());
        assert_eq!(seats.best(Lane(0), &tokens("abc")), None);
        assert!(seats.has_free(Lane(1)));
    }
}
