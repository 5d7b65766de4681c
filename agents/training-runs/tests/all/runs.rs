//! Runs from their start to their end, in whatever way that comes.

use artel_journal::Erasure;
use artel_roles::LoraTargets;
use artel_task::TaskId;
use artel_training_runs::{Error, RunState, RunView};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::stage::{CountingHost, RunStage, until, write_model};

fn is_over(view: &RunView) -> bool {
    view.record.state.is_over()
}

fn is_at(step: u64) -> impl Fn(&RunView) -> bool {
    move |view| view.progress.last.is_some_and(|last| last.step >= step)
}

fn error(view: &RunView) -> &str {
    view.record.error.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_run_writes_what_its_trainer_reads_and_tells_how_far_it_is() {
    let stage = RunStage::new("if step == 4: wait()").await;
    stage.rate(TaskId::new(5, [0; 10]), "ann");
    let runs = stage.open();
    let started = runs.start(stage.plan()).await.unwrap();
    assert_eq!((started.record.id.as_str(), started.record.state), ("t.1", RunState::Preparing));
    let view = until(&runs, "t.1", is_at(3)).await;
    let last = view.progress.last.unwrap();
    assert_eq!((last.steps, last.tokens_per_second, last.samples_per_second), (10, 40.0, 4.0));
    assert_eq!((view.progress.loss_before, view.progress.curve().len()), (Some(2.0), 3));
    let data = &view.record.data;
    assert_eq!((data.train, data.held_out, data.left_out_count), (3, 1, 2));
    assert_eq!(data.left_out[1], ("train.jsonl:3".to_owned(), "it does not fit".to_owned()));
    assert_eq!((data.sha256.len(), data.base_sha256.len(), data.rated_tasks.len()), (64, 64, 1));
    let json = |name: &str| std::fs::read_to_string(stage.file("t.1", name)).unwrap();
    let settings: Value = serde_json::from_str(&json("settings.json")).unwrap();
    assert_eq!(settings["lora"], serde_json::json!({"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["q_proj"]}));
    assert_eq!((&settings["schedule"]["batch_samples"], &settings["seed"]), (&2.into(), &7.into()));
    let first: Value = serde_json::from_str(json("train.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!((&first["origin"], &first["text"]), (&"train.jsonl:1".into(), &"yes".into()));
    assert_eq!(first["prompt"].as_array().unwrap().len(), "You sort.one".len());
    assert!(matches!(runs.start(stage.plan()).await, Err(Error::Busy(id)) if id.as_str() == "t.1"));
    assert!(matches!(runs.delete("t.1").await, Err(Error::Unended(_))));
    let stopped = runs.stop("t.1").await.unwrap();
    assert_eq!((stopped.record.state, error(&stopped)), (RunState::Stopped, "it was stopped"));
    for gone in ["train.jsonl", "held_out.jsonl", "checkpoints"] {
        assert!(!stage.file("t.1", gone).exists(), "{gone} has texts, or is of no use any more");
    }
    assert!(matches!(runs.adapter("t.1"), Err(Error::NoAdapter(_))));
    runs.delete("t.1").await.unwrap();
    assert!(matches!(runs.get("t.1"), Err(Error::NoRun(_))) && !stage.file("t.1", "").exists());
    let next = runs.start(stage.plan()).await.unwrap();
    assert_eq!(next.record.id.as_str(), "t.2", "a number is not used again");
    runs.stop("t.2").await.unwrap();
}

#[tokio::test]
async fn a_run_that_passes_its_checks_keeps_its_adapter_and_no_texts() {
    let stage = RunStage::new("").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert_eq!((view.record.state, error(&view)), (RunState::Succeeded, ""));
    let losses = view.record.losses;
    assert_eq!((losses.before, losses.after, losses.checked), (Some(2.0), Some(0.5), Some(0.5)));
    assert_eq!((losses.served_before, losses.served), (Some(0.5), Some(0.5)));
    let (gguf, adapter) = (runs.adapter("t.1").unwrap(), view.record.adapter.clone().unwrap());
    assert_eq!(std::fs::metadata(&gguf).unwrap().len(), adapter.bytes);
    assert_eq!(artel_files::sha256(&[gguf]).unwrap(), adapter.sha256);
    assert!(runs.peft_adapter("t.1").unwrap().join("adapter_config.json").is_file());
    for gone in ["train.jsonl", "held_out.jsonl", "checkpoints"] {
        assert!(!stage.file("t.1", gone).exists(), "{gone} is of no use any more");
    }
    drop(runs);
    let runs = stage.open();
    let view = until(&runs, "t.1", |view| view.progress.curve().len() == 10).await;
    assert_eq!((view.record.state, view.record.adapter.clone()), (RunState::Succeeded, Some(adapter)));
}

#[tokio::test]
async fn a_loss_under_llama_cpp_that_is_another_ends_a_run() {
    let stage = RunStage::new("").await;
    let runs = stage.open_with(CountingHost { loss: Some(0.6), ..CountingHost::default() });
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert!(error(&view).contains("llama.cpp has a loss of 0.6000"), "{}", error(&view));
    assert!(view.record.adapter.is_none() && !stage.file("t.1", "adapter.gguf").exists());
}

#[tokio::test]
async fn what_may_pass_is_waited_for_and_loses_nothing() {
    let stage = RunStage::new(
        "if step == 4 and not os.path.exists(run + '/full'):\n    open(run + '/full', 'w')\n    \
         say('failed', kind='disk', message='the disk is full')\n    os._exit(3)",
    )
    .await;
    let runs = stage.open_with(CountingHost { failures: 1.into(), ..CountingHost::default() });
    let mut waited_for = Vec::new();
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", |view| {
        waited_for.extend(view.waiting.clone());
        is_over(view)
    });
    let view = view.await;
    assert_eq!((view.record.state, error(&view)), (RunState::Succeeded, ""));
    assert!(view.waiting.is_none());
    waited_for.dedup();
    let expected = ["the disk is full", "failed to measure its adapter under llama.cpp: there is no memory"];
    assert_eq!(waited_for.iter().map(|reason| &**reason).collect::<Vec<_>>(), expected);
    assert_eq!(view.progress.resumes, 1, "its trainer went on from the checkpoint");
    let steps: Vec<u64> = view.progress.curve().iter().map(|point| point.step).collect();
    assert_eq!(steps, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_run_that_waits_can_be_stopped() {
    let stage = RunStage::new("say('failed', kind='disk', message='the disk is full')\nos._exit(3)").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    until(&runs, "t.1", |view| view.waiting.is_some()).await;
    let stopped = runs.stop("t.1").await.unwrap();
    assert_eq!((stopped.record.state, stopped.waiting.is_none()), (RunState::Stopped, true));
}

#[tokio::test]
async fn a_model_that_cannot_be_trained_so_is_refused_at_once() {
    let stage = RunStage::new("").await;
    let runs = stage.open();
    write_model(&stage.model(), "mamba");
    let refused = runs.start(stage.plan()).await.unwrap_err().to_string();
    assert!(refused.contains("architecture is `mamba`"), "{refused}");
    write_model(&stage.model(), "llama");
    let mut plan = stage.plan();
    std::sync::Arc::make_mut(&mut plan.training).lora.targets = LoraTargets::Named(vec!["k_proj".to_owned()]);
    let refused = runs.start(plan).await.unwrap_err().to_string();
    assert!(refused.contains("no linear layer `k_proj`") && refused.contains("q_proj"), "{refused}");
    let mut plan = stage.plan();
    std::sync::Arc::make_mut(&mut plan.training).base = Some(stage.model());
    let refused = runs.start(plan).await.unwrap_err().to_string();
    assert!(refused.contains("is no directory"), "{refused}");
    assert!(runs.list(None).is_empty());
}

#[tokio::test]
async fn a_model_that_changes_meanwhile_ends_a_run() {
    let stage = RunStage::new("if step == 4: wait()").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    until(&runs, "t.1", is_at(3)).await;
    runs.close().await;
    drop(runs);
    write_model(&stage.model(), "qwen3");
    let view = until(&stage.open(), "t.1", is_over).await;
    assert!(error(&view).contains("has changed since the run began"), "{}", error(&view));
}

#[tokio::test]
async fn a_run_ends_while_its_samples_are_prepared() {
    let stage = RunStage::new("").await;
    let gate = std::sync::Arc::new(Semaphore::new(1));
    let host = || CountingHost { gate: Some(gate.clone()), ..CountingHost::default() };
    let task = TaskId::new(5, [0; 10]);
    stage.rate(task, "ann");
    let runs = stage.open_with(host());
    runs.start(stage.plan()).await.unwrap();
    let stopped = runs.stop("t.1").await.unwrap();
    assert_eq!((stopped.record.state, error(&stopped)), (RunState::Stopped, "it was stopped"));
    runs.start(stage.plan()).await.unwrap();
    stage.ratings.erase(&[Erasure::Task(task)]).unwrap();
    gate.add_permits(100);
    let view = until(&runs, "t.2", is_over).await;
    assert_eq!((view.record.state, view.record.data.erased), (RunState::Stopped, 1));
    assert!(error(&view).contains("were erased"), "{}", error(&view));
    assert!(!stage.file("t.2", "train.jsonl").exists());
}

#[tokio::test]
async fn what_is_erased_between_the_reading_of_ratings_and_the_start_ends_a_run() {
    let stage = RunStage::new("wait()").await;
    let task = TaskId::new(5, [0; 10]);
    stage.rate(task, "ann");
    let (runs, plan) = (stage.open(), stage.plan());
    stage.ratings.erase(&[Erasure::Task(task)]).unwrap();
    runs.start(plan).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert!(error(&view).contains("were erased"), "{}", error(&view));
}

#[tokio::test]
async fn a_trainer_that_is_killed_goes_on_from_its_checkpoint() {
    let stage = RunStage::new("if step == 4 and not os.path.exists(run + '/killed'):\n    open(run + '/killed', 'w')\n    os.kill(os.getpid(), 9)").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert_eq!((view.record.state, error(&view)), (RunState::Succeeded, ""));
    assert_eq!((view.progress.resumes, view.progress.loss_after), (1, Some(0.5)));
    assert_eq!(view.record.losses.after, Some(0.5));
    let steps: Vec<u64> = view.progress.curve().iter().map(|point| point.step).collect();
    assert_eq!(steps, (1..=10).collect::<Vec<_>>(), "no step is taken twice");
}

#[tokio::test]
async fn a_trainer_that_gets_no_further_is_not_started_for_ever() {
    let dying = |step: u32| format!("if step == {step}:\n    print('no luck', file=sys.stderr)\n    os._exit(1)");
    let stage = RunStage::new(&dying(1)).await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert!(error(&view).starts_with("the trainer ended 3 times without getting further"), "{}", error(&view));
    assert!(error(&view).contains("no luck"), "{}", error(&view));
    assert_eq!(view.progress.resumes, 2);
    // One with a checkpoint keeps it.
    stage.script(&dying(2));
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.2", |view| view.waiting.is_some()).await;
    assert!(view.waiting.unwrap().starts_with("the trainer ended 3 times without getting further"));
    stage.script("");
    let view = until(&runs, "t.2", is_over).await;
    assert_eq!((view.record.state, error(&view)), (RunState::Succeeded, ""));
}

#[tokio::test]
async fn what_the_trainer_says_ends_a_run() {
    let stage =
        RunStage::new("say('failed', kind='proof', message='the tokens differ', origin='train.jsonl:2')\nos._exit(3)")
            .await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    let view = until(&runs, "t.1", is_over).await;
    assert_eq!((view.record.state, error(&view)), (RunState::Failed, "train.jsonl:2: the tokens differ"));
    // Another one may begin then, with the next number.
    assert_eq!(runs.start(stage.plan()).await.unwrap().record.id.as_str(), "t.2");
    until(&runs, "t.2", is_over).await;
    let listed: Vec<String> = runs.list(Some("t")).iter().map(|view| view.record.id.to_string()).collect();
    assert_eq!(listed, ["t.2", "t.1"]);
    assert!(runs.list(Some("other")).is_empty());
}

#[tokio::test]
async fn a_run_goes_on_with_the_next_daemon() {
    let stage = RunStage::new("if step == 4: wait()").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    until(&runs, "t.1", is_at(3)).await;
    runs.close().await;
    assert_eq!(runs.get("t.1").unwrap().record.state, RunState::Training);
    assert!(matches!(runs.start(stage.plan()).await, Err(Error::Closing)));
    drop(runs);
    stage.script("");
    let runs = stage.open();
    let view = until(&runs, "t.1", is_over).await;
    assert_eq!((view.progress.resumes, view.progress.loss_after), (1, Some(0.5)), "{}", error(&view));
    drop(runs);
    // Its curve is there as long as it is.
    let runs = stage.open();
    let view = until(&runs, "t.1", |view| view.progress.curve().len() == 10).await;
    assert_eq!(view.record.state, RunState::Succeeded);
}

#[tokio::test]
async fn what_is_erased_ends_a_run_that_learns_from_it_and_marks_one_that_did() {
    let stage = RunStage::new("if step == 4: wait()").await;
    let (ann, bob) = (TaskId::new(5, [0; 10]), TaskId::new(6, [0; 10]));
    stage.rate(ann, "ann");
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    until(&runs, "t.1", is_at(3)).await;
    stage.rate(bob, "bob");
    stage.ratings.erase(&[Erasure::Task(bob)]).unwrap();
    assert!(stage.file("t.1", "train.jsonl").exists(), "it has not learned from this one");
    stage.ratings.erase(&[Erasure::Task(ann)]).unwrap();
    assert!(!stage.file("t.1", "train.jsonl").exists(), "its text is gone when the erase returns");
    let view = until(&runs, "t.1", is_over).await;
    assert!(error(&view).contains("were erased"), "{}", error(&view));
    assert_eq!((view.record.data.erased, view.record.data.rated_tasks.len()), (1, 0));
    // A run that is over is marked, by the next daemon too.
    stage.rate(bob, "bob");
    stage.script("say('failed', kind='proof', message='not as `rated`')\nos._exit(3)");
    runs.start(stage.plan()).await.unwrap();
    let failed = until(&runs, "t.2", is_over).await;
    assert_eq!(error(&failed), "not as `rated`");
    drop(runs);
    stage.ratings.erase(&[Erasure::Task(bob)]).unwrap();
    let failed = stage.open().get("t.2").unwrap();
    assert_eq!(failed.record.data.erased, 1);
    assert!(!error(&failed).contains("rated`") && !stage.file("t.2", "events.jsonl").exists(), "both quote it");
}

#[tokio::test]
async fn a_run_that_was_preparing_when_the_daemon_died_says_so() {
    let stage = RunStage::new("wait()").await;
    let runs = stage.open();
    runs.start(stage.plan()).await.unwrap();
    until(&runs, "t.1", |view| view.record.state == RunState::Training).await;
    runs.stop("t.1").await.unwrap();
    drop(runs);
    let record = stage.file("t.1", "run.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"stopped\"", "\"preparing\"")).unwrap();
    std::fs::create_dir(stage.runs_dir().join("t.7")).unwrap();
    let runs = stage.open();
    let view = until(&runs, "t.1", is_over).await;
    assert!(error(&view).contains("start the run again"), "{}", error(&view));
    assert!(matches!(runs.get("t.7"), Err(Error::NoRun(_))), "a directory without a record is none");
}

#[tokio::test]
async fn there_must_be_something_to_train_on_and_to_measure_by() {
    let stage = RunStage::new("").await;
    let runs = stage.open();
    let mut plan = stage.plan();
    plan.data.samples.retain(|sample| !sample.is_held_out);
    let refused = runs.start(plan).await.unwrap_err().to_string();
    assert!(refused.contains("no sample is held out"), "{refused}");
    let mut plan = stage.plan();
    plan.data.samples.retain(|sample| sample.is_held_out);
    let refused = runs.start(plan).await.unwrap_err().to_string();
    assert!(refused.contains("no sample to train on"), "{refused}");
    assert!(runs.list(None).is_empty());
}
