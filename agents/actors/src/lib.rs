//! The actors that run a crew, on ractor.
//!
//! ```text
//! supervisor ─┬─ conductor (one per running task): decides, journals, applies, announces
//!             ├─ expert    (one per role): admits steps, renders prompts, streams from an engine
//!             ├─ router    : scores candidate roles for a question
//!             ├─ keeper    (one per model): loads the engine where the fleet says, loads it again when it ends
//!             └─ fleet     : decides what is loaded where, and who goes to make room
//! ```
//!
//! A step that holds others, the items of a list or a sub-graph, is nobody's work: its conductor begins what lies inside of it,
//! and dropping a step's guard cancels it in the engine, whoever ended it or a step around it. A question to a person is an event;
//! [`Crew::answer`] brings the answer to the conductor.
//!
//! Others hold a [`Crew`]. Tokens never pass a mailbox: an expert's work runs in a task of its own and sends them straight to
//! the task's [`feed`]. No actor waits inside its mailbox for a model.
//!
//! What happens when one panics:
//!
//! | actor | its steps | afterwards |
//! |---|---|---|
//! | conductor | are cancelled in the engine | the supervisor starts it again from the journal, [`MAX_REVIVALS`] times; then the task fails |
//! | expert | those in its mailbox fail as `interrupted`, which is retried; those that run go on | it is started again with the next step |
//! | an expert's work on one step | fails as `interrupted`, which is retried | the expert goes on |
//! | router | decisions in its mailbox fail as `interrupted`, which is retried; others go on | it is started again with the next question, and embeds the roles anew |
//! | keeper | run on, since they hold the engine; those that wait for it fail as `model_unavailable`, which is retried | it is started again with the next step, and loads the engine again |
//! | fleet | run on; those that wait for a model wait for the next fleet | it is started again at once, and told how things stand |
//! | supervisor | are cut off | [`Crew::ended`] resolves, the daemon exits with an error, tasks resume at the next start |
//!
//! This crate knows no tonic and no llama.cpp: engines come from a [`Loader`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ahead;
mod begun;
mod cache;
mod clock;
mod conductor;
mod crew;
mod demand;
mod expert;
pub mod feed;
mod fleet;
mod keeper;
mod line;
mod loader;
mod report;
mod retry;
mod router;
mod supervisor;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use conductor::Answer;
pub use crew::{Candidates, Crew, Error, Fork, Listening, Options, Submission, Target};
pub use demand::Demand;
pub use feed::{Live, Stage, Watch};
pub use fleet::Move;
pub use keeper::{EngineReport, EngineState};
pub use loader::{Loader, Progress, nothing};
pub use supervisor::MAX_REVIVALS;
