//! The runtime of tasks: actors, on ractor, that run graphs of roles over engines.
//!
//! ```text
//! supervisor ─┬─ task runner (one per running task): decides, journals, applies, publishes
//!             ├─ expert      (one per role): admits steps, renders prompts, streams from an engine
//!             ├─ router      : scores candidate roles for a question
//!             ├─ engine host (one per model): loads the engine where the scheduler places it, and again when it ends
//!             └─ model scheduler: decides which models are loaded on which devices, and which are evicted
//! ```
//!
//! Submissions, answers and cancellations come in through a [`Runtime`] handle; [events](artel_stream) go out to subscribers. Tokens never
//! pass a mailbox: an expert runs each step in a tokio task of its own, which sends them straight to the task's channel. No
//! actor waits inside its mailbox for a model. A role's steps wait in one queue, with the limits of the newest catalog.
//!
//! Limits, pauses and ages are measured with a monotonic clock; what people read is wall time ([`Clock`]).
//!
//! A step that holds others, the items of a list or a sub-graph, is not sent to an actor: the task runner starts the steps
//! inside of it. Dropping a step's guard cancels it in the engine, however it or a step around it ends. A question to a person
//! is an event; [`Runtime::answer`] passes the answer to the task runner.
//!
//! What happens when an actor panics:
//!
//! | actor | its steps | afterwards |
//! |---|---|---|
//! | task runner | are cancelled in the engine | the supervisor restarts it from the journal, [`MAX_TASK_RESTARTS`] times; then the task is set aside |
//! | expert | those in its mailbox fail as `interrupted`, which is retried; running ones continue | it is restarted with the next step |
//! | an expert's work on one step | fails as `interrupted`, which is retried | the expert continues |
//! | router | decisions in its mailbox fail as `interrupted`, which is retried; others continue | it is restarted with the next question, and embeds the roles again |
//! | engine host | continue, since they hold the engine; those that wait for it fail as `model_unavailable`, which is retried | it is restarted with the next step, and loads the engine again |
//! | model scheduler | continue; those that wait for a model wait for the next scheduler | it is restarted at once, and every engine host reports its status to it |
//! | supervisor | are cut off | [`Runtime::stopped`] resolves, the daemon exits with an error, tasks resume at the next start |
//!
//! Engine hosts and the model scheduler are actors of [`artel_hosting`]. This crate knows no tonic and no llama.cpp: engines
//! come from a [`Loader`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod commit_barrier;
mod completion;
mod expert;
mod response_cache;
mod retry;
mod runtime;
mod step_place;
mod supervisor;
mod task_history;
mod task_runner;
#[cfg(test)]
mod tests;

// The fixtures of the tests name this crate as the tests outside of it do.
#[cfg(test)]
extern crate self as artel_actors;

pub use answer::Answer;
pub use artel_admission::{CallerQuota, QuotaExcess};
pub use artel_engine::{PooledInput, PooledTexts};
pub use artel_hosting::engine_host::{EngineReport, EngineState};
pub use artel_hosting::model_scheduler::ModelMove;
pub use artel_hosting::{LoadProgress, Loader, MemoryDemand, zero_footprint};
pub use artel_retrieval as knowledge;
pub use artel_stream::{StepProgress, StreamItem, TaskSubscription, ToolCallPart};
pub use artel_task::Clock;
pub use runtime::{
    AnswerToRate, Candidates, DrainReport, EmbeddedAs, EraseReport, Error, Fork, KnowledgeOptions, Options,
    PreviewOptions, Runtime, SearchError, Submission, Target, TextsRequest, TokenizeError, Viewer,
};
pub use supervisor::MAX_TASK_RESTARTS;
