//! The engines of the catalog's models, for inspection and for loading by name.

use std::sync::Arc;
use std::time::Duration;

use artel_hosting::engine_host::{self, EngineReport};
use artel_hosting::model_scheduler::{self, ModelMove};
use artel_roles::Model;
use ractor::{ActorRef, call};
use tokio::time::timeout;

use super::{Error, Message, Runtime};

impl Runtime {
    /// Every model of the catalog with its engine, and those that running tasks or pinned roles have besides, by name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn engines(&self) -> Result<Vec<EngineReport>, Error> {
        for model in self.catalog().models().values() {
            self.engine_host(model).await?;
        }
        let hosts = call!(self.supervisor, Message::EngineHosts).map_err(|_| Error::Stopped)?;
        let mut reports = Vec::new();
        for host in hosts {
            // A host that was just released has nothing to report.
            reports.extend(call!(host, engine_host::Message::Report).ok());
        }
        reports.sort_by(|a: &EngineReport, b| a.id.cmp(&b.id));
        Ok(reports)
    }

    /// The same, asked for at once and without those that do not answer in this time; `None` if the runtime itself does not.
    pub async fn engines_within(&self, limit: Duration) -> Option<Vec<EngineReport>> {
        let hosts = async {
            for model in self.catalog().models().values() {
                self.engine_host(model).await.ok()?;
            }
            call!(self.supervisor, Message::EngineHosts).ok()
        };
        let hosts = timeout(limit, hosts).await.ok()??;
        let report = |host: ActorRef<engine_host::Message>| {
            timeout(limit, async move { call!(host, engine_host::Message::Report).ok() })
        };
        let reports = futures::future::join_all(hosts.into_iter().map(report)).await;
        Some(reports.into_iter().filter_map(|report| report.ok().flatten()).collect())
    }

    /// Loads a model and returns when it is ready.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::InsufficientMemory`], [`Error::Failed`].
    pub async fn load(&self, model: &str) -> Result<EngineReport, Error> {
        self.check_open()?;
        let host = self.engine_host(&self.model(model)?).await?;
        match call!(host, engine_host::Message::ForceAcquire) {
            Ok(Err(refusal)) if refusal.is_memory_shortage() => {
                return Err(Error::InsufficientMemory(refusal.to_string()));
            }
            answer => drop(engine_host::lease_or_failure(answer).map_err(Error::Failed)?),
        }
        call!(host, engine_host::Message::Report).map_err(|_| Error::Stopped)
    }

    /// Unloads a model's engine; steps that run on it run to their end. With `interrupt` they end at once and are retried.
    /// It is loaded again when needed.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::Stopped`].
    pub async fn unload(&self, model: &str, interrupt: bool) -> Result<(), Error> {
        let host = self.engine_host(&self.model(model)?).await?;
        let handle = call!(host, engine_host::Message::Unload).map_err(|_| Error::Stopped)?;
        let Some(handle) = handle else { return Ok(()) };
        if interrupt {
            handle.close().await;
        } else {
            let ended = handle.watch_end();
            drop(handle);
            ended.await;
        }
        Ok(())
    }

    /// Recent loads and unloads with their reasons, oldest first.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn model_moves(&self) -> Result<Vec<ModelMove>, Error> {
        let scheduler = call!(self.supervisor, Message::ModelScheduler).map_err(|_| Error::Stopped)?;
        call!(scheduler, model_scheduler::Message::Moves).map_err(|_| Error::Stopped)
    }

    fn model(&self, name: &str) -> Result<Arc<Model>, Error> {
        self.catalog().engines().remove(name).ok_or_else(|| Error::NoModel { name: name.to_owned() })
    }

    pub(super) async fn engine_host(&self, model: &Arc<Model>) -> Result<ActorRef<engine_host::Message>, Error> {
        call!(self.supervisor, Message::EngineHost, model.clone()).map_err(|_| Error::Stopped)
    }
}
