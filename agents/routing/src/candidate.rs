//! The candidates of a router: roles and graphs.

use std::sync::Arc;

use artel_roles::Role;
use artel_router::{CandidateDocument, CandidateProfile};
use artel_task::RoleName;

/// A role or graph that may be chosen.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// A role.
    Role(Arc<Role>),
    /// A graph, by its name, which has the form of a role's.
    Graph(RoleName, Arc<CandidateProfile>),
}

impl Candidate {
    pub(crate) fn name(&self) -> &RoleName {
        self.document().name
    }

    pub(crate) fn is_graph(&self) -> bool {
        matches!(self, Self::Graph(..))
    }

    /// Its texts.
    pub(crate) fn document(&self) -> CandidateDocument<'_> {
        match self {
            Self::Role(role) => CandidateDocument {
                name: &role.name,
                description: &role.description,
                examples: &role.examples,
                keywords: &role.keywords,
            },
            Self::Graph(name, profile) => CandidateDocument::of_profile(name, profile),
        }
    }

    /// Whether its own rule matches this text. A rule whose evaluation fails does not match: no task waits until the rule is
    /// repaired.
    pub(crate) fn rule_matches(&self, text: &str) -> bool {
        let Self::Role(role) = self else { return false };
        let Some(when) = &role.when else { return false };
        artel_router::rule_matches(when, text).unwrap_or_else(|error| {
            tracing::warn!(role = %role.name, %error, "failed to evaluate the rule of a role: it does not match");
            false
        })
    }

    /// Whether both are the same definition of the same catalog, or graphs of equal name and profile.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Role(one), Self::Role(other)) => Arc::ptr_eq(one, other) || one == other,
            (Self::Graph(one, profile), Self::Graph(other, others)) => one == other && profile == others,
            _ => false,
        }
    }
}
