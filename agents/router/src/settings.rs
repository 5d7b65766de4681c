//! Router settings: the weights of signals, the background of "no match", and the calibration of the confidence.

use std::collections::BTreeMap;

use artel_task::ModelName;
use artel_task::event::Signal;

/// How a router weighs its signals.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterSettings {
    /// The signals that are scored, apart from rules: a rule that matches decides.
    pub signals: BTreeMap<Signal, SignalWeight>,
    /// The logit of "no match" before its signals.
    pub bias: f64,
    /// Above 1 every decision is less confident, below 1 more.
    pub temperature: f64,
    /// Questions that belong to no candidate.
    pub background: Vec<String>,
    /// The chat model of the signal `label`.
    pub label_model: Option<ModelName>,
}

/// The weight of a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalWeight {
    /// Logits per deviation, beside the other signals.
    pub weight: f64,
    /// The mean of the scores, which is subtracted.
    pub mean: f64,
    /// The standard deviation of the scores, by which the rest is divided.
    pub deviation: f64,
    /// Weight and bias where a router uses this signal alone.
    pub alone: (f64, f64),
}
