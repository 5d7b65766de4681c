//! Models that are loaded and evicted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use artel_actors::{EngineState, Options, Runtime};
use artel_engine::LoadError;
use artel_journal::Journal;
use tempfile::tempdir;

use super::fixtures::*;

#[tokio::test]
async fn a_model_that_does_not_fit_waits_until_another_is_evicted() {
    let dir = tempdir().unwrap();
    let runtime = small_runtime(dir.path()).await;
    let mut tasks = Vec::new();
    for n in 0..12 {
        let model = ["one", "two", "three"][n % 3];
        tasks.push((n, runtime.submit(submission(role(&format!("of-{model}")), &format!("{n}"))).await.unwrap()));
    }
    for (n, task) in tasks {
        assert_eq!(end(&all_events(&runtime, task).await), ("completed", format!("<{n}>")));
    }
    let loaded = runtime.engines().await.unwrap().into_iter().filter(|engine| engine.stats.is_some()).count();
    assert!(loaded <= 2, "{loaded} are loaded where two fit");
    let moves = runtime.model_moves().await.unwrap();
    assert!(moves.iter().filter(|moved| moved.loaded).count() >= 3 && moves.iter().any(|moved| !moved.loaded));
    assert!(moves.iter().all(|moved| !moved.reason.is_empty()));
}

#[tokio::test]
async fn a_model_that_a_task_needs_next_stays_though_another_was_used_later() {
    let dir = tempdir().unwrap();
    let document = |name: &str| {
        format!(
            "---\nmodel: {name}\nfile: {name}.gguf\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: P.\n"
        )
    };
    let chain = "---\ngraph: chain\ndescription: D.\nstart: a\nnodes:\n  \
                 a: {role: of-talk, next: b}\n  b: {role: of-two, next: done}\n";
    let catalog = parse(&format!("{}{chain}", ["talk", "two", "three", "four"].map(document).concat()));
    let journal = Journal::open(dir.path(), artel_journal::Options::default()).await.unwrap();
    let scripted = ScriptedLoader::gated();
    let loader = Arc::new(FixedMemoryLoader(scripted.clone(), 35));
    let runtime = Runtime::start(Options::default(), catalog, journal, loader).await.unwrap();
    let answer = async |name: &str| {
        let task = runtime.submit(submission(role(name), "x")).await.unwrap();
        assert_eq!(end(&all_events(&runtime, task).await), ("completed", "<x>".to_owned()));
    };
    answer("of-two").await;
    answer("of-three").await;
    let chain = runtime.submit(submission(graph("chain"), "x")).await.unwrap();
    let gate = scripted.gate.clone();
    tokio::task::spawn_blocking(move || gate.wait_until_held()).await.unwrap();
    answer("of-four").await;
    scripted.gate.open();
    assert_eq!(end(&all_events(&runtime, chain).await), ("completed", "<<x>>".to_owned()));
    let moves = runtime.model_moves().await.unwrap();
    let gone: Vec<&str> = moves.iter().filter(|moved| !moved.loaded).map(|moved| moved.model.as_str()).collect();
    assert_eq!(gone, ["three"]);
}

#[tokio::test]
async fn a_model_that_would_not_fit_alone_fails_at_once_and_says_by_how_much() {
    let dir = tempdir().unwrap();
    let runtime = small_runtime(dir.path()).await;
    let task = runtime.submit(submission(role("of-huge"), "x")).await.unwrap();
    let (word, text) = end(&all_events(&runtime, task).await);
    assert_eq!((word, text.contains("huge does not fit")), ("failed", true), "{text}");
    let next = runtime.submit(submission(role("of-one"), "y")).await.unwrap();
    assert_eq!(end(&all_events(&runtime, next).await), ("completed", "<y>".to_owned()));
}

#[tokio::test]
async fn a_model_that_keeps_failing_is_given_up_until_a_load_is_forced() {
    let dir = tempdir().unwrap();
    let loader = ScriptedLoader { load_error: Some(LoadError::transient("it is cursed")), ..ScriptedLoader::open() };
    let runtime = runtime_with(dir.path(), &loader, Options::default(), catalog()).await;
    for _ in 0..5 {
        assert!(runtime.load("talk").await.is_err());
    }
    assert_eq!(loader.loads.load(Ordering::SeqCst), 5);
    let engines = runtime.engines().await.unwrap();
    let talk = engines.iter().find(|engine| engine.id == "talk").unwrap();
    let EngineState::Failed { retry_after: None, .. } = &talk.state else { panic!("{:?}", talk.state) };
    let yaml = runtime.submit(submission(role("sailor"), "x")).await.unwrap();
    let (word, text) = end(&all_events(&runtime, yaml).await);
    assert_eq!((word, text.contains("given up after 5 failures")), ("failed", true), "{text}");
    assert_eq!(loader.loads.load(Ordering::SeqCst), 5, "it was not tried");
    assert!(runtime.load("talk").await.is_err());
    assert_eq!(loader.loads.load(Ordering::SeqCst), 6, "the load was forced");
}

#[tokio::test]
async fn a_model_without_a_placement_is_not_given_up() {
    let dir = tempdir().unwrap();
    let runtime = small_runtime(dir.path()).await;
    for _ in 0..8 {
        let refused = runtime.load("huge").await.unwrap_err();
        assert!(refused.to_string().contains("huge does not fit"), "{refused}");
    }
    let engines = runtime.engines().await.unwrap();
    let huge = engines.iter().find(|engine| engine.id == "huge").unwrap();
    let EngineState::Failed { retry_after: Some(_), .. } = &huge.state else { panic!("{:?}", huge.state) };
}
