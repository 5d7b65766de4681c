//! Sample events of tasks, for tests.

use std::collections::HashMap;

use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::{Decode, Loading, Prefill, Queued, Stage};
use artel_proto::v1::*;
use prost_types::{Duration, Timestamp};

/// The task of every sample.
pub(crate) const TASK: &str = "0198c0de-0000-7000-8000-000000000001";

/// A builder of events with sequence numbers, 100 ms apart.
#[derive(Default)]
struct EventScript {
    events: Vec<Event>,
    seq: u64,
    output_bytes: HashMap<String, u64>,
}

impl EventScript {
    fn push(&mut self, kind: Kind) {
        let journalled = !matches!(kind, Kind::Token(_) | Kind::Progress(_));
        self.seq += u64::from(journalled);
        let tenths = i32::try_from(self.events.len()).unwrap();
        let time = Timestamp { seconds: 1_767_225_600 + i64::from(tenths / 10), nanos: tenths % 10 * 100_000_000 };
        let seq = if journalled { self.seq } else { 0 };
        self.events.push(Event { task_id: TASK.into(), seq, time: Some(time), kind: Some(kind) });
    }

    fn accepted(&mut self, graph: &str) {
        let catalog_version = "c0ffee".into();
        let priority = Priority::Interactive.into();
        self.push(Kind::Accepted(Accepted {
            graph: graph.into(),
            role: String::new(),
            catalog_version,
            priority,
            ..Default::default()
        }));
    }

    fn started(&mut self, step: &str, node: &str, role: &str, attempt: u32) {
        let (step_id, node, role) = (step.into(), node.into(), role.into());
        self.push(Kind::StepStarted(StepStarted { step_id, node, role, visit: 1, attempt, item: None }));
    }

    fn routed(&mut self, step: &str, node: &str, otherwise: bool) {
        self.started(step, node, "", 1);
        let (step_id, node) = (step.to_owned(), node.to_owned());
        let decision = Some(decision(otherwise));
        self.push(Kind::Routed(Routed { step_id: step_id.clone(), node: node.clone(), decision }));
        let next = vec!["answer".into()];
        self.push(Kind::StepFinished(StepFinished { step_id, node, next, ..Default::default() }));
    }

    fn progress(&mut self, step: &str, role: &str, stage: Stage) {
        let (step_id, node, role) = (step.into(), role.into(), role.into());
        self.push(Kind::Progress(Progress { step_id, node, role, stage: Some(stage) }));
    }

    fn token(&mut self, step: &str, node: &str, role: &str, text: &str) {
        let output_bytes = self.output_bytes.entry(step.into()).or_default();
        let offset = *output_bytes;
        *output_bytes += text.len() as u64;
        let (step_id, node, role) = (step.into(), node.into(), role.into());
        self.push(Kind::Token(Token { step_id, node, role, text: text.into(), offset, ..Default::default() }));
    }

    fn finished(&mut self, step: &str, node: &str, role: &str, text: &str, next: &str) {
        self.push(Kind::StepFinished(StepFinished {
            step_id: step.into(),
            node: node.into(),
            role: role.into(),
            output: Some(Output { text: text.into(), json: None, role: role.into(), ..Default::default() }),
            usage: Some(usage()),
            timings: Some(timings()),
            next: vec![next.into()],
            source: ResultSource::Run.into(),
            ..Default::default()
        }));
    }

    fn failed(&mut self, step: &str, node: &str, role: &str, retry_ms: Option<i32>) {
        self.push(Kind::StepFailed(StepFailed {
            step_id: step.into(),
            node: node.into(),
            role: role.into(),
            failure: Some(failure(FailureCode::Idle)),
            partial: None,
            will_retry: retry_ms.is_some(),
            retry_after: retry_ms.map(|ms| Duration { seconds: 0, nanos: ms * 1_000_000 }),
            next: Vec::new(),
        }));
    }
}

/// A decision of a router.
pub(crate) fn decision(otherwise: bool) -> Decision {
    let score = |role: &str, score: f64| {
        let signals = HashMap::from([("embedding".to_owned(), score), ("keyword".to_owned(), 1.0)]);
        Score { role: role.into(), score, signals, graph: String::new() }
    };
    Decision {
        role: if otherwise { "planner".into() } else { "lora".into() },
        confidence: if otherwise { 0.21 } else { 0.82 },
        otherwise,
        scores: vec![score("lora", 0.82), score("gguf", 0.4125), score("rag", 0.2)],
        signal: "embedding".into(),
        duration: Some(Duration { seconds: 0, nanos: 4_210_000 }),
        prefill_tokens: 9,
        roles: Vec::new(),
        graph: String::new(),
        margin: 0.4075,
        no_match: Some(NoMatch { score: 0.05, signals: HashMap::from([("embedding".to_owned(), 0.1)]) }),
    }
}

pub(crate) fn usage() -> Usage {
    Usage { prompt_tokens: 45, prefill_tokens: 13, cached_tokens: 32, output_tokens: 64, ..Default::default() }
}

pub(crate) fn timings() -> Timings {
    let ms = |ms: i32| Some(Duration { seconds: i64::from(ms / 1000), nanos: ms % 1000 * 1_000_000 });
    Timings {
        queue: ms(3),
        prefill: ms(120),
        decode: ms(1200),
        time_to_first_token: ms(130),
        max_inter_token_latency: None,
    }
}

pub(crate) fn failure(code: FailureCode) -> Failure {
    Failure { code: code.into(), message: "no token came for 20 s".into(), step_id: "s2".into() }
}

/// A router, an expert that fails once, and a critic; the result is not the last output.
pub(crate) fn mentor() -> Vec<Event> {
    let mut script = EventScript::default();
    script.accepted("mentor");
    script.routed("s1", "pick", false);
    script.started("s2", "answer", "lora", 1);
    script.failed("s2", "answer", "lora", Some(500));
    script.started("s3", "answer", "lora", 2);
    script.token("s3", "answer", "lora", "Rank 8");
    script.token("s3", "answer", "lora", " is enough.\n");
    script.token("s3", "answer", "lora", "\nTry 16");
    script.token("s3", "answer", "lora", " if not.");
    let answer = "Rank 8 is enough.\n\nTry 16 if not.";
    script.finished("s3", "answer", "lora", answer, "check");
    script.started("s4", "check", "critic", 1);
    script.token("s4", "check", "critic", r#"{"verdict":"ship"}"#);
    script.finished("s4", "check", "critic", r#"{"verdict":"ship"}"#, "done");
    let output = Some(Output { text: answer.into(), json: None, role: "lora".into(), ..Default::default() });
    script.push(Kind::Completed(Completed { output, fallback_cause: None }));
    script.events
}

/// The outputs of the three experts of [`council`].
pub(crate) fn council_texts() -> [(&'static str, String); 3] {
    let sentence = |word: &str| format!("{word} matters most, and so does what comes with it. ");
    [
        ("lora", sentence("The rank").repeat(6)),
        ("gguf", format!("{}\n{}", sentence("The file").repeat(3), sentence("Its type").repeat(2))),
        ("gpu", sentence("Memory").repeat(4)),
    ]
}

/// Three concurrent experts, token by token, and a planner after them.
pub(crate) fn council() -> Vec<Event> {
    let mut script = EventScript::default();
    script.accepted("council");
    let experts = [("s1", "train"), ("s2", "package"), ("s3", "hardware")];
    let texts = council_texts();
    for ((step, node), (role, _)) in experts.iter().zip(&texts) {
        script.started(step, node, role, 1);
    }
    script.progress("s1", "lora", Stage::Loading(Loading { model: "smollm2".into(), fraction: 0.4 }));
    script.progress("s2", "gguf", Stage::Queued(Queued { position: 2 }));
    script.progress("s3", "gpu", Stage::Prefill(Prefill { done_tokens: 128, total_tokens: 320 }));
    let pieces =
        texts.clone().map(|(role, text)| (role, text.split_inclusive(' ').map(str::to_owned).collect::<Vec<_>>()));
    for at in 0..pieces.iter().map(|(_, pieces)| pieces.len()).max().unwrap() {
        for ((step, node), (role, pieces)) in experts.iter().zip(&pieces) {
            if let Some(piece) = pieces.get(at) {
                script.token(step, node, role, piece);
            }
        }
    }
    script.progress("s1", "lora", Stage::Decode(Decode { output_tokens: 64, tokens_per_second: 53.31 }));
    for ((step, node), (role, text)) in experts.iter().zip(&texts) {
        script.finished(step, node, role, text, "plan");
    }
    script.started("s4", "plan", "planner", 1);
    script.token("s4", "plan", "planner", "Week 1: measure.");
    script.finished("s4", "plan", "planner", "Week 1: measure.", "done");
    let output =
        Some(Output { text: "Week 1: measure.".into(), json: None, role: "planner".into(), ..Default::default() });
    script.push(Kind::Completed(Completed { output, fallback_cause: None }));
    script.events
}

/// A restart, a question to a person, a step that fails permanently, and a cancellation.
pub(crate) fn troubled() -> Vec<Event> {
    let mut script = EventScript::default();
    script.accepted("mentor");
    script.routed("s1", "pick", true);
    script.started("s2", "answer", "planner", 1);
    script.token("s2", "answer", "planner", "First, I");
    script.push(Kind::Resumed(Resumed {}));
    script.started("s3", "answer", "planner", 2);
    script.token("s3", "answer", "planner", "Anew: ");
    script.failed("s3", "answer", "planner", None);
    script.push(Kind::Waiting(Waiting {
        step_id: "s4".into(),
        node: "approve".into(),
        reason: WaitingReason::Person.into(),
        message: "Ship it?".into(),
        schema: None,
        deadline: Some(Timestamp { seconds: 1_767_229_200, nanos: 0 }),
    }));
    script.push(Kind::Cancelled(Cancelled { reason: "the client\nexited".into(), partial: Vec::new() }));
    script.events
}

/// A model on the CPU, one split over two GPUs, one with experts and layers on the CPU, one that does not fit beside another, and one with a missing device.
pub(crate) fn placement() -> Placement {
    let share = |device: &str, share, bytes, layers| DevicePart {
        device: device.into(),
        share,
        bytes,
        layers,
        ..Default::default()
    };
    let small = PlacedModel {
        model: "smollm2".into(),
        split: SplitMode::None.into(),
        parts: vec![share("CPU", 1.0, 256_000_000, 30)],
        reason: "there is no GPU; 256 MB of 8.0 GB free".into(),
        loaded: true,
        context_tokens: 4096,
        sequences: 8,
        ..PlacedModel::default()
    };
    let big = PlacedModel {
        model: "big".into(),
        split: SplitMode::Layer.into(),
        parts: vec![
            share("CUDA0", 0.75, 7_400_000_000, 24),
            share("CUDA1", 0.25, 3_200_000_000, 8),
            share("CPU", 0.0, 150_000_000, 0),
        ],
        reason: "no single GPU has enough memory; split by free memory".into(),
        context_tokens: 4096,
        sequences: 8,
        ..PlacedModel::default()
    };
    let experts = PlacedModel {
        model: "experts".into(),
        split: SplitMode::None.into(),
        parts: vec![share("CUDA0", 0.75, 7_400_000_000, 35), share("CPU", 0.25, 20_100_000_000, 12)],
        reason: "it fits on no GPU; the last 36 of 48 layers are on CUDA0".into(),
        gpu_layers: Some(36),
        cpu_expert_layers: 47,
        context_tokens: 2304,
        sequences: 1,
        ..PlacedModel::default()
    };
    let critic = UnplacedModel {
        model: "critic".into(),
        reason: "critic does not fit beside big".into(),
        device: "CUDA0".into(),
        missing_bytes: 2_200_000_000,
        remedies: vec!["`sequences: 3` instead of 8".into(), "`devices: auto`".into()],
    };
    let lost = UnplacedModel {
        model: "lost".into(),
        reason: "lost is pinned to CUDA7, and there is no such device".into(),
        ..Default::default()
    };
    let changes = vec![PlacementChange {
        time: Some(Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        model: "smollm2".into(),
        loaded: true,
        reason: "steps wait for it".into(),
    }];
    Placement {
        placed: vec![small, big, experts],
        unplaced: vec![critic, lost],
        catalog_version: "c0ffee".into(),
        changes,
    }
}
