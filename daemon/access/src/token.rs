//! Tokens, without their secrets.

use std::num::{NonZeroU32, NonZeroU64};

use artel_task::CallerName;
use artel_task::event::Timestamp;
use serde::{Deserialize, Serialize};

use crate::scope::ScopeSet;

/// A token: the caller that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The name of the caller; no other token has it.
    pub name: CallerName,
    /// What the caller may do.
    pub scopes: ScopeSet,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None`: when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How much the caller may ask for.
    #[serde(default)]
    pub limits: TokenLimits,
}

impl AccessToken {
    /// Whether its end has come.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }
}

/// How much a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenLimits {
    /// Calls in a minute, all of which may come at once; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<NonZeroU32>,
    /// Streams that are open at the same time; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<NonZeroU32>,
    /// Tasks that are open at the same time; `None`: any number. They are counted where tasks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_tasks: Option<NonZeroU32>,
    /// Model tokens that its tasks use in a day; `None`: any number. They are counted where tasks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<NonZeroU64>,
}
