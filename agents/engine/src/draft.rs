//! Speculation by prompt lookup: what followed the last few tokens when they stood here before is likely to follow again.
//!
//! A draft is computed in the same batch as the token before it, and a drafted token counts only if sampling after the
//! tokens before it gives this very token, so the output is the same as without drafts (Leviathan et al., 2023; prompt
//! lookup: Saxena, 2023). A draft pays when several tokens in a batch cost less than several batches, and that depends on
//! the machine, on how many others are in the batch, and on how much a role repeats of what it read: all three are measured.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::Token;

/// Tokens in a row that must have stood there before.
const SEEN: usize = 3;
/// Tokens in a draft at most: beyond this even texts that repeat themselves seldom go on.
pub(crate) const LONGEST: u32 = 8;
/// After so many chances that did not look worth it, one token is drafted nonetheless, to see whether it would be now.
const TRY_EVERY: u32 = 64;
/// Batch sizes whose cost is remembered.
const SIZES: usize = 64;
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
    /// Seconds of a batch without prompts, by its tokens; 0 where none was measured.
    seconds: Vec<f64>,
    flows: HashMap<Arc<str>, Flow>,
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

impl Record {
    /// Notes what a batch of so many tokens without prompts took.
    pub(crate) fn batch(&mut self, tokens: usize, seconds: f64) {
        if tokens < SIZES {
            self.seconds.resize(SIZES, 0.0);
            let known = &mut self.seconds[tokens];
            *known = if *known > 0.0 { 0.9 * *known + 0.1 * seconds } else { seconds };
        }
    }

    /// Notes how many tokens of a draft were right, and how many were wrong; those behind a wrong one count as neither.
    pub(crate) fn drafted(&mut self, flow: &Arc<str>, right: u32, wrong: u32) {
        let flow = self.flow(flow);
        for n in 0..right + wrong {
            flow.right = 0.9 * flow.right + if n < right { 0.1 } else { 0.0 };
        }
    }

    /// How many tokens to draft for a sequence of this flow, in a batch of so many tokens without it; `marginal`: seconds
    /// that a token more costs where nothing was measured.
    pub(crate) fn length(&mut self, flow: &Arc<str>, batch: usize, marginal: f64) -> u32 {
        let right = self.flow(flow).right;
        let Some(now) = self.measured(batch + 1) else { return 0 };
        let speed = |draft: u32| {
            let took = self.measured(batch + 1 + draft as usize).unwrap_or(now + f64::from(draft) * marginal);
            let gained: f64 = (1..=draft).map(|n| right.powi(n as i32)).sum();
            (batch as f64 + 1.0 + gained) / took
        };
        let best = (0..=LONGEST).max_by(|a, b| speed(*a).total_cmp(&speed(*b))).unwrap_or(0);
        let flow = self.flow(flow);
        flow.passed = if best == 0 { flow.passed + 1 } else { 0 };
        if flow.passed >= TRY_EVERY {
            flow.passed = 0;
            return 1;
        }
        best
    }

    fn measured(&self, tokens: usize) -> Option<f64> {
        self.seconds.get(tokens).copied().filter(|seconds| *seconds > 0.0)
    }

    fn flow(&mut self, flow: &Arc<str>) -> &mut Flow {
        if self.flows.len() > FLOWS {
            self.flows.clear();
        }
        self.flows.entry(flow.clone()).or_default()
    }
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

    #[test]
    fn drafts_are_long_where_they_are_right_and_cheap_and_stop_where_they_are_not() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        assert_eq!(record.length(&flow, 0, 0.005), 0, "nothing is known of the machine");
        record.batch(1, 0.010);
        assert!(record.length(&flow, 0, 0.001) > 3);
        assert_eq!(record.length(&flow, 0, 0.010), 0, "a token more costs what a batch does");
        record.drafted(&flow, 0, 60);
        assert_eq!(record.length(&flow, 0, 0.001), 0);
        let tried = (0..TRY_EVERY).map(|_| record.length(&flow, 0, 0.001)).sum::<u32>();
        assert_eq!(tried, 1, "now and then it is tried again");
        record.drafted(&flow, 60, 0);
        assert!(record.length(&flow, 0, 0.001) > 3);
    }

    #[test]
    fn what_was_measured_counts_more_than_what_is_thought() {
        let (mut record, flow): (_, Arc<str>) = (Record::default(), "copier".into());
        (1..=9).for_each(|n| record.batch(n, 0.010 * n as f64));
        assert_eq!(record.length(&flow, 0, 0.0), 0);
    }
}
