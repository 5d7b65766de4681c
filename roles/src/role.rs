//! Roles: who does one trade, on which model, in which words and limits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_task::event::TaskPriority;
use artel_task::{Condition, ModelName, RoleName};

use crate::File;
use crate::decode::{Fields, choice, duration, integer, items, name, number, text};
use crate::node::{Node, Span, Value};
use crate::problem::Report;
use crate::schema::Schema;
use crate::template::{self, Template};

/// Who does one trade.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// What it does, which routers read.
    pub description: String,
    /// Requests that belong to it, which routers compare.
    pub examples: Vec<String>,
    /// Words that speak for it, which routers look for.
    pub keywords: Vec<String>,
    /// When a router need not think: it sees what the router reads as `task.input`.
    pub when: Option<Condition>,
    /// The model that it runs on, which exists and is for chat.
    pub model: ModelName,
    /// The adapter over that model.
    pub adapter: Option<Adapter>,
    /// Devices of its own: the model is loaded there once more for it; empty: where the model is.
    pub devices: Vec<String>,
    /// The system message.
    pub prompt: Template,
    /// The user message; without it, the text of the node before, or the task's input at the start.
    pub message: Option<Template>,
    /// The shape of the output; without it, text.
    pub output: Option<Schema>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What a step may take.
    pub limits: RoleLimits,
    /// What happens when the prompt does not fit.
    pub overflow: Overflow,
    /// How urgent its steps are.
    pub class: TaskPriority,
}

/// A LoRA adapter in GGUF form.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Its file.
    pub file: File,
    /// The absolute directory of the YAML file; none if that is embedded.
    pub dir: Option<PathBuf>,
    /// How strongly it is applied.
    pub scale: f32,
}

impl Adapter {
    /// Where the file may be, in the order in which to look.
    pub fn candidates(&self, models_dir: &Path) -> Vec<PathBuf> {
        crate::file::candidates(&self.file, self.dir.as_deref(), models_dir)
    }
}

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Only tokens with this share of the likeliest one's probability.
    pub min_p: f32,
    /// Divides the weight of tokens that were there; 1 for none.
    pub repeat_penalty: f32,
    /// The seed of the dice; without it, another one each time.
    pub seed: Option<u32>,
    /// The most tokens of one answer.
    pub max_tokens: u32,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_p: 0.95,
            top_k: 40,
            min_p: 0.05,
            repeat_penalty: 1.0,
            seed: None,
            max_tokens: 512,
            stop: Vec::new(),
        }
    }
}

/// What a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleLimits {
    /// From the step's start to its end, waiting in the queue included.
    pub timeout: Duration,
    /// The longest time without a token, once decoding began.
    pub idle: Duration,
    /// Further attempts after a failed one.
    pub retries: u32,
    /// Steps of this role that run at once.
    pub concurrency: u32,
    /// Steps of this role that wait.
    pub queue: u32,
}

impl Default for RoleLimits {
    fn default() -> Self {
        let (timeout, idle) = (Duration::from_secs(120), Duration::from_secs(60));
        Self { timeout, idle, retries: 2, concurrency: 4, queue: 64 }
    }
}

/// What happens when the prompt does not fit the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The step fails.
    Reject,
    /// The middle of the user message goes.
    Truncate,
    /// As `Truncate` for a prompt that alone does not fit; an output that outgrows the context forgets what came first.
    Shift,
}

/// A role, and where it names its model.
pub(crate) struct Draft {
    pub(crate) role: Role,
    pub(crate) model_span: Span,
}

/// Examples of one role or graph: each is embedded once, and what is learned from them grows with their number.
pub(crate) const MAX_EXAMPLES: usize = 1024;
const SAMPLING: [&str; 8] = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "max_tokens", "stop"];
const LIMITS: [&str; 5] = ["timeout", "idle", "retries", "concurrency", "queue"];

impl Role {
    pub(crate) fn decode(role: &RoleName, fields: Fields<'_>, report: &mut Report<'_>) -> Option<Draft> {
        let mut f = fields;
        let description = f.need("description", report).and_then(|n| text(n, "`description`", 1..=2000, report));
        let examples =
            f.get("examples").map(|n| texts(n, "`examples`", MAX_EXAMPLES, 2000, report)).unwrap_or_default();
        let keywords = f.get("keywords").map(|n| texts(n, "`keywords`", 256, 100, report)).unwrap_or_default();
        let when = f.get("when").map(|n| crate::routing::rule(n, report));
        let model = f.need("model", report);
        let model = model.and_then(|n| Some((name(n, "a model", ModelName::parse, report)?, n.span)));
        let adapter = f.get("adapter").map(|n| adapter(n, report));
        let devices = f.get("devices").map(|n| crate::model::devices(n, report)).unwrap_or_default();
        let prompt = f.need("prompt", report).and_then(|n| template::decode(n, "`prompt`", report));
        let message = f.get("message").map(|n| template::decode(n, "`message`", report));
        let output = f.get("output").map(|n| Schema::decode(n, report));
        let sampling = f.get("sampling").map(|n| sampling(n, report)).unwrap_or_default();
        let limits = f.get("limits").map(|n| limits(n, report)).unwrap_or_default();
        let overflow = f.get("overflow").map_or(Some(Overflow::Reject), |n| overflow(n, report));
        let classes = [("interactive", TaskPriority::Interactive), ("batch", TaskPriority::Batch)];
        let class = f.get("class").map_or(Some(TaskPriority::default()), |n| choice(n, "`class`", &classes, report));
        let homes = SAMPLING.map(|key| (key, "sampling")).into_iter().chain(LIMITS.map(|key| (key, "limits")));
        f.finish(&homes.collect::<Vec<_>>(), report);
        let (model, model_span) = model?;
        let role = Self {
            name: role.clone(),
            description: description?,
            examples,
            keywords,
            when: when.flatten(),
            model,
            adapter: adapter.flatten(),
            devices,
            prompt: prompt?,
            message: message.flatten(),
            output: output.flatten(),
            sampling,
            limits,
            overflow: overflow?,
            class: class?,
        };
        Some(Draft { role, model_span })
    }
}

pub(crate) fn texts(node: &Node, what: &str, most: usize, longest: usize, report: &mut Report<'_>) -> Vec<String> {
    let nodes = items(node, what, most, report).unwrap_or_default();
    let item = format!("an item of {what}");
    nodes.iter().filter_map(|n| text(n, &item, 1..=longest, report)).collect()
}

fn adapter(node: &Node, report: &mut Report<'_>) -> Option<Adapter> {
    let dir = report.source.dir.clone();
    if !matches!(node.value, Value::Map(_)) {
        let file = crate::file::decode(node, "`adapter`", report)?;
        return Some(Adapter { file, dir, scale: 1.0 });
    }
    let mut f = Fields::open(node, "`adapter`", report)?;
    let file = f.need("file", report).and_then(|n| crate::file::decode(n, "`file`", report));
    let scale = f.get("scale").map_or(Some(1.0), |n| number(n, "`scale`", -10.0..=10.0, report));
    f.finish(&[], report);
    Some(Adapter { file: file?, dir, scale: scale? as f32 })
}

fn sampling(node: &Node, report: &mut Report<'_>) -> Sampling {
    let Some(mut f) = Fields::open(node, "`sampling`", report) else { return Sampling::default() };
    let base = Sampling::default();
    let mut float = |key: &'static str, range, base: f32, report: &mut Report<'_>| {
        let given = f.get(key).and_then(|n| number(n, &format!("`{key}`"), range, report));
        given.map_or(base, |value| value as f32)
    };
    let temperature = float("temperature", 0.0..=2.0, base.temperature, report);
    let top_p = float("top_p", 0.01..=1.0, base.top_p, report);
    let min_p = float("min_p", 0.0..=1.0, base.min_p, report);
    let repeat_penalty = float("repeat_penalty", 0.5..=2.0, base.repeat_penalty, report);
    let top_k = f.get("top_k").and_then(|n| integer(n, "`top_k`", 0..=1000, report));
    let seed = f.get("seed").and_then(|n| integer(n, "`seed`", 0..=u32::MAX, report));
    let max_tokens = f.get("max_tokens").and_then(|n| integer(n, "`max_tokens`", 1..=1_048_576, report));
    let stop = f.get("stop").map(|n| texts(n, "`stop`", 16, 200, report));
    f.finish(&LIMITS.map(|key| (key, "limits")), report);
    Sampling {
        temperature,
        top_p,
        top_k: top_k.unwrap_or(base.top_k),
        min_p,
        repeat_penalty,
        seed,
        max_tokens: max_tokens.unwrap_or(base.max_tokens),
        stop: stop.unwrap_or_default(),
    }
}

fn limits(node: &Node, report: &mut Report<'_>) -> RoleLimits {
    const DAY: Duration = Duration::from_secs(86_400);
    let base = RoleLimits::default();
    let Some(mut f) = Fields::open(node, "`limits`", report) else { return base };
    let range = Duration::from_millis(100)..=DAY;
    let timeout = f.get("timeout").and_then(|n| duration(n, "`timeout`", range.clone(), report));
    let idle = f.get("idle").and_then(|n| duration(n, "`idle`", range, report));
    let retries = f.get("retries").and_then(|n| integer(n, "`retries`", 0..=10, report));
    let concurrency = f.get("concurrency").and_then(|n| integer(n, "`concurrency`", 1..=256, report));
    let queue = f.get("queue").and_then(|n| integer(n, "`queue`", 0..=100_000, report));
    f.finish(&SAMPLING.map(|key| (key, "sampling")), report);
    RoleLimits {
        timeout: timeout.unwrap_or(base.timeout),
        idle: idle.unwrap_or(base.idle),
        retries: retries.unwrap_or(base.retries),
        concurrency: concurrency.unwrap_or(base.concurrency),
        queue: queue.unwrap_or(base.queue),
    }
}

fn overflow(node: &Node, report: &mut Report<'_>) -> Option<Overflow> {
    let words = [("reject", Overflow::Reject), ("truncate", Overflow::Truncate), ("shift", Overflow::Shift)];
    choice(node, "`overflow`", &words, report)
}
