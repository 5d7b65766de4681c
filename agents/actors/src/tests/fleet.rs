//! Models that come and go, and a fleet that panics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use artel_engine::EngineHandle;
use artel_journal::Journal;
use artel_placement::{DeviceBytes, Device, DeviceKind, ModelFootprint, Placement};
use artel_roles::Model;
use async_trait::async_trait;
use tempfile::tempdir;

use super::stage::{Script, ask, crew_with, end, graph, parse, role, to_the_end};
use crate::supervisor::Who;
use crate::{Crew, Demand, EngineState, Loader, Options, Progress, nothing};

/// Every model takes ten bytes, and there are so many.
struct Small(Script, u64);

#[async_trait]
impl Loader for Small {
    async fn load(&self, model: &Model, place: &Placement, progress: Progress) -> Result<EngineHandle, String> {
        self.0.load(model, place, progress).await
    }

    async fn need(&self, model: &Model, demand: Demand) -> Result<ModelFootprint, String> {
        let process = if model.name.as_str() == "huge" { 26 } else { 10 };
        Ok(ModelFootprint { process_bytes: process, ..nothing(model, demand.lanes) })
    }

    async fn devices(&self, _: &DeviceBytes) -> Vec<Device> {
        vec![Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: self.1, free: self.1 }]
    }
}

async fn small(dir: &std::path::Path) -> Crew {
    let document = |name: &str| {
        format!(
            "---\nmodel: {name}\nfile: {name}.gguf\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: P.\n\
             limits: {{retries: 0}}\n"
        )
    };
    let catalog = parse(&["one", "two", "three", "huge"].map(document).concat());
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    Crew::start(Options::default(), catalog, journal, Arc::new(Small(Script::open(), 25))).await.unwrap()
}

#[tokio::test]
async fn who_finds_no_room_waits_until_somebody_has_gone() {
    let dir = tempdir().unwrap();
    let crew = small(dir.path()).await;
    let mut tasks = Vec::new();
    for n in 0..12 {
        let who = ["one", "two", "three"][n % 3];
        tasks.push((n, crew.submit(ask(role(&format!("of-{who}")), &format!("{n}"))).await.unwrap()));
    }
    for (n, task) in tasks {
        assert_eq!(end(&to_the_end(&crew, task).await), ("completed", format!("<{n}>")));
    }
    let loaded = crew.engines().await.unwrap().into_iter().filter(|engine| engine.stats.is_some()).count();
    assert!(loaded <= 2, "{loaded} are loaded where two have room");
    let moves = crew.moves().await.unwrap();
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
    let script = Script::gated();
    let loader = Arc::new(Small(script.clone(), 35));
    let crew = Crew::start(Options::default(), catalog, journal, loader).await.unwrap();
    let answer = async |who: &str| {
        let task = crew.submit(ask(role(who), "x")).await.unwrap();
        assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<x>".to_owned()));
    };
    answer("of-two").await;
    answer("of-three").await;
    let chain = crew.submit(ask(graph("chain"), "x")).await.unwrap();
    let gate = script.gate.clone();
    tokio::task::spawn_blocking(move || gate.wait_until_held()).await.unwrap();
    answer("of-four").await;
    script.gate.open();
    assert_eq!(end(&to_the_end(&crew, chain).await), ("completed", "<<x>>".to_owned()));
    let moves = crew.moves().await.unwrap();
    let gone: Vec<&str> = moves.iter().filter(|moved| !moved.loaded).map(|moved| moved.model.as_str()).collect();
    assert_eq!(gone, ["three"]);
}

#[tokio::test]
async fn what_would_not_fit_alone_fails_at_once_and_says_by_how_much() {
    let dir = tempdir().unwrap();
    let crew = small(dir.path()).await;
    let task = crew.submit(ask(role("of-huge"), "x")).await.unwrap();
    let (word, text) = end(&to_the_end(&crew, task).await);
    assert_eq!((word, text.contains("huge does not fit")), ("failed", true), "{text}");
    let next = crew.submit(ask(role("of-one"), "y")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, next).await), ("completed", "<y>".to_owned()));
}

#[tokio::test]
async fn a_fleet_that_panics_is_replaced_and_told_how_things_stand() {
    let dir = tempdir().unwrap();
    let crew = small(dir.path()).await;
    let first = crew.submit(ask(role("of-one"), "a")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, first).await), ("completed", "<a>".to_owned()));
    crew.panic(Who::Fleet);
    for (who, word) in [("of-two", "b"), ("of-three", "c"), ("of-one", "d")] {
        let task = crew.submit(ask(role(who), word)).await.unwrap();
        assert_eq!(end(&to_the_end(&crew, task).await), ("completed", format!("<{word}>")));
    }
}

#[tokio::test]
async fn a_model_that_keeps_failing_is_given_up_until_somebody_insists() {
    let dir = tempdir().unwrap();
    let script = Script { broken: Some("it is cursed".to_owned()), ..Script::open() };
    let crew = crew_with(dir.path(), &script, Options::default(), super::stage::catalog()).await;
    for _ in 0..5 {
        assert!(crew.load("talk").await.is_err());
    }
    assert_eq!(script.loads.load(Ordering::SeqCst), 5);
    let engines = crew.engines().await.unwrap();
    let talk = engines.iter().find(|engine| engine.id == "talk").unwrap();
    let EngineState::Broken { retry: None, .. } = &talk.state else { panic!("{:?}", talk.state) };
    let yaml = crew.submit(ask(role("sailor"), "x")).await.unwrap();
    let (word, text) = end(&to_the_end(&crew, yaml).await);
    assert_eq!((word, text.contains("given up after 5 failures")), ("failed", true), "{text}");
    assert_eq!(script.loads.load(Ordering::SeqCst), 5, "nobody tried");
    assert!(crew.load("talk").await.is_err());
    assert_eq!(script.loads.load(Ordering::SeqCst), 6, "somebody insisted");
}

#[tokio::test]
async fn a_model_without_a_place_is_not_given_up() {
    let dir = tempdir().unwrap();
    let crew = small(dir.path()).await;
    for _ in 0..8 {
        let refused = crew.load("huge").await.unwrap_err();
        assert!(refused.to_string().contains("huge does not fit"), "{refused}");
    }
    let engines = crew.engines().await.unwrap();
    let huge = engines.iter().find(|engine| engine.id == "huge").unwrap();
    let EngineState::Broken { retry: Some(_), .. } = &huge.state else { panic!("{:?}", huge.state) };
}

#[tokio::test]
async fn a_keeper_that_panics_gives_its_room_up() {
    let dir = tempdir().unwrap();
    let crew = small(dir.path()).await;
    for name in ["one", "two"] {
        let task = crew.submit(ask(role(&format!("of-{name}")), name)).await.unwrap();
        assert_eq!(end(&to_the_end(&crew, task).await), ("completed", format!("<{name}>")));
    }
    for name in ["one", "two"] {
        crew.panic(Who::Keeper(crew.catalog().model(name).unwrap().clone()));
    }
    let task = crew.submit(ask(role("of-three"), "three")).await.unwrap();
    assert_eq!(end(&to_the_end(&crew, task).await), ("completed", "<three>".to_owned()));
}
