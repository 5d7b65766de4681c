//! Roles: a prompt, the model that it runs on, its output schema, its sampling and its limits.

use std::time::Duration;

use artel_model::{ContextOverflow, ReasoningParams};
use artel_task::event::TaskPriority;
use artel_task::{Condition, KnowledgeName, ModelName, RoleName};
use artel_yaml::{Diagnostics, Span, YamlNode, YamlValue};

use crate::adapter::{self, Adapter, DeclaredAdapters};
use crate::declared_names::DeclaredNames;
use crate::decode::{MapReader, boolean, choice, duration, integer, name, text, texts};
use crate::keys;
use crate::role_knowledge;
use crate::sampling::RoleSampling;
use crate::schema::{Schema, SchemaUse};
use crate::template::{self, Template};
use crate::template_kwargs::{self, TemplateKwargs};

/// The largest budget of a reasoning: beyond the context of any model.
const MAX_REASONING_TOKENS: u32 = 1_048_576;

/// An expert in one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// What it does; routers compare it with the question.
    pub description: String,
    /// Questions that belong to it; routers compare them with the question.
    pub examples: Vec<String>,
    /// Words that routers look for in the question.
    pub keywords: Vec<String>,
    /// A rule by which a router chooses it: a condition over the router's input, which is `task.input`.
    pub when: Option<Condition>,
    /// The model that it runs on; a chat model of the catalog.
    pub model: ModelName,
    /// The LoRA adapters on that model, all at once.
    pub adapters: Vec<Adapter>,
    /// Devices on which the model is loaded once more for it; empty: it shares the model's engine.
    pub devices: Vec<String>,
    /// The system message.
    pub prompt: Template,
    /// The user message; without it, the output of the node before, or the task's input at the start.
    pub message: Option<Template>,
    /// Variables of the model's chat template, over those of the model.
    pub template_kwargs: TemplateKwargs,
    /// The shape of the output; without it, text.
    pub output: Option<Schema>,
    /// What it may answer from.
    pub knowledge: Vec<KnowledgeName>,
    /// Whether it answers from what was found alone, or says that nothing was.
    pub is_grounded: bool,
    /// What its model may do of its reasoning, and whether that is shown.
    pub reasoning: ReasoningParams,
    /// How tokens are chosen, how many there may be, and what ends them.
    pub sampling: RoleSampling,
    /// The limits of a step.
    pub limits: RoleLimits,
    /// What happens when the prompt does not fit.
    pub overflow: ContextOverflow,
    /// The priority of its steps.
    pub priority: TaskPriority,
    /// Whether it may be given tools of its callers.
    pub caller_tools: bool,
    /// Whether callers may add instructions behind its own.
    pub caller_system: bool,
}

/// The limits of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleLimits {
    /// The longest time from the step's start to its end, time in the queue included.
    pub timeout: Duration,
    /// The longest time without a new token, once decoding began.
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

/// A role, and the span of its model's name.
pub(crate) struct RoleDraft {
    pub(crate) role: Role,
    pub(crate) model_span: Span,
}

/// The most examples of one role or graph: each is embedded once, and the classifiers of routers grow with their number.
pub(crate) const MAX_EXAMPLES: usize = 1024;

impl Role {
    /// The value of `role` in templates.
    pub fn template_value(&self) -> serde_json::Value {
        serde_json::json!({"name": self.name.as_str(), "description": self.description})
    }

    pub(crate) fn decode(
        role: &RoleName,
        fields: MapReader<'_>,
        declared: &DeclaredAdapters<'_>,
        known: &DeclaredNames,
        report: &mut Diagnostics<'_>,
    ) -> Option<RoleDraft> {
        let mut f = fields;
        let description = f.need("description", report).and_then(|n| text(n, "`description`", 1..=2000, report));
        let examples =
            f.get("examples").map(|n| texts(n, "`examples`", MAX_EXAMPLES, 2000, report)).unwrap_or_default();
        let keywords = f.get("keywords").map(|n| texts(n, "`keywords`", 256, 100, report)).unwrap_or_default();
        let when = f.get("when").map(|n| crate::routing::rule(n, report));
        let model = f.need("model", report);
        let model = model.and_then(|n| Some((name(n, "a model", ModelName::parse, report)?, n.span)));
        let adapters = f.get("adapter").map(|n| adapter::of_role(n, declared, report)).unwrap_or_default();
        let devices = f.get("devices").map(|n| crate::model::devices(n, report)).unwrap_or_default();
        let prompt = f.need("prompt", report).and_then(|n| template::decode(n, "`prompt`", report));
        let message = f.get("message").map(|n| template::decode(n, "`message`", report));
        let kwargs = f.get("template_kwargs").map(|n| template_kwargs::decode(n, report)).unwrap_or_default();
        let output = f.get("output").map(|n| Schema::decode(n, SchemaUse::Output, report));
        let knowledge = f.get("knowledge").map(|n| role_knowledge::decode(n, known, report)).unwrap_or_default();
        let grounded = f.get("grounded");
        let is_grounded = grounded.map_or(Some(false), |n| boolean(n, "`grounded`", report));
        if let (Some(node), Some(true), true) = (grounded, is_grounded, knowledge.is_empty()) {
            report.error(node.span, "`grounded: true` is for a role with `knowledge`: without it, nothing is found");
        }
        let reasoning = f.get("reasoning").map(|n| reasoning(n, report)).unwrap_or_default();
        let sampling = f.get("sampling").map(|n| crate::sampling::decode(n, report)).unwrap_or_default();
        let limits = f.get("limits").map(|n| limits(n, report)).unwrap_or_default();
        let overflow = f.get("overflow").map_or(Some(ContextOverflow::Reject), |n| overflow(n, report));
        let priorities = [("interactive", TaskPriority::Interactive), ("batch", TaskPriority::Batch)];
        let priority =
            f.get("priority").map_or(Some(TaskPriority::default()), |n| choice(n, "`priority`", &priorities, report));
        let caller_tools = f.get("caller_tools").map_or(Some(true), |n| boolean(n, "`caller_tools`", report));
        let caller_system = f.get("caller_system").map_or(Some(true), |n| boolean(n, "`caller_system`", report));
        let sampling_keys = keys::SAMPLING.names().map(|key| (key, "sampling"));
        let limit_keys = keys::ROLE_LIMITS.names().map(|key| (key, "limits"));
        f.finish(&sampling_keys.chain(limit_keys).collect::<Vec<_>>(), report);
        let (model, model_span) = model?;
        let role = Self {
            name: role.clone(),
            description: description?,
            examples,
            keywords,
            when: when.flatten(),
            model,
            adapters,
            devices,
            prompt: prompt?,
            message: message.flatten(),
            template_kwargs: kwargs,
            output: output.flatten(),
            knowledge,
            is_grounded: is_grounded?,
            reasoning,
            sampling,
            limits,
            overflow: overflow?,
            priority: priority?,
            caller_tools: caller_tools?,
            caller_system: caller_system?,
        };
        Some(RoleDraft { role, model_span })
    }
}

fn reasoning(node: &YamlNode, report: &mut Diagnostics<'_>) -> ReasoningParams {
    let base = ReasoningParams::default();
    let Some(mut f) = MapReader::open(node, "`reasoning`", &keys::REASONING, report) else { return base };
    let show = f.get("show").and_then(|n| boolean(n, "`show`", report));
    let enabled = f.get("enabled").and_then(|n| match &n.value {
        YamlValue::Bool(false) => Some(false),
        YamlValue::Str(word, _) if word == "auto" => Some(true),
        _ => {
            crate::decode::wrong(n, "`enabled` is `auto` or `false`", report);
            None
        }
    });
    let budget = f.get("budget").and_then(|n| integer(n, "`budget`", 0..=MAX_REASONING_TOKENS, report));
    f.finish(&[], report);
    ReasoningParams { show: show.unwrap_or(base.show), is_enabled: enabled.unwrap_or(base.is_enabled), budget }
}

fn limits(node: &YamlNode, report: &mut Diagnostics<'_>) -> RoleLimits {
    const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
    let base = RoleLimits::default();
    let Some(mut f) = MapReader::open(node, "`limits`", &keys::ROLE_LIMITS, report) else { return base };
    let range = Duration::from_millis(100)..=MAX_TIMEOUT;
    let timeout = f.get("timeout").and_then(|n| duration(n, "`timeout`", range.clone(), report));
    let idle = f.get("idle").and_then(|n| duration(n, "`idle`", range, report));
    let retries = f.get("retries").and_then(|n| integer(n, "`retries`", 0..=10, report));
    let concurrency = f.get("concurrency").and_then(|n| integer(n, "`concurrency`", 1..=256, report));
    let queue = f.get("queue").and_then(|n| integer(n, "`queue`", 0..=100_000, report));
    f.finish(&keys::SAMPLING.names().map(|key| (key, "sampling")).collect::<Vec<_>>(), report);
    RoleLimits {
        timeout: timeout.unwrap_or(base.timeout),
        idle: idle.unwrap_or(base.idle),
        retries: retries.unwrap_or(base.retries),
        concurrency: concurrency.unwrap_or(base.concurrency),
        queue: queue.unwrap_or(base.queue),
    }
}

fn overflow(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<ContextOverflow> {
    let words = ContextOverflow::ALL.map(|overflow| (overflow.as_str(), overflow));
    choice(node, "`overflow`", &words, report)
}
