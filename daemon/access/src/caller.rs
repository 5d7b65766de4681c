//! Callers.

use artel_task::CallerName;

use crate::scope::{AccessScope, ScopeSet};
use crate::token::TokenLimits;

/// The one that makes a call, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token, or `owner`. Tasks carry it.
    pub name: CallerName,
    /// The scopes.
    pub scopes: ScopeSet,
    /// How much it may ask for. Those of tasks are kept where tasks run.
    pub limits: TokenLimits,
}

impl Caller {
    /// The user whose daemon it is, with every scope and without limits.
    pub fn owner() -> Self {
        Self { name: CallerName::owner(), scopes: ScopeSet::all(), limits: TokenLimits::default() }
    }

    /// Whether the caller has this right.
    pub fn may(&self, scope: AccessScope) -> bool {
        self.scopes.allows(scope)
    }
}
