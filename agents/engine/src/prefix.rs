//! Beginnings of prompts that are kept as the cells they fill, so that none is computed twice.
//!
//! What is kept is bytes in host memory: it is copied into the cells of as many sequences as need it, whatever others do
//! meanwhile, and outlives all of them. A beginning belongs to one lane: cells of one adapter mean nothing to another.
//!
//! When the budget runs out, what goes first is what no flow that is expected needs; among those, and among the expected
//! ones in turn, by the rule GreedyDual-Size (Cao and Irani, 1997), which weighs the seconds to compute a beginning again
//! against its bytes and the time since its last use.

use std::sync::Arc;

use crate::backend::{Lane, Token};
use crate::expected::Expected;

/// Shorter beginnings are computed faster than they are found.
pub(crate) const SHORTEST: usize = 16;

/// What is kept, within a budget of bytes.
pub(crate) struct Prefixes {
    budget: usize,
    bytes: usize,
    kept: Vec<Kept>,
    /// The worth of what went last; GreedyDual-Size calls it L.
    inflation: f64,
    /// Flows that will soon need theirs.
    expected: Expected,
}

struct Kept {
    lane: Lane,
    flow: Arc<str>,
    tokens: Arc<[Token]>,
    state: Arc<[u8]>,
    seconds: f64,
    worth: f64,
}

impl Prefixes {
    pub(crate) fn new(budget: usize, expected: Expected) -> Self {
        Self { budget, bytes: 0, kept: Vec::new(), inflation: 0.0, expected }
    }

    /// The longest kept beginning of a prompt, at most all but its last token, whose logits are wanted.
    pub(crate) fn find(&mut self, lane: Lane, prompt: &[Token]) -> Option<(usize, Arc<[u8]>)> {
        let fits = |kept: &&mut Kept| {
            kept.lane == lane && kept.tokens.len() < prompt.len() && prompt.starts_with(&kept.tokens)
        };
        let found = self.kept.iter_mut().filter(fits).max_by_key(|kept| kept.tokens.len())?;
        found.worth = self.inflation + found.seconds / found.state.len().max(1) as f64;
        Some((found.tokens.len(), found.state.clone()))
    }

    /// Whether exactly this beginning is kept.
    pub(crate) fn has(&self, lane: Lane, tokens: &[Token]) -> bool {
        self.kept.iter().any(|kept| kept.lane == lane && *kept.tokens == *tokens)
    }

    /// Keeps a beginning that took so many seconds to compute, if it is worth more than what would have to go for it.
    pub(crate) fn keep(&mut self, lane: Lane, flow: &Arc<str>, tokens: &[Token], state: &Arc<[u8]>, seconds: f64) {
        if state.len() > self.budget || self.has(lane, tokens) {
            return;
        }
        let worth = self.inflation + seconds / state.len().max(1) as f64;
        self.bytes += state.len();
        let (tokens, state) = (tokens.into(), state.clone());
        self.kept.push(Kept { lane, flow: flow.clone(), tokens, state, seconds, worth });
        while self.bytes > self.budget {
            self.evict();
        }
    }

    /// Whether somebody expects a flow.
    pub(crate) fn expects(&self, flow: &Arc<str>) -> bool {
        self.expected.has(flow)
    }

    fn evict(&mut self) {
        let rank = |kept: &Kept| (self.expected.has(&kept.flow), kept.worth);
        let least = (0..self.kept.len()).min_by(|a, b| {
            let (a, b) = (rank(&self.kept[*a]), rank(&self.kept[*b]));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let gone = self.kept.swap_remove(least.expect("bytes are over the budget, so something is kept"));
        self.bytes -= gone.state.len();
        self.inflation = self.inflation.max(gone.worth);
        tracing::debug!(flow = %gone.flow, tokens = gone.tokens.len(), bytes = gone.state.len(), "a prefix is let go");
    }

    /// Forgets what is kept of a lane that is no more.
    pub(crate) fn forget(&mut self, lane: Lane) {
        self.kept.retain(|kept| kept.lane != lane);
        self.bytes = self.kept.iter().map(|kept| kept.state.len()).sum();
    }

    /// Bytes of host memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    fn flow(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn the_longest_beginning_of_the_same_lane_is_found() {
        let mut prefixes = Prefixes::new(100, Expected::default());
        prefixes.keep(Lane(0), &flow("a"), &tokens("You"), &[1; 3].into(), 1.0);
        prefixes.keep(Lane(0), &flow("a"), &tokens("You are"), &[2; 7].into(), 1.0);
        prefixes.keep(Lane(1), &flow("a"), &tokens("You are a"), &[3; 9].into(), 1.0);
        assert_eq!(prefixes.find(Lane(0), &tokens("You are a sailor")).unwrap(), (7, vec![2; 7].into()));
        assert_eq!(prefixes.find(Lane(0), &tokens("Your")).unwrap().0, 3);
        assert_eq!(prefixes.find(Lane(0), &tokens("You are")).unwrap().0, 3, "the last token is computed");
        assert!(prefixes.find(Lane(1), &tokens("You are")).is_none());
    }

    #[test]
    fn what_is_expected_stays_longest_and_then_what_is_dear_and_used() {
        let expected = Expected::default();
        let mut prefixes = Prefixes::new(30, expected.clone());
        prefixes.keep(Lane(0), &flow("cheap"), &tokens("cheap."), &[0; 10].into(), 1.0);
        prefixes.keep(Lane(0), &flow("dear"), &tokens("dear.."), &[0; 10].into(), 5.0);
        prefixes.keep(Lane(0), &flow("next"), &tokens("next.."), &[0; 10].into(), 0.5);
        let expectation = expected.expect(vec![flow("next")]);
        prefixes.keep(Lane(0), &flow("new"), &tokens("new..."), &[0; 10].into(), 2.0);
        assert!(!prefixes.has(Lane(0), &tokens("cheap.")) && prefixes.has(Lane(0), &tokens("next..")));
        drop(expectation);
        prefixes.keep(Lane(0), &flow("newer"), &tokens("newer."), &[0; 10].into(), 2.0);
        assert!(!prefixes.has(Lane(0), &tokens("next..")) && prefixes.has(Lane(0), &tokens("dear..")));
        prefixes.keep(Lane(0), &flow("huge"), &tokens("huge.."), &[0; 31].into(), 99.0);
        assert_eq!(prefixes.bytes(), 30);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_what_is_found_is_a_beginning(
            asked in prop::collection::vec((0..2u32, "[ab]{1,6}", 1..40usize), 0..60),
        ) {
            let mut prefixes = Prefixes::new(100, Expected::default());
            for (lane, text, size) in asked {
                let prompt = tokens(&text);
                if let Some((length, _)) = prefixes.find(Lane(lane), &prompt) {
                    prop_assert!(length < prompt.len() && prefixes.has(Lane(lane), &prompt[..length]));
                }
                prefixes.keep(Lane(lane), &flow(&text), &prompt, &vec![0; size].into(), 1.0);
                prop_assert!(prefixes.bytes() <= 100);
            }
        }
    }
}
