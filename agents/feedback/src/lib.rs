//! What people say: feedback on the decisions of routers, and ratings and corrections of answers.
//!
//! Each is a file of JSON lines beside the journal. A record is on disk before it is acknowledged. They are no part of the
//! database, since they outlive the tasks that they are about: routers are fitted to feedback, and adapters are trained on ratings.
//!
//! This crate knows no router, no role and no gRPC. A record has what its readers need, without the task.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod feedback;
mod rating;
mod record_file;

pub use feedback::{FeedbackRecord, FeedbackStore};
pub use rating::{AnswerRating, RatedMessage, RatingRecord, RatingStore};
pub use record_file::{Error, RecordFile, StepRecord};
