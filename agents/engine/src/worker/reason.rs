//! The reasoning of a sequence: its end at the budget, and the schema that begins behind it.

use std::sync::atomic::Ordering::Relaxed;

use super::EngineWorker;
use crate::backend::{self, Backend, ForcedTokens, Slot};
use crate::sequence::{SampleOutcome, SequenceKind};

impl<B: Backend> EngineWorker<B> {
    /// Appends the tokens that end the reasoning of a sequence, if they are due, and lets its schema begin where its answer does.
    /// `None` if nothing is due.
    pub(super) fn advance_reasoning(&mut self, slot: Slot) -> Result<Option<SampleOutcome>, backend::Error> {
        let sequence = self.slots.get_mut(slot).expect("sampled sequences are running");
        let SequenceKind::Generate(sampler) = &mut sequence.kind else { return Ok(None) };
        let due = sequence.job.reasoning.as_mut().and_then(|reasoning| reasoning.take_due());
        let Some(due) = due else { return Ok(None) };
        self.backend.append_unsampled(sampler, &due.tokens);
        let begins_schema = due.begins_schema;
        self.counters.output_tokens.fetch_add(due.tokens.len() as u64, Relaxed);
        let end = ForcedTokens { tokens: due.tokens, is_complete: false };
        let outcome = sequence.push_forced(&end, &*self.tokenizer);
        if let Some(reasoning) = &mut sequence.job.reasoning {
            reasoning.settle_end();
        }
        if outcome != SampleOutcome::Continue || !begins_schema {
            return Ok(Some(outcome));
        }
        if let Some(reasoning) = &mut sequence.job.reasoning {
            reasoning.begin_schema();
        }
        let SequenceKind::Generate(sampler) = &mut sequence.kind else { return Ok(None) };
        self.backend.hold_schema(sampler, false);
        let forced = self.backend.forced_tokens(sampler)?;
        self.counters.output_tokens.fetch_add(forced.tokens.len() as u64, Relaxed);
        Ok(Some(sequence.push_forced(&forced, &*self.tokenizer)))
    }
}
