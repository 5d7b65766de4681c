//! The end of the daemon: in phases, each of which ends in bounded time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use artel_actors::DrainReport;

use super::running_daemon::RunningDaemon;
use super::stop_watchdog::StopWatchdog;
use crate::signals::SignalListener;

/// Time that the server has beside that of its open calls.
const SERVER_CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Time for threads that read or download a file to notice the end; they write nothing that a crash would harm.
const THREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// How the daemon stopped.
#[derive(Debug, Default)]
pub(super) struct StopReport {
    drained: DrainReport,
    /// Connections that were cut off with open calls.
    cut_off: usize,
    /// Why the server did not end by itself.
    server_problem: Option<String>,
    /// Whether spans were left that no collector took.
    has_left_spans: bool,
}

/// Stops the daemon: tasks, engines, the journal, and at last the server, so that clients see how their tasks ended.
pub(super) async fn stop(
    daemon: RunningDaemon,
    signals: &mut SignalListener,
    grace: Duration,
    close_timeout: Duration,
    watchdog: &StopWatchdog,
) -> StopReport {
    watchdog.enter("drain");
    daemon.draining.cancel();
    // A trainer saves a checkpoint meanwhile.
    let paused = tokio::spawn({
        let runs = daemon.training_runs.clone();
        async move { runs.close().await }
    });
    let drained = tokio::select! {
        drained = daemon.runtime.drain(grace) => drained,
        // A second signal ends the grace period.
        _ = signals.stop_requested() => daemon.runtime.drain(Duration::ZERO).await,
    };
    // It has a limit of its own, and its task never panics.
    let _ = paused.await;
    watchdog.enter("close");
    // While it still listens: from now on, another process may.
    drop(daemon.published);
    daemon.closing.cancel();
    let (cut_off, server_problem) = match tokio::time::timeout(close_timeout + SERVER_CLOSE_GRACE, daemon.server).await
    {
        Ok(Ok(cut_off)) => (cut_off, None),
        Ok(Err(error)) => (0, Some(format!("the server panicked: {error}"))),
        Err(_) => (0, Some("the server".to_owned())),
    };
    // Calls have ended with the server, and so have their spans.
    let has_left_spans = match daemon.spans {
        Some(spans) => !spans.close().await,
        None => false,
    };
    watchdog.enter("threads");
    StopReport { drained, cut_off, server_problem, has_left_spans }
}

/// Ends the threads of the daemon's runtime; whether all of them ended in time.
pub(super) fn end_threads(runtime: tokio::runtime::Runtime) -> bool {
    let start = Instant::now();
    runtime.shutdown_timeout(THREAD_TIMEOUT);
    start.elapsed() < THREAD_TIMEOUT
}

impl StopReport {
    /// Logs how the daemon stopped, in one line. The exit code is a failure if tasks, engines or the journal did not end in time:
    /// then what was acknowledged is on disk all the same.
    pub(super) fn log(self, have_threads_ended: bool) -> ExitCode {
        let DrainReport { unfinished, overdue } = self.drained;
        let (is_clean, mut open) = (overdue.is_empty(), overdue);
        open.extend((self.cut_off > 0).then(|| format!("{} connections with open calls", self.cut_off)));
        open.extend(self.server_problem);
        open.extend(self.has_left_spans.then(|| "spans that the collector did not take".to_owned()));
        open.extend((!have_threads_ended).then(|| "threads that read or download files".to_owned()));
        match open.is_empty() {
            true => tracing::info!(unfinished, "stopped; unfinished tasks resume at the next start"),
            false => tracing::warn!(
                unfinished,
                open = open.join(", "),
                "stopped, and left what did not end in time; what was acknowledged is on disk, and unfinished tasks resume at the \
                 next start"
            ),
        }
        if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(report: StopReport, have_threads_ended: bool) -> String {
        format!("{:?}", report.log(have_threads_ended))
    }

    #[test]
    fn clients_and_threads_that_are_left_are_no_failure_and_a_journal_is() {
        let (success, failure) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(StopReport::default(), true), success);
        assert_eq!(code(StopReport { cut_off: 2, ..StopReport::default() }, false), success);
        let drained = DrainReport { unfinished: 1, overdue: vec!["the journal".to_owned()] };
        assert_eq!(code(StopReport { drained, ..StopReport::default() }, true), failure);
    }
}
