//! The trainer's process: started, listened to, stopped.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{fmt, io};

use futures::Stream;
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::event_tail::{EventTail, EventTailError, TailedEvent, remove_half_line, until_ended};
use crate::interpreter::Interpreter;
use crate::output_tail::OutputTail;
use crate::process_group::ProcessGroup;
use crate::trainer_event::TrainerEvent;
use crate::trainer_outcome::TrainerOutcome;

/// The time for the last output of an exited process to arrive.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for a process that was killed to be gone. Longer if a driver or a network disk holds it in the kernel; then it is
/// not waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A run that is being trained. States: running, asked to pause (until a deadline), killed, ended. A task owns the process and
/// moves it through them; this is its handle, and dropping it kills the process with all that it started.
pub struct TrainerProcess {
    id: u32,
    run: PathBuf,
    order: watch::Sender<TrainerOrder>,
    ended: watch::Receiver<Option<TrainerOutcome>>,
}

/// What is to become of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrainerOrder {
    Run,
    /// Pause, and be killed at this time.
    Pause(Instant),
}

/// The trainer could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TrainerStartError {
    /// The process could not be started.
    #[error("start the trainer on {}: {source}", run.display())]
    Spawn {
        /// The run's directory.
        run: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The events of an earlier process could not be read.
    #[error(transparent)]
    Events(#[from] EventTailError),
}

impl TrainerStartError {
    /// Whether the trainer may be started later, with nothing changed in the run.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Spawn { .. } => true,
            Self::Events(error) => error.is_passing(),
        }
    }
}

impl TrainerProcess {
    /// Starts training a run, from its last checkpoint if it has one. It ends when this process does.
    ///
    /// # Errors
    /// The process cannot be started, or the events of an earlier one cannot be read.
    pub fn start(interpreter: Interpreter, run: &Path) -> Result<Self, TrainerStartError> {
        let begin_bytes = remove_half_line(run)?;
        let failed = |source| TrainerStartError::Spawn { run: run.to_owned(), source };
        let mut command = interpreter.command("train", run);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (mut child, group) = ProcessGroup::spawn(&mut command).map_err(failed)?;
        let id = group.id();
        let (order, orders) = watch::channel(TrainerOrder::Run);
        let (end, ended) = watch::channel(None);
        let events = EventTail::new(run, begin_bytes);
        let stdin = child.stdin.take();
        let process = OwnedProcess { child, group, events, _stdin: stdin, _interpreter: interpreter };
        tokio::spawn(async move {
            end.send_replace(Some(process.supervise(orders).await));
        });
        Ok(Self { id, run: run.to_owned(), order, ended })
    }

    /// The id of the process, for a log.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The events of the run from an offset on: 0, or one that an event named. Ends when the process has ended and all of its
    /// events were given, or after the first error.
    pub fn events(&self, offset_bytes: u64) -> impl Stream<Item = Result<TailedEvent, EventTailError>> + Send + use<> {
        until_ended(EventTail::new(&self.run, offset_bytes), self.ended.clone())
    }

    /// Waits for the end of the process.
    pub async fn ended(&self) -> TrainerOutcome {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        // The task ends without an outcome only with the runtime.
        outcome.unwrap_or(TrainerOutcome::Ended { code: None, stderr: Vec::new() })
    }

    /// Asks the process to save a checkpoint and end, kills it if that takes longer than `grace`, and waits for its end.
    pub async fn stop(&self, grace: Duration) -> TrainerOutcome {
        self.order.send_replace(TrainerOrder::Pause(Instant::now() + grace));
        self.ended().await
    }
}

impl fmt::Debug for TrainerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainerProcess").field("id", &self.id).field("run", &self.run).finish_non_exhaustive()
    }
}

/// A process with what it needs to live.
struct OwnedProcess {
    child: Child,
    group: ProcessGroup,
    /// The events that it wrote itself, behind those of earlier processes.
    events: EventTail,
    /// The process ends when this is closed.
    _stdin: Option<ChildStdin>,
    /// No setup changes the packages meanwhile.
    _interpreter: Interpreter,
}

impl OwnedProcess {
    async fn supervise(mut self, mut orders: watch::Receiver<TrainerOrder>) -> TrainerOutcome {
        let tail = OutputTail::default();
        let stderr = self.child.stderr.take();
        let reading = stderr
            .map(|stderr| tokio::spawn(tail.clone().read(stderr, |line| tracing::debug!("the trainer says: {line}"))));
        let status = self.exited(&mut orders).await;
        let Self { group, mut events, .. } = self;
        // What it left running would keep the pipe open.
        drop(group);
        if let Some(reading) = reading {
            let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
        }
        // The file of a long run has some ten megabytes.
        let last = tokio::task::spawn_blocking(move || last_end(&mut events)).await.ok().flatten();
        TrainerOutcome::new(status, last, tail.lines())
    }

    /// Waits for the exit, and enforces it when the handle is gone or a pause takes too long.
    async fn exited(&mut self, orders: &mut watch::Receiver<TrainerOrder>) -> Option<ExitStatus> {
        let mut kill_at = None;
        loop {
            let kill_time = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = self.child.wait() => return status.ok(),
                () = kill_time => break,
                changed = orders.changed() => match changed {
                    Err(_) => break,
                    Ok(()) => if let TrainerOrder::Pause(deadline) = *orders.borrow_and_update() {
                        self.group.terminate();
                        kill_at = Some(deadline);
                    },
                },
            }
        }
        self.group.kill();
        let status = tokio::time::timeout(KILL_TIMEOUT, self.child.wait()).await;
        if status.is_err() {
            tracing::error!(
                process = self.group.id(),
                "the kernel does not end the trainer that was killed: a driver or a disk holds it"
            );
        }
        status.ok()?.ok()
    }
}

/// The last event that ends a run.
fn last_end(events: &mut EventTail) -> Option<TrainerEvent> {
    let mut last = None;
    // What cannot be read counts as not written.
    while let Ok(Some(tailed)) = events.read_next() {
        if let event @ (TrainerEvent::Finished { .. } | TrainerEvent::Paused { .. } | TrainerEvent::Failed(_)) =
            tailed.event
        {
            last = Some(event);
        }
    }
    last
}
