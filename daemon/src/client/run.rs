//! `artel run` and `artel task watch`: a task's events until its end.

use std::time::Duration;

use artel_proto::v1::{CancelRequest, RunRequest, WatchRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::Session;
use super::connect::{Daemon, prompt};
use super::error::{Error, Exit};
use super::feed::Feed;
use super::submit;
use super::tell::Teller;
use crate::args::Submit;

/// How long the last word to the daemon may take when nobody waits for it.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Hands in a task and tells what happens to it; Ctrl-C cancels it.
pub(super) async fn run(session: &mut Session, submit: Submit) -> Result<Exit, Error> {
    let request = RunRequest { submit: Some(submit::request(submit)), cancel_on_disconnect: true };
    let stream = session.daemon.tasks().run(request).await?.into_inner();
    // From here on Ctrl-C is ours; before, it ends the program, and the daemon cancels what it has accepted.
    let interrupts = signal(SignalKind::interrupt())?;
    let feed = Feed::new(session.address.clone(), stream, String::new(), 0, true);
    let teller = Teller::new(&mut session.output);
    Run { feed, teller, interrupts, cancelling: false }.until_end().await
}

/// Tells what happened to a task and what happens; Ctrl-C ends the watching alone.
pub(super) async fn watch(session: &mut Session, id: String, after: u64, tokens: bool) -> Result<Exit, Error> {
    let request = WatchRequest { task_id: id.clone(), after_seq: after, tokens };
    let stream = session.daemon.tasks().watch(request).await?.into_inner();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut feed = Feed::new(session.address.clone(), stream, id, after, tokens);
    let mut teller = Teller::new(&mut session.output);
    loop {
        tokio::select! {
            heard = feed.next() => match heard? {
                Some(heard) => teller.tell(&heard)?,
                None => return Ok(teller.exit()),
            },
            _ = interrupts.recv() => return Ok(Exit::Done),
        }
    }
}

/// A task that runs as long as somebody reads its events.
struct Run<'a> {
    feed: Feed,
    teller: Teller<'a>,
    interrupts: Signal,
    cancelling: bool,
}

impl Run<'_> {
    async fn until_end(mut self) -> Result<Exit, Error> {
        loop {
            tokio::select! {
                heard = self.feed.next() => {
                    let Some(heard) = heard? else { break };
                    if let Err(closed) = self.teller.tell(&heard) {
                        self.abandon().await;
                        return Err(closed.into());
                    }
                }
                _ = self.interrupts.recv() => {
                    if self.cancelling || !self.cancel().await? {
                        self.abandon().await;
                        return Ok(Exit::Failed);
                    }
                }
            }
        }
        Ok(self.teller.exit())
    }

    /// Cancels the task; false if it cannot be waited for.
    async fn cancel(&mut self) -> Result<bool, Error> {
        self.cancelling = true;
        if self.feed.task().is_none() {
            return Ok(false);
        }
        self.teller.note("cancelling the task; Ctrl-C again leaves at once")?;
        tokio::select! {
            cancelled = cancel(&self.feed, "interrupted on the command line") => cancelled.map(|()| true),
            _ = self.interrupts.recv() => Ok(false),
        }
    }

    /// Leaves for good. The daemon cancels the task when its first stream closes; a later stream has no such power.
    async fn abandon(&self) {
        if self.feed.rejoined() && !self.cancelling {
            let _ = timeout(LAST_WORD, cancel(&self.feed, "nobody reads it any more")).await;
        }
    }
}

/// Cancels a feed's task over a connection of its own, since the feed's may be broken.
async fn cancel(feed: &Feed, reason: &str) -> Result<(), Error> {
    let Some(task_id) = feed.task().map(str::to_owned) else { return Ok(()) };
    let daemon = Daemon::connect(feed.address()).await?;
    let request = CancelRequest { task_id, reason: reason.to_owned(), step_id: String::new() };
    daemon.tasks().cancel(prompt(request)).await?;
    Ok(())
}
