//! The state shared by all services.

use std::path::PathBuf;
use std::sync::Arc;

use artel_access::Access;
use artel_actors::{Runtime, Viewer};
use artel_feedback::{FeedbackStore, RatingStore};
use artel_log::LogHandle;
use artel_roles::NetworkRules;
use artel_task::TaskId;
use artel_training_runs::TrainingRuns;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::machine::Machine;
use crate::reload_status::ReloadStatus;
use crate::server_paths::ServerPaths;
use crate::status;
use crate::value::parse_task_id;

/// What the services answer from. Clones share it.
#[derive(Clone)]
pub struct ServiceState {
    /// Runs the tasks.
    pub runtime: Runtime,
    /// Decides on each call.
    pub access: Access,
    /// Knows the devices, and what models would take of them.
    pub machine: Arc<dyn Machine>,
    /// The store of feedback on decisions.
    pub feedback: FeedbackStore,
    /// The store of ratings of answers.
    pub ratings: RatingStore,
    /// The runs of trainings.
    pub training_runs: TrainingRuns,
    /// Held while the samples of a training are read and looked at, which takes much memory.
    pub training_lock: Arc<Mutex<()>>,
    /// The log of the daemon, whose level a client may change.
    pub log: LogHandle,
    /// Held while the metrics are sampled.
    pub scrape_lock: Arc<Mutex<()>>,
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
    /// The task of a request that its caller may see. For one that it may not see, the answer is that of a task that does not exist.
    pub(crate) async fn visible_task(&self, viewer: &Viewer, id: &str) -> Result<TaskId, Status> {
        let task = parse_task_id("task_id", id)?;
        self.runtime.check_visible(viewer, task).await.map_err(|e| self.status_of(e))?;
        Ok(task)
    }

    /// The task of a request that its caller may change.
    pub(crate) async fn controlled_task(&self, viewer: &Viewer, id: &str) -> Result<TaskId, Status> {
        let task = parse_task_id("task_id", id)?;
        self.runtime.check_controlled(viewer, task).await.map_err(|e| self.status_of(e))?;
        Ok(task)
    }

    /// An error as a gRPC status.
    pub(crate) fn status_of(&self, error: artel_actors::Error) -> Status {
        status::from_error(error, &self.runtime.catalog(), &self.paths)
    }
}
