//! The patterns of `matches`: regular expressions whose search takes steps of the budget.

use regex_automata::Input;
use regex_automata::hybrid::{self, dfa::DFA};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_automata::util::syntax;

use super::budget::{EvaluationBudget, Exhausted};

/// The longest pattern: a long list of words takes some hundred bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// The largest automaton of a pattern: it is compiled in less than a millisecond.
const MAX_AUTOMATON_BYTES: usize = 64 * 1024;
/// The deepest nesting of groups: the compiler recurses.
const MAX_PATTERN_DEPTH: u32 = 32;
/// The memory of the states that a search keeps; it begins anew when they are too many.
const SEARCH_CACHE_BYTES: usize = 64 * 1024;

/// The compilation of a pattern takes so many steps, and so many more for each of its bytes.
const COMPILE_STEPS: u64 = 5000;
const COMPILED_BYTE_STEPS: u64 = 50;
/// The bytes that a search passes over in one step where all states are known.
const SEARCH_STEP_BYTES: usize = 16;
/// The states of the automaton that are visited in one step.
const STEP_AUTOMATON_PARTS: u64 = 8;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPattern {
    /// It is too long.
    #[error("the pattern has {0} bytes, the limit is {MAX_PATTERN_BYTES}")]
    TooLong(usize),
    /// It is no pattern, or its automaton is too large.
    #[error("bad pattern: {0}")]
    Refused(String),
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct CelPattern {
    dfa: DFA,
    nfa: NFA,
}

/// The states that the searches for one pattern have met.
#[derive(Debug)]
pub(super) struct SearchCache(hybrid::dfa::Cache);

impl CelPattern {
    /// Takes what compiling a pattern and searching for it needs.
    pub(super) fn take(text: &str, budget: &mut EvaluationBudget) -> Result<(), Exhausted> {
        budget.take_bytes(MAX_AUTOMATON_BYTES + SEARCH_CACHE_BYTES)?;
        budget.take_steps(COMPILE_STEPS + COMPILED_BYTE_STEPS * text.len().min(MAX_PATTERN_BYTES) as u64)
    }

    /// Compiles a pattern.
    pub(super) fn compile(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        let config = Config::new().nfa_size_limit(Some(MAX_AUTOMATON_BYTES)).which_captures(WhichCaptures::None);
        let nfa = Compiler::new()
            .configure(config)
            .syntax(syntax::Config::new().nest_limit(MAX_PATTERN_DEPTH))
            .build(text)
            .map_err(|e| InvalidPattern::Refused(reason(&e)))?;
        let config = DFA::config()
            .cache_capacity(SEARCH_CACHE_BYTES)
            .skip_cache_capacity_check(true)
            .unicode_word_boundary(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa.clone());
        Ok(Self { dfa: dfa.map_err(|e| InvalidPattern::Refused(reason(&e)))?, nfa })
    }

    /// The cache of its searches.
    pub(super) fn cache(&self) -> SearchCache {
        SearchCache(self.dfa.create_cache())
    }

    /// Whether it occurs in a text.
    pub(super) fn is_match(
        &self,
        text: &str,
        cache: &mut SearchCache,
        budget: &mut EvaluationBudget,
    ) -> Result<bool, Exhausted> {
        if let Some(found) = self.search(text, &mut cache.0, budget)? {
            return Ok(found);
        }
        // The lazy automaton knows no word boundaries beside characters that are not ASCII.
        budget.take_steps((text.len() as u64 + 1).saturating_mul(self.new_state_steps()))?;
        let simulation = PikeVM::new_from_nfa(self.nfa.clone()).expect("the automaton was made from the same states");
        Ok(simulation.is_match(&mut pikevm::Cache::new(&simulation), text))
    }

    /// The steps of a transition that is not known yet.
    fn new_state_steps(&self) -> u64 {
        1 + self.nfa.states().len() as u64 / STEP_AUTOMATON_PARTS
    }

    /// Searches with the lazy automaton, whose new transitions take steps; `None` if it cannot tell.
    fn search(
        &self,
        text: &str,
        cache: &mut hybrid::dfa::Cache,
        budget: &mut EvaluationBudget,
    ) -> Result<Option<bool>, Exhausted> {
        let dfa = &self.dfa;
        budget.take_steps(1 + (text.len() / SEARCH_STEP_BYTES) as u64)?;
        budget.take_steps(self.new_state_steps())?;
        let Ok(mut state) = dfa.start_state_forward(cache, &Input::new(text)) else { return Ok(None) };
        for byte in text.bytes() {
            let known = (!state.is_tagged()).then(|| dfa.next_state_untagged(cache, state, byte));
            state = match known.filter(|state| !state.is_unknown()) {
                Some(known) => known,
                None => {
                    budget.take_steps(self.new_state_steps())?;
                    let Ok(next) = dfa.next_state(cache, state, byte) else { return Ok(None) };
                    next
                }
            };
            if state.is_match() {
                return Ok(Some(true));
            } else if state.is_dead() {
                return Ok(Some(false));
            } else if state.is_quit() {
                return Ok(None);
            }
        }
        budget.take_steps(self.new_state_steps())?;
        Ok(dfa.next_eoi_state(cache, state).ok().map(|state| state.is_match()))
    }
}

/// The last line of an error and its causes: the lines before it are a picture of the pattern.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, text: &str) -> Result<bool, Exhausted> {
        let (pattern, mut budget) = (CelPattern::compile(pattern).unwrap(), EvaluationBudget::default());
        pattern.is_match(text, &mut pattern.cache(), &mut budget)
    }

    #[test]
    fn patterns_match_anywhere_in_a_text() {
        assert_eq!(is_match("b+c", "aabbcc"), Ok(true));
        assert_eq!(is_match("^b+c", "aabbcc"), Ok(false));
        assert_eq!(is_match("c$", "aabbcc"), Ok(true));
        assert_eq!(is_match("", ""), Ok(true));
        assert_eq!(is_match("(?i)GRÖSSE", "die grösse"), Ok(true));
        assert_eq!(is_match(r"B-12\b", "order B-12, please"), Ok(true));
        assert_eq!(is_match(r"größ\b", "wie größ ist es"), Ok(true));
        assert_eq!(is_match(r"gr\b", "wie größ ist es"), Ok(false));
    }

    #[test]
    fn a_long_text_is_searched_within_the_budget_and_a_costly_pattern_is_not() {
        let text = "x".repeat(4 * 1024 * 1024);
        assert_eq!(is_match("APPROVED", &text), Ok(false));
        // Each byte leads to a state that was not met before.
        let bits: String = (0..100_000u32)
            .map(|i| if i.wrapping_mul(2_654_435_761).count_ones() % 2 == 0 { '0' } else { '1' })
            .collect();
        assert_eq!(is_match("[01]*1[01]{200}x", &bits), Err(Exhausted::Steps));
    }

    #[test]
    fn large_patterns_are_refused() {
        let refused = |pattern: &str| CelPattern::compile(pattern).unwrap_err().to_string();
        assert!(refused(r"(?:\w{200}){200}").contains("limit"), "{}", refused(r"(?:\w{200}){200}"));
        assert!(refused(&"(".repeat(100)).starts_with("bad pattern: "));
        assert!(refused(&"a".repeat(MAX_PATTERN_BYTES + 1)).contains("1025 bytes"));
        assert!(refused("(a").contains("unclosed group"), "{}", refused("(a"));
    }
}
