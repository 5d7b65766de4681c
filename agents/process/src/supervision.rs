//! The end of an engine process: waits for it, enforces it after a close, and gives its reason.

use std::time::Duration;

use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::exit_reason;
use crate::stderr_log::StderrLog;

/// The interval at which kills for lack of memory are counted, to attribute one to the exit of a process.
const OOM_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The time for a process to exit after a close: long enough for a batch of a large model on a slow machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the last output of an exited process to arrive.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for the exit of a process and publishes its reason. After `closing` is cancelled, kills the process on a timeout.
pub(crate) async fn supervise(
    mut child: Child,
    name: String,
    closing: CancellationToken,
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
    let status = tokio::select! {
        status = child.wait() => status,
        () = count_oom_kills => return,
        () = closing.cancelled() => match tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(model = name, "the engine process does not exit after its close and is killed");
                // Fails only if the process has exited meanwhile.
                let _ = child.start_kill();
                child.wait().await
            }
        },
    };
    if let Some(reading) = reading {
        // Children of the process, if any, may keep the pipe open.
        let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
    }
    let reason = match status {
        _ if closing.is_cancelled() => "it was closed".to_owned(),
        Ok(status) => exit_reason::describe(status, &log.tail(), exit_reason::oom_kill_count() > kills[0]),
        Err(error) => format!("failed to wait for its process: {error}"),
    };
    end.send_replace(Some(reason));
}

/// The reason of a failed call: how the process exited, if it did.
pub(crate) async fn call_failure(ended: &mut watch::Receiver<Option<String>>, status: &Status) -> String {
    let exited = tokio::time::timeout(2 * STDERR_TIMEOUT, ended.wait_for(Option::is_some)).await;
    let reason = exited.ok().and_then(Result::ok).and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| format!("its process does not answer: {}", status.message()))
}
