//! What other programs of the same user may see of a process of ours: its memory holds texts of tasks, and secrets.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The core dumps of this process, which are forbidden until the settings are read.
#[derive(Debug)]
pub(crate) struct CoreDumps {
    /// The limit that a process without privileges cannot raise.
    hard_limit: rlim_t,
}

impl CoreDumps {
    /// Forbids core dumps and debuggers. Call it before anything secret is read: an executed program allows them again.
    ///
    /// Best effort, since no failure is known: lowering a limit and this attribute need no privilege.
    pub(crate) fn forbid() -> Self {
        let hard_limit = getrlimit(Resource::RLIMIT_CORE).map_or(0, |(_, hard)| hard);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard_limit);
        set_dumpable(false);
        Self { hard_limit }
    }

    /// Allows them after all, or forbids them for good, for the processes that this one starts, too.
    pub(crate) fn decide(self, are_allowed: bool) {
        let limit = if are_allowed { self.hard_limit } else { 0 };
        let _ = setrlimit(Resource::RLIMIT_CORE, limit, limit);
        if are_allowed {
            set_dumpable(true);
        }
    }
}

/// Whether the process dumps core, may be traced by its user, and owns its files in `/proc`.
fn set_dumpable(is_dumpable: bool) {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(is_dumpable);
    #[cfg(not(target_os = "linux"))]
    let _ = is_dumpable;
}
