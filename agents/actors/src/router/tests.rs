//! The decisions that the router makes from scores.

use artel_roles::Catalog;

use super::*;

/// A candidate with this description and these examples.
pub(super) fn candidate(name: &str, description: &str, examples: &[&str]) -> Candidate {
    let examples = examples.iter().map(|text| (*text).to_owned()).collect();
    let topic = CandidateProfile { description: description.to_owned(), examples, keywords: Vec::new() };
    Candidate::Graph(RoleName::parse(name).unwrap(), Arc::new(topic))
}

fn scores(numbers: &[f64], no_match: f64) -> SignalScores {
    let mut scores = SignalScores::new(numbers.len());
    scores.insert(Signal::Embedding, numbers.to_vec(), no_match);
    scores
}

fn request(names: &[&str]) -> RoutingRequest {
    let catalog = Catalog::shipped();
    let candidates = names.iter().map(|name| candidate(name, "Does things.", &[])).collect();
    RoutingRequest::for_node("?".to_owned(), candidates, &Node::default(), &catalog).unwrap()
}

#[test]
fn the_likeliest_wins_and_chances_add_up_to_one() {
    let request = request(&["a", "b", "c"]);
    let decision = choose(&request, &[Signal::Embedding], &scores(&[0.3, 0.8, 0.4], 0.1), 7, Instant::now());
    let names: Vec<&str> = decision.scores.iter().map(|score| score.role.as_str()).collect();
    assert_eq!(names, ["b", "c", "a"]);
    assert_eq!((decision.role.as_str(), decision.signal.as_str(), decision.tokens), ("b", "embedding", 7));
    let none = decision.no_match.unwrap();
    let sum: f64 = decision.scores.iter().map(|score| score.score).sum::<f64>() + none.score;
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    assert!((decision.margin - (decision.scores[0].score - decision.scores[1].score)).abs() < 1e-9);
    assert!((none.signals[&Signal::Embedding] - 0.1).abs() < 1e-9);
}

#[test]
fn the_fallback_is_chosen_below_the_minimum_confidence() {
    let mut request = request(&["a", "b"]);
    (request.min_confidence, request.fallback) = (0.5, RoleName::parse("other").ok());
    let unsure = choose(&request, &[Signal::Embedding], &scores(&[0.1, 0.1], 0.9), 0, Instant::now());
    assert!(unsure.otherwise && unsure.role.as_str() == "other" && unsure.confidence < 0.5);
    let sure = choose(&request, &[Signal::Embedding], &scores(&[0.9, 0.1], 0.1), 0, Instant::now());
    assert!(!sure.otherwise && sure.role.as_str() == "a" && sure.confidence > 0.5);
}

#[test]
fn as_many_are_chosen_as_requested() {
    let mut request = request(&["a", "b", "c"]);
    request.top_k = 2;
    let names = |request: &RoutingRequest, no_match| -> Vec<String> {
        let decision = choose(request, &[Signal::Embedding], &scores(&[0.3, 0.8, 0.4], no_match), 0, Instant::now());
        decision.roles.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&request, 0.1), ["b", "c"]);
    (request.min_confidence, request.fallback) = (1.0, RoleName::parse("c").ok());
    assert_eq!(names(&request, 0.9), ["c", "b"], "the fallback comes first, and no role twice");
}

#[test]
fn a_rule_that_matches_leaves_the_others_no_chance() {
    let request = request(&["a", "b", "c"]);
    let mut scores = scores(&[0.9, 0.2, 0.1], 0.9);
    scores.insert_rules(vec![false, true, false]);
    let decision = choose(&request, &[Signal::Embedding], &scores, 0, Instant::now());
    assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("b", "rule"));
    assert!((decision.confidence - 1.0).abs() < 1e-9);
    scores.insert_rules(vec![true, true, false]);
    let decision = choose(&request, &[Signal::Embedding], &scores, 0, Instant::now());
    assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("a", "combined"));
    assert!(decision.confidence < 1.0 && decision.scores[2].score.abs() < 1e-9);
}

#[test]
fn scores_that_are_not_finite_do_not_win() {
    let request = request(&["a", "b"]);
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let decision = choose(&request, &[Signal::Embedding], &scores(&[odd, 0.5], odd), 0, Instant::now());
        assert_eq!(decision.role.as_str(), "b");
        assert!(decision.confidence.is_finite() && decision.margin.is_finite());
    }
}
