//! Speculative decoding by prompt lookup: the tokens that followed the last few tokens earlier in the sequence are likely to
//! follow again.
//!
//! A draft is computed in the same batch as the token before it, and a draft token is accepted only if sampling after the
//! tokens before it gives this very token, so the output is the same as without drafts (Leviathan et al., 2023; prompt
//! lookup: Saxena, 2023). A draft pays when several tokens in a batch cost less than several batches. That depends on the
//! machine, on the number of other sequences in the batch, and on how much of its prompt a role repeats: all three are measured.
//! Draft lengths are decided for all sequences of a batch together, since the first draft in a batch costs most.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::backend::Token;

/// Tokens in a row that must have occurred earlier.
const NGRAM_TOKENS: usize = 3;
/// Tokens in a draft at most: even repetitive texts rarely match further than this.
pub(crate) const MAX_DRAFT_TOKENS: u32 = 8;
/// After so many batches in which a draft did not look worth it, one token is drafted nonetheless, to measure acceptance anew.
const PROBE_INTERVAL_BATCHES: u32 = 64;
/// The measured cost of a draft expires after so many batches: the first of a size may have been slow for another reason.
const MAX_DRAFT_COST_AGE_BATCHES: u64 = 2000;
/// The measured cost of a batch without drafts expires after so many: an engine that always drafts would not notice that it fell.
const MAX_PLAIN_COST_AGE_BATCHES: u64 = 32;
/// The mean is plain up to so many measurements; beyond that, later ones weigh more.
const MAX_AVERAGED_SAMPLES: u32 = 10;
/// Drafts must make a batch faster by this factor, since their cost and their gain are known only roughly.
const MIN_SPEEDUP_FACTOR: f64 = 1.05;
/// Flows whose acceptance rates are kept.
const MAX_FLOWS: usize = 4096;

/// When to speculate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DraftMode {
    /// Never.
    Never,
    /// Where measurements say that it pays.
    #[default]
    Auto,
    /// Up to so many tokens wherever the lookup finds a match; at most 8.
    Always(u32),
}

/// Where each run of [`NGRAM_TOKENS`] tokens of one sequence occurred last.
#[derive(Debug, Default)]
pub(crate) struct PromptLookup {
    /// The index after the run.
    after: HashMap<[Token; NGRAM_TOKENS], usize>,
    /// Tokens that are indexed already.
    indexed_tokens: usize,
}

impl PromptLookup {
    /// The tokens that followed the end of `prompt` and `output` where it occurred earlier, at most `max_tokens`.
    pub(crate) fn propose(&mut self, prompt: &[Token], output: &[Token], max_tokens: usize) -> Vec<Token> {
        let at = |n: usize| prompt.get(n).or_else(|| output.get(n - prompt.len())).copied();
        let run = |end: usize| -> Option<[Token; NGRAM_TOKENS]> {
            let start = end.checked_sub(NGRAM_TOKENS)?;
            Some([at(start)?, at(start + 1)?, at(start + 2)?])
        };
        let all = prompt.len() + output.len();
        // The last run itself is not indexed yet, or it would find itself.
        for end in self.indexed_tokens.max(NGRAM_TOKENS)..all {
            if let Some(run) = run(end) {
                self.after.insert(run, end);
            }
        }
        self.indexed_tokens = all;
        let Some(from) = run(all).and_then(|run| self.after.get(&run)) else { return Vec::new() };
        (*from..all).take(max_tokens).filter_map(at).collect()
    }
}

/// Decides how many tokens to draft, from measured batch times and acceptance rates.
#[derive(Debug, Default)]
pub(crate) struct DraftPolicy {
    /// Time of a batch of one token per sequence, by the number of sequences.
    plain: HashMap<usize, BatchTime>,
    /// Time that further tokens add, by the magnitude of the number of sequences and the number of further tokens.
    extra: BTreeMap<(u32, usize), BatchTime>,
    batches: u64,
    flows: HashMap<Arc<str>, FlowAcceptance>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BatchTime {
    seconds: f64,
    samples: u32,
    /// The number of batches at the last measurement.
    measured_at: u64,
}

impl BatchTime {
    fn add(&mut self, seconds: f64, at: u64) {
        self.samples = (self.samples + 1).min(MAX_AVERAGED_SAMPLES);
        self.seconds += (seconds - self.seconds) / f64::from(self.samples);
        self.measured_at = at;
    }
}

#[derive(Debug)]
struct FlowAcceptance {
    /// The share of draft tokens that were accepted, a moving average.
    rate: f64,
    /// Batches in a row without a draft.
    skipped_batches: u32,
}

impl Default for FlowAcceptance {
    /// High enough for a first try.
    fn default() -> Self {
        Self { rate: 0.8, skipped_batches: 0 }
    }
}

/// Sequences that decode in one batch, and the drafts that the lookup proposes for them.
#[derive(Debug, Default)]
pub(crate) struct DraftCandidates {
    pub(crate) sequences: usize,
    /// Tokens in the batch that are not drafts.
    pub(crate) certain_tokens: usize,
    /// The flow of each sequence with a proposal, and the tokens proposed.
    pub(crate) proposals: Vec<(Arc<str>, u32)>,
}

impl DraftPolicy {
    /// Records the time of a batch without prompts.
    pub(crate) fn observe_batch(&mut self, sequences: usize, tokens: usize, seconds: f64) {
        self.batches += 1;
        if tokens <= sequences {
            self.plain.entry(sequences).or_default().add(seconds, self.batches);
        } else if let Some(plain) = self.plain.get_mut(&sequences) {
            // More tokens cannot cost less.
            plain.seconds = plain.seconds.min(seconds);
            let extra = seconds - plain.seconds;
            self.extra.entry((magnitude(sequences), tokens - sequences)).or_default().add(extra, self.batches);
        }
    }

    /// Records how many tokens of a draft were accepted, and how many were rejected; those behind a rejected one count as neither.
    pub(crate) fn observe_draft(&mut self, flow: &Arc<str>, accepted: u32, rejected: u32) {
        let flow = self.flow(flow);
        for n in 0..accepted + rejected {
            flow.rate = 0.9 * flow.rate + if n < accepted { 0.1 } else { 0.0 };
        }
    }

    /// How many tokens of each proposal to draft; `min_marginal`: the least seconds that a further token costs where nothing was
    /// measured.
    ///
    /// All drafts have the same length, but for single probe tokens: llama.cpp computes the sequences of a batch side by side as
    /// far as the shortest has tokens, then those that have more, so every further length reads all weights once more.
    pub(crate) fn lengths(&mut self, candidates: &DraftCandidates, min_marginal: f64) -> Vec<u32> {
        let mut lengths = vec![0; candidates.proposals.len()];
        let plain = self.plain.get(&candidates.sequences);
        let plain = plain.filter(|plain| self.batches - plain.measured_at <= MAX_PLAIN_COST_AGE_BATCHES);
        let Some(plain) = plain.map(|plain| plain.seconds) else { return lengths };
        let measured = self.cost_per_sequence(candidates.sequences, plain);
        let marginal = measured.map_or(min_marginal, |cost| cost.max(min_marginal));
        let rates: Vec<f64> = candidates.proposals.iter().map(|(flow, _)| self.flow(flow).rate).collect();
        let certain = candidates.certain_tokens.saturating_sub(candidates.sequences);
        let cost = |drafted: usize| plain + self.extra_cost(candidates.sequences, certain + drafted, marginal);
        let mut best_speed = MIN_SPEEDUP_FACTOR * candidates.certain_tokens as f64 / cost(0);
        let (mut drafting, mut best_length) = (Vec::new(), 0);
        for length in 1..=MAX_DRAFT_TOKENS {
            let mut able: Vec<usize> = (0..rates.len()).filter(|at| candidates.proposals[*at].1 >= length).collect();
            able.sort_by(|a, b| rates[*b].total_cmp(&rates[*a]));
            let mut expected_tokens = candidates.certain_tokens as f64;
            for (n, at) in able.iter().enumerate() {
                // A token is accepted only if all before it are.
                expected_tokens += (1..=length).map(|n| rates[*at].powi(n as i32)).sum::<f64>();
                let speed = expected_tokens / cost((n + 1) * length as usize);
                if speed > best_speed {
                    (best_speed, drafting, best_length) = (speed, able[..=n].to_vec(), length);
                }
            }
        }
        drafting.into_iter().for_each(|at| lengths[at] = best_length);
        for ((flow, tokens), length) in candidates.proposals.iter().zip(&mut lengths) {
            let flow = self.flow(flow);
            flow.skipped_batches = if *length == 0 { flow.skipped_batches + 1 } else { 0 };
            if flow.skipped_batches >= PROBE_INTERVAL_BATCHES {
                flow.skipped_batches = 0;
                *length = 1.min(*tokens);
            }
        }
        lengths
    }

    /// The cost of each sequence beyond the smallest measured number of them, in a batch of `sequences` that takes `seconds`: a
    /// token, its attention and its logits, which a draft token has too.
    fn cost_per_sequence(&self, sequences: usize, seconds: f64) -> Option<f64> {
        let (fewest, least) = self.plain.iter().filter(|(n, _)| **n < sequences).min_by_key(|(n, _)| **n)?;
        Some((seconds - least.seconds) / (sequences - fewest) as f64)
    }

    /// The cost of `tokens` further tokens, interpolated between the nearest measured numbers.
    fn extra_cost(&self, sequences: usize, tokens: usize, marginal: f64) -> f64 {
        let magnitude = magnitude(sequences);
        let fresh = |(key, time): (&(u32, usize), &BatchTime)| {
            (self.batches - time.measured_at <= MAX_DRAFT_COST_AGE_BATCHES).then_some((key.1, time.seconds))
        };
        let fewer = self.extra.range((magnitude, 0)..=(magnitude, tokens)).rev().find_map(fresh).unwrap_or_default();
        let (from, least) = fewer;
        let more = self.extra.range((magnitude, tokens)..(magnitude + 1, 0)).find_map(fresh);
        let steps = (tokens - from) as f64;
        match more {
            Some((to, most)) if to > from => least + (most - least).max(0.0) * steps / (to - from) as f64,
            _ => least + steps * marginal,
        }
    }

    fn flow(&mut self, flow: &Arc<str>) -> &mut FlowAcceptance {
        if self.flows.len() > MAX_FLOWS {
            self.flows.clear();
        }
        self.flows.entry(flow.clone()).or_default()
    }
}

/// Numbers of sequences with about the same cost per token: 1, 2 to 3, 4 to 7 and so on.
fn magnitude(sequences: usize) -> u32 {
    sequences.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    #[test]
    fn tokens_that_followed_earlier_are_proposed() {
        let mut lookup = PromptLookup::default();
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat"), 4), tokens(" sat"));
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat sat on"), 9), tokens(" the cat "));
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat sat on a"), 4), tokens(""));
        assert_eq!(PromptLookup::default().propose(&tokens("ab"), &[], 4), tokens(""));
        assert_eq!(PromptLookup::default().propose(&tokens("aaaa"), &[], 4), tokens("a"));
    }

    fn alone(flow: &Arc<str>) -> DraftCandidates {
        DraftCandidates { sequences: 1, certain_tokens: 1, proposals: vec![(flow.clone(), MAX_DRAFT_TOKENS)] }
    }

    #[test]
    fn drafts_are_long_where_they_are_accepted_and_cheap_and_stop_where_they_are_not() {
        let (mut policy, flow): (_, Arc<str>) = (DraftPolicy::default(), "copier".into());
        assert_eq!(policy.lengths(&alone(&flow), 0.005), [0], "nothing is measured yet");
        policy.observe_batch(1, 1, 0.010);
        assert!(policy.lengths(&alone(&flow), 0.001)[0] > 3);
        assert_eq!(policy.lengths(&alone(&flow), 0.010), [0], "a further token costs as much as a batch");
        policy.observe_draft(&flow, 0, 60);
        assert_eq!(policy.lengths(&alone(&flow), 0.001), [0]);
        let probes = (0..PROBE_INTERVAL_BATCHES).map(|_| policy.lengths(&alone(&flow), 0.001)[0]).sum::<u32>();
        assert_eq!(probes, 1, "a probe after so many batches");
        policy.observe_draft(&flow, 60, 0);
        assert!(policy.lengths(&alone(&flow), 0.001)[0] > 3);
    }

    #[test]
    fn where_sequences_are_costly_so_are_drafts_until_they_are_measured() {
        let (mut policy, flow): (_, Arc<str>) = (DraftPolicy::default(), "copier".into());
        policy.observe_batch(1, 1, 0.020);
        policy.observe_batch(8, 8, 0.090);
        let candidates =
            DraftCandidates { sequences: 8, certain_tokens: 8, proposals: vec![(flow, MAX_DRAFT_TOKENS); 8] };
        assert_eq!(policy.lengths(&candidates, 0.004), [0; 8]);
        policy.observe_batch(8, 72, 0.190);
        assert!(policy.lengths(&candidates, 0.004)[0] > 3);
    }

    #[test]
    fn measured_costs_override_estimates_until_they_expire() {
        let (mut policy, flow): (_, Arc<str>) = (DraftPolicy::default(), "copier".into());
        (1..=9).for_each(|n| policy.observe_batch(1, n, 0.010 * n as f64));
        assert_eq!(policy.lengths(&alone(&flow), 0.0), [0]);
        (0..=MAX_DRAFT_COST_AGE_BATCHES).for_each(|_| policy.observe_batch(1, 1, 0.010));
        assert_eq!(policy.lengths(&alone(&flow), 0.0), [MAX_DRAFT_TOKENS]);
    }

    #[test]
    fn the_cost_of_a_batch_without_drafts_expires() {
        let (mut policy, flow): (_, Arc<str>) = (DraftPolicy::default(), "copier".into());
        policy.observe_batch(1, 1, 1.0);
        policy.observe_batch(1, 9, 0.030);
        assert_eq!(policy.plain[&1].seconds, 0.030, "the first batch was slow for another reason");
        assert!(policy.lengths(&alone(&flow), 0.001)[0] > 3);
        (0..MAX_PLAIN_COST_AGE_BATCHES).for_each(|_| policy.observe_batch(1, 9, 0.030));
        assert_eq!(policy.lengths(&alone(&flow), 0.001), [0], "it is measured again");
    }

    #[test]
    fn costs_between_two_measured_ones_are_interpolated() {
        let mut policy = DraftPolicy::default();
        policy.observe_batch(8, 8, 0.050);
        policy.observe_batch(8, 10, 0.080);
        policy.observe_batch(8, 16, 0.110);
        let cost = |tokens| (policy.extra_cost(8, tokens, 0.001) * 1000.0).round();
        assert_eq!([cost(0), cost(1), cost(2), cost(5), cost(8), cost(9)], [0.0, 15.0, 30.0, 45.0, 60.0, 61.0]);
        assert_eq!(policy.extra_cost(2, 3, 0.001), 0.003, "other numbers of sequences are not measured");
    }

    #[test]
    fn the_first_draft_of_a_batch_is_costly_and_the_likeliest_sequences_share_its_cost() {
        let mut policy = DraftPolicy::default();
        policy.observe_batch(4, 4, 0.040);
        policy.observe_batch(4, 5, 0.070);
        policy.observe_batch(4, 36, 0.101);
        let (sure, unsure): (Arc<str>, Arc<str>) = ("sure".into(), "unsure".into());
        policy.observe_draft(&sure, 60, 0);
        policy.observe_draft(&unsure, 0, 60);
        let candidates = |flow: &Arc<str>, other: &Arc<str>| {
            let flows = [flow, flow, flow, other];
            DraftCandidates {
                sequences: 4,
                certain_tokens: 4,
                proposals: flows.map(|flow| (flow.clone(), MAX_DRAFT_TOKENS)).to_vec(),
            }
        };
        let lengths = policy.lengths(&candidates(&sure, &unsure), 0.001);
        assert_eq!(lengths, [MAX_DRAFT_TOKENS, MAX_DRAFT_TOKENS, MAX_DRAFT_TOKENS, 0]);
        let mut uneven = candidates(&sure, &sure);
        uneven.proposals[0].1 = 5;
        assert_eq!(
            policy.lengths(&uneven, 0.001),
            [0, MAX_DRAFT_TOKENS, MAX_DRAFT_TOKENS, MAX_DRAFT_TOKENS],
            "all drafts have one length"
        );
        let one = DraftCandidates { sequences: 4, certain_tokens: 4, proposals: vec![(sure, 1)] };
        assert_eq!(policy.lengths(&one, 0.001), [0], "one token does not pay the cost of the first draft");
    }
}
