//! The loss of a model over given answers, measured by a process of its own: an abort of llama.cpp ends the measurement alone, and
//! the process computes at the lowest priority.
//!
//! [`measure`] starts a program, writes one [`MeasurementRequest`] to its standard input as a line of JSON, and keeps that open: when it
//! closes, the process ends. In that program, [`serve_on_stdin`] answers on standard output with a line with the result. Both ends
//! are the same binary.

mod process;
mod serving;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use process::{Error, Program, measure};
pub use serving::serve_on_stdin;

/// What is measured, and how. The program interprets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurementRequest {
    /// The GGUF file; any piece of a model in pieces.
    pub model: PathBuf,
    /// An adapter, which is applied as it is.
    pub adapter: Option<PathBuf>,
    /// A file with a sample in each line: a JSON object with the tokens `prompt` and `answer`, and the text `origin`.
    pub samples: PathBuf,
    /// Where a copy of the model without quantized weights is written, which is then measured; `None`: the model is measured as it
    /// is, and so is one that has no quantized weights.
    pub f16: Option<PathBuf>,
    /// Compute threads.
    pub threads: u32,
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The sum of the negative log-likelihoods of all answer tokens, in nats.
    pub nats: f64,
    /// Answer tokens.
    pub tokens: u64,
}

impl Measured {
    /// The mean negative log-likelihood of an answer token, in nats.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// Why a measurement failed: one sentence that says what, where and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct MeasurementFailure {
    /// The sentence.
    pub message: String,
    /// Whether the same measurement may succeed later: memory or disk space may be free then.
    pub is_transient: bool,
}

/// The line of standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Measured(Measured),
    Failed(MeasurementFailure),
}
