//! The commands that need a daemon: send a request, receive the answer, and print it.
//!
//! Each noun has a file. Commands come in parsed, requests go out over gRPC, and answers go through `render` as text or
//! through `json` as JSON, both pure. An [`Error`] becomes a message and an exit code here, in one place. How a daemon works
//! is not known here: only its protos are, where its socket and its token lie, and the files of a catalog or of labelled cases that a
//! request carries.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalog;
mod connect;
mod data;
mod engines;
mod erase;
mod error;
mod event_printer;
mod event_stream;
mod graph;
mod json;
mod knowledge;
mod location;
mod log;
mod models;
mod received_files;
mod render;
mod route;
mod run;
mod session;
mod submit;
mod task;
mod token;
mod train;

use std::process::ExitCode;

use artel_args::{ClientCommand, GlobalArgs};
use artel_terminal::{CommandOutcome, CommandOutput, print_to_stderr};

use session::ClientSession;

pub use connect::{BearerToken, DaemonChannel, DaemonClient};
pub use error::Error;
pub use location::DaemonLocation;

/// Runs a command and prints its result; errors go to standard error.
///
/// Needs a tokio runtime with time, net and signals.
pub async fn run(command: ClientCommand, global: &GlobalArgs) -> ExitCode {
    let outcome = match perform(command, global).await {
        Ok(outcome) => outcome,
        Err(error) => {
            print_to_stderr(global.color, |out| error.render(out));
            error.outcome()
        }
    };
    outcome.into()
}

async fn perform(command: ClientCommand, global: &GlobalArgs) -> Result<CommandOutcome, Error> {
    // Invalid input is rejected before the daemon is contacted.
    let command = submit::read_texts(command)?;
    let location = DaemonLocation::find(global)?;
    let daemon = DaemonClient::connect(&location).await?;
    let mut session = ClientSession { location, daemon, output: CommandOutput::new(global) };
    let result =
        dispatch(&mut session, command).await.map_err(|error| error.with_token_origin(session.location.token_origin()));
    // The unfinished line is written even after an error.
    let finished = session.output.finish_status_line();
    let outcome = result?;
    finished?;
    Ok(outcome)
}

async fn dispatch(session: &mut ClientSession, command: ClientCommand) -> Result<CommandOutcome, Error> {
    match command {
        ClientCommand::Run(submit) => run::run(session, submit).await,
        ClientCommand::Task(command) => task::run(session, command).await,
        ClientCommand::Catalog(command) => catalog::run(session, command).await,
        ClientCommand::Graph(command) => graph::run(session, command).await,
        ClientCommand::Route(route) => route::run(session, route).await,
        ClientCommand::Embed(args) => models::embed(session, args).await,
        ClientCommand::Rerank(args) => models::rerank(session, args).await,
        ClientCommand::Knowledge(command) => knowledge::run(session, command).await,
        ClientCommand::Data(command) => data::run(session, command).await,
        ClientCommand::Train(command) => train::run(session, command).await,
        ClientCommand::Log(command) => log::run(session, command).await,
        ClientCommand::Token(command) => token::run(session, command).await,
        ClientCommand::Devices => engines::devices(session).await,
        ClientCommand::Engines => engines::engines(session).await,
        ClientCommand::Plan { models } => engines::plan(session, models).await,
        ClientCommand::Load { model } => engines::load(session, model).await,
        ClientCommand::Unload { model, interrupt } => engines::unload(session, model, interrupt).await,
    }
}
