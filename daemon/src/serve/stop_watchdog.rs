//! The end of the process, whatever hangs in it.

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::signals::SignalListener;

/// Time for all phases of stopping after the grace period: each has a limit of its own, and together they take 50 s. With a
/// grace period of 30 s it is less than the 90 s after which systemd kills a service.
const STOP_TIMEOUT: Duration = Duration::from_secs(55);
/// Time for the last line of the log: its reader may hang, too.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Kills the process if it has not ended for too long after a signal to stop. It runs on a thread of its own, so that it also
/// does if no thread of the daemon's runtime runs any more.
#[derive(Debug, Clone)]
pub(super) struct StopWatchdog {
    phase: Arc<Mutex<&'static str>>,
}

impl StopWatchdog {
    /// Starts it. After the first signal the process has the grace period and this timeout, after a second one only the timeout.
    pub(super) fn start(grace: Duration) -> io::Result<Self> {
        let phase = Arc::new(Mutex::new("start"));
        let (shown, runtime) = (phase.clone(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        let signals = {
            let _entered = runtime.enter();
            SignalListener::listen()?
        };
        thread::Builder::new().name("stop-watchdog".to_owned()).spawn(move || {
            runtime.block_on(until_overdue(signals, grace));
            let shown = *shown.lock().unwrap_or_else(PoisonError::into_inner);
            end_process(shown);
        })?;
        Ok(Self { phase })
    }

    /// Says what the daemon does from now on.
    pub(super) fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

async fn until_overdue(mut signals: SignalListener, grace: Duration) {
    signals.stop_requested().await;
    let deadline = Instant::now() + grace + STOP_TIMEOUT;
    tokio::select! {
        () = tokio::time::sleep_until(deadline) => return,
        _ = signals.stop_requested() => {}
    }
    tokio::time::sleep_until(deadline.min(Instant::now() + STOP_TIMEOUT)).await;
}

fn end_process(phase: &'static str) {
    thread::spawn(move || {
        tracing::error!(phase, "the daemon did not stop in time and is killed; what was acknowledged is on disk");
    });
    thread::sleep(LOG_TIMEOUT);
    // Unlike an exit, this runs no code that may hang.
    let _ = kill(Pid::this(), Signal::SIGKILL);
    process::abort();
}
