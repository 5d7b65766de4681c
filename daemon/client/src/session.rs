//! What every command has: a connected daemon, and the output for its answers.

use artel_args::DaemonAddress;
use artel_terminal::CommandOutput;

use crate::connect::DaemonClient;

/// A connected daemon, and the output for its answers.
pub(crate) struct ClientSession {
    pub(crate) address: DaemonAddress,
    pub(crate) daemon: DaemonClient,
    pub(crate) output: CommandOutput,
}
