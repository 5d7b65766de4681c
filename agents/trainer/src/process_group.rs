//! A child process and all that it starts.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// The group of a child process, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct ProcessGroup(Pid);

impl ProcessGroup {
    /// Starts a process that leads a group of its own, so that signals of a terminal do not reach it.
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<(Child, Self)> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id =
            child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| std::io::Error::other("it has no id"))?;
        Ok((child, Self(Pid::from_raw(id))))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }

    /// Asks the leader alone to end: its children are its own to end.
    pub(crate) fn terminate(&self) {
        // Fails only if it has ended meanwhile.
        let _ = kill(self.0, Signal::SIGTERM);
    }

    /// Kills every process of the group.
    pub(crate) fn kill(&self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

impl Drop for ProcessGroup {
    /// Reaches children that outlive the leader, too. Where the leader has been waited for and nothing else is left, the id is
    /// free; that another process leads a group of this number by now would need all other ids to be given out in between.
    fn drop(&mut self) {
        self.kill();
    }
}
