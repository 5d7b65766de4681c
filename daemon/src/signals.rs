//! Signals to the daemon.

use std::io;

use nix::sys::signal::Signal as SignalNumber;
use tokio::signal::unix::{self, SignalKind};

/// A request made by a signal.
pub(crate) enum DaemonSignal {
    /// Stop; the name of the signal.
    Stop(&'static str),
    /// Reload the catalog.
    Reload,
}

/// Listens for the signals that the daemon handles.
pub(crate) struct SignalListener {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl SignalListener {
    pub(crate) fn listen() -> io::Result<Self> {
        handle_file_size_limit()?;
        let listen = unix::signal;
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: listen(SignalKind::hangup())? })
    }

    pub(crate) async fn next(&mut self) -> DaemonSignal {
        tokio::select! {
            _ = self.terminate.recv() => DaemonSignal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => DaemonSignal::Stop("SIGINT"),
            _ = self.hangup.recv() => DaemonSignal::Reload,
        }
    }

    /// Resolves at the next signal to stop, with its name.
    pub(crate) async fn stop_requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Handles SIGXFSZ, so that a write beyond the file size limit fails as on a full disk. Without a handler, the signal would end
/// the program. Needs a runtime.
pub(crate) fn handle_file_size_limit() -> io::Result<()> {
    // The handler stays installed after the listener is dropped.
    unix::signal(SignalKind::from_raw(SignalNumber::SIGXFSZ as i32)).map(drop)
}
