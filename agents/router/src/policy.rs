//! The policy of a router, and its decision: from scores to the chosen role or graph.

use std::sync::Arc;
use std::time::Duration;

use artel_task::RoleName;
use artel_task::event::{CandidateScore, Decision, NoMatch, Signal};
use artel_task::graph::RouterNode;

use crate::settings::RouterSettings;
use crate::signal_scores::SignalScores;

/// How to choose among candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingPolicy {
    /// The weights of the signals.
    pub settings: Arc<RouterSettings>,
    /// The signals to use; empty: those that the settings weigh, and rules.
    pub signals: Vec<Signal>,
    /// The confidence below which the fallback is chosen, from 0 to 1.
    pub min_confidence: f64,
    /// The role chosen below that confidence.
    pub fallback: Option<RoleName>,
    /// How many candidates are chosen; 0 means one, without a list in the decision.
    pub top_k: u32,
}

impl RoutingPolicy {
    /// The policy of a router node, with the settings that it names.
    pub fn for_node(node: &RouterNode, settings: Arc<RouterSettings>) -> Self {
        Self {
            settings,
            signals: node.signals.clone(),
            min_confidence: node.confidence,
            fallback: node.otherwise.clone(),
            top_k: node.best,
        }
    }

    /// Whether a chat model scores the names of candidates.
    pub fn uses_labels(&self) -> bool {
        self.named_or_weighed().contains(&Signal::Label)
    }

    /// Whether rules apply: always, unless signals were named and rules were not.
    pub fn uses_rules(&self) -> bool {
        self.signals.is_empty() || self.signals.contains(&Signal::Rule)
    }

    /// The signals to score, without rules; without labels if there is no model for them.
    pub fn scored_signals(&self, has_label_model: bool) -> Vec<Signal> {
        let is_scored = |signal: &Signal| match signal {
            Signal::Rule => false,
            Signal::Label => has_label_model,
            _ => true,
        };
        self.named_or_weighed().into_iter().filter(is_scored).collect()
    }

    fn named_or_weighed(&self) -> Vec<Signal> {
        if self.signals.is_empty() { self.settings.signals.keys().copied().collect() } else { self.signals.clone() }
    }

    /// The decision by the scores of these candidates, which are in the same order; `None` without candidates. What the
    /// decision took and whether the candidates are graphs is left to the caller.
    pub fn decide(&self, candidates: &[&RoleName], signals: &[Signal], scores: &SignalScores) -> Option<Decision> {
        let (chances, no_match) = self.settings.probabilities(signals, &scores.candidates, &scores.no_match);
        let name = |at: usize| candidates[at].clone();
        let mut order: Vec<usize> = (0..chances.len()).collect();
        // The sort is stable: candidates of equal chances keep their order.
        order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
        let ranked: Vec<RoleName> = order.iter().map(|at| name(*at)).collect();
        let ranked_scores = order.iter().map(|at| CandidateScore {
            role: name(*at),
            score: chances[*at],
            signals: scores.candidates[*at].clone(),
        });
        let confidence = chances[*order.first()?];
        let margin = confidence - order.get(1).map_or(no_match, |second| chances[*second]);
        let (role, otherwise) = match &self.fallback {
            Some(role) if confidence < self.min_confidence => (role.clone(), true),
            _ => (ranked[0].clone(), false),
        };
        let signal = match (scores.matched_rules(), signals) {
            (1, _) => Signal::Rule.to_string(),
            (0, [alone]) => alone.to_string(),
            _ => "combined".to_owned(),
        };
        Some(Decision {
            roles: top_roles(&role, &ranked, self.top_k),
            role,
            graphs: false,
            confidence,
            margin,
            otherwise,
            signal,
            scores: ranked_scores.collect(),
            no_match: Some(NoMatch { score: no_match, signals: scores.no_match.clone() }),
            elapsed: Duration::ZERO,
            tokens: 0,
            warmup_tokens: 0,
        })
    }
}

/// Whether the question and the candidates must be embedded.
pub fn needs_embeddings(signals: &[Signal]) -> bool {
    signals.iter().any(|signal| matches!(signal, Signal::Embedding | Signal::Linear))
}

/// The `top_k` best roles, the chosen one first: always as many as requested, so that every branch has its role.
fn top_roles(first: &RoleName, ranked: &[RoleName], top_k: u32) -> Vec<RoleName> {
    if top_k == 0 {
        return Vec::new();
    }
    let others = ranked.iter().filter(|role| *role != first);
    std::iter::once(first).chain(others).take(top_k as usize).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::SignalWeight;

    fn policy() -> RoutingPolicy {
        let embedding = SignalWeight { weight: 2.25, mean: 0.35, deviation: 0.14, alone: (4.24, 1.46) };
        let keyword = SignalWeight { weight: 1.33, mean: 1.93, deviation: 1.65, alone: (2.39, 4.42) };
        let signals = [(Signal::Embedding, embedding), (Signal::Keyword, keyword)].into();
        let settings =
            RouterSettings { signals, bias: 3.06, temperature: 1.0, background: Vec::new(), label_model: None };
        RoutingPolicy::for_node(&RouterNode::default(), Arc::new(settings))
    }

    fn scores(numbers: &[f64], no_match: f64) -> SignalScores {
        let mut scores = SignalScores::new(numbers.len());
        scores.insert(Signal::Embedding, numbers, no_match);
        scores
    }

    /// Decides by the signal `embedding` among candidates named `a`, `b`, `c` and so on.
    fn decide(policy: &RoutingPolicy, scores: &SignalScores) -> Decision {
        let names: Vec<RoleName> =
            ('a'..='z').take(scores.candidates.len()).map(|name| RoleName::parse(&name.to_string()).unwrap()).collect();
        policy.decide(&names.iter().collect::<Vec<_>>(), &[Signal::Embedding], scores).unwrap()
    }

    #[test]
    fn the_likeliest_wins_and_chances_add_up_to_one() {
        let decision = decide(&policy(), &scores(&[0.3, 0.8, 0.4], 0.1));
        let names: Vec<&str> = decision.scores.iter().map(|score| score.role.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("b", "embedding"));
        let none = decision.no_match.unwrap();
        let sum: f64 = decision.scores.iter().map(|score| score.score).sum::<f64>() + none.score;
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert!((decision.margin - (decision.scores[0].score - decision.scores[1].score)).abs() < 1e-9);
        assert!((none.signals[&Signal::Embedding] - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_single_candidate_is_compared_with_no_match() {
        let decision = decide(&policy(), &scores(&[0.5], 0.3));
        let no_match = decision.no_match.unwrap().score;
        assert!((decision.margin - (decision.confidence - no_match)).abs() < 1e-9);
        assert_eq!(policy().decide(&[], &[Signal::Embedding], &scores(&[], 0.3)), None);
    }

    #[test]
    fn the_fallback_is_chosen_below_the_minimum_confidence() {
        let mut policy = policy();
        (policy.min_confidence, policy.fallback) = (0.5, RoleName::parse("other").ok());
        let unsure = decide(&policy, &scores(&[0.1, 0.1], 0.9));
        assert!(unsure.otherwise && unsure.role.as_str() == "other" && unsure.confidence < 0.5);
        let sure = decide(&policy, &scores(&[0.9, 0.1], 0.1));
        assert!(!sure.otherwise && sure.role.as_str() == "a" && sure.confidence > 0.5);
        policy.fallback = None;
        let without = decide(&policy, &scores(&[0.1, 0.2], 0.9));
        assert!(!without.otherwise && without.role.as_str() == "b" && without.confidence < 0.5);
    }

    #[test]
    fn as_many_are_chosen_as_requested() {
        let mut policy = policy();
        policy.top_k = 2;
        let names = |policy: &RoutingPolicy, no_match| -> Vec<String> {
            decide(policy, &scores(&[0.3, 0.8, 0.4], no_match)).roles.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&policy, 0.1), ["b", "c"]);
        (policy.min_confidence, policy.fallback) = (1.0, RoleName::parse("c").ok());
        assert_eq!(names(&policy, 0.9), ["c", "b"], "the fallback comes first, and no role twice");
    }

    #[test]
    fn a_rule_that_matches_leaves_the_others_no_chance() {
        let mut scores = scores(&[0.9, 0.2, 0.1], 0.9);
        scores.insert_rules(&[false, true, false]);
        let decision = decide(&policy(), &scores);
        assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("b", "rule"));
        assert!((decision.confidence - 1.0).abs() < 1e-9);
        scores.insert_rules(&[true, true, false]);
        let decision = decide(&policy(), &scores);
        assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("a", "combined"));
        assert!(decision.confidence < 1.0 && decision.scores[2].score.abs() < 1e-9);
    }

    #[test]
    fn scores_that_are_not_finite_do_not_win() {
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let decision = decide(&policy(), &scores(&[odd, 0.5], odd));
            assert_eq!(decision.role.as_str(), "b");
            assert!(decision.confidence.is_finite() && decision.margin.is_finite());
        }
    }

    #[test]
    fn named_signals_replace_those_that_the_settings_weigh() {
        let mut policy = policy();
        assert_eq!(policy.scored_signals(true), [Signal::Embedding, Signal::Keyword]);
        assert!(policy.uses_rules() && !policy.uses_labels());
        policy.signals = vec![Signal::Label, Signal::Keyword];
        assert_eq!(policy.scored_signals(true), [Signal::Label, Signal::Keyword]);
        assert_eq!(policy.scored_signals(false), [Signal::Keyword], "no model scores labels");
        assert!(!policy.uses_rules() && policy.uses_labels());
        policy.signals = vec![Signal::Rule];
        assert!(policy.uses_rules() && policy.scored_signals(true).is_empty());
        assert!(needs_embeddings(&[Signal::Keyword, Signal::Linear]) && !needs_embeddings(&[Signal::Label]));
    }

    /// The score of a signal, or what a bug might make of one.
    fn any_score() -> impl Strategy<Value = f64> {
        prop_oneof![8 => -1e6..1e6f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
    }

    proptest! {
        #[test]
        fn for_any_scores_the_winner_is_a_candidate(
            numbers in prop::collection::vec(any_score(), 1..20),
            no_match in any_score(),
            ruled in prop::collection::vec(any::<bool>(), 20),
            top_k in 0..30u32,
        ) {
            let mut scores = scores(&numbers, no_match);
            scores.insert_rules(&ruled[..numbers.len()]);
            let policy = RoutingPolicy { top_k, ..policy() };
            let decision = decide(&policy, &scores);
            prop_assert!(decision.scores.iter().any(|score| score.role == decision.role));
            prop_assert_eq!(decision.roles.len(), numbers.len().min(top_k as usize));
            prop_assert_eq!(decision.scores.len(), numbers.len());
            prop_assert!(decision.scores.is_sorted_by(|one, next| one.score >= next.score));
            prop_assert!((0.0..=1.0).contains(&decision.confidence));
        }
    }
}
