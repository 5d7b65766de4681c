//! Speculation by prompt lookup: what followed the last few tokens when they stood here before is likely to follow again.
//!
//! A draft is computed in the same batch as the token before it, and a drafted token counts only if sampling after the
//! tokens before it gives this very token, so the output is the same as without drafts (Leviathan et al., 2023; prompt
//! lookup: Saxena, 2023). A draft pays when several tokens in a batch cost less than several batches, and that depends on
//! the machine, on how many others are in the batch, and on how much a role repeats of what it read: all three are measured.
//! What is drafted is decided for all sequences of a batch together, since the first draft in it is the dearest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::backend::Token;

/// Tokens in a row that must have stood there before.
const SEEN: usize = 3;
/// Tokens in a draft at most: beyond this even texts that repeat themselves seldom go on.
pub(crate) const LONGEST: u32 = 8;
/// After so many chances that did not look worth it, one token is drafted nonetheless, to see whether it would be now.
const TRY_EVERY: u32 = 64;
/// What a draft costs is measured anew after so many batches: the first of a size may have been slow for another reason.
const STALE: u64 = 2000;
/// What a batch without drafts costs, after so many: whoever drafts all the time would not see that it has become cheaper.
const AFRESH: u64 = 32;
/// Of so many measurements each counts alike; of more, the later ones do more.
const ALIKE: u32 = 10;
/// Drafts must make a batch faster by so much, since what they cost and what they bring is known roughly.
const WORTH: f64 = 1.05;
/// Flows whose record is kept.
const FLOWS: usize = 4096;

/// When to draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drafts {
    /// Never.
    Never,
    /// Where it is measured to pay.
    #[default]
    WherePays,
    /// Up to so many tokens wherever there is something to go by; at most 8.
    Always(u32),
}

/// Where each run of [`SEEN`] tokens of one sequence stood last.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    /// The place after the run.
    after: HashMap<[Token; SEEN], usize>,
    /// Tokens that are in already.
    known: usize,
}

impl Lookup {
    /// What followed the end of `prompt` and `said` where it stood before, at most so many tokens.
    pub(crate) fn propose(&mut self, prompt: &[Token], said: &[Token], most: usize) -> Vec<Token> {
        let at = |n: usize| prompt.get(n).or_else(|| said.get(n - prompt.len())).copied();
        let run = |end: usize| -> Option<[Token; SEEN]> {
            let start = end.checked_sub(SEEN)?;
            Some([at(start)?, at(start + 1)?, at(start + 2)?])
        };
        let all = prompt.len() + said.len();
        // The last run itself is not among the known ones, or it would find itself.
        for end in self.known.max(SEEN)..all {
            if let Some(run) = run(end) {
                self.after.insert(run, end);
            }
        }
        self.known = all;
        let Some(from) = run(all).and_then(|run| self.after.get(&run)) else { return Vec::new() };
        (*from..all).take(most).filter_map(at).collect()
    }
}

/// What drafts are worth.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Seconds of a batch of one token of each, by how many sequences it has.
    plain: HashMap<usize, Measured>,
    /// What tokens beyond these cost, by the number of sequences, roughly, and the number of tokens.
    more: BTreeMap<(u32, usize), Measured>,
    batches: u64,
    flows: HashMap<Arc<str>, Flow>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    seconds: f64,
    times: u32,
    /// After how many batches.
    at: u64,
}

impl Measured {
    fn add(&mut self, seconds: f64, at: u64) {
        self.times = (self.times + 1).min(ALIKE);
        self.seconds += (seconds - self.seconds) / f64::from(self.times);
        self.at = at;
    }
}

#[derive(Debug)]
struct Flow {
    /// The share of drafted tokens that were right, a moving average.
    right: f64,
    passed: u32,
}

impl Default for Flow {
    /// Sure enough to be tried at once.
    fn default() -> Self {
        Self { right: 0.8, passed: 0 }
    }
}

/// Sequences that decode in one batch, and what they might draft.
#[derive(Debug, Default)]
pub(crate) struct Chances {
    pub(crate) sequences: usize,
    /// Tokens in the batch that are certain.
    pub(crate) certain: usize,
    /// The flow of each that has something to go by, and how many tokens.
    pub(crate) proposals: Vec<(Arc<str>, u32)>,
}

impl Record {
    /// Notes what a batch of so many tokens without prompts took.
    pub(crate) fn batch(&mut self, sequences: usize, tokens: usize, seconds: f64) {
        self.batches += 1;
        if tokens <= sequences {
            self.plain.entry(sequences).or_default().add(seconds, self.batches);
        } else if let Some(plain) = self.plain.get_mut(&sequences) {
            // More cannot cost less.
            plain.seconds = plain.seconds.min(seconds);
            let more = seconds - plain.seconds;
            self.more.entry((magnitude(sequences), tokens - sequences)).or_default().add(more, self.batches);
        }
    }

    /// Notes how many tokens of a draft were right, and how many were wrong; those behind a wrong one count as neither.
    pub(crate) fn drafted(&mut self, flow: &Arc<str>, right: u32, wrong: u32) {
        let flow = self.flow(flow);
        for n in 0..right + wrong {
            flow.right = 0.9 * flow.right + if n < right { 0.1 } else { 0.0 };
        }
    }

    /// How many tokens of each proposal to draft; `marginal`: seconds that a token more costs at least where nothing was measured.
    ///
    /// All that draft anything, but for one token on trial, draft the same number: llama.cpp computes the sequences of a batch side by side as far as the
    /// shortest has tokens, then those that have more, so every other length reads all weights once more.
    pub(crate) fn lengths(&mut self, chances: &Chances, marginal: f64) -> Vec<u32> {
        let mut lengths = vec![0; chances.proposals.len()];
        let plain = self.plain.get(&chances.sequences).filter(|plain| self.batches - plain.at <= AFRESH);
        let Some(plain) = plain.map(|plain| plain.seconds) else { return lengths };
        let marginal = self.cost_of_a_sequence(chances.sequences, plain).map_or(marginal, |cost| cost.max(marginal));
        let rights: Vec<f64> = chances.proposals.iter().map(|(flow, _)| self.flow(flow).right).collect();
        let certain = chances.certain.saturating_sub(chances.sequences);
        let cost = |drafted: usize| plain + self.cost_of_more(chances.sequences, certain + drafted, marginal);
        let (mut best, mut drafting, mut long) = (WORTH * chances.certain as f64 / cost(0), Vec::new(), 0);
        for length in 1..=LONGEST {
            let mut able: Vec<usize> = (0..rights.len()).filter(|at| chances.proposals[*at].1 >= length).collect();
            able.sort_by(|a, b| rights[*b].total_cmp(&rights[*a]));
            let mut gained = chances.certain as f64;
            for (n, at) in able.iter().enumerate() {
                // A token is right if all before it are.
                gained += (1..=length).map(|n| rights[*at].powi(n as i32)).sum::<f64>();
                let speed = gained / cost((n + 1) * length as usize);
                if speed > best {
                    (best, drafting, long) = (speed, able[..=n].to_vec(), length);
                }
            }
        }
        drafting.into_iter().for_each(|at| lengths[at] = long);
        for ((flow, tokens), length) in chances.proposals.iter().zip(&mut lengths) {
            let flow = self.flow(flow);
            flow.passed = if *length == 0 { flow.passed + 1 } else { 0 };
            if flow.passed >= TRY_EVERY {
                flow.passed = 0;
                *length = 1.min(*tokens);
            }
        }
        lengths
    }

    /// What each sequence beyond the fewest that were measured has cost in a batch of so many that takes so long: a token, its
    /// attention and its logits, as those of a draft do.
    fn cost_of_a_sequence(&self, sequences: usize, seconds: f64) -> Option<f64> {
        let (fewest, least) = self.plain.iter().filter(|(n, _)| **n < sequences).min_by_key(|(n, _)| **n)?;
        Some((seconds - least.seconds) / (sequences - fewest) as f64)
    }

    /// Between two numbers of tokens that were measured it is what lies between their costs.
    fn cost_of_more(&self, sequences: usize, tokens: usize, marginal: f64) -> f64 {
        let magnitude = magnitude(sequences);
        let fresh = |(key, measured): (&(u32, usize), &Measured)| {
            (self.batches - measured.at <= STALE).then_some((key.1, measured.seconds))
        };
        let fewer = self.more.range((magnitude, 0)..=(magnitude, tokens)).rev().find_map(fresh).unwrap_or_default();
        let (from, least) = fewer;
        let more = self.more.range((magnitude, tokens)..(magnitude + 1, 0)).find_map(fresh);
        let steps = (tokens - from) as f64;
        match more {
            Some((to, most)) if to > from => least + (most - least).max(0.0) * steps / (to - from) as f64,
            _ => least + steps * marginal,
        }
    }

    fn flow(&mut self, flow: &Arc<str>) -> &mut Flow {
        if self.flows.len() > FLOWS {
            self.flows.clear();
        }
        self.flows.entry(flow.clone()).or_default()
    }
}

/// Numbers of sequences that cost alike: 1, 2 to 3, 4 to 7 and so on.
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
    fn what_followed_before_is_proposed() {
        let mut lookup = Lookup::default();
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat"), 4), tokens(" sat"));
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat sat on"), 9), tokens(" the cat "));
        assert_eq!(lookup.propose(&tokens("the cat sat on the "), &tokens("cat sat on a"), 4), tokens(""));
        assert_eq!(Lookup::default().propose(&tokens("ab"), &[], 4), tokens(""));
        assert_eq!(Lookup::default().propose(&tokens("aaaa"), &[], 4), tokens("a"));
    }

    fn alone(flow: &Arc<str>) -> Chances {
        Chances { sequences: 1, certain: 1, proposals: vec![(flow.clone(), LONGEST)] }
    }

    #[test]
    fn drafts_are_long_where_they_are_right_and_cheap_and_stop_where_they_are_not() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        assert_eq!(record.lengths(&alone(&flow), 0.005), [0], "nothing is known of the machine");
        record.batch(1, 1, 0.010);
        assert!(record.lengths(&alone(&flow), 0.001)[0] > 3);
        assert_eq!(record.lengths(&alone(&flow), 0.010), [0], "a token more costs what a batch does");
        record.drafted(&flow, 0, 60);
        assert_eq!(record.lengths(&alone(&flow), 0.001), [0]);
        let tried = (0..TRY_EVERY).map(|_| record.lengths(&alone(&flow), 0.001)[0]).sum::<u32>();
        assert_eq!(tried, 1, "now and then it is tried again");
        record.drafted(&flow, 60, 0);
        assert!(record.lengths(&alone(&flow), 0.001)[0] > 3);
    }

    #[test]
    fn where_sequences_are_dear_so_are_drafts_until_they_were_measured() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        record.batch(1, 1, 0.020);
        record.batch(8, 8, 0.090);
        let chances = Chances { sequences: 8, certain: 8, proposals: vec![(flow, LONGEST); 8] };
        assert_eq!(record.lengths(&chances, 0.004), [0; 8]);
        record.batch(8, 72, 0.190);
        assert!(record.lengths(&chances, 0.004)[0] > 3);
    }

    #[test]
    fn what_was_measured_counts_more_than_what_is_thought_for_so_long() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        (1..=9).for_each(|n| record.batch(1, n, 0.010 * n as f64));
        assert_eq!(record.lengths(&alone(&flow), 0.0), [0]);
        (0..=STALE).for_each(|_| record.batch(1, 1, 0.010));
        assert_eq!(record.lengths(&alone(&flow), 0.0), [LONGEST]);
    }

    #[test]
    fn what_a_batch_costs_without_drafts_is_not_learned_once_for_all() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        record.batch(1, 1, 1.0);
        record.batch(1, 9, 0.030);
        assert_eq!(record.plain[&1].seconds, 0.030, "the first one was slow for another reason");
        assert!(record.lengths(&alone(&flow), 0.001)[0] > 3);
        (0..AFRESH).for_each(|_| record.batch(1, 9, 0.030));
        assert_eq!(record.lengths(&alone(&flow), 0.001), [0], "it is measured again");
    }

    #[test]
    fn between_two_costs_that_were_measured_there_is_no_hope_of_a_cheaper_one() {
        let mut record = Record::default();
        record.batch(8, 8, 0.050);
        record.batch(8, 10, 0.080);
        record.batch(8, 16, 0.110);
        let cost = |tokens| (record.cost_of_more(8, tokens, 0.001) * 1000.0).round();
        assert_eq!([cost(0), cost(1), cost(2), cost(5), cost(8), cost(9)], [0.0, 15.0, 30.0, 45.0, 60.0, 61.0]);
        assert_eq!(record.cost_of_more(2, 3, 0.001), 0.003, "of other numbers of sequences nothing is known");
    }

    #[test]
    fn the_first_draft_of_a_batch_is_dear_and_the_likeliest_share_its_price() {
        let mut record = Record::default();
        record.batch(4, 4, 0.040);
        record.batch(4, 5, 0.070);
        record.batch(4, 36, 0.101);
        let (sure, unsure): (Arc<str>, Arc<str>) = ("sure".into(), "unsure".into());
        record.drafted(&sure, 60, 0);
        record.drafted(&unsure, 0, 60);
        let chances = |flow: &Arc<str>, other: &Arc<str>| {
            let flows = [flow, flow, flow, other];
            Chances { sequences: 4, certain: 4, proposals: flows.map(|flow| (flow.clone(), LONGEST)).to_vec() }
        };
        let lengths = record.lengths(&chances(&sure, &unsure), 0.001);
        assert_eq!(lengths, [LONGEST, LONGEST, LONGEST, 0]);
        let mut uneven = chances(&sure, &sure);
        uneven.proposals[0].1 = 5;
        assert_eq!(record.lengths(&uneven, 0.001), [0, LONGEST, LONGEST, LONGEST], "all are of one length");
        let one = Chances { sequences: 4, certain: 4, proposals: vec![(sure, 1)] };
        assert_eq!(record.lengths(&one, 0.001), [0], "one token does not pay the first draft's price");
    }
}
