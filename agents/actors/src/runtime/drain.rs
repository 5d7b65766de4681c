//! Stopping the runtime: in phases, each of which ends in bounded time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use artel_engine::EngineHandle;
use artel_hosting::engine_host;
use ractor::{RactorErr, call};
use tokio::time::timeout;

use super::Runtime;
use crate::supervisor::Message;

/// Time for submissions that are not on disk yet, beside the grace period: a commit on a slow disk.
const SUBMISSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for actors to answer or to stop. Their handlers wait for nothing but the journal.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an actor to stop that is cut off in the middle of its work.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that engines have to end when the daemon stops: a batch of a large model on a slow machine.
const ENGINE_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a runtime leaves when it has stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Tasks that have not ended; they resume at the next start.
    pub unfinished: usize,
    /// What did not end in its time, such as `2 submissions`. What was acknowledged of it is on disk.
    pub overdue: Vec<String>,
}

impl Runtime {
    /// Accepts no more tasks, gives running ones so much time, leaves the rest for the next start, ends the engines and
    /// closes the journal. What hangs is left behind: this returns half a minute after the grace period at the latest. It can be
    /// called again while it runs, for a shorter grace period.
    pub async fn drain(&self, grace: Duration) -> DrainReport {
        self.is_draining.store(true, Ordering::Release);
        self.submissions.close();
        let mut overdue = Vec::new();
        self.finish_tasks(grace).await;
        if timeout(SUBMISSION_TIMEOUT, self.submissions.wait()).await.is_err() {
            overdue.push(format!("{} submissions", self.submissions.len()));
        }
        let unfinished = self.running_tasks();
        if let Some(retrieval) = &self.shared.retrieval
            && timeout(ACTOR_TIMEOUT, retrieval.close()).await.is_err()
        {
            overdue.push("the index of knowledge".to_owned());
        }
        let engines = timeout(ACTOR_TIMEOUT, self.unload_engines()).await.unwrap_or_else(|_| {
            overdue.push("the hosts of engines".to_owned());
            Vec::new()
        });
        if !self.stop_actors().await {
            overdue.push("the actors of tasks".to_owned());
        }
        self.shared.channels.close_all();
        let closed = engines.iter().map(|engine| timeout(ENGINE_CLOSE_TIMEOUT, engine.close()));
        let hanging = futures::future::join_all(closed).await.iter().filter(|closed| closed.is_err()).count();
        if hanging > 0 {
            overdue.push(format!("{hanging} engines"));
        }
        if !self.shared.journal.clone().close().await {
            let is_purging = self.shared.journal.is_purging();
            let cause = if is_purging { "which is written anew for an erase" } else { "whose disk hangs" };
            overdue.push(format!("the journal, {cause}"));
        }
        DrainReport { unfinished, overdue }
    }

    /// Waits for submissions and busy tasks until the grace period is over.
    async fn finish_tasks(&self, grace: Duration) {
        // A task that waits for a person's answer can wait while the daemon is down.
        let mut busy = self.shared.busy_tasks.subscribe();
        let idle = async {
            self.submissions.wait().await;
            let _ = busy.wait_for(|busy| *busy == 0).await;
        };
        tokio::select! {
            _ = timeout(grace, idle) => {}
            // A runtime that stopped by itself has nothing to wait for.
            () = self.stopped() => {}
        }
    }

    /// Stops the supervisor, and with it task runners: what they have committed is on disk. Whether it ended in time.
    async fn stop_actors(&self) -> bool {
        let stopped = self.supervisor.stop_and_wait(None, Some(ACTOR_TIMEOUT)).await;
        if !matches!(stopped, Err(RactorErr::Timeout)) {
            // Another error means that it has stopped already.
            return true;
        }
        let _ = self.supervisor.kill_and_wait(Some(KILL_TIMEOUT)).await;
        false
    }

    async fn unload_engines(&self) -> Vec<EngineHandle> {
        let Ok(hosts) = call!(self.supervisor, Message::EngineHosts) else { return Vec::new() };
        let mut handles = Vec::new();
        for host in hosts {
            handles.extend(call!(host, engine_host::Message::Unload).ok().flatten());
        }
        handles
    }
}
