//! Candidates as a router reads them: texts, and a rule.

use artel_task::condition::{self, ConditionScope, GraphValues, NodeOutputs};
use artel_task::{Condition, RoleName};
use serde_json::json;

/// The texts by which a router knows a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CandidateProfile {
    /// What it does.
    pub description: String,
    /// Questions that belong to it.
    pub examples: Vec<String>,
    /// Words that are looked for in the question.
    pub keywords: Vec<String>,
}

/// A candidate with borrowed texts: a role and a graph read the same.
#[derive(Debug, Clone, Copy)]
pub struct CandidateDocument<'c> {
    /// The name; that of a graph has the form of a role's.
    pub name: &'c RoleName,
    /// What it does.
    pub description: &'c str,
    /// Questions that belong to it.
    pub examples: &'c [String],
    /// Words that are looked for in the question.
    pub keywords: &'c [String],
}

impl<'c> CandidateDocument<'c> {
    /// The candidate of this name and profile.
    pub fn of_profile(name: &'c RoleName, profile: &'c CandidateProfile) -> Self {
        let CandidateProfile { description, examples, keywords } = profile;
        Self { name, description, examples, keywords }
    }

    /// The texts that are compared with questions, all of which need an embedding.
    pub fn texts(self) -> impl Iterator<Item = &'c str> {
        std::iter::once(self.description).chain(self.examples.iter().map(String::as_str))
    }
}

/// Whether a candidate's rule matches a text.
///
/// # Errors
/// The condition cannot be evaluated: it reaches a fault with this text only.
pub fn rule_matches(rule: &Condition, text: &str) -> Result<bool, condition::Error> {
    let (task, nodes, values, output) = (json!({"input": text}), NodeOutputs::new(), GraphValues::new(), json!(text));
    rule.holds(ConditionScope { task: &task, nodes: &nodes, values: &values, output: &output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_the_text_as_the_input_of_a_task() {
        let rule = Condition::parse("task.input.contains('GPU')").unwrap();
        assert_eq!(rule_matches(&rule, "My GPU"), Ok(true));
        assert_eq!(rule_matches(&rule, "My dog"), Ok(false));
    }

    #[test]
    fn a_rule_may_fail_with_one_text_and_not_with_another() {
        let rule = Condition::parse("12 / size(task.input) > 3").unwrap();
        assert_eq!(rule_matches(&rule, "GPU"), Ok(true));
        assert!(rule_matches(&rule, "").is_err(), "it divides by zero");
    }

    #[test]
    fn the_description_comes_before_the_examples_and_keywords_are_no_texts() {
        let profile = CandidateProfile {
            description: "Sails.".to_owned(),
            examples: vec!["Which sail?".to_owned()],
            keywords: vec!["mast".to_owned()],
        };
        let name = RoleName::parse("sailor").unwrap();
        let document = CandidateDocument::of_profile(&name, &profile);
        assert_eq!(document.texts().collect::<Vec<_>>(), ["Sails.", "Which sail?"]);
    }
}
