//! The services over a runtime whose models cannot be loaded.

mod owners;
mod training;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artel_access::Access;
use artel_actors::{Clock, LoadProgress, Loader, MemoryDemand, Options, Runtime};
use artel_engine::{EngineHandle, LoadError};
use artel_feedback::{FeedbackStore, RatingStore};
use artel_journal::Journal;
use artel_placement::{DeviceBytes, DeviceKind, ModelFootprint, Placement};
use artel_proto::v1;
use artel_proto::v1::admin_server::Admin;
use artel_proto::v1::catalog_server;
use artel_proto::v1::engines_server::Engines;
use artel_proto::v1::tasks_server::Tasks;
use artel_roles::{Catalog, Model, NetworkRules, Role, YamlSource, shipped};
use artel_trainer::{Environment, EnvironmentOptions};
use artel_training::SampleMessage;
use artel_training_runs::{HostError, LossRequest, MeasuredLoss, SampleTokens, TrainingHost, TrainingRuns};
use async_trait::async_trait;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use crate::{DeviceStatus, Machine, ReloadStatus, ServerPaths, ServiceState};

const CATALOG: &str = "model: tiny\nfile: tiny.gguf\n---\nrole: poet\ndescription: Writes.\nmodel: tiny\nprompt: P.\n\
                       limits: {retries: 0}\n";

/// Every message names the directory of models.
struct EmptyMachine {
    models: PathBuf,
}

impl EmptyMachine {
    fn missing(&self, model: &Model) -> LoadError {
        let path = self.models.join("tiny.gguf");
        LoadError::permanent(format!("{}: no such file", path.display())).in_context(&model.name)
    }
}

#[async_trait]
impl Loader for EmptyMachine {
    async fn load(&self, model: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        Err(self.missing(model))
    }
}

#[async_trait]
impl Machine for EmptyMachine {
    async fn device_statuses(&self, _: &DeviceBytes) -> Vec<DeviceStatus> {
        vec![DeviceStatus {
            name: "CPU".to_owned(),
            kind: DeviceKind::Cpu,
            description: "Some CPU".to_owned(),
            backend: "CPU".to_owned(),
            problem: None,
            rpc_address: None,
            total: 16 << 30,
            free: 8 << 30,
            reading: None,
        }]
    }

    async fn estimate_footprint(&self, model: &Model, _: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        Err(self.missing(model))
    }
}

/// Runs that no test starts.
fn training_runs_of(data: &Path, ratings: &RatingStore, environment: EnvironmentOptions) -> TrainingRuns {
    struct NoHost;

    #[async_trait]
    impl TrainingHost for NoHost {
        async fn tokenize(&self, _: &Arc<Role>, _: &[SampleMessage], _: &str) -> Result<SampleTokens, HostError> {
            Err(HostError::Unavailable("no engine".to_owned()))
        }

        async fn measure(&self, _: LossRequest) -> Result<MeasuredLoss, HostError> {
            Err(HostError::Unavailable("no engine".to_owned()))
        }
    }

    let environment = Environment::new(environment);
    let options = artel_training_runs::Options { dir: data.join("runs"), environment, threads: 1 };
    TrainingRuns::open(options, ratings, Arc::new(NoHost)).unwrap()
}

async fn services(dir: &Path) -> ServiceState {
    let [models, catalog_dir, data] = ["models", "catalog", "data"].map(|name| dir.join(name));
    let path = catalog_dir.join("own.yaml").to_string_lossy().into_owned();
    let own = YamlSource { path, dir: Some(catalog_dir.clone()), text: CATALOG.to_owned() };
    let catalog = Catalog::parse(vec![shipped::sources(), vec![own]]).unwrap();
    let journal = Journal::open(&data, artel_journal::Options::default()).await.unwrap();
    let machine = Arc::new(EmptyMachine { models: models.clone() });
    let access = Access::open(&data, Clock::default()).unwrap();
    let (feedback, ratings) = (FeedbackStore::open(&data).unwrap(), RatingStore::open(&data).unwrap());
    let (models_dir, prefix_cache_dir) = (models.clone(), Some(data.join("prefixes")));
    let (kept, rated) = (Some(feedback.clone()), Some(ratings.clone()));
    let options = Options { models_dir, prefix_cache_dir, feedback: kept, ratings: rated, ..Options::default() };
    ServiceState {
        runtime: Runtime::start(options, catalog, journal, machine.clone()).await.unwrap(),
        access,
        machine,
        feedback,
        training_runs: training_runs_of(&data, &ratings, EnvironmentOptions::below(data.join("trainer"))),
        training_lock: Arc::default(),
        ratings,
        network: NetworkRules::new(models.clone(), Some(catalog_dir.clone()), Vec::new(), Vec::new()),
        paths: ServerPaths::new(&models, Some(&catalog_dir), &data),
        log: artel_log::start(log_options()).unwrap().1,
        scrape_lock: Arc::default(),
        models,
        base_dir: catalog_dir,
        reload_status: ReloadStatus::default(),
        draining: CancellationToken::new(),
        closing: CancellationToken::new(),
    }
}

fn log_options() -> artel_log::Options {
    artel_log::Options {
        format: artel_log::LineFormat::Json,
        filter: artel_log::LogFilter::default(),
        forwarded_target: None,
    }
}

/// The message of the failure that ends a task.
async fn failure_of(state: &ServiceState, request: v1::SubmitRequest) -> String {
    let task = Tasks::submit(state, Request::new(request)).await.unwrap().into_inner();
    let request = v1::WatchRequest { task_id: task.id, ..v1::WatchRequest::default() };
    let mut events = Tasks::watch(state, Request::new(request)).await.unwrap().into_inner();
    while let Some(event) = events.next().await {
        if let Some(v1::event::Kind::Failed(v1::Failed { failure })) = event.unwrap().kind {
            return failure.unwrap().message;
        }
    }
    panic!("the model cannot be loaded");
}

#[tokio::test]
async fn no_message_names_a_directory_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let state = services(dir.path()).await;
    let target = Some(v1::submit_request::Target::Role("poet".to_owned()));
    let submit = v1::SubmitRequest { target, input: "Hello".to_owned(), ..v1::SubmitRequest::default() };
    let failure = failure_of(&state, submit).await;
    let load = Engines::load(&state, Request::new(v1::LoadRequest { model: "tiny".to_owned() })).await.unwrap_err();
    assert_eq!(load.code(), Code::FailedPrecondition, "{load}");
    let request = v1::GetPlacementRequest { models: vec!["tiny".to_owned()] };
    let plan = state.get_placement(Request::new(request)).await.unwrap().into_inner();
    let engines = state.list_engines(Request::new(v1::ListEnginesRequest::default())).await.unwrap().into_inner();
    let request = v1::GetCatalogRequest { kind: v1::DefinitionKind::Model.into(), name: "tiny".to_owned() };
    let model = catalog_server::Catalog::get(&state, Request::new(request)).await.unwrap().into_inner();
    assert_eq!(model.location.unwrap().file, "own.yaml");
    assert_eq!(model.problems[0].location.as_ref().unwrap().file, "own.yaml");
    let failed_load = plan.changes.iter().find(|change| !change.loaded).unwrap();
    let messages: [&str; 6] = [
        &failure,
        load.message(),
        &plan.unplaced[0].reason,
        &failed_load.reason,
        &engines.engines[0].problem,
        &model.problems[0].message,
    ];
    for message in messages {
        assert!(message.contains("<models>/tiny.gguf"), "{message}");
        assert!(!message.contains(&*dir.path().to_string_lossy()), "{message}");
    }
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn the_devices_of_the_machine_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let state = services(dir.path()).await;
    let devices = state.list_devices(Request::new(v1::ListDevicesRequest::default())).await.unwrap().into_inner();
    let [cpu] = &devices.devices[..] else { panic!("{devices:?}") };
    assert_eq!((cpu.name.as_str(), cpu.kind(), cpu.free_bytes), ("CPU", v1::DeviceKind::Cpu, 8 << 30));
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn the_level_of_the_log_is_changed_unless_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let state = services(dir.path()).await;
    let set = async |filter: &str| {
        let request = v1::SetLogLevelRequest { filter: filter.to_owned() };
        Admin::set_log_level(&state, Request::new(request)).await.map(tonic::Response::into_inner)
    };
    let changed = set("info,artel_engine=trace").await.unwrap();
    assert_eq!(changed.filter, "info,artel_engine=trace");
    assert_eq!(changed.previous_filter, artel_log::DEFAULT_FILTER);
    let refused = set("info,artel=loud").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("filter: `info,artel=loud` is no filter of the log"), "{refused}");
    let level = Admin::get_log_level(&state, Request::new(v1::GetLogLevelRequest {})).await.unwrap().into_inner();
    assert_eq!((level.filter, level.previous_filter), (changed.filter, String::new()));
    state.runtime.drain(Duration::ZERO).await;
}
