//! The descriptors of the process, and the connections that they are enough for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More descriptors than this are not asked for: some programs walk through all that they may have.
const MAX_DESCRIPTORS: u64 = 65_536;
/// What the system allows where it does not say: the smallest limit of POSIX systems in use.
const FALLBACK_DESCRIPTORS: u64 = 256;
/// What is left for the journal, engines, downloads and files, if there are enough.
const RESERVED_DESCRIPTORS: u64 = 512;
/// An idle HTTP/2 connection takes some tens of kilobytes: fifty megabytes for all of them.
const MAX_CONNECTIONS: usize = 1024;

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all, at least 1.
    pub total: usize,
    /// Of one peer, at least 1: an IPv4 address, or a /64 of IPv6.
    pub per_peer: usize,
}

impl ConnectionLimits {
    /// The limits in a process with so many descriptors, where a connection takes so many: half of them at most, a peer half of
    /// the connections. Wanted limits count if they are smaller.
    pub fn within(
        descriptors: u64,
        descriptors_per_connection: u64,
        wanted_total: Option<usize>,
        wanted_per_peer: Option<usize>,
    ) -> Self {
        let free = descriptors.saturating_sub(RESERVED_DESCRIPTORS.min(descriptors / 2));
        let possible = usize::try_from(free / descriptors_per_connection.max(1)).unwrap_or(usize::MAX);
        let total = wanted_total.unwrap_or(MAX_CONNECTIONS).min(possible).max(1);
        let per_peer = wanted_per_peer.unwrap_or_else(|| total.div_ceil(2)).clamp(1, total);
        Self { total, per_peer }
    }
}

/// Raises the soft limit of open files to the hard one, as far as that is useful, and returns what counts now. Processes that are
/// started afterwards inherit it.
pub fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return FALLBACK_DESCRIPTORS };
    let wanted = hard.min(MAX_DESCRIPTORS).max(soft);
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest_and_a_peer_for_others() {
        let limits = |descriptors| ConnectionLimits::within(descriptors, 1, None, None);
        assert_eq!(limits(128), ConnectionLimits { total: 64, per_peer: 32 });
        assert_eq!(limits(1024), ConnectionLimits { total: 512, per_peer: 256 });
        assert_eq!(limits(u64::MAX), ConnectionLimits { total: 1024, per_peer: 512 });
        assert_eq!(limits(0), ConnectionLimits { total: 1, per_peer: 1 });
    }

    #[test]
    fn wanted_limits_do_not_exceed_what_is_possible() {
        let limits = |total, per_peer| ConnectionLimits::within(128, 2, Some(total), Some(per_peer));
        assert_eq!(limits(10, 4), ConnectionLimits { total: 10, per_peer: 4 });
        assert_eq!(limits(10_000, 10_000), ConnectionLimits { total: 32, per_peer: 32 });
    }

    #[test]
    fn a_raised_limit_is_the_one_that_counts() {
        let raised = raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, raised);
    }
}
