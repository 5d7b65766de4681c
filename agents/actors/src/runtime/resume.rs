//! Resuming tasks that an earlier run of the daemon left.

use std::collections::HashMap;
use std::sync::Arc;

use artel_roles::{Catalog, Problems};
use artel_task::event::{FailureCode, TaskSpec};
use artel_task::{CatalogVersion, EventKind, Graph, GraphName, RoleName, Seq, TaskId};

use super::{Error, Runtime, TaskStart, submission};
use crate::completion::failure;
use crate::supervisor::SharedDeps;
use crate::task_history::fail_task;

/// Catalogs that tasks started with, parsed again; or why not.
pub(super) type RestoredCatalogs = HashMap<CatalogVersion, Result<Arc<Catalog>, RestoreError>>;

/// Why a task cannot run on a catalog.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RestoreError {
    /// The journal has no first event of the task.
    #[error("its journal does not begin with `accepted`")]
    NotAccepted,
    /// The catalog's sources are refused by this version of the program.
    #[error("the catalog {} that it started with is no longer valid: {problems}", .version.short())]
    InvalidCatalog { version: CatalogVersion, problems: Arc<Problems> },
    /// The journal does not have the catalog.
    #[error("the catalog {} that it started with is not in the journal", .0.short())]
    NoCatalog(CatalogVersion),
    /// The catalog does not have the role.
    #[error("its catalog has no role `{0}`")]
    NoRole(RoleName),
    /// The catalog does not have the graph.
    #[error("its catalog has no graph `{0}`")]
    NoGraph(GraphName),
}

impl Runtime {
    /// Resumes every task that has not ended, at the start and after the journal recovered. A task that cannot be resumed
    /// fails with the reason.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn resume_tasks(&self) -> Result<(), Error> {
        let tasks = self.shared.journal.unfinished().await?;
        if tasks.is_empty() {
            return Ok(());
        }
        tracing::info!(tasks = tasks.len(), "resuming unfinished tasks");
        let mut catalogs = RestoredCatalogs::from([(self.catalog().version().clone(), Ok(self.catalog()))]);
        for task in tasks {
            match self.restore(task, &mut catalogs).await? {
                Ok((catalog, graph)) => {
                    // More tasks than today's limit were open, if it was lowered: they run all the same.
                    let permit = self.task_permits.clone().try_acquire_owned().ok();
                    self.start_task(TaskStart { task, catalog, graph, first: None, permit })?;
                }
                Err(reason) => {
                    tracing::error!(%task, %reason, "task cannot be resumed");
                    let SharedDeps { journal, channels, clock, .. } = &self.shared;
                    let failure = failure(FailureCode::Internal, reason.to_string());
                    fail_task(journal, channels, clock, task, failure).await;
                }
            }
        }
        Ok(())
    }

    /// The catalog and the graph that a task started with.
    async fn restore(
        &self,
        task: TaskId,
        catalogs: &mut RestoredCatalogs,
    ) -> Result<Result<(Arc<Catalog>, Arc<Graph>), RestoreError>, Error> {
        let first = self.shared.journal.events(task, Seq(0), 1).await?.into_iter().next();
        let Some(EventKind::Accepted(accepted)) = first.map(|event| event.kind) else {
            return Ok(Err(RestoreError::NotAccepted));
        };
        self.restore_accepted(&accepted, catalogs).await
    }

    /// The catalog and the graph that a task started with, from its first event.
    pub(super) async fn restore_accepted(
        &self,
        accepted: &TaskSpec,
        catalogs: &mut RestoredCatalogs,
    ) -> Result<Result<(Arc<Catalog>, Arc<Graph>), RestoreError>, Error> {
        let version = &accepted.catalog;
        if !catalogs.contains_key(version) {
            let restored = match self.shared.journal.catalog(version).await? {
                Some(json) => Catalog::restore(&json).map(Arc::new).map_err(|problems| RestoreError::InvalidCatalog {
                    version: version.clone(),
                    problems: Arc::new(problems),
                }),
                None => Err(RestoreError::NoCatalog(version.clone())),
            };
            catalogs.insert(version.clone(), restored);
        }
        let with_graph = |catalog: &Arc<Catalog>| Ok((catalog.clone(), graph_of(accepted, catalog)?));
        Ok(catalogs[version].as_ref().map_err(Clone::clone).and_then(with_graph))
    }
}

/// The graph that a task runs, in this catalog.
pub(super) fn graph_of(accepted: &TaskSpec, catalog: &Catalog) -> Result<Arc<Graph>, RestoreError> {
    match &accepted.role {
        Some(name) => {
            let role = catalog.role(name.as_str());
            role.map(|role| submission::single_role(role)).ok_or_else(|| RestoreError::NoRole(name.clone()))
        }
        None => {
            let name = &accepted.graph;
            catalog.graph(name.as_str()).cloned().ok_or_else(|| RestoreError::NoGraph(name.clone()))
        }
    }
}
