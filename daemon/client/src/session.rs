//! What every command has: a connected daemon, and the output for its answers.

use artel_terminal::CommandOutput;

use crate::connect::DaemonClient;
use crate::location::DaemonLocation;

/// A connected daemon, and the output for its answers.
pub(crate) struct ClientSession {
    pub(crate) location: DaemonLocation,
    pub(crate) daemon: DaemonClient,
    pub(crate) output: CommandOutput,
}
