//! Compaction: moves decoding sequences into adjacent slots, so that they share passes over the weights.

use std::time::{Duration, Instant};

use super::EngineWorker;
use crate::backend::{AdapterContext, Backend, Slot};
use crate::schedule;
use crate::sequence::SequenceKind;

/// So many batches in a row must have taken more than one pass: a gap is usually filled by the next sequence.
const MIN_FRAGMENTED_BATCHES: u32 = 4;
/// A move must take no longer than so many passes.
const MAX_MOVE_COST_FACTOR: f64 = 4.0;
/// Cells of the first move at most, whose cost is not known yet.
const MAX_FIRST_MOVE_CELLS: u32 = 1024;
/// Lowers the estimated cost of a move each time that it was too high: the last move may have been slow for another reason.
const MOVE_COST_DECAY_FACTOR: f64 = 0.98;

/// The recent fragmentation of the decoding slots of a context.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fragmentation {
    batches: u32,
    /// The time of one pass in the last batch.
    pass_time: Duration,
}

impl<B: Backend> EngineWorker<B> {
    /// Records how many passes over the weights the decoding sequences took, and moves one of them if there have been too many
    /// for some batches.
    pub(super) fn compact(&mut self, context: AdapterContext, passes: usize, took: Duration) {
        if passes < 2 {
            self.fragmentation.remove(&context);
            return;
        }
        let seen = self.fragmentation.entry(context).or_default();
        *seen = Fragmentation { batches: seen.batches + 1, pass_time: took / passes as u32 };
        if seen.batches < MIN_FRAGMENTED_BATCHES {
            return;
        }
        let pass_seconds = seen.pass_time.as_secs_f64();
        self.fragmentation.remove(&context);
        let Some((from, to, cells)) = self.best_move(context) else { return };
        let pays = |per_cell: f64| f64::from(cells) * per_cell <= MAX_MOVE_COST_FACTOR * pass_seconds;
        if !self.move_seconds_per_cell.map_or(cells <= MAX_FIRST_MOVE_CELLS, pays) {
            self.move_seconds_per_cell = self.move_seconds_per_cell.map(|per_cell| MOVE_COST_DECAY_FACTOR * per_cell);
            return;
        }
        let started = Instant::now();
        if let Err(reason) = self.move_sequence(context, from, to) {
            tracing::warn!(reason, "cannot move a sequence to another slot; compaction is disabled");
            self.move_seconds_per_cell = Some(f64::INFINITY);
            return;
        }
        let took = started.elapsed();
        tracing::trace!(
            context = context.0,
            from = from.0,
            to = to.0,
            cells,
            ?took,
            "moved a sequence to another slot"
        );
        self.move_seconds_per_cell = Some(took.as_secs_f64() / f64::from(cells.max(1)));
    }

    /// The move that saves most passes, and how many cells it copies.
    fn best_move(&self, context: AdapterContext) -> Option<(Slot, Slot, u32)> {
        let running = || self.slots.running().range((context, Slot(0))..=(context, Slot(u32::MAX)));
        let prompts = running().filter(|(_, s)| s.prompt_remaining() > 0).map(|((_, slot), _)| *slot);
        let prompts: Vec<Slot> = prompts.collect();
        let decodes = running().filter(|(_, s)| s.prompt_remaining() == 0 && s.job.output.has_capacity());
        let mut decoding: Vec<(u32, Slot)> = decodes
            .filter(|(_, s)| matches!(s.kind, SequenceKind::Generate(_)))
            .map(|((_, slot), s)| (s.position(), *slot))
            .collect();
        decoding.sort_unstable();
        let (cells, decoding): (Vec<u32>, Vec<Slot>) = decoding.into_iter().unzip();
        let (from, to) = schedule::best_move(&decoding, &prompts, &self.slots.spare(context))?;
        let at = decoding.iter().position(|slot| *slot == from)?;
        Some((from, to, cells[at]))
    }

    fn move_sequence(&mut self, context: AdapterContext, from: Slot, to: Slot) -> Result<(), String> {
        let state = self.backend.save_state(context, from)?;
        self.slots.remove_resident((context, to));
        self.backend.truncate_kv(context, to, 0);
        if let Err(reason) = self.backend.restore_state(context, to, &state) {
            self.backend.truncate_kv(context, to, 0);
            return Err(reason);
        }
        self.backend.truncate_kv(context, from, 0);
        if let Some(sequence) = self.slots.release((context, from), Vec::new(), None) {
            self.slots.assign((context, to), sequence);
        }
        Ok(())
    }
}
