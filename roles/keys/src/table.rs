//! The table itself.

use super::KeyDefault::{Described, Required, Value};
use super::knowledge::*;
use super::settings::*;
use super::training::*;
use super::{DocumentKey, KeyDefault, KeySet, key};

/// In the order of the documentation.
pub(crate) const ALL: &[&KeySet] = &[
    &ROLE,
    &REASONING,
    &SAMPLING,
    &DRY,
    &XTC,
    &ROLE_LIMITS,
    &ROLE_ADAPTER,
    &MODEL,
    &CACHE,
    &PREFIXES,
    &ADAPTER,
    &KNOWLEDGE,
    &SOURCE,
    &CHUNK,
    &SEARCH,
    &STORE,
    &STORE_KEY,
    &TRAINING,
    &TRAINING_METHOD,
    &LORA,
    &SCHEDULE,
    &GRAPH,
    &GRAPH_LIMITS,
    &NODE,
    &CHOSEN_ROLE,
    &ROUTER_NODE,
    &ASK,
    &SEARCH_NODE,
    &FOR_EACH,
    &JOIN,
    &RETRIES,
    &EDGE,
    &ROUTER,
    &SIGNALS,
    &SIGNAL,
    &LABEL_SIGNAL,
    &ALONE,
    &LABELLED_QUESTION,
    &SETTINGS,
    &PREFIX_CACHE,
    &RETENTION,
    &NETWORK,
    &CONNECTIONS,
    &LOG,
    &TRACES,
    &HTTP,
    &TLS,
];

pub static ROLE: KeySet = KeySet {
    name: "role",
    page: "roles",
    keys: &[
        key("role", Required, "The name of the role."),
        key("description", Required, "What the role does; routers compare it with the question."),
        key("examples", Value("[]"), "Questions that belong to the role; routers compare them with the question."),
        key("keywords", Value("[]"), "Words that routers look for in the question."),
        key(
            "when",
            Described("no rule"),
            "A CEL condition over `task.input`; if it holds, the router chooses this role.",
        ),
        key("model", Required, "The name of a chat model."),
        key(
            "adapter",
            Described("no adapter"),
            "A LoRA adapter: the name of one, a GGUF file, a map with one of the two and `scale`, or a list of 2 to 8 of these.",
        ),
        key("devices", Value("auto"), "Devices on which the model is loaded once more for this role alone."),
        key("prompt", Required, "The system message, a Jinja template."),
        key(
            "message",
            Described("the output of the node before, or the task's input at the start"),
            "The user message, a Jinja template.",
        ),
        key(
            "template_kwargs",
            Value("{}"),
            "Variables of the model's chat template, over those of the model, such as `reasoning_effort: low`.",
        ),
        key("output", Described("any text"), "A JSON Schema that the output must satisfy."),
        key("knowledge", Value("[]"), "The knowledge that the role answers from: a name, or a list of 1 to 8 names."),
        key(
            "grounded",
            Value("false"),
            "Whether the role answers from the passages that were found alone, or says that nothing was found.",
        ),
        key(
            "reasoning",
            Value("{}"),
            "What the model may do of its reasoning before an answer, and whether that is shown.",
        ),
        key("sampling", Value("{}"), "How tokens are sampled."),
        key("limits", Value("{}"), "The limits of one step of this role."),
        key(
            "overflow",
            Value("reject"),
            "What happens to a prompt that exceeds the context: `reject`, `truncate` or `shift`.",
        ),
        key("priority", Value("interactive"), "The priority of its steps: `interactive` or `batch`.").formerly("class"),
        key(
            "caller_tools",
            Value("true"),
            "Whether the role takes tools that its callers send, and answers with calls of them.",
        ),
        key("caller_system", Value("true"), "Whether the system messages of its callers follow its own prompt."),
    ],
};

pub static REASONING: KeySet = KeySet {
    name: "role.reasoning",
    page: "roles",
    keys: &[
        key("show", Value("false"), "Whether it is shown: as events, and in the output beside the answer."),
        key(
            "enabled",
            Value("auto"),
            "`auto`: the model reasons as its template has it; `false`: it does not, as far as it can be told.",
        ),
        key("budget", Described("no limit but `max_tokens`"), "The tokens after which its end is forced."),
    ],
};

pub static SAMPLING: KeySet = KeySet {
    name: "role.sampling",
    page: "roles",
    keys: &[
        key(
            "temperature",
            Described("the model\'s, or 0.7"),
            "Divides the logits; 0 always takes the most probable token.",
        ),
        key(
            "top_p",
            Described("the model\'s, or 0.95"),
            "Keeps the most probable tokens that together have this probability.",
        ),
        key(
            "min_p",
            Described("the model\'s, or 0.05"),
            "Keeps tokens with at least this share of the highest probability.",
        ),
        key("top_k", Described("the model\'s, or 40"), "Keeps this many of the most probable tokens; 0 keeps all."),
        key("typical_p", Described("off"), "Keeps the most typical tokens that together have this probability."),
        key(
            "repeat_penalty",
            Described("the model\'s, or 1.0"),
            "Divides the logits of recent tokens; 1 turns it off.",
        ),
        key("presence_penalty", Described("off"), "Is subtracted once from the logit of a recent token, -2 to 2."),
        key(
            "frequency_penalty",
            Described("off"),
            "Is subtracted from the logit of a recent token as often as it came, -2 to 2.",
        ),
        key(
            "penalty_last_n",
            Described("the model\'s, or 64"),
            "How many tokens before the next one are recent, those of the prompt included.",
        ),
        key("dry", Described("off"), "Penalizes tokens that would continue a sequence which occurred before."),
        key("xtc", Described("the model\'s, or off"), "Leaves out the most probable tokens now and then."),
        key(
            "logit_bias",
            Value("{}"),
            "Texts and what is added to the logits of their tokens, -100 to 100; -100 forbids them.",
        ),
        key("seed", Described("another seed for each step"), "The seed of the sampler."),
        key(
            "logprobs",
            Described("off"),
            "Tells the probability of each token, and of this many alternatives, 0 to 20.",
        ),
        key(
            "max_tokens",
            Value("512"),
            "The most tokens of one output, those of a reasoning included; a request may ask for fewer.",
        ),
        key(
            "stop",
            Value("[]"),
            "Texts that end the output and are not part of it; an output with a schema ends with its JSON alone.",
        ),
        key("fixed", Value("false"), "Whether requests may not change how tokens are chosen."),
    ],
};

pub static DRY: KeySet = KeySet {
    name: "role.sampling.dry",
    page: "roles",
    keys: &[
        key("multiplier", Required, "The strength of the penalty; 0 turns it off."),
        key("base", Value("1.75"), "How the penalty grows with each token of the sequence."),
        key("allowed_length", Value("2"), "Sequences up to this length are free."),
        key("last_n", Described("the context"), "How many tokens are searched, those of the prompt included."),
        key("breakers", Value(r#"["\n", ":", "\"", "*"]"#), "Texts over which no sequence is continued."),
    ],
};

pub static XTC: KeySet = KeySet {
    name: "role.sampling.xtc",
    page: "roles",
    keys: &[
        key("probability", Required, "How often tokens are left out; 0 turns it off."),
        key(
            "threshold",
            Value("0.1"),
            "Tokens with at least this probability are left out, but for the least likely of them.",
        ),
    ],
};

pub static ROLE_LIMITS: KeySet = KeySet {
    name: "role.limits",
    page: "roles",
    keys: &[
        key(
            "timeout",
            Value("120s"),
            "The longest time from the start of a step to its end, time in the queue included.",
        ),
        key("idle", Value("60s"), "The longest time without a new token, once decoding began."),
        key("retries", Value("2"), "Further attempts after a failed one."),
        key("concurrency", Value("4"), "Steps of this role that run at once."),
        key("queue", Value("64"), "Steps of this role that wait."),
    ],
};

pub static ROLE_ADAPTER: KeySet = KeySet {
    name: "role.adapter",
    page: "roles",
    keys: &[
        key("adapter", Described("`file` says which"), "The name of an adapter of the catalog."),
        key("file", Described("that of `adapter`"), "The GGUF file of the adapter: a path, or an `hf:` URI."),
        key("scale", Described("that of `adapter`, or 1.0"), "The factor by which its weights are multiplied."),
    ],
};

pub static MODEL: KeySet = KeySet {
    name: "model",
    page: "models",
    keys: &[
        key("model", Required, "The name of the model."),
        key("description", Described("none"), "What the model is, for people."),
        key("file", Required, "Its GGUF file: a path, or an `hf:` URI."),
        key(
            "sha256",
            Described("the file is not verified"),
            "The SHA-256 of the file, 64 hexadecimal digits; a list with that of each piece of a model in pieces.",
        ),
        key(
            "use",
            Value("chat"),
            "The purpose of the model: `chat`, `embedding` for routers and `Embed`, or `rerank` for `Rerank`.",
        ),
        key(
            "prefixes",
            Described("nothing is put before texts"),
            "What an embedding model was trained to see before texts: a map with `query` and `passage`.",
        ),
        key(
            "context",
            Described("what the model was trained with, at most 4096, or less if that does not fit"),
            "The context of each sequence, in tokens.",
        ),
        key("sequences", Described("8, or fewer if these do not fit"), "Sequences decoded at once."),
        key("threads", Described("the daemon's `threads`"), "CPU threads, at most those of the daemon's settings."),
        key("template", Described("the chat template of the GGUF file"), "A Jinja chat template."),
        key("template_kwargs", Value("{}"), "Variables of the chat template, such as `enable_thinking: false`."),
        key(
            "cache",
            Value("auto"),
            "The type of the KV cache: `auto`, `f16`, `f32`, `bf16`, `q8_0` or `q4_0`; or a map of its size and its type.",
        ),
        key(
            "weights",
            Value("auto"),
            "The type in which a CPU computes with the weights: `auto`, `file`, `f16` or `bf16`.",
        ),
        key("speculation", Value("auto"), "Speculative decoding from n-grams: `auto` or `off`."),
        key("devices", Value("auto"), "The devices that the model may use: `auto`, or a list of names."),
        key(
            "gpu_layers",
            Value("auto"),
            "The layers that other devices than the CPU compute, the output among them: `auto`, or their number.",
        ),
        key("experts", Value("auto"), "Where the experts of a mixture of experts are computed: `auto` or `cpu`."),
        key("split", Value("layer"), "How the model is split over several devices: `layer`, `none` or `row`."),
        key(
            "tensor_split",
            Described("in proportion to the free memory of each device"),
            "The share of each device, in the order of `devices`.",
        )
        .formerly("shares"),
        key(
            "keep",
            Described("until another model needs its memory"),
            "How long the model stays loaded when nothing needs it: a duration, or `forever`.",
        ),
    ],
};

pub static CACHE: KeySet = KeySet {
    name: "model.cache",
    page: "models",
    keys: &[
        key(
            "tokens",
            Described("as many as its sequences may have, or fewer if these do not fit"),
            "The tokens that the cache holds, over all sequences.",
        )
        .in_unit("tokens"),
        key(
            "share",
            Described("no share"),
            "The share of the memory that is free beside the weights, such as `50%`, that the cache takes.",
        ),
        key("type", Value("auto"), "The type of the cache: `auto`, `f16`, `f32`, `bf16`, `q8_0` or `q4_0`."),
    ],
};

pub static PREFIXES: KeySet = KeySet {
    name: "model.prefixes",
    page: "models",
    keys: &[
        key("query", Value("''"), "What is put before a text that asks, such as `query: `."),
        key("passage", Value("''"), "What is put before a text that is searched, such as `passage: `."),
    ],
};

pub static ADAPTER: KeySet = KeySet {
    name: "adapter",
    page: "models",
    keys: &[
        key("adapter", Required, "The name of the adapter."),
        key("description", Described("none"), "What the adapter is, for people."),
        key("file", Required, "Its GGUF file: a path, or an `hf:` URI."),
        key("sha256", Described("the file is not verified"), "The SHA-256 of the file, 64 hexadecimal digits."),
        key("scale", Value("1.0"), "The factor by which its weights are multiplied where a role says no other."),
        key("version", Described("none"), "Which version of the adapter it is, for people."),
    ],
};

pub static GRAPH: KeySet = KeySet {
    name: "graph",
    page: "graphs",
    keys: &[
        key("graph", Required, "The name of the graph."),
        key("description", Required, "What the graph does; a router over graphs compares it with the question."),
        key("examples", Value("[]"), "Questions that belong to the graph, for a router over graphs."),
        key("keywords", Value("[]"), "Words that a router over graphs looks for in the question."),
        key("start", Required, "The node at which the graph starts."),
        key(
            "result",
            Described("the node that reached `done` last"),
            "The node whose last output is the result of the task.",
        ),
        key("limits", Value("{}"), "The limits of one task."),
        key("nodes", Required, "The nodes by name."),
        key("reduce", Value("{}"), "Values that several nodes write: `last`, `append` or `merge`, by name."),
        key("fallback", Described("the task fails"), "The result in place of a failure."),
    ],
};

pub static GRAPH_LIMITS: KeySet = KeySet {
    name: "graph.limits",
    page: "graphs",
    keys: &[
        key("steps", Value("64"), "The most steps of one task, each attempt counted."),
        key("tokens", Value("32000"), "The most prompt and output tokens of one task."),
        key("time", Value("10m"), "The longest time from the acceptance of a task to its end."),
    ],
};

/// What holds where a node does not name its kind by this key.
const ANOTHER_KIND: KeyDefault = Described("one of `role`, `router`, `ask`, `search`, `check` and `graph` is required");

pub static NODE: KeySet = KeySet {
    name: "node",
    page: "graphs",
    keys: &[
        key("role", ANOTHER_KIND, "The role of the step: a name, or a map with `from` and `rank`."),
        key("router", ANOTHER_KIND, "A router that chooses a role."),
        key("ask", ANOTHER_KIND, "A question to a person: the message, or a map."),
        key("search", ANOTHER_KIND, "A search of a knowledge, whose passages are the output."),
        key("check", ANOTHER_KIND, "The node whose answer is compared with its passages, sentence by sentence."),
        key("graph", ANOTHER_KIND, "Another graph that runs as part of the same task."),
        key("message", Described("the `message` of the role"), "The user message, a Jinja template."),
        key(
            "passages",
            Described("what the role's own `knowledge` gives; for a check, what the answer cites"),
            "The node with `search` whose passages the role answers from and cites, or a check compares with.",
        ),
        key(
            "for_each",
            Described("the node runs once"),
            "A list in CEL; the node runs once for each item. Or a map with `list`, `parallel` and `at_most`.",
        ),
        key("timeout", Described("the `limits.timeout` of the role"), "The longest time of one attempt."),
        key("idle", Described("the `limits.idle` of the role"), "The longest time without a new token."),
        key(
            "retries",
            Described("the `limits.retries` of the role"),
            "Further attempts: their number, or a map with `count`, `delay` and `max_delay`.",
        ),
        key(
            "effect",
            Value("pure"),
            "What a second run would do: nothing (`pure`), the same (`idempotent`), or harm (`at_most_once`).",
        ),
        key("cache", Value("false"), "Whether an earlier answer to the same messages is used again."),
        key(
            "join",
            Described("required where several edges lead to the node"),
            "When the node runs: `all`, `any` or `{quorum: n}`.",
        ),
        key(
            "next",
            Required,
            "The edges to the next nodes: a name, an edge, or a list of them; `done` ends the branch.",
        ),
        key("on_failure", Described("the graph fails"), "The edge to take when the node has failed for good."),
        key(
            "write",
            Described("no value is written"),
            "The value of the graph's `reduce` that the output is written to.",
        ),
    ],
};

pub static CHOSEN_ROLE: KeySet = KeySet {
    name: "node.role",
    page: "graphs",
    keys: &[
        key("from", Required, "The router node whose choice is the role."),
        key("rank", Value("1"), "Which of the roles that the router chose, from the best, which is 1."),
    ],
};

pub static ROUTER_NODE: KeySet = KeySet {
    name: "node.router",
    page: "graphs",
    keys: &[
        key("roles", Required, "The candidates: a list of roles, or `all` for every role that has examples."),
        key("confidence", Value("0"), "The confidence below which `otherwise` is chosen, from 0 to 1."),
        key("otherwise", Described("the best candidate"), "The role to choose below the confidence."),
        key("best", Described("one role, without a list"), "How many roles to choose, for `role: {from, rank}`."),
        key("settings", Described("default"), "The router document with the weights to use."),
        key("signals", Value("[]"), "The signals to use; an empty list is those that the router document weighs."),
    ],
};

pub static ASK: KeySet = KeySet {
    name: "node.ask",
    page: "graphs",
    keys: &[
        key("message", Required, "The question, a Jinja template."),
        key("output", Described("any text"), "A JSON Schema that the answer must satisfy."),
        key("deadline", Described("no deadline"), "The longest wait for an answer."),
        key("otherwise", Described("the step fails"), "The answer after the deadline."),
    ],
};

pub static SEARCH_NODE: KeySet = KeySet {
    name: "node.search",
    page: "graphs",
    keys: &[
        key("knowledge", Required, "The name of the knowledge that is searched."),
        key(
            "query",
            Described("the output of the node before, or the task's input at the start"),
            "The question, a Jinja template.",
        ),
        key("top", Described("as the knowledge says"), "The passages that it gives."),
    ],
};

pub static FOR_EACH: KeySet = KeySet {
    name: "node.for_each",
    page: "graphs",
    keys: &[
        key("list", Required, "The list, in CEL over `task`, `nodes` and `values`."),
        key("parallel", Value("8"), "Items that run at once."),
        key("at_most", Value("1000"), "The most items."),
    ],
};

pub static JOIN: KeySet = KeySet {
    name: "node.join",
    page: "graphs",
    keys: &[key("quorum", Required, "How many sources must have arrived.")],
};

pub static RETRIES: KeySet = KeySet {
    name: "node.retries",
    page: "graphs",
    keys: &[
        key("count", Required, "Further attempts after a failed one.").formerly("at_most"),
        key("delay", Value("500ms"), "The delay before the second attempt; it doubles with each attempt.")
            .formerly("pause"),
        key("max_delay", Described("30s, or `delay` if that is longer"), "The longest delay.").formerly("longest"),
    ],
};

pub static EDGE: KeySet = KeySet {
    name: "edge",
    page: "graphs",
    keys: &[
        key("to", Required, "The next node, or `done`."),
        key("when", Described("always"), "A CEL condition over `task`, `nodes`, `values` and `output`."),
        key("at_most", Described("no bound"), "How often the edge is taken in one task at most."),
    ],
};

pub static ROUTER: KeySet = KeySet {
    name: "router",
    page: "routers",
    keys: &[
        key("router", Required, "The name of the router document; `default` replaces the one that ships."),
        key("description", Described("none"), "What the settings are for, for people."),
        key("bias", Value("0"), "The logit of \"no match\" before its signals."),
        key("temperature", Value("1"), "Divides all logits: above 1 every decision is less confident."),
        key("background", Value("[]"), "Questions that belong to no role; \"no match\" is scored with them."),
        key("signals", Required, "The weights of the signals."),
    ],
};

/// What holds where a router document does not weigh a signal.
const UNUSED: KeyDefault = Described("the signal is not used");

pub static SIGNALS: KeySet = KeySet {
    name: "router.signals",
    page: "routers",
    keys: &[
        key("embedding", UNUSED, "The mean cosine similarity of the nearest texts of the candidate."),
        key("linear", UNUSED, "A ridge regression over the embeddings of all texts."),
        key("keyword", UNUSED, "BM25 over the texts and keywords of the candidate."),
        key("label", UNUSED, "The log-probability that a chat model gives to the candidate's name."),
    ],
};

const WEIGHT: DocumentKey = key("weight", Value("1"), "Logits per deviation, beside the other signals.");
const MEAN: DocumentKey = key("mean", Value("0"), "The mean of the signal's scores, which is subtracted.");
const DEVIATION: DocumentKey = key("deviation", Value("1"), "Their standard deviation, by which the rest is divided.");
const WEIGHT_ALONE: DocumentKey =
    key("alone", Described("the same weight, and a bias of 0"), "Weight and bias where this signal is used alone.");

pub static SIGNAL: KeySet =
    KeySet { name: "router.signals.*", page: "routers", keys: &[WEIGHT, MEAN, DEVIATION, WEIGHT_ALONE] };

pub static LABEL_SIGNAL: KeySet = KeySet {
    name: "router.signals.label",
    page: "routers",
    keys: &[key("model", Required, "The chat model that scores the names."), WEIGHT, MEAN, DEVIATION, WEIGHT_ALONE],
};

pub static ALONE: KeySet = KeySet {
    name: "router.signals.*.alone",
    page: "routers",
    keys: &[
        key("weight", Required, "Logits per deviation."),
        key("bias", Required, "The logit of \"no match\" before the signal."),
    ],
};

pub static LABELLED_QUESTION: KeySet = KeySet {
    name: "labelled question",
    page: "routers",
    keys: &[
        key("text", Required, "The question."),
        key("role", Value("none"), "The right role; null or `none` for a question that belongs to no role."),
        key("tags", Value("[]"), "Tags by which the evaluation is broken down."),
    ],
};
