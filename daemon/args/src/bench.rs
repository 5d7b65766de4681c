//! `artel bench`.

use std::path::PathBuf;

use clap::{Args as Flags, ValueEnum};

/// `artel bench`.
#[derive(Debug, Flags)]
pub struct BenchArgs {
    /// The workload to measure
    #[arg(value_enum)]
    pub name: BenchWorkload,
    /// The GGUF file of a chat model; the bench starts its own daemon with it. The workloads `intruders` and `watchers` run on
    /// scripted models, and take no other flag than --repeats
    #[arg(long, value_name = "FILE", required_if_eq_any(MODEL_WORKLOADS.map(|name| ("name", name))))]
    pub model: Option<PathBuf>,
    /// An OpenAI-compatible server with the same model, measured alternately; nothing else should run meanwhile
    #[arg(long, value_name = "URL")]
    pub against: Option<String>,
    /// Measure a daemon with engines in its own process as well: shows the cost of one process per engine
    #[arg(long)]
    pub inside: bool,
    /// Measure a daemon whose tasks are all traced as well, to a collector of the bench: shows the cost of traces
    #[arg(long, conflicts_with_all = ["inside", "against"])]
    pub traces: bool,
    /// The directory of the adapters of the workload `adapters`: mirk, quux, velo and zork.gguf; the other server must have
    /// loaded them in this order
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,
    /// The number of repeats, from 1 to 100; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    /// CPU threads of the daemon's engine, from 1 to 1024 [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

/// The workloads that need a model.
const MODEL_WORKLOADS: [&str; 8] = ["roles", "stall", "adapters", "choose", "overload", "hops", "decode", "route"];

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchWorkload {
    /// 32 tasks over 8 roles with prompts of about 640 tokens, 8 concurrent, 48 output tokens each: throughput and time to
    /// first token, cold, warm and after a restart.
    Roles,
    /// A stream of tokens while a prompt of about 2000 tokens arrives: the longest gap between tokens, and the time to first
    /// token of the long prompt.
    Stall,
    /// 32 tasks over 4 roles with an adapter each, 4 concurrent, 24 output tokens each: throughput, time to first token and
    /// correct answers.
    Adapters,
    /// One of 8 labels for a new question, with the prompt cached: the latency of a decision.
    Choose,
    /// Load at twice the capacity, a quarter of it interactive: the time to first token of interactive tasks, and lost tasks.
    Overload,
    /// The OpenAI-compatible front and gRPC on one daemon, in turn: the time to the first token, and the throughput of 8 streams.
    Front,
    /// A chain of three roles: the time from the last token of a role to the first token of the next.
    Hops,
    /// 8 sequences without a common prefix: decoding throughput in tokens per second.
    Decode,
    /// Decisions of the router among 8 and 200 roles, compared with a name that the model generates as JSON. The embedding
    /// model must be in the directory of the chat model.
    Route,
    /// 1,000 calls a second with wrong tokens: the latencies of others' calls and tasks with and without them, in turn.
    Intruders,
    /// 1,000 idle watchers and 200 tasks a second: the latencies of the tasks and the memory of the daemon with and without the
    /// watchers, in turn, and with further watchers that are refused.
    Watchers,
}
