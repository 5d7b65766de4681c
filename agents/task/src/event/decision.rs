//! What a router decided, and by what.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RoleName;

/// What a router decided. Fields that came later have defaults, so that older journals are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The winner. Where graphs were the candidates, the graph's name: names have one form.
    pub role: RoleName,
    /// The roles that were chosen, best first and `role` among them, where the several best were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// Whether `role` and the candidates are graphs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub graphs: bool,
    /// From 0 to 1.
    pub confidence: f64,
    /// By how much the best candidate's score is above the second one's.
    #[serde(default)]
    pub margin: f64,
    /// Whether nobody was sure enough, so that the node's `otherwise` won.
    pub otherwise: bool,
    /// The signal that decided, such as `embedding`; `combined` if several did.
    pub signal: String,
    /// Every candidate, best first.
    pub scores: Vec<Score>,
    /// The same for "none of them", which is what speaks against every candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<Nobody>,
    /// How long it took.
    pub took: Duration,
    /// Tokens computed for it.
    pub tokens: u32,
    /// Of these, the ones that were computed once, to know the candidates: no task pays for them.
    #[serde(default)]
    pub learned: u32,
}

/// A candidate's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The candidate.
    pub role: RoleName,
    /// From 0 to 1; the scores of one decision need not add up to 1.
    pub score: f64,
    /// What each signal alone says, on its own scale.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<Signal, f64>,
}

/// How likely it is that a question belongs to no candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nobody {
    /// From 0 to 1.
    pub score: f64,
    /// What each signal alone says, on its own scale.
    pub signals: BTreeMap<Signal, f64>,
}

/// What a router listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A condition that the role states.
    Rule,
    /// The nearest of the role's texts.
    Embedding,
    /// All texts of all roles, as a linear classifier.
    Linear,
    /// Words that the question and the role have in common.
    Keyword,
    /// How likely a chat model thinks the role's name.
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
        assert_eq!((decision.role.as_str(), decision.none, decision.roles.len()), ("gpu", None, 0));
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
