//! The daemon from outside: the real binary, started on a free port of the loopback, with a journal of its own.
//!
//! Tests read as sentences: `daemon().with_yaml(ROLES).start().await.run(task_request("Hello")).await`. Nothing here waits
//! for time to pass: a test awaits the event that must come first on the stream of a task.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod book;
mod caller;
mod cli;
pub mod client_scripts;
mod daemon;
pub mod gguf_split;
pub mod https;
pub mod hub;
mod knowledge;
pub mod monitoring;
pub mod openai;
mod other_user;
mod prerequisites;
pub mod prometheus;
pub mod random_models;
pub mod raw_connection;
mod rpc_server;
pub mod scripted;
pub mod scripts;
mod task;
mod terminal_session;
mod test_catalog;
pub mod tiny_reranker;
pub mod tls_proxy;
mod token;
pub mod trace_collector;
mod until;

pub use caller::{CallerChannel, TokenHeader};
pub use cli::Cli;
pub use daemon::{Daemon, DaemonBuilder, daemon};
pub use other_user::{OTHER_USER_ID, program_for_other_user};
pub use prerequisites::{artel, models, python, repository, trainer_python};
pub use rpc_server::RpcServer;
pub use task::{TaskOutcome, TaskRequest, TaskStream, task_request};
pub use terminal_session::TerminalSession;
pub use test_catalog::test_catalog;
pub use until::until;
