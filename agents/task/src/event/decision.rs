//! Router decisions and their scores.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RoleName;

/// A router's decision. Fields added later have defaults, so that older journals can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The chosen role. If the candidates were graphs, the graph's name: all names have the same form.
    pub role: RoleName,
    /// The chosen roles, best first and including `role`, if the node selects the best several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// Whether `role` and the candidates are graphs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub graphs: bool,
    /// The confidence in `role`, from 0 to 1.
    pub confidence: f64,
    /// The difference between the best and the second-best score.
    #[serde(default)]
    pub margin: f64,
    /// Whether no candidate reached the threshold, so that the node's `otherwise` was chosen.
    pub otherwise: bool,
    /// The deciding signal, such as `embedding`; `combined` if there were several.
    pub signal: String,
    /// Every candidate, best first.
    pub scores: Vec<CandidateScore>,
    /// The score of "none of the above", the evidence against every candidate.
    #[serde(rename = "none", default, skip_serializing_if = "Option::is_none")]
    pub no_match: Option<NoMatch>,
    /// How long the decision took.
    #[serde(rename = "took")]
    pub elapsed: Duration,
    /// Tokens computed for it.
    pub tokens: u32,
    /// Of these, the tokens computed once to embed the candidates; they are charged to no task.
    #[serde(rename = "learned", default)]
    pub warmup_tokens: u32,
}

/// A candidate's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateScore {
    /// The candidate.
    pub role: RoleName,
    /// From 0 to 1; the scores of one decision need not add up to 1.
    pub score: f64,
    /// The score of each signal, on its own scale.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<Signal, f64>,
}

/// The probability that a question belongs to no candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoMatch {
    /// From 0 to 1.
    pub score: f64,
    /// The score of each signal, on its own scale.
    pub signals: BTreeMap<Signal, f64>,
}

/// The kinds of evidence that a router combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A condition declared by the role.
    Rule,
    /// The embedding distance to the nearest text of the role.
    Embedding,
    /// A linear classifier trained on the texts of all roles.
    Linear,
    /// Keywords shared by the question and the role.
    Keyword,
    /// The probability that a chat model assigns to the role's name.
    Label,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 5] = [Self::Rule, Self::Embedding, Self::Linear, Self::Keyword, Self::Label];

    /// Its name in YAML and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Embedding => "embedding",
            Self::Linear => "linear",
            Self::Keyword => "keyword",
            Self::Label => "label",
        }
    }

    /// The signal of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_of_an_older_journal_is_read() {
        let old = r#"{"role":"gpu","confidence":0.5,"otherwise":false,"signal":"embedding",
            "scores":[{"role":"gpu","score":0.5}],"took":{"secs":0,"nanos":5},"tokens":9}"#;
        let decision: Decision = serde_json::from_str(old).unwrap();
        assert_eq!((decision.role.as_str(), decision.no_match, decision.roles.len()), ("gpu", None, 0));
        assert!(decision.scores[0].signals.is_empty());
    }

    #[test]
    fn signals_have_one_name_everywhere() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.as_str()), Some(signal));
            assert_eq!(serde_json::to_value(signal).unwrap(), signal.as_str());
        }
    }
}
