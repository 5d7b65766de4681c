//! Runs that a daemon before this one has left, and a trainer that is not installed.

use std::fs;

use artel_proto::v1::training_server::Training;
use artel_trainer::{RunSettings, TrainingBase};
use serde_json::json;
use tonic::{Response, Status};
use tonic_types::StatusExt as _;

use super::*;

/// The id of the run that is kept.
const RUN: &str = "returns.3";
const ADAPTER: &str = "the bytes of an adapter";

/// A daemon with a run that has succeeded.
async fn with_run(dir: &Path) -> ServiceState {
    let run = dir.join("data/runs").join(RUN);
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("adapter.gguf"), ADAPTER).unwrap();
    let data = json!({
        "train": 8, "held_out": 2, "train_tokens": 80, "left_out": [["a.jsonl:3", "it is too long"]], "left_out_count": 1,
        "sha256": "", "base_sha256": "", "rated_tasks": [], "erased": 0,
    });
    let losses = json!({"before": 2.0, "after": 1.0, "checked": 1.0, "served_before": 2.1, "served": 1.1});
    let record = json!({
        "format": 1, "id": RUN, "training": "returns", "role": "poet", "model": "tiny", "state": "succeeded", "started": 1, "ended": 2,
        "settings": RunSettings::of(TrainingBase::Gguf("tiny.gguf".into())), "model_file": "tiny.gguf", "data": data,
        "losses": losses, "adapter": {"sha256": "ab", "bytes": ADAPTER.len()}, "error": null,
    });
    fs::write(run.join("run.json"), record.to_string()).unwrap();
    services(dir).await
}

fn of_run() -> Request<v1::GetRunRequest> {
    Request::new(v1::GetRunRequest { run: RUN.to_owned() })
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn a_list_has_less_of_a_run_than_the_run_itself() {
    let dir = tempfile::tempdir().unwrap();
    let state = with_run(dir.path()).await;
    let full = state.get_run(of_run()).await.unwrap().into_inner();
    assert_eq!(full.data.as_ref().unwrap().left_out[0].reason, "it is too long");
    let adapter = full.adapter.as_ref().unwrap();
    assert_eq!((adapter.file.as_str(), adapter.bytes), ("<data>/runs/returns.3/adapter.gguf", ADAPTER.len() as u64));
    let mut brief = full.clone();
    brief.data.as_mut().unwrap().left_out.clear();
    let runs = state.list_runs(Request::new(v1::ListRunsRequest::default())).await.unwrap().into_inner().runs;
    assert_eq!(runs, [brief.clone()]);
    assert_eq!(runs[0].losses.unwrap().served, Some(1.1));
    let request = v1::WatchRunRequest { run: RUN.to_owned() };
    let watched = state.watch_run(Request::new(request)).await.unwrap().into_inner();
    let watched: Vec<_> = watched.map(Result::unwrap).collect().await;
    assert_eq!(watched, [brief], "it is over: that is told, and no more");
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn an_adapter_is_exported_until_its_run_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let state = with_run(dir.path()).await;
    let export = || Request::new(v1::ExportRunRequest { run: RUN.to_owned(), ..v1::ExportRunRequest::default() });
    let chunks = state.export_run(export()).await.unwrap().into_inner();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    assert_eq!(chunks, [v1::AdapterChunk { file: "adapter.gguf".to_owned(), data: ADAPTER.into() }]);
    state.delete_run(Request::new(v1::DeleteRunRequest { run: RUN.to_owned() })).await.unwrap();
    let errors = [state.get_run(of_run()).await.err(), state.export_run(export()).await.err()];
    for error in errors {
        let error = error.unwrap();
        assert_eq!((error.code(), reason(&error)), (Code::NotFound, "TRAINING_RUN_NOT_FOUND".to_owned()));
    }
    assert!(!dir.path().join("data/runs").join(RUN).exists());
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_trainer_that_is_not_installed_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let state = services(dir.path()).await;
    let trainer =
        async || state.get_trainer(Request::new(v1::GetTrainerRequest {})).await.map(Response::into_inner).unwrap();
    let missing = trainer().await;
    assert_eq!((missing.state(), missing.problem.as_str()), (v1::TrainerState::Missing, "it is not installed"));
    assert!(missing.needed_bytes > 1_000_000_000, "{missing:?}");
    fs::create_dir_all(dir.path().join("data/trainer/cache")).unwrap();
    let incomplete = trainer().await;
    assert_eq!(incomplete.state(), v1::TrainerState::Incomplete);
    assert_eq!(incomplete.problem, "a setup began and did not end");
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_trainer_of_ones_own_takes_no_space_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = services(dir.path()).await;
    let python = dir.path().join("data/python");
    let environment =
        EnvironmentOptions { existing: Some(python), ..EnvironmentOptions::below(dir.path().join("data/trainer")) };
    state.training_runs = training_runs_of(&dir.path().join("data"), &state.ratings, environment);
    let trainer = state.get_trainer(Request::new(v1::GetTrainerRequest {})).await.unwrap().into_inner();
    assert_eq!((trainer.state(), trainer.needed_bytes), (v1::TrainerState::Incomplete, 0));
    assert!(trainer.problem.contains("<data>/python"), "{}", trainer.problem);
    let setup = state.set_up_trainer(Request::new(v1::SetUpTrainerRequest {})).await.unwrap().into_inner();
    let told: Vec<_> = setup.collect().await;
    let refused = told.last().unwrap().as_ref().unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("<data>/python"), "{}", refused.message());
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_setup_ends_with_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let state = services(dir.path()).await;
    state.training_runs.close().await;
    let setup = state.set_up_trainer(Request::new(v1::SetUpTrainerRequest {})).await.unwrap().into_inner();
    let told: Vec<_> = setup.collect().await;
    let ended = told.last().unwrap().as_ref().unwrap_err();
    assert_eq!((ended.code(), reason(ended)), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
    state.runtime.drain(Duration::ZERO).await;
}
