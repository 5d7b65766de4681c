//! Runs of trainings: prepared, trained, checked and kept, across the ends of the daemon.
//!
//! A run is a directory. [`TrainingRuns`] writes into it what an [`artel_trainer`] process trains from, follows that process, has the
//! adapter converted by [`artel_peft`] and measured by llama.cpp, and keeps a [`RunRecord`] of it, which is replaced as a whole when the
//! run comes to another state. A run that had not ended goes on when the daemon is started again. Engines are seen through a
//! [`TrainingHost`].
//!
//! This crate knows no gRPC, no actors and no llama.cpp.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cell;
mod check;
mod curve;
mod error;
mod host;
mod job;
mod prepare;
mod progress;
mod record;
mod run_data;
mod run_dir;
mod run_id;
mod runs;

pub use cell::RunView;
pub use curve::LossPoint;
pub use error::{Error, RunFailure};
pub use host::{HostError, LossRequest, MeasuredLoss, SampleTokens, TrainingHost};
pub use prepare::RunPlan;
pub use progress::{RunForecast, RunProgress, TrainingStep};
pub use record::{AdapterFile, HeldOutLosses, RunRecord, RunState};
pub use run_data::RunData;
pub use run_id::RunId;
pub use runs::{Options, TrainingRuns};
