//! `artel run` and `artel task watch`: print the events of a task until it ends or is set aside.

use std::time::Duration;

use artel_args::SubmitArgs;
use artel_proto::v1::{CancelRequest, RunRequest, WatchRequest};
use artel_terminal::CommandOutcome;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::connect::{DaemonClient, with_deadline};
use crate::error::Error;
use crate::event_printer::EventPrinter;
use crate::event_stream::EventStream;
use crate::session::ClientSession;
use crate::submit;

/// On exit, cancelling the task may take this long.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Submits a task and prints its events; Ctrl-C cancels it.
pub(super) async fn run(session: &mut ClientSession, submit: SubmitArgs) -> Result<CommandOutcome, Error> {
    let request = RunRequest { submit: Some(submit::request(submit)?), cancel_on_disconnect: true };
    let stream = session.daemon.tasks().run(request).await?.into_inner();
    // Before this line, Ctrl-C ends the program and the daemon cancels the accepted task.
    let interrupts = signal(SignalKind::interrupt())?;
    let events = EventStream::new(session.location.clone(), stream, String::new(), 0, true);
    let printer = EventPrinter::new(&mut session.output);
    ForegroundRun { events, printer, interrupts, cancelling: false }.until_end().await
}

/// Prints the past and future events of a task; Ctrl-C stops watching, not the task.
pub(super) async fn watch(
    session: &mut ClientSession,
    id: String,
    after: u64,
    tokens: bool,
) -> Result<CommandOutcome, Error> {
    let request = WatchRequest { task_id: id.clone(), after_seq: after, tokens };
    let stream = session.daemon.tasks().watch(request).await?.into_inner();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut events = EventStream::new(session.location.clone(), stream, id, after, tokens);
    let mut printer = EventPrinter::new(&mut session.output);
    loop {
        tokio::select! {
            update = events.next() => match update? {
                Some(update) => printer.print(&update)?,
                None => return Ok(printer.finish()?),
            },
            _ = interrupts.recv() => return Ok(CommandOutcome::Done),
        }
    }
}

/// A task that is cancelled when its events are no longer read.
struct ForegroundRun<'a> {
    events: EventStream,
    printer: EventPrinter<'a>,
    interrupts: Signal,
    cancelling: bool,
}

impl ForegroundRun<'_> {
    async fn until_end(mut self) -> Result<CommandOutcome, Error> {
        loop {
            tokio::select! {
                update = self.events.next() => {
                    let Some(update) = update? else { break };
                    if let Err(closed) = self.printer.print(&update) {
                        self.abandon().await;
                        return Err(closed.into());
                    }
                }
                _ = self.interrupts.recv() => {
                    if self.cancelling || !self.cancel().await? {
                        self.abandon().await;
                        return Ok(CommandOutcome::Failed);
                    }
                }
            }
        }
        Ok(self.printer.finish()?)
    }

    /// Cancels the task; false if its end cannot be awaited.
    async fn cancel(&mut self) -> Result<bool, Error> {
        self.cancelling = true;
        if self.events.task().is_none() {
            return Ok(false);
        }
        self.printer.note("cancelling the task; press Ctrl-C again to exit at once")?;
        tokio::select! {
            cancelled = cancel(&self.events, "interrupted on the command line") => cancelled.map(|()| true),
            _ = self.interrupts.recv() => Ok(false),
        }
    }

    /// Prepares the exit. The daemon cancels the task when the first stream closes, but not when a later one does.
    async fn abandon(&self) {
        if self.events.has_reconnected() && !self.cancelling {
            let _ = timeout(CANCEL_TIMEOUT, cancel(&self.events, "the client exited")).await;
        }
    }
}

/// Cancels the task of a stream over a new connection, because that of the stream may be broken.
async fn cancel(events: &EventStream, reason: &str) -> Result<(), Error> {
    let Some(task_id) = events.task().map(str::to_owned) else { return Ok(()) };
    let daemon = DaemonClient::connect(events.location()).await?;
    let request = CancelRequest { task_id, reason: reason.to_owned(), step_id: String::new() };
    daemon.tasks().cancel(with_deadline(request)).await?;
    Ok(())
}
