//! PEFT's patterns of modules: values for the modules whose path a regular expression matches to its end.
//!
//! Source: `get_pattern_key` of PEFT: `re.match(rf"(.*\.)?({key})$", path)`, and the first key that matches.

use std::fmt::Display;

use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_automata::util::syntax;

use crate::error::{AdapterRefusal, shown};

/// The most patterns: a value for each module of the largest models makes about nine hundred.
const MAX_PATTERNS: usize = 2048;
/// The longest pattern: the path of a module has about forty bytes.
const MAX_PATTERN_BYTES: usize = 256;
/// The largest automaton of a pattern.
const MAX_AUTOMATON_BYTES: usize = 64 * 1024;
/// The deepest nesting of groups: the compiler recurses.
const MAX_PATTERN_DEPTH: u32 = 32;

/// Values by pattern, in the order of the settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModulePatterns<T> {
    /// Their key in the settings.
    key: &'static str,
    values: Vec<(String, T)>,
}

impl<T: Copy> ModulePatterns<T> {
    pub(crate) fn new(key: &'static str, values: Vec<(String, T)>) -> Result<Self, AdapterRefusal> {
        if values.len() > MAX_PATTERNS {
            let pattern = shown(&values[MAX_PATTERNS].0);
            let reason = format!("there are {} patterns, the limit is {MAX_PATTERNS}", values.len());
            return Err(AdapterRefusal::Pattern { key, pattern, reason });
        }
        Ok(Self { key, values })
    }

    /// The value for each of these paths, such as `model.layers.0.mlp.up_proj`; `default` where no pattern matches.
    pub(crate) fn of_each(&self, paths: &[String], default: T) -> Result<Vec<T>, AdapterRefusal> {
        let mut found: Vec<Option<T>> = vec![None; paths.len()];
        for (pattern, value) in &self.values {
            let automaton = self.compile(pattern)?;
            let mut cache = automaton.create_cache();
            for (path, found) in paths.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                if automaton.is_match(&mut cache, path.as_str()) {
                    *found = Some(*value);
                }
            }
        }
        Ok(found.into_iter().map(|value| value.unwrap_or(default)).collect())
    }

    fn compile(&self, pattern: &str) -> Result<PikeVM, AdapterRefusal> {
        let refused = |reason: &dyn Display| {
            let (key, pattern, reason) = (self.key, shown(pattern), shown(&reason.to_string()));
            AdapterRefusal::Pattern { key, pattern, reason }
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(refused(&format_args!("it has {} bytes, the limit is {MAX_PATTERN_BYTES}", pattern.len())));
        }
        let config = Config::new().nfa_size_limit(Some(MAX_AUTOMATON_BYTES)).which_captures(WhichCaptures::Implicit);
        let nfa: Result<NFA, _> = Compiler::new()
            .configure(config)
            .syntax(syntax::Config::new().nest_limit(MAX_PATTERN_DEPTH))
            .build(&format!(r"\A(.*\.)?({pattern})\z"));
        let nfa = nfa.map_err(|error| refused(&error))?;
        PikeVM::new_from_nfa(nfa).map_err(|error| refused(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(patterns: &[&str], path: &str) -> Result<usize, AdapterRefusal> {
        let values = patterns.iter().enumerate().map(|(at, pattern)| ((*pattern).to_owned(), at + 1)).collect();
        let found = ModulePatterns::new("alpha_pattern", values)?.of_each(&[path.to_owned()], 0)?;
        Ok(found[0])
    }

    const PATH: &str = "model.layers.12.self_attn.q_proj";

    #[test]
    fn a_pattern_matches_to_the_end_from_the_beginning_of_a_part() {
        let matches = [
            "q_proj",
            "self_attn.q_proj",
            PATH,
            r"layers\.(1|12)\.self_attn\.[qk]_proj",
            "^model.layers.12.self_attn.q_proj",
            ".*q_proj",
            "v_proj|q_proj",
        ];
        for pattern in matches {
            assert_eq!(values(&[pattern], PATH), Ok(1), "{pattern}");
        }
        for pattern in ["proj", "2.self_attn.q_proj", "q_proj.", "self_attn", "^layers.12.self_attn.q_proj", "Q_PROJ"] {
            assert_eq!(values(&[pattern], PATH), Ok(0), "{pattern}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_counts() {
        assert_eq!(values(&["k_proj", "q_proj", "self_attn.q_proj"], PATH), Ok(2));
    }

    #[test]
    fn patterns_that_cannot_be_read_or_are_too_large_are_refused() {
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        for pattern in ["(", "(?=q)", r"(q)\1", "a{1000}{1000}", long.as_str(), &"(".repeat(60)] {
            let refusal = values(&[pattern], PATH).unwrap_err();
            assert!(matches!(refusal, AdapterRefusal::Pattern { key: "alpha_pattern", .. }), "{refusal}");
            assert!(refusal.to_string().len() < 600, "{refusal}");
        }
        let many = vec!["q"; MAX_PATTERNS + 1];
        assert!(values(&many, PATH).unwrap_err().to_string().contains("2049 patterns, the limit is 2048"));
    }
}
