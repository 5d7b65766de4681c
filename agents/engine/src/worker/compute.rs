//! Batches: from the schedule through the model to the output channels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{EngineWorker, WorkerExit};
use crate::adjacency::{self, SlotWork};
use crate::backend::{self, AdapterSet, Backend, BatchToken, DecodeError, Sampled, Slot};
use crate::draft::{DraftCandidates, DraftMode, MAX_DRAFT_TOKENS};
use crate::label_score::ScoringStep;
use crate::request::{Error, FinishReason, Priority};
use crate::schedule::{self, BatchBudget, BatchShare, SequenceView};
use crate::sequence::{SampleOutcome, Sequence, SequenceKind};

/// A share and the purpose of its tokens in the batch.
struct PlannedShare {
    share: BatchShare,
    /// Whether its tokens are of a prompt.
    is_prompt: bool,
    /// The index in the batch of the first token whose logits are sampled: the last one before the draft.
    logits_index: Option<usize>,
    /// Draft tokens behind that one.
    draft_tokens: u32,
}

impl<B: Backend> EngineWorker<B> {
    fn budget(&self, sequences: &[SequenceView]) -> BatchBudget {
        let target_itl = self.options.target_itl.mul_f64(schedule::itl_factor(sequences));
        let fitting = self.batch_cost.tokens_within(target_itl);
        let chunk_tokens = schedule::chunk_tokens(fitting, self.limits.prefill_multiple);
        let batch_tokens = self.limits.batch_tokens;
        BatchBudget { batch_tokens, chunk_tokens: chunk_tokens.min(batch_tokens) }
    }

    /// The inherited priorities of sequences whose prefixes others wait for: the highest priority of those.
    fn inherited_priorities(&self) -> HashMap<Slot, Priority> {
        let mut priorities = HashMap::new();
        for queued in self.waiting.iter().filter(|queued| queued.is_new()) {
            if let Some(slot) = self.slot_computing_prefix_of(queued) {
                let priority = priorities.entry(slot).or_insert(queued.job().priority);
                *priority = queued.job().priority.min(*priority);
            }
        }
        priorities
    }

    /// Computes the next batch. Fails if the model is unusable.
    pub(super) fn step(&mut self) -> Result<(), WorkerExit> {
        // Once a step: a reader may come back at any moment, and a sequence that is not shifted must not be computed either.
        let pauses = |(slot, s): (&Slot, &Sequence<B::Sampler>)| (!s.job.output.has_capacity()).then_some(*slot);
        let blocked: BTreeSet<Slot> = self.slots.running().iter().filter_map(pauses).collect();
        self.shift_contexts(&blocked);
        self.propose_drafts();
        let inherited = self.inherited_priorities();
        let view = |(slot, s): (&Slot, &Sequence<B::Sampler>)| SequenceView {
            slot: *slot,
            adapters: s.adapters,
            history: self.turn.history(s.adapters, self.options.target_itl),
            priority: inherited.get(slot).map_or(s.job.priority, |priority| s.job.priority.min(*priority)),
            served_tokens: self.served_tokens_of(&s.job.flow),
            arrival: s.arrival,
            prefill_tokens: s.prefill_to_next_stop(),
            output_tokens: s.uncomputed_output(),
            draft_tokens: s.draft_len(),
            is_blocked: blocked.contains(slot),
        };
        let views: Vec<SequenceView> = self.slots.running().iter().map(view).collect();
        let last = self.turn.last_turn(&views, self.options.target_itl);
        let Some((adapters, shares)) = schedule::next_batch(&views, self.budget(&views), last) else { return Ok(()) };
        let decodes = |share: &BatchShare| views.iter().any(|v| (v.slot, v.prefill_tokens) == (share.slot, 0));
        let (mut decoding, mut prompts): (Vec<BatchShare>, Vec<BatchShare>) = shares.into_iter().partition(decodes);
        let remaining = self.limits.batch_tokens - decoding.iter().map(|share| share.tokens).sum::<u32>();
        schedule::bridge(&mut decoding, &mut prompts, &views, adapters, remaining);
        // Decoding sequences and prompts are computed one after the other. llama.cpp would do so too if they were one batch, but
        // would compute a token of each prompt together with the decoding sequences, and attend over the cells of all of them as
        // far as those of the longest reach.
        let mut took = Duration::ZERO;
        if !decoding.is_empty() {
            took = self.compute(adapters, &decoding)?;
        }
        // A prompt that bridged decoding slots may have failed there.
        prompts.retain(|share| self.slots.running().contains_key(&share.slot));
        if !prompts.is_empty() {
            self.compute(adapters, &prompts)?;
        }
        let mut work = vec![SlotWork::Nothing; self.limits.sequences as usize];
        for share in &decoding {
            work[share.slot.0 as usize] = SlotWork::Decode(adapters);
        }
        self.compact(adapters, adjacency::weight_passes(work), took);
        Ok(())
    }

    /// Shifts the contexts of sequences that outgrow them and may. llama.cpp completes a shift with the next batch, so one that pauses
    /// waits: its cells may be saved before.
    fn shift_contexts(&mut self, blocked: &BTreeSet<Slot>) {
        let limit = self.limits.context_tokens;
        let goes_on = self.slots.running().iter().filter(|(slot, _)| !blocked.contains(slot));
        let due = goes_on.filter_map(|(slot, s)| Some((*slot, s.due_shift(limit)?)));
        for (slot, (keep, discard)) in due.collect::<Vec<_>>() {
            if !self.backend.shift_kv(slot, keep, discard) {
                let reason = "the sequence outgrew the context, and the model cannot shift it";
                self.fail(slot, Error::Model(reason.to_owned()));
            } else if let Some(sequence) = self.slots.get_mut(slot) {
                sequence.record_shift(keep, discard);
            }
        }
    }

    /// Proposes drafts for decoding sequences, as far as they pay.
    fn propose_drafts(&mut self) {
        if !self.limits.can_truncate_kv || self.options.draft_mode == DraftMode::Never {
            return;
        }
        let decodes =
            |s: &Sequence<B::Sampler>| s.prompt_remaining() == 0 && matches!(s.kind, SequenceKind::Generate(_));
        let decoding: Vec<_> = self.slots.running().iter().filter(|(_, s)| decodes(s)).map(|(slot, _)| *slot).collect();
        let mut sets: BTreeMap<AdapterSet, (DraftCandidates, Vec<Slot>)> = BTreeMap::new();
        for slot in &decoding {
            let sequence = self.slots.get_mut(*slot).expect("its slot was just listed");
            let computed_tokens = sequence.position() + sequence.uncomputed_output();
            let free = self.limits.context_tokens.saturating_sub(computed_tokens);
            sequence.propose_draft(free.min(MAX_DRAFT_TOKENS));
            let (candidates, drafting) = sets.entry(sequence.adapters).or_default();
            candidates.sequences += 1;
            candidates.certain_tokens += sequence.uncomputed_output() as usize;
            if sequence.draft_len() > 0 {
                candidates.proposals.push((sequence.job.flow.clone(), sequence.draft_len()));
                drafting.push(*slot);
            }
        }
        for (candidates, drafting) in sets.values() {
            let lengths = match self.options.draft_mode {
                DraftMode::Never => vec![0; drafting.len()],
                DraftMode::Auto => self.draft_policy.lengths(candidates, self.batch_cost.mean_per_token()),
                DraftMode::Always(tokens) => vec![tokens; drafting.len()],
            };
            for (slot, length) in drafting.iter().zip(lengths) {
                self.slots.get_mut(*slot).expect("its slot was just listed").truncate_draft(length);
            }
        }
    }

    /// Computes these shares and returns how long the model took, without the wait for the shared CPU.
    fn compute(&mut self, adapters: AdapterSet, shares: &[BatchShare]) -> Result<Duration, WorkerExit> {
        let (batch, planned) = self.plan_batch(shares);
        let expected = self.batch_cost.expected(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let (computed, took) = self.with_cpu(expected, |backend| backend.decode(adapters, &batch));
        let switch_time = self.backend.take_switch_time();
        self.turn.record(adapters, planned.iter().all(|plan| plan.is_prompt), took, switch_time);
        let took = took.saturating_sub(switch_time.unwrap_or_default());
        match computed {
            Ok(()) => {
                self.counters.add_batch(batch.len(), took);
                let sum = |tokens: fn(&PlannedShare) -> u32| planned.iter().map(tokens).sum::<u32>();
                tracing::trace!(
                    adapters = adapters.0,
                    sequences = planned.len(),
                    tokens = batch.len(),
                    prefill_tokens = sum(|plan| if plan.is_prompt { plan.share.tokens } else { 0 }),
                    draft_tokens = sum(|plan| plan.draft_tokens),
                    ?took,
                    ?switch_time,
                    "computed a batch"
                );
                self.observe(&planned, took);
                self.apply(&planned, took);
                Ok(took)
            }
            Err(DecodeError::Fatal(reason)) => Err(WorkerExit::Fatal(reason)),
            // Only the sequence at fault fails: all of them are computed again, each alone.
            Err(DecodeError::Batch(_)) if shares.len() > 1 => {
                let mut alone = |share| self.compute(adapters, std::slice::from_ref(share));
                shares.iter().try_fold(took, |sum, share| Ok(sum + alone(share)?))
            }
            Err(DecodeError::Batch(reason)) => {
                shares.iter().for_each(|share| self.fail(share.slot, Error::Model(reason.clone())));
                Ok(took)
            }
        }
    }

    /// The batch, and the purpose of its tokens.
    fn plan_batch(&mut self, shares: &[BatchShare]) -> (Vec<BatchToken>, Vec<PlannedShare>) {
        let (mut batch, mut planned) = (Vec::new(), Vec::new());
        for share in shares {
            let sequence = self.slots.get_mut(share.slot).expect("shares are of running sequences");
            sequence.record_batch();
            let is_prompt = sequence.prompt_remaining() > 0;
            let needed = if is_prompt { sequence.prompt_remaining() } else { sequence.uncomputed_output() };
            let (from, tokens) = sequence.next_tokens(share.tokens);
            let logits_index = (share.tokens >= needed).then(|| batch.len() + needed as usize - 1);
            batch.extend(tokens.into_iter().zip(from..).map(|(token, position)| BatchToken {
                slot: share.slot,
                position,
                token,
                needs_logits: false,
            }));
            if let Some(first) = logits_index {
                batch[first..].iter_mut().for_each(|token| token.needs_logits = true);
            }
            let draft_tokens = share.tokens.saturating_sub(needed);
            planned.push(PlannedShare { share: *share, is_prompt, logits_index, draft_tokens });
        }
        (batch, planned)
    }

    /// Feeds the cost models: one with batches of prompts alone, the other with batches without prompts.
    fn observe(&mut self, planned: &[PlannedShare], took: Duration) {
        let tokens: u32 = planned.iter().map(|p| p.share.tokens).sum();
        if planned.iter().all(|p| !p.is_prompt) {
            self.draft_policy.observe_batch(planned.len(), tokens as usize, took.as_secs_f64());
        } else if planned.iter().all(|p| p.is_prompt) && tokens as usize >= 2 * planned.len() {
            self.batch_cost.observe(tokens, took.as_secs_f64());
        }
    }

    /// Applies a computed batch to its sequences.
    fn apply(&mut self, planned: &[PlannedShare], took: Duration) {
        let total: u32 = planned.iter().map(|p| p.share.tokens).sum();
        for plan in planned {
            let BatchShare { slot, tokens } = plan.share;
            let sequence = self.slots.get_mut(slot).expect("shares are of running sequences");
            if plan.is_prompt {
                self.counters.prefill_tokens.fetch_add(u64::from(tokens), Relaxed);
                sequence.prefill_time += took.mul_f64(f64::from(tokens) / f64::from(total));
            }
            sequence.advance(tokens);
            let has_prefix = plan.is_prompt && sequence.is_at_prefix_end();
            if sequence.job.priority.is_requested() {
                *self.served_tokens.entry(sequence.job.flow.clone()).or_default() += u64::from(tokens);
            }
            if has_prefix {
                self.cache_prefix(slot);
            }
            if let Some(index) = plan.logits_index {
                self.continue_from(slot, index, plan.draft_tokens);
            }
        }
    }

    /// Continues a sequence from the logits at `index`, and from those of the draft tokens behind it as long as these are accepted.
    fn continue_from(&mut self, slot: Slot, index: usize, draft_tokens: u32) {
        let sequence = self.slots.get_mut(slot).expect("the sequence was just computed");
        let outcome = match sequence.kind {
            SequenceKind::Prefill => Ok(SampleOutcome::Finished(FinishReason::Stop)),
            SequenceKind::Score(_) => self.score(slot, index),
            SequenceKind::Generate(_) => self.generate(slot, index, draft_tokens),
        };
        match outcome {
            Ok(SampleOutcome::Continue) => {}
            Ok(SampleOutcome::Finished(reason)) => self.finish(slot, reason),
            Err(error) => self.fail(slot, error.into_failure()),
        }
    }

    fn generate(&mut self, slot: Slot, index: usize, draft_tokens: u32) -> Result<SampleOutcome, backend::Error> {
        let mut accepted = 0;
        let outcome = loop {
            let outcome = self.sample(slot, index + accepted as usize)?;
            let sequence = self.slots.get_mut(slot).expect("it was just sampled");
            if outcome != SampleOutcome::Continue || !sequence.accept_draft(draft_tokens, &mut accepted) {
                break outcome;
            }
        };
        let sequence = self.slots.get_mut(slot).expect("it was just sampled");
        if draft_tokens > 0 {
            let (flow, position) = (sequence.job.flow.clone(), sequence.position());
            self.draft_policy.observe_draft(&flow, accepted, u32::from(accepted < draft_tokens));
            self.counters.drafted_tokens.fetch_add(u64::from(draft_tokens), Relaxed);
            self.counters.accepted_tokens.fetch_add(u64::from(accepted), Relaxed);
            if accepted < draft_tokens && !self.backend.truncate_kv(slot, position) {
                let reason = "the model cannot free the cells of rejected draft tokens";
                return Err(backend::Error::State(reason.to_owned()));
            }
        }
        if outcome == SampleOutcome::Continue {
            self.slots.get_mut(slot).expect("it was just sampled").flush();
        }
        Ok(outcome)
    }

    /// Appends the next token and the tokens that the schema forces before and after it.
    fn sample(&mut self, slot: Slot, index: usize) -> Result<SampleOutcome, backend::Error> {
        if let Some(outcome) = self.advance_reasoning(slot)? {
            return Ok(outcome);
        }
        let sequence = self.slots.get_mut(slot).expect("sampled sequences are running");
        let SequenceKind::Generate(sampler) = &mut sequence.kind else { return Ok(SampleOutcome::Continue) };
        let before = match sequence.forced_start.take() {
            Some(forced) => forced,
            None => self.backend.forced_tokens(sampler)?,
        };
        if before.is_complete || !before.tokens.is_empty() {
            self.counters.output_tokens.fetch_add(before.tokens.len() as u64, Relaxed);
            return Ok(sequence.push_forced(&before, &*self.tokenizer));
        }
        if let Some(reasoning) = sequence.job.reasoning.as_ref().filter(|reasoning| reasoning.precedes_calls()) {
            self.backend.hold_schema(sampler, reasoning.holds_constraint());
        }
        let sampled = self.backend.sample(index, sampler)?;
        if let Some(reasoning) = &mut sequence.job.reasoning
            && reasoning.is_refused(sampled, &*self.tokenizer)
        {
            // The end of a reasoning is not that of the output, and with a schema the answer begins by it.
            let outcome = self.advance_reasoning(slot)?;
            return outcome.map_or_else(|| self.sample(slot, index), Ok);
        }
        let Sampled::Token(token) = sampled else { return Ok(SampleOutcome::Finished(FinishReason::Stop)) };
        // Before anything else is done with the logits of the batch; the sampler works on a copy.
        let told = sequence.job.logprobs.map(|top| self.backend.logprobs(index, token, top)).transpose()?;
        let after = self.backend.forced_tokens(sampler)?;
        self.counters.output_tokens.fetch_add(1 + after.tokens.len() as u64, Relaxed);
        match sequence.push_token(token, &*self.tokenizer, told) {
            SampleOutcome::Continue => match sequence.push_forced(&after, &*self.tokenizer) {
                SampleOutcome::Continue => Ok(self.advance_reasoning(slot)?.unwrap_or(SampleOutcome::Continue)),
                finished => Ok(finished),
            },
            // It has reached max_tokens, and its schema allows no further token.
            SampleOutcome::Finished(FinishReason::Length) if after.is_complete && after.tokens.is_empty() => {
                Ok(SampleOutcome::Finished(FinishReason::Stop))
            }
            finished => Ok(finished),
        }
    }

    fn score(&mut self, slot: Slot, index: usize) -> Result<SampleOutcome, backend::Error> {
        let sequence = self.slots.get_mut(slot).expect("the sequence was just computed");
        let SequenceKind::Score(scoring) = &mut sequence.kind else { return Ok(SampleOutcome::Continue) };
        let logits = self.backend.logits(index, &scoring.candidate_tokens())?;
        match scoring.advance(&logits) {
            ScoringStep::Done(scores) => {
                sequence.send_scores(scores);
                Ok(SampleOutcome::Finished(FinishReason::Stop))
            }
            ScoringStep::Decode(path) => {
                let from = sequence.turn_to(path);
                let freed = self.backend.truncate_kv(slot, from);
                let reason = "the model cannot free the cells of a scored label";
                freed.then_some(SampleOutcome::Continue).ok_or_else(|| backend::Error::State(reason.to_owned()))
            }
        }
    }

    /// Frees the slot of a finished sequence before its reader receives the end. Its tokens stay resident for prompts with the same
    /// prefix, until the slot is assigned again.
    fn finish(&mut self, slot: Slot, reason: FinishReason) {
        let resident = self.slots.get_mut(slot).map(|sequence| sequence.resident_tokens()).unwrap_or_default();
        if let Some(sequence) = self.release(slot, resident) {
            self.counters.finished.fetch_add(u64::from(sequence.job.priority.is_requested()), Relaxed);
            sequence.finish(reason);
        }
    }

    pub(super) fn fail(&mut self, slot: Slot, error: Error) {
        if let Some(sequence) = self.release(slot, Vec::new()) {
            self.counters.failed.fetch_add(u64::from(sequence.job.priority.is_requested()), Relaxed);
            sequence.fail(error);
        }
    }
}
