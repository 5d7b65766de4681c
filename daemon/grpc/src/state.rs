//! The state shared by all services.

use std::path::PathBuf;
use std::sync::Arc;

use artel_actors::Runtime;
use artel_journal::FeedbackStore;
use artel_roles::NetworkRules;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::machine::Machine;
use crate::reload_status::ReloadStatus;
use crate::server_paths::ServerPaths;
use crate::status;

/// What the services answer from. Clones share it.
#[derive(Clone)]
pub struct ServiceState {
    /// Runs the tasks.
    pub runtime: Runtime,
    /// Knows the devices, and what models would take of them.
    pub machine: Arc<dyn Machine>,
    /// The store of feedback on decisions.
    pub feedback: FeedbackStore,
    /// The directory of GGUF files.
    pub models: PathBuf,
    /// The directory against which relative paths in an applied catalog are resolved.
    pub base_dir: PathBuf,
    /// What documents from clients may name.
    pub network: NetworkRules,
    /// The directories that messages to clients do not name.
    pub paths: ServerPaths,
    /// The problems of the catalog's directory.
    pub reload_status: ReloadStatus,
    /// Cancelled when the daemon accepts no new work: its health is `NOT_SERVING`, and streams continue.
    pub draining: CancellationToken,
    /// Cancelled when the daemon closes: streams end.
    pub closing: CancellationToken,
}

impl ServiceState {
    /// An error as a gRPC status.
    pub(crate) fn status_of(&self, error: artel_actors::Error) -> Status {
        status::from_error(error, &self.runtime.catalog(), &self.paths)
    }
}
