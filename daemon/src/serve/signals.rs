//! What the system tells the daemon.

use std::io;

use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
pub(super) enum Signal {
    /// Stop; which signal it was.
    Stop(&'static str),
    /// Read the catalog again.
    Reload,
}

/// The signals that the daemon listens for.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        outlive_limits()?;
        let of = unix::signal;
        let (terminate, interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: of(SignalKind::hangup())? })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// Resolves when somebody asks to stop once more.
    pub(super) async fn another(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A file that may grow no more fails to be written, as on a full disk; without a handler, the system would end the program.
/// Needs a runtime.
pub(crate) fn outlive_limits() -> io::Result<()> {
    // The handler stays when nobody listens any more.
    unix::signal(SignalKind::from_raw(Number::SIGXFSZ as i32)).map(drop)
}
