//! Fixtures of the tests, those beside the crate's own modules too: a catalog, scripted loaders, and helpers around a runtime.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use artel_actors::{
    LoadProgress, Loader, MemoryDemand, Options, Runtime, StreamItem, Submission, Target, zero_footprint,
};
use artel_engine::backend::{BatchToken, DecodeError, EngineLimits};
use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{EngineHandle, LoadError, Options as EngineOptions};
use artel_journal::Journal;
use artel_placement::{Device, DeviceBytes, DeviceKind, ModelFootprint, Placement};
use artel_roles::{Catalog, Model, YamlSource, shipped};
use artel_task::event::TaskPriority;
use artel_task::{CallerName, Event, EventKind, Seq, TaskId};
use async_trait::async_trait;

/// A catalog with a writer, a critic that sends the first answer back, and a router.
pub(super) const CATALOG: &str = "
model: talk
file: talk.gguf
---
role: writer
description: Writes about rivers.
examples: [Where does the river flow?]
model: talk
prompt: You write.
limits: {concurrency: 1, queue: 1, retries: 2, timeout: 60s}
---
role: sailor
description: Sails boats at sea.
examples: [Which sail for a storm?]
model: talk
prompt: You sail.
---
role: critic
description: Judges.
model: talk
prompt: You judge.
output: {type: object, required: [verdict], properties: {verdict: {enum: [ship, revise]}}}
---
graph: loop
description: Writes and judges.
start: write
result: write
nodes:
  write: {role: writer, next: check}
  check:
    role: critic
    next:
      - {to: write, when: 'output.verdict == \"revise\"', at_most: 1}
      - {to: done}
---
graph: routed
description: Picks one.
start: pick
nodes:
  pick: {router: {roles: [writer, sailor]}, next: work}
  work: {role: {from: pick}, next: done}
---
graph: fan
description: Two at once.
start: pick
result: both
nodes:
  pick: {router: {roles: [writer]}, next: [left, right]}
  left: {role: writer, next: both}
  right: {role: sailor, next: both}
  both: {role: sailor, join: all, message: '{{ nodes.left.text }} and {{ nodes.right.text }}', next: done}
";

pub(super) fn catalog() -> Catalog {
    parse(CATALOG)
}

pub(crate) fn parse(yaml: &str) -> Catalog {
    let source = YamlSource { path: "test.yaml".to_owned(), dir: Some("/nowhere".into()), text: yaml.to_owned() };
    match Catalog::parse(vec![shipped::sources(), vec![source]]) {
        Ok(catalog) => catalog,
        Err(problems) => panic!("{problems}"),
    }
}

type FaultHook = Arc<dyn Fn(u64, &[BatchToken]) -> Option<DecodeError> + Send + Sync>;

/// Loads scripted engines: a writer repeats its question, a critic wants one revision.
#[derive(Clone)]
pub(super) struct ScriptedLoader {
    pub(super) gate: BatchGate,
    pub(super) loads: Arc<AtomicU32>,
    /// Why every load fails.
    pub(super) load_error: Option<LoadError>,
    pub(super) fault_hook: Option<FaultHook>,
}

impl ScriptedLoader {
    /// Its engines wait at a gate before each batch.
    pub(super) fn gated() -> Self {
        Self { gate: BatchGate::default(), loads: Arc::default(), load_error: None, fault_hook: None }
    }

    pub(super) fn open() -> Self {
        let loader = Self::gated();
        loader.gate.open();
        loader
    }
}

fn reply(prompt: &str) -> String {
    let lines: Vec<&str> = prompt.lines().collect();
    match lines.as_slice() {
        ["You judge.", answer] if answer.contains("again") => "{\"verdict\":\"ship\"}".to_owned(),
        ["You judge.", ..] => "{\"verdict\":\"revise\"}".to_owned(),
        ["You write.", question] if question.contains("verdict") => "again".to_owned(),
        [first, ..] if first.starts_with("You are the pathfinder") => {
            r#"{"steps":["Measure the untouched model.","Train a LoRA adapter.","Convert it to GGUF."]}"#.to_owned()
        }
        ["You list.", count] => {
            let items: Vec<u32> = (0..count.parse().unwrap_or(0)).collect();
            serde_json::json!({ "items": items }).to_string()
        }
        [_, question, ..] => format!("<{question}>"),
        _ => String::new(),
    }
}

#[async_trait]
impl Loader for ScriptedLoader {
    async fn load(&self, model: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = &self.load_error {
            return Err(error.clone());
        }
        let is_chat = model.name.as_str() == "talk";
        let (gate, fault_hook) = (self.gate.clone(), self.fault_hook.clone());
        let load = move || {
            let limits = EngineLimits {
                context_tokens: 65_536,
                sequences: 4,
                batch_tokens: 256,
                prefill_multiple: 1,
                can_truncate_kv: true,
                can_shift: true,
            };
            let mut scripted = ScriptedBackend::new(limits, reply);
            if is_chat {
                scripted = scripted.with_gate(&gate);
                if let Some(fault_hook) = fault_hook {
                    scripted = scripted.with_faults(move |n, batch| fault_hook(n, batch));
                }
            }
            Ok(scripted)
        };
        EngineHandle::spawn(model.name.as_str(), EngineOptions::default(), load).await
    }
}

/// Every model takes ten bytes, and the device has so many.
pub(super) struct FixedMemoryLoader(pub(super) ScriptedLoader, pub(super) u64);

#[async_trait]
impl Loader for FixedMemoryLoader {
    async fn load(&self, model: &Model, place: &Placement, progress: LoadProgress) -> Result<EngineHandle, LoadError> {
        self.0.load(model, place, progress).await
    }

    async fn footprint(&self, model: &Model, _: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        let process = if model.name.as_str() == "huge" { 26 } else { 10 };
        Ok(ModelFootprint { process_bytes: process, ..zero_footprint(model) })
    }

    async fn devices(&self, _: &DeviceBytes) -> Vec<Device> {
        vec![Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: self.1, free: self.1 }]
    }
}

/// A runtime in whose memory two of three models fit, and one of none.
pub(super) async fn small_runtime(dir: &Path) -> Runtime {
    let document = |name: &str| {
        format!(
            "---\nmodel: {name}\nfile: {name}.gguf\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: P.\n\
             limits: {{retries: 0}}\n"
        )
    };
    let catalog = parse(&["one", "two", "three", "huge"].map(document).concat());
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    Runtime::start(Options::default(), catalog, journal, Arc::new(FixedMemoryLoader(ScriptedLoader::open(), 25)))
        .await
        .unwrap()
}

/// A runtime on the journal of this directory.
pub(super) async fn runtime(dir: &Path, loader: &ScriptedLoader) -> Runtime {
    runtime_with(dir, loader, Options::default(), catalog()).await
}

pub(super) async fn runtime_with(dir: &Path, loader: &ScriptedLoader, options: Options, catalog: Catalog) -> Runtime {
    let journal = Journal::open(dir, artel_journal::Options::default()).await.unwrap();
    Runtime::start(options, catalog, journal, Arc::new(loader.clone())).await.unwrap()
}

pub(super) fn submission(target: Target, input: &str) -> Submission {
    Submission {
        target,
        input: input.to_owned(),
        request_id: None,
        priority: TaskPriority::Interactive,
        labels: BTreeMap::new(),
        owner: CallerName::owner(),
        trace: None,
        tools: None,
        reasoning: None,
        conversation: None,
        quota: artel_actors::CallerQuota::default(),
        sampling: None,
        response: None,
    }
}

pub(super) fn graph(name: &str) -> Target {
    Target::Graph(name.to_owned())
}

pub(super) fn role(name: &str) -> Target {
    Target::Role(name.to_owned())
}

/// All events of a task to its end, as a subscriber receives them.
pub(super) async fn all_events(runtime: &Runtime, task: TaskId) -> Vec<Event> {
    let mut subscription = runtime.subscribe(task, Seq(0), true).await.unwrap();
    let mut events = Vec::new();
    while let Some(item) = subscription.next().await.unwrap() {
        if let StreamItem::Event(event) = item {
            events.push(Event::clone(&event));
        }
    }
    let numbers: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "numbers have no gap");
    events
}

/// Waits until a subscriber has received so many events of this kind.
pub(super) async fn wait_for_events(
    runtime: &Runtime,
    task: TaskId,
    count: usize,
    wanted: impl Fn(&EventKind) -> bool,
) {
    let mut subscription = runtime.subscribe(task, Seq(0), true).await.unwrap();
    let mut missing = count;
    while missing > 0 {
        match subscription.next().await.unwrap().expect("the task continues") {
            StreamItem::Event(event) if wanted(&event.kind) => missing -= 1,
            _ => {}
        }
    }
}

pub(super) fn is_started(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepStarted { .. })
}

/// How a task ended, in one word and its text.
pub(super) fn end(events: &[Event]) -> (&'static str, String) {
    match &events.last().unwrap().kind {
        EventKind::Completed { output, .. } => ("completed", output.text.clone()),
        EventKind::Failed { failure } => ("failed", format!("{:?}: {}", failure.code, failure.message)),
        EventKind::Cancelled { reason, .. } => ("cancelled", reason.clone()),
        other => panic!("{other:?} is no end"),
    }
}
