//! Fixtures, and tests of a host and its scheduler together.

mod load_failures;
mod step_failures;

use std::sync::Arc;

use artel_roles::{Catalog, YamlSource};
use artel_task::Clock;
use ractor::{Actor, ActorRef};

use crate::engine_host::{EngineHost, EngineHostArgs, Message};
use crate::model_scheduler::{ModelScheduler, ModelSchedulerArgs};
use crate::{Loader, ModelLookahead};

/// The catalog of these documents.
pub(crate) fn catalog(yaml: &str) -> Catalog {
    let source = YamlSource { path: "test.yaml".to_owned(), dir: Some("/nowhere".into()), text: yaml.to_owned() };
    Catalog::parse(vec![vec![source]]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The host of the model `talk`, with a scheduler of its own.
pub(crate) async fn host(loader: Arc<dyn Loader>) -> ActorRef<Message> {
    let clock = Clock::default();
    let args =
        ModelSchedulerArgs { loader: loader.clone(), lookahead: ModelLookahead::default(), clock: clock.clone() };
    let (scheduler, _) = ModelScheduler::spawn(None, ModelScheduler, args).await.unwrap();
    let model = catalog("---\nmodel: talk\nfile: talk.gguf\n").model("talk").unwrap().clone();
    let metrics = artel_metrics::Metrics::new().engines.model("talk");
    let args = EngineHostArgs { id: "talk".into(), model, loader, scheduler, clock, metrics };
    EngineHost::spawn(None, EngineHost, args).await.unwrap().0
}
