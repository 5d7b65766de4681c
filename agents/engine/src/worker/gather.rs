//! Moves: who decodes apart from the others comes to sit beside them.

use std::time::{Duration, Instant};

use super::Worker;
use crate::backend::{Backend, Lane, Slot};
use crate::schedule;
use crate::sequence::Work;

/// So many batches in a row must have taken more than one pass: a gap is usually filled by who comes next.
const PATIENCE: u32 = 4;
/// A move must take no longer than so many passes.
const WORTH: f64 = 4.0;
/// Cells of the first move at most, of which nobody knows how long it will take.
const FIRST: u32 = 1024;
/// What is left of the price of a move each time that it was too high: the last one may have been slow for another reason.
const HOPE: f64 = 0.98;

/// What was seen of who decodes in a lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Apart {
    batches: u32,
    /// What a pass of the last batch took.
    pass: Duration,
}

impl<B: Backend> Worker<B> {
    /// Notes how many passes over the weights those who decode took, and moves one of them if there have long been too many.
    pub(super) fn gather(&mut self, lane: Lane, passes: usize, took: Duration) {
        if passes < 2 {
            self.apart.remove(&lane);
            return;
        }
        let apart = self.apart.entry(lane).or_default();
        *apart = Apart { batches: apart.batches + 1, pass: took / passes as u32 };
        if apart.batches < PATIENCE {
            return;
        }
        let pass = apart.pass.as_secs_f64();
        self.apart.remove(&lane);
        let Some((from, to, cells)) = self.better_seat(lane) else { return };
        let pays = |cost: f64| f64::from(cells) * cost <= WORTH * pass;
        if !self.cell_move.map_or(cells <= FIRST, pays) {
            self.cell_move = self.cell_move.map(|cost| HOPE * cost);
            return;
        }
        let began = Instant::now();
        if let Err(reason) = self.change_seat(lane, from, to) {
            tracing::warn!(reason, "a sequence cannot be moved and goes on where it is, and so will all others");
            self.cell_move = Some(f64::INFINITY);
            return;
        }
        let took = began.elapsed();
        tracing::trace!(lane = lane.0, from = from.0, to = to.0, cells, ?took, "a sequence was moved");
        self.cell_move = Some(took.as_secs_f64() / f64::from(cells.max(1)));
    }

    /// Whose seat had better be which, and how many cells are in it.
    fn better_seat(&self, lane: Lane) -> Option<(Slot, Slot, u32)> {
        let seats = || self.seats.taken().range((lane, Slot(0))..=(lane, Slot(u32::MAX)));
        let reading: Vec<Slot> = seats().filter(|(_, s)| s.prompt_left() > 0).map(|((_, slot), _)| *slot).collect();
        let decodes = seats().filter(|(_, s)| s.prompt_left() == 0 && s.job.reader.has_room());
        let mut decoding: Vec<(u32, Slot)> = decodes
            .filter(|(_, s)| matches!(s.work, Work::Write(_)))
            .map(|((_, slot), s)| (s.position(), *slot))
            .collect();
        decoding.sort_unstable();
        let (cells, decoding): (Vec<u32>, Vec<Slot>) = decoding.into_iter().unzip();
        let (from, to) = schedule::move_together(&decoding, &reading, &self.seats.spare(lane))?;
        let at = decoding.iter().position(|slot| *slot == from)?;
        Some((from, to, cells[at]))
    }

    fn change_seat(&mut self, lane: Lane, from: Slot, to: Slot) -> Result<(), String> {
        let state = self.backend.save(lane, from)?;
        self.seats.forget_left((lane, to));
        self.backend.trim(lane, to, 0);
        if let Err(reason) = self.backend.restore(lane, to, &state) {
            self.backend.trim(lane, to, 0);
            return Err(reason);
        }
        self.backend.trim(lane, from, 0);
        if let Some(sequence) = self.seats.leave((lane, from), Vec::new(), None) {
            self.seats.sit((lane, to), sequence);
        }
        Ok(())
    }
}
