//! A directory with a catalog, a stand-in for the trainer, and a daemon that stands in for engines.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use artel_feedback::{AnswerRating, RatedMessage, RatingRecord, RatingStore};
use artel_gguf::{GgufWriter, MetadataValue, TensorLayout};
use artel_journal::{Journal, Options as JournalOptions};
use artel_roles::{Catalog, Role, YamlSource};
use artel_task::event::Timestamp;
use artel_task::{CallerName, CatalogVersion, RoleName, TaskId};
use artel_trainer::{Environment, EnvironmentOptions, TrainerSource};
use artel_training::{SampleMessage, collect};
use artel_training_runs::{
    HostError, LossRequest, MeasuredLoss, Options, RunPlan, RunView, SampleTokens, TrainingHost, TrainingRuns,
};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// The time for something that must happen, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(60);

/// Takes ten steps, and saves a checkpoint at each; does what a file `script.py` beside the runs says at the start of each.
const STAND_IN: &str = r#"
import json, os, signal, sys, threading, time

verb, run = sys.argv[1:]

def watch():
    os.read(0, 1)
    os._exit(9)

threading.Thread(target=watch, daemon=True).start()

def say(event, **fields):
    with open(os.path.join(run, "events.jsonl"), "a") as file:
        file.write(json.dumps({"event": event, "at": time.time(), **fields}) + "\n")

def wait():
    while True:
        time.sleep(600)

def pause(number, frame):
    say("paused", step=step)
    os._exit(4)

signal.signal(signal.SIGTERM, pause)
checkpoint = os.path.join(run, "checkpoints", "step")
step = int(open(checkpoint).read()) if os.path.exists(checkpoint) else 0
say("started", versions={"torch": "0"}, device="cpu", parameters=9, trainable=1, resumed_step=step)
if step == 0:
    say("evaluated", step=0, loss=2.0, samples=1, tokens=4)
script = open(os.path.join(os.path.dirname(run), "script.py")).read()
while step < 10:
    step += 1
    exec(script)
    say("step", step=step, steps=10, epoch=step / 10, loss=1 / step, learning_rate=0.1, tokens=20, seconds=0.5, samples=2)
    os.makedirs(os.path.dirname(checkpoint), exist_ok=True)
    with open(checkpoint + ".new", "w") as file:
        file.write(str(step))
    os.replace(checkpoint + ".new", checkpoint)
    say("checkpoint", step=step)
say("evaluated", step=10, loss=0.5, samples=1, tokens=4)
adapter = os.path.join(run, "adapter")
os.makedirs(adapter, exist_ok=True)
with open(os.path.join(adapter, "adapter_config.json"), "w") as file:
    json.dump({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]}, file)
tensors, data = {}, bytes(4 * 8)
for number, (side, shape) in enumerate([("A", [1, 8]), ("B", [8, 1])]):
    name = f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight"
    tensors[name] = {"dtype": "F32", "shape": shape, "data_offsets": [number * 32, number * 32 + 32]}
header = json.dumps(tensors).encode()
with open(os.path.join(adapter, "adapter_model.safetensors"), "wb") as file:
    file.write(len(header).to_bytes(8, "little") + header + data + data)
say("finished", step=10, samples_per_second=4.0, peak_bytes=1)
"#;

/// Counts characters as tokens; refuses samples with the word `long`.
#[derive(Default)]
pub(crate) struct CountingHost {
    /// Taken for each sample.
    pub(crate) gate: Option<Arc<Semaphore>>,
    /// Measurements that fail before the others.
    pub(crate) failures: AtomicU32,
    /// What the others give, in nats per token.
    pub(crate) loss: Option<f64>,
}

#[async_trait]
impl TrainingHost for CountingHost {
    async fn tokenize(
        &self,
        role: &Arc<Role>,
        messages: &[SampleMessage],
        answer: &str,
    ) -> Result<SampleTokens, HostError> {
        assert_eq!(role.name.as_str(), "sorter");
        let ids = |text: &str| text.chars().map(u32::from).collect::<Vec<u32>>();
        if messages.iter().any(|message| message.content.contains("long")) {
            return Err(HostError::Sample("it does not fit".to_owned()));
        }
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let prompt = messages.iter().flat_map(|message| ids(&message.content)).collect();
        Ok(SampleTokens { prompt, answer: ids(answer) })
    }

    async fn measure(&self, request: LossRequest) -> Result<MeasuredLoss, HostError> {
        assert!(request.adapter.iter().all(|path| path.is_file()) && request.samples.is_file());
        let failed = self.failures.fetch_update(SeqCst, SeqCst, |failures| failures.checked_sub(1));
        match failed {
            Ok(_) => Err(HostError::Unavailable("there is no memory".to_owned())),
            Err(_) => Ok(MeasuredLoss { nats: self.loss.unwrap_or(0.5), tokens: 4 }),
        }
    }
}

pub(crate) struct RunStage {
    dir: TempDir,
    pub(crate) ratings: RatingStore,
    _journal: Journal,
}

impl RunStage {
    pub(crate) async fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let line = |input: &str, output: &str| format!("{{\"input\": \"{input}\", \"output\": \"{output}\"}}\n");
        let train: String = ["one", "two", "a long one"].map(|input| line(input, "yes")).concat();
        fs::write(path.join("train.jsonl"), train + "{\n").unwrap();
        fs::write(path.join("held_out.jsonl"), line("three", "no")).unwrap();
        write_model(&path.join("m.gguf"), "llama");
        let journal = Journal::open(path, JournalOptions::default()).await.unwrap();
        let ratings = RatingStore::open(path).unwrap();
        let stage = Self { dir, ratings, _journal: journal };
        fs::create_dir_all(stage.runs_dir()).unwrap();
        stage.script(script);
        stage
    }

    /// What the trainer does at the start of each step.
    pub(crate) fn script(&self, script: &str) {
        fs::write(self.runs_dir().join("script.py"), script).unwrap();
    }

    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.dir.path().join("runs")
    }

    pub(crate) fn file(&self, run: &str, name: &str) -> PathBuf {
        self.runs_dir().join(run).join(name)
    }

    /// The runs, as a daemon opens them that starts.
    pub(crate) fn open(&self) -> TrainingRuns {
        self.open_with(CountingHost::default())
    }

    pub(crate) fn open_with(&self, host: CountingHost) -> TrainingRuns {
        let mut options = EnvironmentOptions::below(self.dir.path().join("trainer"));
        let files = [("artel_trainer/__init__.py", ""), ("artel_trainer/__main__.py", STAND_IN)];
        options.source = TrainerSource::of_files(files.map(|(path, text)| (path.to_owned(), text.to_owned()))).unwrap();
        options.required_packages = Vec::new();
        options.existing = Some(python());
        let options = Options { dir: self.runs_dir(), environment: Environment::new(options), threads: 1 };
        TrainingRuns::open(options, &self.ratings, Arc::new(host)).unwrap()
    }

    /// A run of `t`, which learns from two lines of a file and from ratings.
    pub(crate) fn plan(&self) -> RunPlan {
        let text = "{model: m, file: m.gguf}\n---\n{role: sorter, description: D., model: m, prompt: You sort.}\n---\n\
                    {training: t, role: sorter, data: [train.jsonl, ratings], held_out: held_out.jsonl, seed: 7,\n\
                    method: {lora: {rank: 4, targets: [q_proj]}}, schedule: {epochs: 2, batch: 2}}\n";
        let source =
            YamlSource { path: "x.yaml".to_owned(), dir: Some(self.dir.path().to_owned()), text: text.to_owned() };
        let catalog = Catalog::parse(vec![vec![source]]).unwrap_or_else(|problems| panic!("{problems}"));
        let (training, role) = (catalog.training("t").unwrap().clone(), catalog.role("sorter").unwrap().clone());
        let ratings = self.ratings.records(None, 0, 100).unwrap().into_iter().map(Ok);
        let data = collect(&training, &role, ratings, &|| true).unwrap();
        let model_file = self.dir.path().join("m.gguf");
        let template_kwargs = serde_json::Map::new();
        RunPlan { training, role, model: "m".to_owned(), model_file, data, template_kwargs }
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.dir.path().join("m.gguf")
    }

    /// A good rating of an answer in a task of this owner.
    pub(crate) fn rate(&self, task: TaskId, owner: &str) {
        let message = |role: &str, content: &str| RatedMessage { role: role.to_owned(), content: content.to_owned() };
        let record = RatingRecord {
            task,
            step: "sorter".to_owned(),
            role: RoleName::parse("sorter").unwrap(),
            messages: Some(vec![message("system", "You sort."), message("user", "rated")]),
            answer: "yes".to_owned(),
            rating: AnswerRating::Good,
            correction: None,
            comment: String::new(),
            catalog: CatalogVersion::new("x"),
            rated_at: Timestamp(7),
            owner: CallerName::parse(owner).unwrap(),
            caller: CallerName::owner(),
        };
        self.ratings.append(record).unwrap();
    }
}

/// A model of one linear layer, which has numbers of its own.
pub(crate) fn write_model(path: &Path, architecture: &str) {
    let layout = |name: &str, dimensions| TensorLayout { name: name.to_owned(), dimensions, ggml_type: 0 };
    let layouts = [layout("token_embd.weight", vec![8, 4]), layout("blk.0.attn_q.weight", vec![8, 8])];
    let heads = format!("{architecture}.attention.head_count");
    let metadata = [
        ("general.architecture", MetadataValue::Text(architecture.to_owned())),
        (heads.as_str(), MetadataValue::U32(2)),
    ];
    let mut writer = GgufWriter::new(Vec::new(), &metadata, &layouts).unwrap();
    layouts.iter().for_each(|layout| writer.write_tensor(&vec![0; layout.data_bytes() as usize]).unwrap());
    fs::write(path, writer.finish().unwrap()).unwrap();
}

/// The first interpreter on the path that runs.
fn python() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = std::env::split_paths(&path).map(|dir| dir.join("python3")).filter(|path| path.is_file());
    all.next().expect("the tests need python3 on the path")
}

/// Waits until a run is as wanted.
pub(crate) async fn until(runs: &TrainingRuns, run: &str, wanted: impl FnMut(&RunView) -> bool) -> RunView {
    let mut views = runs.watch(run).unwrap();
    let view = tokio::time::timeout(DEADLINE, views.wait_for(wanted)).await.expect("it takes too long").unwrap();
    view.clone()
}
