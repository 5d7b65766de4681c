//! Compaction: moves decoding sequences into adjacent slots, so that they share passes over the weights.

use std::time::{Duration, Instant};

use super::EngineWorker;
use crate::adjacency::{self, SlotContent, SlotWork};
use crate::backend::{self, AdapterSet, Backend, Slot};
use crate::sequence::SequenceKind;

impl<B: Backend> EngineWorker<B> {
    /// Records how many passes over the weights the decoding sequences took, and moves one of them if there have been too many
    /// for some batches.
    pub(super) fn compact(&mut self, adapters: AdapterSet, passes: usize, took: Duration) {
        let Some(pass_time) = self.compaction.observe_batch(adapters, passes, took) else { return };
        let contents: Vec<SlotContent> = (0..self.limits.sequences).map(|slot| self.content_of(Slot(slot))).collect();
        let Some((from, to)) = adjacency::best_exchange(&contents, adapters) else { return };
        let cells = contents[from.0 as usize].cells + contents[to.0 as usize].cells;
        if !self.compaction.pays(cells, pass_time) {
            return;
        }
        let started = Instant::now();
        if let Err(error) = self.exchange(from, to) {
            tracing::warn!(%error, "cannot move a sequence to another slot; compaction is disabled");
            self.compaction.disable();
            return;
        }
        let took = started.elapsed();
        tracing::trace!(from = from.0, to = to.0, cells, ?took, "moved a sequence to another slot");
        self.compaction.observe_move(cells, took);
    }

    fn content_of(&self, slot: Slot) -> SlotContent {
        let Some(sequence) = self.slots.running().get(&slot) else {
            let cells = u32::try_from(self.slots.resident_len(slot)).unwrap_or(u32::MAX);
            return SlotContent { work: SlotWork::Nothing, cells };
        };
        let generates = matches!(sequence.kind, SequenceKind::Generate(_)) && sequence.job.output.has_capacity();
        let work = match sequence.prompt_remaining() {
            0 if generates => SlotWork::Decode(sequence.adapters),
            0 => SlotWork::Nothing,
            _ => SlotWork::Prompt(sequence.adapters),
        };
        SlotContent { work, cells: sequence.position() }
    }

    /// Exchanges the content of two slots: sequences, tokens that are resident, and their cells.
    fn exchange(&mut self, one: Slot, other: Slot) -> Result<(), backend::Error> {
        let states = [self.saved_cells(one)?, self.saved_cells(other)?];
        let [of_one, of_other] = states.each_ref().map(Option::as_deref);
        let exchanged = self.refill(one, of_other).and_then(|()| self.refill(other, of_one));
        if let Err(error) = exchanged {
            for (slot, state) in [(one, of_one), (other, of_other)] {
                if let Err(error) = self.refill(slot, state) {
                    self.slots.remove_resident(slot);
                    self.fail(slot, error.into_failure());
                }
            }
            return Err(error);
        }
        self.slots.exchange(one, other);
        Ok(())
    }

    /// The cells of a slot, if it has any.
    fn saved_cells(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, backend::Error> {
        let has_cells = self.content_of(slot).cells > 0;
        has_cells.then(|| self.backend.save_state(slot)).transpose()
    }

    /// Fills a slot with these cells in place of its own.
    fn refill(&mut self, slot: Slot, state: Option<&[u8]>) -> Result<(), backend::Error> {
        self.backend.truncate_kv(slot, 0);
        let restored = state.map_or(Ok(()), |state| self.backend.restore_state(slot, state));
        if restored.is_err() {
            self.backend.truncate_kv(slot, 0);
        }
        restored
    }
}
