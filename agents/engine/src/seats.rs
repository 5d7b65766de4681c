//! Who sits where, and what those who left have left in their cells.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// The flow for which they were read along.
    reads: Option<Arc<str>>,
}

/// A free slot for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) slot: Slot,
    /// Tokens of the prompt that are in its cells, at most all but the last one.
    pub(crate) there: usize,
    /// Tokens that need not be computed because it is this one, less those that were read along for others and are lost.
    pub(crate) worth: i64,
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

    /// Free slots in whose cells is nothing that was read along for others: empty ones first, and then what was left first.
    pub(crate) fn spare(&self, lane: Lane) -> Vec<Slot> {
        let left = |slot: &Slot| self.left.get(&(lane, *slot));
        let mut spare: Vec<Slot> =
            self.free(lane).filter(|slot| left(slot).is_none_or(|left| left.reads.is_none())).collect();
        spare.sort_by_key(|slot| left(slot).map(|left| left.order));
        spare
    }

    /// The free slot that is worth most to a prompt of which `kept` tokens can be had in any of them. Of equal slots, the one
    /// whose cells have the most of it, then one without cells, and then the one that was left first. `awaited` says of a
    /// flow whether somebody still comes for what was read along for it.
    pub(crate) fn best(
        &self,
        lane: Lane,
        prompt: &[Token],
        kept: usize,
        awaited: impl Fn(&Arc<str>) -> bool,
    ) -> Option<Spot> {
        let most = prompt.len().saturating_sub(1);
        let rank = |slot: Slot| {
            let Some(left) = self.left.get(&(lane, slot)) else {
                return (Spot { slot, there: 0, worth: 0 }, u64::MAX);
            };
            let there = common(&left.tokens, prompt).min(most);
            let lost = if left.reads.as_ref().is_some_and(&awaited) { left.tokens.len() - there } else { 0 };
            let worth = there.saturating_sub(kept) as i64 - lost as i64;
            (Spot { slot, there, worth }, u64::MAX - 1 - left.order)
        };
        let best = self.free(lane).map(rank).max_by_key(|(spot, age)| {
            let Spot { slot, there, worth } = *spot;
            (worth, there, *age, u32::MAX - slot.0)
        });
        best.map(|(spot, _)| spot)
    }

    /// Takes a seat, whose left cells are no longer anybody's.
    pub(crate) fn sit(&mut self, at: (Lane, Slot), sequence: S) {
        self.left.remove(&at);
        self.taken.insert(at, sequence);
    }

    /// Leaves a seat with these tokens in its cells, read along for a flow or not; without any, its cells are free.
    pub(crate) fn leave(&mut self, at: (Lane, Slot), tokens: Vec<Token>, reads: Option<Arc<str>>) -> Option<S> {
        let sequence = self.taken.remove(&at);
        if sequence.is_some() && !tokens.is_empty() {
            self.leavings += 1;
            self.left.insert(at, Left { tokens, order: self.leavings, reads });
        }
        sequence
    }

    /// Forgets what is left in a slot where nobody sits.
    pub(crate) fn forget_left(&mut self, at: (Lane, Slot)) {
        self.left.remove(&at);
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

    /// Seats of which the first ones were left with these texts.
    fn left(count: u32, texts: &[(&str, Option<&str>)]) -> Seats<()> {
        let mut seats = Seats::new(count);
        for (slot, (text, reads)) in texts.iter().enumerate() {
            let at = (Lane(0), Slot(slot as u32));
            seats.sit(at, ());
            seats.leave(at, tokens(text), reads.map(Arc::from));
        }
        seats
    }

    #[test]
    fn a_prompt_goes_where_most_of_it_is_and_else_where_nothing_is_lost() {
        let mut seats = left(3, &[("abcd", None), ("abxx", None)]);
        let at = |slot| (Lane(0), Slot(slot));
        let best = |seats: &Seats<()>, text| {
            let spot = seats.best(Lane(0), &tokens(text), 0, |_| false);
            spot.map(|spot| (spot.slot, spot.there))
        };
        assert_eq!(best(&seats, "abcz"), Some((Slot(0), 3)));
        assert_eq!(best(&seats, "abcd"), Some((Slot(0), 3)), "the last token is computed");
        assert_eq!(best(&seats, "zzz"), Some((Slot(2), 0)), "an empty slot loses nothing");
        seats.sit(at(2), ());
        assert_eq!(best(&seats, "zzz"), Some((Slot(0), 0)), "the oldest goes first");
        seats.sit(at(0), ());
        seats.sit(at(1), ());
        assert_eq!(best(&seats, "abc"), None);
        assert!(seats.has_free(Lane(1)));
    }

    #[test]
    fn what_was_read_along_stays_for_whom_it_was_read() {
        let seats = left(3, &[("ab answers one", Some("b")), ("cd answers", None)]);
        let best = |text: &str, kept, awaited| seats.best(Lane(0), &tokens(text), kept, |_| awaited).unwrap();
        let spot = |slot, there, worth| Spot { slot: Slot(slot), there, worth };
        assert_eq!(best("ab answers one question", 2, true), spot(0, 14, 12), "whom it was read for");
        assert_eq!(best("ab asks", 2, true), spot(2, 0, 0), "what it begins with is kept elsewhere");
        assert_eq!(best("ab asks", 2, false), spot(0, 4, 2), "nobody comes for it any more");
        assert_eq!(best("ab answers two", 0, true), spot(0, 11, 8), "it wins more than is lost");
        let full = left(1, &[("ab answers one", Some("b"))]);
        assert_eq!(full.best(Lane(0), &tokens("x"), 0, |_| true), Some(spot(0, 0, -14)));
        assert_eq!(seats.spare(Lane(0)), [Slot(2), Slot(1)], "an empty one first, and never what was read along");
    }
}
