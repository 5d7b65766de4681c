//! Fixtures, and tests of a host and its scheduler together.

mod keep;
mod load_failures;
mod step_failures;

use std::sync::Arc;

use artel_roles::{Catalog, Model, YamlSource};
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
    only_host("model: talk\nfile: talk.gguf\n", loader).await
}

/// The host of the model `talk`, whose document this is.
async fn only_host(yaml: &str, loader: Arc<dyn Loader>) -> ActorRef<Message> {
    let [host] = hosts(yaml, ["talk"], loader).await;
    host
}

/// The hosts of these models, with one scheduler.
async fn hosts<const N: usize>(yaml: &str, names: [&str; N], loader: Arc<dyn Loader>) -> [ActorRef<Message>; N] {
    let catalog = catalog(yaml);
    hosts_of(names.map(|name| (name, catalog.model(name).unwrap().clone())), loader).await
}

/// The hosts of models by their ids, with one scheduler.
async fn hosts_of<const N: usize>(models: [(&str, Arc<Model>); N], loader: Arc<dyn Loader>) -> [ActorRef<Message>; N] {
    let clock = Clock::default();
    let args =
        ModelSchedulerArgs { loader: loader.clone(), lookahead: ModelLookahead::default(), clock: clock.clone() };
    let (scheduler, _) = ModelScheduler::spawn(None, ModelScheduler, args).await.unwrap();
    let mut hosts = Vec::new();
    for (id, model) in models {
        let metrics = artel_metrics::Metrics::new().engines.model(id);
        let (loader, scheduler, clock) = (loader.clone(), scheduler.clone(), clock.clone());
        let args = EngineHostArgs { id: id.into(), model, loader, scheduler, clock, metrics };
        hosts.push(EngineHost::spawn(None, EngineHost, args).await.unwrap().0);
    }
    hosts.try_into().unwrap_or_else(|_| unreachable!("there are as many as names"))
}
