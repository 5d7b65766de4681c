//! What a role learns from.
//!
//! [`collect`] reads the files and ratings of a [`Training`](artel_roles::Training) and makes samples of them: what the role's model
//! would read, by the templates that serve, and the answer that is right. What is no use is left out with a reason, and nothing is
//! dropped in silence. Some samples are held out: they are what a candidate will be measured by. [`DataReport`] says what is in the
//! samples that their owner should know before anything is trained on them.
//!
//! This crate knows no trainer, no engine and no gRPC. It reads files and changes none.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chat_line;
mod collect;
mod near_duplicates;
mod report;
mod sample;
mod secrets;
mod split;

pub use collect::{CollectError, TrainingData, collect};
pub use report::{DataFinding, DataReport, LengthSpread};
pub use sample::{LeftOutSample, Sample, SampleMessage, SampleOrigin};
