//! The verbs that talk to a daemon: a request, an answer, and how it is shown.
//!
//! Each noun has a file. What is shown comes from [`render`] for people and [`json`] for programs, both pure; what goes
//! wrong comes back as an [`error::Error`] and becomes words and an exit code here, in one place.

mod catalog;
pub(crate) mod connect;
pub(crate) mod error;
mod feed;
mod fleet;
mod graph;
mod json;
pub(crate) mod output;
pub(crate) mod render;
mod route;
mod run;
mod submit;
mod task;
mod tell;

use std::process::ExitCode;

use crate::args::{Client, Global};
use connect::{Address, Daemon};
use error::{Error, Exit};
use output::{Output, complain};

/// A daemon that is there, and the place for its answers.
struct Session {
    address: Address,
    daemon: Daemon,
    output: Output,
}

/// Does what a verb says and shows what came of it. Errors go to standard error; the exit code follows from them.
///
/// Needs a tokio runtime with time, net and signals.
pub(crate) async fn run(verb: Client, global: &Global) -> ExitCode {
    let exit = match perform(verb, global).await {
        Ok(exit) => exit,
        Err(error) => {
            complain(global.color, |page| error.render(page));
            error.exit()
        }
    };
    exit.into()
}

async fn perform(verb: Client, global: &Global) -> Result<Exit, Error> {
    // What cannot be asked for is found before anybody is asked.
    let verb = submit::read_texts(verb)?;
    let address = global.address.clone();
    let daemon = Daemon::connect(&address).await?;
    let mut session = Session { address, daemon, output: Output::new(global) };
    let outcome = ask(&mut session, verb).await;
    // However it ended, the line that has begun stays.
    let settled = session.output.settle();
    let exit = outcome?;
    settled?;
    Ok(exit)
}

async fn ask(session: &mut Session, verb: Client) -> Result<Exit, Error> {
    match verb {
        Client::Run(submit) => run::run(session, submit).await,
        Client::Task(verb) => task::run(session, verb).await,
        Client::Catalog(verb) => catalog::run(session, verb).await,
        Client::Graph(verb) => graph::run(session, verb).await,
        Client::Route(route) => route::run(session, route).await,
        Client::Devices => fleet::devices(session).await,
        Client::Engines => fleet::engines(session).await,
        Client::Plan { models } => fleet::plan(session, models).await,
        Client::Load { model } => fleet::load(session, model).await,
        Client::Unload { model, interrupt } => fleet::unload(session, model, interrupt).await,
    }
}
