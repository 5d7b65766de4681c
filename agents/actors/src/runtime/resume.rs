//! Resuming tasks that an earlier run of the daemon left.

use std::collections::HashMap;
use std::sync::Arc;

use artel_journal::Damage;
use artel_roles::{Catalog, Problems};
use artel_task::event::TaskSpec;
use artel_task::{CallerName, CatalogVersion, EventKind, Graph, GraphName, RoleName, Seq, TaskId};

use super::{Error, Runtime, TaskStart, Viewer, submission};
use crate::task_history::{history, set_aside_task};
use artel_admission::{CallerQuota, TaskPlace};

/// Catalogs that tasks started with, parsed again; or why not.
pub(super) type RestoredCatalogs = HashMap<CatalogVersion, Result<Arc<Catalog>, RestoreError>>;

/// Why a task cannot run on a catalog.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RestoreError {
    /// The journal has no first event of the task.
    #[error("its journal does not begin with `accepted`")]
    NotAccepted,
    /// The first event of the task cannot be read.
    #[error("{}", .0.set_aside_reason())]
    Damaged(Damage),
    /// The catalog's sources are refused by this version of the program, or name what its settings do not allow a client to name.
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

/// What a task started with.
struct RestoredTask {
    catalog: Arc<Catalog>,
    graph: Arc<Graph>,
    owner: CallerName,
}

/// Whether a task runs, and why not.
pub(super) enum TaskStanding {
    /// It has its last event.
    Ended,
    /// It runs, or is suspended.
    Open,
    /// It was set aside for this reason.
    SetAside(String),
    /// It is not run since its rows in the journal are damaged, which this reason says.
    Damaged(String),
}

impl Runtime {
    /// Resumes every task that has not ended and is not set aside, at the start and after the journal recovered. A task that
    /// cannot be resumed is set aside with the reason.
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
                Ok(RestoredTask { catalog, graph, owner }) => {
                    // More tasks than today's limits were open, if they were lowered: they run all the same.
                    let open = self.shared.callers.open(&owner, CallerQuota::default(), self.shared.clock.now())?;
                    let place = Some(TaskPlace::new(open, self.task_permits.clone().try_acquire_owned().ok()));
                    self.start_task(TaskStart { task, catalog, graph, first: None, takes_up: false, place })?;
                }
                Err(reason) => {
                    set_aside_task(&self.shared, task, reason.to_string()).await;
                }
            }
        }
        Ok(())
    }

    /// Takes up a task again that is set aside; when this returns, that is on disk. Another task is left as it is. The quota holds
    /// if the task is the caller's own.
    ///
    /// # Errors
    /// [`Error::NoTask`]; [`Error::SetAside`] if what it needs is still missing or damaged, [`Error::TooManyTasks`],
    /// [`Error::Quota`], [`Error::ShuttingDown`]; [`Error::Suspended`] if the journal does not take it.
    pub async fn resume(&self, viewer: &Viewer, task: TaskId) -> Result<(), Error> {
        self.check_open()?;
        match self.standing(task).await? {
            TaskStanding::Ended | TaskStanding::Open => return Ok(()),
            TaskStanding::Damaged(reason) => return Err(Error::SetAside { task, reason }),
            TaskStanding::SetAside(_) => {}
        }
        let mut catalogs = RestoredCatalogs::from([(self.catalog().version().clone(), Ok(self.catalog()))]);
        let restored = self.restore(task, &mut catalogs).await?;
        let restored = restored.map_err(|reason| Error::SetAside { task, reason: reason.to_string() })?;
        let RestoredTask { catalog, graph, owner } = restored;
        let quota = if owner == viewer.caller { viewer.quota } else { CallerQuota::default() };
        let place = self.place(self.shared.callers.open(&owner, quota, self.shared.clock.now())?)?;
        let last = self.shared.journal.last_seq(task).await?.ok_or(Error::NoTask(task))?;
        // Before it starts, so that its first event is not missed.
        self.shared.channels.open(task, None);
        let mut events = self.subscribe(task, last, false).await?;
        self.start_task(TaskStart { task, catalog, graph, first: None, takes_up: true, place: Some(place) })?;
        match events.next().await? {
            Some(_) => Ok(()),
            None => Err(self.suspended(task)),
        }
    }

    /// Whether a task runs, and why not.
    pub(super) async fn standing(&self, task: TaskId) -> Result<TaskStanding, Error> {
        let journal = &self.shared.journal;
        match journal.summary(task).await?.ok_or(Error::NoTask(task))? {
            Ok(summary) if summary.status.has_ended() => return Ok(TaskStanding::Ended),
            Ok(_) => {}
            Err(damaged) => return Ok(TaskStanding::Damaged(damaged.damage.set_aside_reason())),
        }
        match history(journal, task).await {
            Ok(events) => Ok(match events.last().map(|last| &last.kind) {
                Some(EventKind::SetAside { reason }) => TaskStanding::SetAside(reason.clone()),
                Some(kind) if kind.is_last() => TaskStanding::Ended,
                Some(_) => TaskStanding::Open,
                None => TaskStanding::Damaged(RestoreError::NotAccepted.to_string()),
            }),
            Err(artel_journal::Error::Corrupt { detail, .. }) => Ok(TaskStanding::Damaged(detail.set_aside_reason())),
            Err(error) => Err(error.into()),
        }
    }

    /// What a task started with.
    async fn restore(
        &self,
        task: TaskId,
        catalogs: &mut RestoredCatalogs,
    ) -> Result<Result<RestoredTask, RestoreError>, Error> {
        let first = match self.shared.journal.events(task, Seq(0), 1).await {
            Ok(first) => first.into_iter().next(),
            Err(artel_journal::Error::Corrupt { detail, .. }) => return Ok(Err(RestoreError::Damaged(detail))),
            Err(error) => return Err(error.into()),
        };
        let Some(EventKind::Accepted(accepted)) = first.map(|event| event.kind) else {
            return Ok(Err(RestoreError::NotAccepted));
        };
        let restored = self.restore_accepted(&accepted, catalogs).await?;
        Ok(restored.map(|(catalog, graph)| RestoredTask { catalog, graph, owner: accepted.owner }))
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
                Some(json) => {
                    let restored = Catalog::restore(&json, self.options.network.as_ref()).map(Arc::new);
                    restored.map_err(|problems| RestoreError::InvalidCatalog {
                        version: version.clone(),
                        problems: Arc::new(problems),
                    })
                }
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
