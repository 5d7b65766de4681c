//! Taking up what an earlier run of the daemon left.

use std::collections::HashMap;
use std::sync::Arc;

use artel_roles::Catalog;
use artel_task::event::{TaskSpec, FailureCode};
use artel_task::{CatalogVersion, Graph, EventKind, Seq, TaskId};

use super::{Begin, Crew, Error, submission};
use crate::report::failure;
use crate::supervisor::give_up;

/// Catalogs that tasks began with, built again; or why not.
pub(super) type Kept = HashMap<CatalogVersion, Result<Arc<Catalog>, String>>;

impl Crew {
    /// Begins every task that has not ended; a task that cannot be run on fails and says why.
    pub(super) async fn resume(&self) -> Result<(), Error> {
        let tasks = self.links.journal.unfinished().await?;
        if tasks.is_empty() {
            return Ok(());
        }
        tracing::info!(tasks = tasks.len(), "taking up tasks of an earlier run");
        let mut kept = Kept::from([(self.catalog().version().clone(), Ok(self.catalog()))]);
        for task in tasks {
            match self.recall(task, &mut kept).await? {
                Ok((catalog, graph)) => {
                    // More than may be open were open, if the limit was lowered: they run all the same.
                    let permit = self.slots.clone().try_acquire_owned().ok();
                    self.begin(Begin { task, catalog, graph, first: None, permit })?;
                }
                Err(reason) => {
                    tracing::error!(%task, reason, "the task cannot be run on");
                    give_up(&self.links, task, failure(FailureCode::Internal, reason)).await;
                    self.links.feeds.close(task);
                }
            }
        }
        Ok(())
    }

    /// The catalog and the graph that a task began with.
    async fn recall(&self, task: TaskId, kept: &mut Kept) -> Result<Result<(Arc<Catalog>, Arc<Graph>), String>, Error> {
        let first = self.links.journal.events(task, Seq(0), 1).await?.into_iter().next();
        let Some(EventKind::Accepted(accepted)) = first.map(|event| event.kind) else {
            return Ok(Err("its journal does not begin with `accepted`".to_owned()));
        };
        self.ground_of(&accepted, kept).await
    }

    /// The catalog and the graph that a task began with, from what it was asked.
    pub(super) async fn ground_of(
        &self,
        accepted: &TaskSpec,
        kept: &mut Kept,
    ) -> Result<Result<(Arc<Catalog>, Arc<Graph>), String>, Error> {
        let version = &accepted.catalog;
        if !kept.contains_key(version) {
            let restored = match self.links.journal.catalog(version).await? {
                Some(json) => Catalog::restore(&json).map(Arc::new).map_err(|problems| {
                    format!("the catalog {} that it began with is no longer valid: {problems}", version.short())
                }),
                None => Err(format!("the catalog {} that it began with is not kept", version.short())),
            };
            kept.insert(version.clone(), restored);
        }
        let found = |catalog: &Arc<Catalog>| Ok((catalog.clone(), graph_of(accepted, catalog)?));
        Ok(kept[version].as_ref().map_err(Clone::clone).and_then(found))
    }
}

pub(super) fn graph_of(accepted: &TaskSpec, catalog: &Catalog) -> Result<Arc<Graph>, String> {
    match &accepted.role {
        Some(role) => {
            let found = catalog.role(role.as_str());
            found.map(|role| submission::single(role)).ok_or_else(|| format!("its catalog has no role `{role}`"))
        }
        None => {
            let name = accepted.graph.as_str();
            catalog.graph(name).cloned().ok_or_else(|| format!("its catalog has no graph `{name}`"))
        }
    }
}
