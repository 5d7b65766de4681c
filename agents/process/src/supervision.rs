//! The end of an engine process: waits for it, enforces it after a close or a hang, and gives its reason.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::exit_reason;
use crate::process_sample::ProcessSample;
use crate::stderr_log::StderrLog;

/// The interval at which kills for lack of memory are counted, to attribute one to the exit of a process.
const OOM_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The time for a process to exit after a close: long enough for a batch of a large model on a slow machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which a process that is to exit is looked at: one that is stopped cannot.
const STOPPED_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The time for a process that was killed to be gone. Longer if a driver or a network disk holds it in the kernel; then the
/// daemon does not wait for it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the last output of an exited process to arrive.
pub(crate) const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// How a process ended, or is to end.
enum ProcessEnd {
    Exited(std::io::Result<ExitStatus>),
    Closing,
    Hung(String),
}

/// Waits for the exit of a process and publishes its reason. After `closing` is cancelled, kills the process on a timeout; once
/// `hung` is set, kills it at once.
pub(crate) async fn supervise(
    mut child: Child,
    name: String,
    closing: CancellationToken,
    hung: Arc<SetOnce<String>>,
    end: watch::Sender<Option<String>>,
) {
    // Only a kill for lack of memory in the last two intervals can have been that of this process.
    let mut kills = [exit_reason::oom_kill_count(); 2];
    let log = StderrLog::default();
    let reading = child.stderr.take().map(|stderr| tokio::spawn(log.clone().read(name.clone(), stderr)));
    let count_oom_kills = async {
        let mut interval = tokio::time::interval(OOM_POLL_INTERVAL);
        loop {
            interval.tick().await;
            kills = [kills[1], exit_reason::oom_kill_count()];
        }
    };
    let ending = tokio::select! {
        status = child.wait() => ProcessEnd::Exited(status),
        () = count_oom_kills => return,
        () = closing.cancelled() => ProcessEnd::Closing,
        reason = hung.wait() => ProcessEnd::Hung(reason.clone()),
    };
    let status = match &ending {
        ProcessEnd::Exited(Ok(status)) => Some(*status),
        ProcessEnd::Exited(Err(_)) => None,
        ProcessEnd::Closing => exit_in_time(&mut child, &name).await,
        ProcessEnd::Hung(reason) => {
            tracing::error!(model = name, reason, "the engine hangs and its process is killed");
            kill(&mut child, &name).await
        }
    };
    if let Some(reading) = reading {
        // Children of the process, if any, may keep the pipe open.
        let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
    }
    let reason = match (ending, status) {
        (ProcessEnd::Hung(reason), _) => reason,
        _ if closing.is_cancelled() => "it was closed".to_owned(),
        (_, Some(status)) => exit_reason::describe(status, &log.tail(), exit_reason::oom_kill_count() > kills[0]),
        (ProcessEnd::Exited(Err(error)), None) => format!("failed to wait for its process: {error}"),
        (ProcessEnd::Exited(Ok(_)) | ProcessEnd::Closing, None) => "its process is gone".to_owned(),
    };
    end.send_replace(Some(reason));
}

/// Waits for the exit of a process that was asked to, and kills it if it takes too long or is stopped.
async fn exit_in_time(child: &mut Child, name: &str) -> Option<ExitStatus> {
    let process_id = child.id();
    let stopped = async {
        let mut interval = tokio::time::interval(STOPPED_POLL_INTERVAL);
        // The first tick comes at once, and a stop may be a matter of a moment: two in a row count.
        let mut polls_stopped = 0;
        while polls_stopped < 2 {
            interval.tick().await;
            let is_stopped = process_id.is_some_and(ProcessSample::is_stopped);
            polls_stopped = if is_stopped { polls_stopped + 1 } else { 0 };
        }
    };
    let why = tokio::select! {
        status = child.wait() => return status.ok(),
        () = tokio::time::sleep(EXIT_TIMEOUT) => "it does not exit after its close",
        () = stopped => "it was stopped",
    };
    tracing::warn!(model = name, why, "the engine process is killed");
    kill(child, name).await
}

/// Kills a process, which works on a stopped one too.
async fn kill(child: &mut Child, name: &str) -> Option<ExitStatus> {
    // Fails only if the process has exited meanwhile.
    let _ = child.start_kill();
    let Ok(status) = tokio::time::timeout(KILL_TIMEOUT, child.wait()).await else {
        tracing::error!(
            model = name,
            process = child.id(),
            "the kernel does not end the engine process that was killed: a driver or a disk holds it, and its memory is not free"
        );
        return None;
    };
    status.ok()
}

/// The reason of a failed call: how the process exited, if it did.
pub(crate) async fn call_failure(ended: &mut watch::Receiver<Option<String>>, status: &Status) -> String {
    let exited = tokio::time::timeout(2 * STDERR_TIMEOUT, ended.wait_for(Option::is_some)).await;
    let reason = exited.ok().and_then(Result::ok).and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| format!("its process does not answer: {}", status.message()))
}
