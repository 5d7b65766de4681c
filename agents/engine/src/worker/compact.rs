//! Compaction: moves decoding sequences into adjacent slots, so that they share passes over the weights.

use std::time::{Duration, Instant};

use super::EngineWorker;
use crate::backend::{self, AdapterSet, Backend, Slot};
use crate::schedule;
use crate::sequence::SequenceKind;

impl<B: Backend> EngineWorker<B> {
    /// Records how many passes over the weights the decoding sequences took, and moves one of them if there have been too many
    /// for some batches.
    pub(super) fn compact(&mut self, adapters: AdapterSet, passes: usize, took: Duration) {
        let Some(pass_time) = self.compaction.observe_batch(adapters, passes, took) else { return };
        let Some((from, to, cells)) = self.best_move(adapters) else { return };
        if !self.compaction.pays(cells, pass_time) {
            return;
        }
        let started = Instant::now();
        if let Err(error) = self.move_sequence(from, to) {
            tracing::warn!(%error, "cannot move a sequence to another slot; compaction is disabled");
            self.compaction.disable();
            return;
        }
        let took = started.elapsed();
        tracing::trace!(from = from.0, to = to.0, cells, ?took, "moved a sequence to another slot");
        self.compaction.observe_move(cells, took);
    }

    /// The move that saves most passes, and how many cells it copies.
    fn best_move(&self, adapters: AdapterSet) -> Option<(Slot, Slot, u32)> {
        let running = || self.slots.running().iter().filter(|(_, s)| s.adapters == adapters);
        let prompts = running().filter(|(_, s)| s.prompt_remaining() > 0).map(|(slot, _)| *slot);
        let prompts: Vec<Slot> = prompts.collect();
        let decodes = running().filter(|(_, s)| s.prompt_remaining() == 0 && s.job.output.has_capacity());
        let mut decoding: Vec<(u32, Slot)> = decodes
            .filter(|(_, s)| matches!(s.kind, SequenceKind::Generate(_)))
            .map(|(slot, s)| (s.position(), *slot))
            .collect();
        decoding.sort_unstable();
        let (cells, decoding): (Vec<u32>, Vec<Slot>) = decoding.into_iter().unzip();
        let (from, to) = schedule::best_move(&decoding, &prompts, &self.slots.spare())?;
        let at = decoding.iter().position(|slot| *slot == from)?;
        Some((from, to, cells[at]))
    }

    fn move_sequence(&mut self, from: Slot, to: Slot) -> Result<(), backend::Error> {
        let state = self.backend.save_state(from)?;
        self.slots.remove_resident(to);
        self.backend.truncate_kv(to, 0);
        if let Err(error) = self.backend.restore_state(to, &state) {
            self.backend.truncate_kv(to, 0);
            return Err(error);
        }
        self.backend.truncate_kv(from, 0);
        if let Some(sequence) = self.slots.release(from, Vec::new(), None) {
            self.slots.assign(to, sequence);
        }
        Ok(())
    }
}
