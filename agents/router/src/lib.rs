//! How a router decides: which role, or which graph, answers a question.
//!
//! ```text
//! question ── signals ──> scores ── weights ──> probabilities ── policy ──> decision
//!    RoutingIndex::scores     RouterSettings::probabilities    RoutingPolicy::decide
//! ```
//!
//! Candidates are scored, never generated: whatever the question, the winner is one of them. Each signal scores every
//! candidate and "no match"; the settings turn the scores into probabilities, of which the winner's is the confidence; the
//! policy compares it with a threshold. Nothing is trained for a single role, so that a new one is routable at once.
//!
//! | signal | score of a candidate | source |
//! |---|---|---|
//! | `rule` | whether its condition holds; then candidates without such a rule have no chance | |
//! | `embedding` | the mean cosine of its three nearest texts | k nearest neighbours |
//! | `linear` | a ridge regression over the embeddings of all texts, solved in closed form | Hoerl and Kennard, 1970 |
//! | `keyword` | BM25 over its description, examples and keywords | Robertson and Zaragoza, 2009 |
//! | `label` | the log-probability of its name, less that after a content-free question | Zhao et al., 2021 |
//!
//! A signal gives each candidate a score `x`. With `z = (x - mean) / deviation`, the candidate's logit is the sum of
//! `weight * z` over the signals; "no match" competes with `bias` plus the same sum over the scores of the background. A
//! softmax over all logits, divided by the temperature, gives the probabilities (temperature scaling: Guo et al., 2017). No
//! weight belongs to a role.
//!
//! [`fit`] finds weights and temperature from labelled cases, by McFadden's conditional logit; [`evaluation`] measures accuracy,
//! rejections and the expected calibration error.
//!
//! Embeddings and the log-probabilities of names are arguments, [`QuestionEvidence`], that the caller has an engine compute.
//! This crate does no IO and knows no engine, no actor, no clock and no YAML.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidate;
mod embedding;
pub mod evaluation;
pub mod fit;
mod index;
mod keyword;
mod label;
mod linear;
mod nearest;
mod policy;
mod probabilities;
mod settings;
mod signal_scores;

pub use candidate::{CandidateDocument, CandidateProfile, rule_matches};
pub use embedding::Embedding;
pub use index::{QuestionEvidence, RoutingIndex, truncate_question};
pub use label::LabelPrompt;
pub use policy::{RoutingPolicy, needs_embeddings};
pub use settings::{RouterSettings, SignalWeight};
pub use signal_scores::{SignalScores, SignalValues};
