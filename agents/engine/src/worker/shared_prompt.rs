//! Several answers to one prompt: it is computed once, and its cells are copied to the slots of the other answers.

use super::EngineWorker;
use crate::backend::{AdapterSet, Backend, Slot};
use crate::sequence::{Job, Sequence};
use crate::wait_queue::QueuedSequence;

impl<B: Backend> EngineWorker<B> {
    /// Whether a new sequence waits for another one, which computes the prompt that both have.
    pub(super) fn waits_for_prompt(&self, queued: &QueuedSequence<B::Sampler>) -> bool {
        let job = queued.job();
        let computes = |s: &Sequence<B::Sampler>| s.prompt_remaining() > 0 && has_prompt_of(s, job);
        let may_copy = queued.is_new() && job.shares_prompt && self.limits.can_truncate_kv;
        may_copy && self.running_with(queued.adapters).any(|(_, s)| computes(s))
    }

    /// Fills a free slot with the cells of another answer to the same prompt, if that takes more tokens from it than are there or
    /// `in_reach` elsewhere. Returns how many it has then. The last token of the prompt is computed for each answer: its logits
    /// are not kept.
    pub(super) fn copy_prompt(
        &mut self,
        (adapters, slot): (AdapterSet, Slot),
        job: &Job,
        in_reach: usize,
    ) -> Option<usize> {
        let length = job.prompt.len().checked_sub(1)?;
        // The cells of another answer go beyond the prompt. Where those cannot be freed alone, the prompt is computed again.
        if !job.shares_prompt || !self.limits.can_truncate_kv || length <= in_reach {
            return None;
        }
        let is_donor = |s: &Sequence<B::Sampler>| {
            s.prompt_remaining() == 0 && has_prompt_of(s, job) && s.resident_tokens().len() >= length
        };
        let donor = self.running_with(adapters).find(|(_, s)| is_donor(s)).map(|(donor, _)| donor)?;
        let state = self.backend.save_state(donor).ok()?;
        self.backend.truncate_kv(slot, 0);
        let restored = self.backend.restore_state(slot, &state);
        if let Err(error) = &restored {
            tracing::warn!(%error, "cannot copy the cells of another answer to the same prompt; it is computed again");
        }
        let is_copied = restored.is_ok() && self.backend.truncate_kv(slot, length as u32);
        if !is_copied {
            self.backend.truncate_kv(slot, 0);
        }
        Some(if is_copied { length } else { 0 })
    }

    fn running_with(&self, adapters: AdapterSet) -> impl Iterator<Item = (Slot, &Sequence<B::Sampler>)> {
        let running = self.slots.running().iter().filter(move |(_, sequence)| sequence.adapters == adapters);
        running.map(|(slot, sequence)| (*slot, sequence))
    }
}

/// Whether a sequence is another answer to the prompt of a job. What its schema forces may be behind the prompt already.
fn has_prompt_of<S>(sequence: &Sequence<S>, job: &Job) -> bool {
    sequence.job.shares_prompt && sequence.job.prompt.starts_with(&job.prompt)
}
