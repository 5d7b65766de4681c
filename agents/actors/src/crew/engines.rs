//! The engines of the catalog's models, for people who look at them.

use std::sync::Arc;

use artel_roles::Model;
use ractor::{ActorRef, call};

use super::{Crew, Error, Message};
use crate::fleet::{self, Move};
use crate::keeper::{self, EngineReport, Hopeless};

impl Crew {
    /// Every model of the catalog with its engine, and those that running tasks or pinned roles have besides, by name.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn engines(&self) -> Result<Vec<EngineReport>, Error> {
        for model in self.catalog().models().values() {
            self.keeper(model).await?;
        }
        let keepers = call!(self.supervisor, Message::Keepers).map_err(|_| Error::Ended)?;
        let mut reports = Vec::new();
        for keeper in keepers {
            // One that has just been let go has nothing to report.
            reports.extend(call!(keeper, keeper::Message::Report).ok());
        }
        reports.sort_by(|a: &EngineReport, b| a.id.cmp(&b.id));
        Ok(reports)
    }

    /// Loads a model and returns when it serves.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::NoRoom`], [`Error::Failed`].
    pub async fn load(&self, model: &str) -> Result<EngineReport, Error> {
        self.is_open()?;
        let keeper = self.keeper(&self.model(model)?).await?;
        match call!(keeper, keeper::Message::Insist) {
            Ok(Err(Hopeless::NoRoom(reason))) => return Err(Error::NoRoom(reason)),
            answer => drop(keeper::unwrap(answer).map_err(Error::Failed)?),
        }
        call!(keeper, keeper::Message::Report).map_err(|_| Error::Ended)
    }

    /// Gives a model's engine up; steps that run on it run to their end. With `interrupt` they end at once and are tried
    /// again. It is loaded again when needed.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::Ended`].
    pub async fn unload(&self, model: &str, interrupt: bool) -> Result<(), Error> {
        let keeper = self.keeper(&self.model(model)?).await?;
        let handle = call!(keeper, keeper::Message::Unload).map_err(|_| Error::Ended)?;
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

    /// What was loaded and unloaded lately, and why, the oldest first.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn moves(&self) -> Result<Vec<Move>, Error> {
        let fleet = call!(self.supervisor, Message::Fleet).map_err(|_| Error::Ended)?;
        call!(fleet, fleet::Message::Moves).map_err(|_| Error::Ended)
    }

    fn model(&self, name: &str) -> Result<Arc<Model>, Error> {
        self.catalog().engines().remove(name).ok_or_else(|| Error::NoModel { name: name.to_owned() })
    }

    async fn keeper(&self, model: &Arc<Model>) -> Result<ActorRef<keeper::Message>, Error> {
        call!(self.supervisor, Message::Keeper, model.clone()).map_err(|_| Error::Ended)
    }
}
