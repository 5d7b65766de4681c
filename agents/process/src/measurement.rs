//! The loss of a model over given answers, measured by a process of its own: an abort of llama.cpp ends the measurement alone, and
//! the process computes at the lowest priority.
//!
//! [`measure`] starts a program, writes one [`Request`] to its standard input as a line of JSON, and keeps that open: when it
//! closes, the process ends. In that program, [`serve_on_stdin`] answers on standard output with lines of progress and a last one
//! with the result. Both ends are the same binary.

mod process;
mod serving;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use process::{Error, Program, measure};
pub use serving::serve_on_stdin;

/// What is measured, and how. The program interprets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The GGUF file; any piece of a model in pieces.
    pub model: PathBuf,
    /// Adapters, each with its scale.
    pub adapters: Vec<(PathBuf, f32)>,
    /// A file with a sample in each line: a JSON object with the tokens `prompt` and `answer`, and the text `origin`.
    pub samples: PathBuf,
    /// Where a copy of the model without quantized weights is written, which is then measured; `None`: the model is measured as it
    /// is, and so is one that has no quantized weights.
    pub f16: Option<PathBuf>,
    /// Compute threads.
    pub threads: u32,
    /// Tokens of a sample; `None`: those of the longest one.
    pub context: Option<u32>,
    /// The devices to use, by name; `None`: all GPUs, or the CPU if there are none.
    pub devices: Option<Vec<String>>,
    /// The layers on `devices`; `None`: all.
    pub gpu_layers: Option<u32>,
}

/// How far a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// The copy without quantized weights is written to this fraction, from 0 to 1.
    Dequantized {
        /// The fraction.
        fraction: f32,
    },
    /// So many samples are computed.
    Computed {
        /// Samples that are done.
        samples: u64,
        /// All samples.
        of: u64,
    },
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The sum of the negative log-likelihoods of all answer tokens, in nats.
    pub nats: f64,
    /// Answer tokens.
    pub tokens: u64,
    /// Samples.
    pub samples: u64,
    /// The size of the copy without quantized weights, if one was written.
    pub f16_bytes: Option<u64>,
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
pub struct Failure {
    /// The sentence.
    pub message: String,
    /// Whether the same measurement may succeed later: memory or disk space may be free then.
    pub is_transient: bool,
}

/// A line of standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Measured(Measured),
    Failed(Failure),
}
