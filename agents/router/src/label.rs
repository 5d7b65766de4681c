//! The label signal: the log-probability that a chat model gives each candidate's name, in one pass over the question. The list
//! of candidates before it is prefilled once and shared, and the names are scored in parallel, so that nothing is generated.
//!
//! Models favour some names regardless of the question. Contextual calibration (Zhao et al., 2021, "Calibrate Before Use")
//! subtracts the scores after a content-free question.

use std::fmt::Write as _;

use crate::candidate::CandidateDocument;

/// The name that stands for "no match".
const NO_MATCH_LABEL: &str = "none";
/// Characters of the list of candidates, which must fit into a context of 4096 tokens with the question.
const LIST_CHARS: usize = 9_000;
/// Characters of one description: its first sentence says the most.
const DESCRIPTION_CHARS: usize = 200;
/// Characters of a question: with the list it must fit into the context.
const QUESTION_CHARS: usize = 2_000;

/// The names of a set of candidates, and the prompt after which a chat model scores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelPrompt {
    list: String,
    labels: Vec<String>,
}

impl LabelPrompt {
    /// The content-free question whose scores are the baseline.
    pub const CONTENT_FREE_QUESTION: &'static str = "N/A";

    pub(crate) fn new(candidates: &[CandidateDocument<'_>]) -> Self {
        let line_chars = (LIST_CHARS / candidates.len().max(1)).min(DESCRIPTION_CHARS);
        let mut list = "Name the expert who should answer the question.\nExperts:\n".to_owned();
        for candidate in candidates {
            let description: String = candidate.description.chars().take(line_chars.saturating_sub(8)).collect();
            let _ = writeln!(list, "{}: {}", candidate.name, description.trim());
        }
        let _ = write!(list, "{NO_MATCH_LABEL}: none of these experts");
        let labels = candidates.iter().map(|candidate| candidate.name.to_string());
        let labels = labels.chain([NO_MATCH_LABEL.to_owned()]).collect();
        Self { list, labels }
    }

    /// The system message: the list of candidates, equal for every question.
    pub fn system_message(&self) -> &str {
        &self.list
    }

    /// The user message of a question.
    pub fn user_message(question: &str) -> String {
        let question: String = question.chars().take(QUESTION_CHARS).collect();
        format!("Question: {question}\nExpert:")
    }

    /// The texts to score: the name of each candidate and, last, that of "no match".
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// By how much a question raises the log-probability of each label above that after the content-free question.
    pub fn calibrate(scores: &[f64], baseline: &[f64]) -> Vec<f64> {
        scores.iter().zip(baseline).map(|(score, baseline)| score - baseline).collect()
    }
}

#[cfg(test)]
mod tests {
    use artel_task::RoleName;

    use super::*;

    fn prompt(names: &[String], description: &str) -> LabelPrompt {
        let names: Vec<RoleName> = names.iter().map(|name| RoleName::parse(name).unwrap()).collect();
        let document = |name| CandidateDocument { name, description, examples: &[], keywords: &[] };
        LabelPrompt::new(&names.iter().map(document).collect::<Vec<_>>())
    }

    #[test]
    fn every_candidate_and_no_match_has_a_line_and_a_label() {
        let prompt = prompt(&["gpu".to_owned(), "rag".to_owned()], " Knows things. ");
        let list = "Name the expert who should answer the question.\nExperts:\n\
                    gpu: Knows things.\nrag: Knows things.\nnone: none of these experts";
        assert_eq!(prompt.system_message(), list);
        assert_eq!(prompt.labels(), ["gpu", "rag", "none"]);
        assert_eq!(LabelPrompt::user_message("Why?"), "Question: Why?\nExpert:");
    }

    #[test]
    fn long_descriptions_and_questions_are_cut_so_that_they_fit() {
        let names: Vec<String> = (0..300).map(|n| format!("r{n}")).collect();
        let list = prompt(&names, &"слово ".repeat(100));
        assert!(list.system_message().chars().count() < LIST_CHARS + 300, "{}", list.system_message());
        assert_eq!(list.labels().len(), 301);
        let question = LabelPrompt::user_message(&"ы".repeat(10_000));
        assert_eq!(question.chars().filter(|c| *c == 'ы').count(), QUESTION_CHARS);
    }

    #[test]
    fn what_a_model_favours_anyway_is_subtracted() {
        let calibrated = LabelPrompt::calibrate(&[-0.5, -1.5, -2.0], &[-0.25, -3.0, -2.0]);
        assert_eq!(calibrated, [-0.25, 1.5, 0.0]);
    }
}
