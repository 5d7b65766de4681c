//! What the router makes of what it hears.

use artel_roles::Catalog;

use super::*;

/// A role that is known by this.
pub(super) fn candidate(name: &str, description: &str, examples: &[&str]) -> Candidate {
    let examples = examples.iter().map(|text| (*text).to_owned()).collect();
    let topic = Topic { description: description.to_owned(), examples, keywords: Vec::new() };
    Candidate::Graph(RoleName::parse(name).unwrap(), Arc::new(topic))
}

fn said(numbers: &[f64], nobody: f64) -> Said {
    let mut said = Said::of(numbers.len());
    said.add(Signal::Embedding, numbers.to_vec(), nobody);
    said
}

fn question(names: &[&str]) -> Question {
    let catalog = Catalog::shipped();
    let candidates = names.iter().map(|name| candidate(name, "Does things.", &[])).collect();
    Question::of("?".to_owned(), candidates, &Node::default(), &catalog).unwrap()
}

#[test]
fn the_likeliest_wins_and_chances_add_up_to_one() {
    let question = question(&["a", "b", "c"]);
    let decision = conclude(&question, &[Signal::Embedding], &said(&[0.3, 0.8, 0.4], 0.1), 7, Instant::now());
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
fn who_is_not_sure_enough_gives_way() {
    let mut question = question(&["a", "b"]);
    (question.confidence, question.otherwise) = (0.5, RoleName::parse("other").ok());
    let unsure = conclude(&question, &[Signal::Embedding], &said(&[0.1, 0.1], 0.9), 0, Instant::now());
    assert!(unsure.otherwise && unsure.role.as_str() == "other" && unsure.confidence < 0.5);
    let sure = conclude(&question, &[Signal::Embedding], &said(&[0.9, 0.1], 0.1), 0, Instant::now());
    assert!(!sure.otherwise && sure.role.as_str() == "a" && sure.confidence > 0.5);
}

#[test]
fn as_many_are_chosen_as_were_asked_for() {
    let mut question = question(&["a", "b", "c"]);
    question.best = 2;
    let names = |question: &Question, nobody| -> Vec<String> {
        let decision = conclude(question, &[Signal::Embedding], &said(&[0.3, 0.8, 0.4], nobody), 0, Instant::now());
        decision.roles.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&question, 0.1), ["b", "c"]);
    (question.confidence, question.otherwise) = (1.0, RoleName::parse("c").ok());
    assert_eq!(names(&question, 0.9), ["c", "b"], "whoever takes over comes first, and nobody twice");
}

#[test]
fn a_rule_that_holds_leaves_the_others_no_chance() {
    let question = question(&["a", "b", "c"]);
    let mut said = said(&[0.9, 0.2, 0.1], 0.9);
    said.claim(vec![false, true, false]);
    let decision = conclude(&question, &[Signal::Embedding], &said, 0, Instant::now());
    assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("b", "rule"));
    assert!((decision.confidence - 1.0).abs() < 1e-9);
    said.claim(vec![true, true, false]);
    let decision = conclude(&question, &[Signal::Embedding], &said, 0, Instant::now());
    assert_eq!((decision.role.as_str(), decision.signal.as_str()), ("a", "combined"));
    assert!(decision.confidence < 1.0 && decision.scores[2].score.abs() < 1e-9);
}

#[test]
fn numbers_that_are_none_win_nothing() {
    let question = question(&["a", "b"]);
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let decision = conclude(&question, &[Signal::Embedding], &said(&[odd, 0.5], odd), 0, Instant::now());
        assert_eq!(decision.role.as_str(), "b");
        assert!(decision.confidence.is_finite() && decision.margin.is_finite());
    }
}
