//! The command line as it is written: verbs and flags, parsed into types.

mod fetch;
mod route;
mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};

use crate::client::connect::Address;

pub(crate) use fetch::Fetch;
pub(crate) use route::{Feedback, Route};
pub(crate) use setup::Setup;

/// Where the daemon listens, and where its clients look for it.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:7430";

/// Where the help lists the flags of every verb.
const GLOBAL: &str = "Options of every verb";

/// A crew of language-model experts, as one daemon and its command line.
#[derive(Debug, Parser)]
#[command(name = "artel", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 the task or check failed, 2 wrong usage, 3 no daemon.")]
pub(crate) struct Args {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Global {
    /// Where the daemon is: HOST, HOST:PORT or http://HOST:PORT
    #[arg(long, global = true, help_heading = GLOBAL, env = "ARTEL_ADDRESS", value_name = "ADDRESS")]
    #[arg(default_value = "http://127.0.0.1:7430")]
    pub(crate) address: Address,
    /// Write one JSON object per line, and nothing else, to standard output
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Colour the output; `auto` does on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon
    Serve(Serve),
    /// Check a catalog without a daemon
    Check(Check),
    /// Fetch the files that models and adapters have on a hub (`hf:`), without a daemon
    Fetch(Fetch),
    /// Look at this machine, the settings, the models and the journal, without a daemon
    Doctor(Setup),
    /// Look after the journal, without a daemon
    #[command(subcommand)]
    Journal(Journal),
    /// Measure this program on this machine, by itself or against another server
    Bench(Bench),
    /// Lend this machine's devices to daemons on other machines, over llama.cpp's RPC
    RpcServe(RpcServe),
    /// One model in a process of its own; the daemon starts it
    #[command(hide = true)]
    Engine(Engine),
    /// What needs a daemon.
    #[command(flatten)]
    Client(Client),
}

/// `artel serve`.
#[derive(Debug, Flags)]
pub(crate) struct Serve {
    /// What it is set up with.
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Where to listen [default: 127.0.0.1:7430]
    // Without a default of clap's, so that the configuration file can give one.
    #[arg(long, env = "ARTEL_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `artel rpc-serve`.
#[derive(Debug, Flags)]
pub(crate) struct RpcServe {
    /// Where to listen. There is no password and no encryption: let nobody in whom you do not trust
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50052")]
    pub(crate) listen: SocketAddr,
    /// The devices to lend, as `artel engine --probe` names them [default: the GPUs, or else the CPU]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
    /// Threads to compute with, where the CPU does [default: every core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<std::num::NonZeroU32>,
    /// Serve one client, for whoever started this process
    #[arg(long, hide = true)]
    pub(crate) one: bool,
}

/// `artel engine`.
#[derive(Debug, Flags)]
pub(crate) struct Engine {
    /// The model, for those who list processes
    pub(crate) model: Option<String>,
    /// List devices instead
    #[arg(long)]
    pub(crate) probe: bool,
    /// Those of this RPC server
    #[arg(long, requires = "probe", value_name = "HOST:PORT")]
    pub(crate) rpc: Option<String>,
}

/// Where the daemon's state lies.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Place {
    /// The daemon's configuration
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the journal and other state lie
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// `artel journal`.
#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Read all of it and say what is wrong; a daemon may run meanwhile
    Check(Place),
    /// Make a damaged one whole: keep what can be read, name what cannot, and set the damaged files aside; stop the daemon first
    Repair(Place),
}

/// `artel check`.
#[derive(Debug, Flags)]
pub(crate) struct Check {
    /// The catalog to lay over the shipped one; without it, the shipped one alone
    pub(crate) dir: Option<PathBuf>,
    /// Look at the GGUF files too, which lie here if not beside the YAML that names them
    // Not from ARTEL_MODELS: whether files are looked at is part of the question.
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
}

/// `artel bench`.
#[derive(Debug, Flags)]
pub(crate) struct Bench {
    /// What to measure
    #[arg(value_enum)]
    pub(crate) name: Workload,
    /// The GGUF file of a chat model; a daemon of its own is started for it
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// An OpenAI-compatible server with the same model, measured in turn; nothing else should run meanwhile
    #[arg(long, value_name = "URL")]
    pub(crate) against: Option<String>,
    /// Measure in turn with a daemon whose engines run inside of it: what a process for each engine costs
    #[arg(long)]
    pub(crate) inside: bool,
    /// Where the adapters of `adapters` lie: mirk, quux, velo and zork.gguf; the other server has them in this order
    #[arg(long, value_name = "DIR")]
    pub(crate) adapters: Option<PathBuf>,
    /// How often to measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repeats: u32,
    /// Threads for the daemon's engine; without it, every core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 32 tasks over 8 roles with prompts of some 640 tokens, 8 at once, 48 tokens out: cold, warm, after a restart.
    Roles,
    /// A stream of tokens while a prompt of some 2000 tokens arrives: the longest gap, and the wait for the long one.
    Stall,
    /// 32 tasks over 4 roles with an adapter each, 4 at once, 24 tokens out: speed, the longest wait, right answers.
    Adapters,
    /// One of 8 labels for a new question, the prompt cached: the time of a decision.
    Choose,
    /// Twice what the server can do, a quarter of it interactive: the wait for a first token, and what is lost.
    Overload,
    /// A chain of three roles: the time between one's last word and the next one's first.
    Hops,
    /// 8 sequences that share nothing: tokens in a second.
    Decode,
    /// Decisions of the router among 8 and 200 roles, and the same as JSON that the model generates. The embedding model
    /// must lie beside the chat model.
    Route,
}

/// The verbs that talk to a daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Hand in a task and stream what happens to it
    Run(Submit),
    /// Hand in, look at and steer tasks
    #[command(subcommand)]
    Task(Task),
    /// Look at or replace roles, graphs and models
    #[command(subcommand)]
    Catalog(Catalog),
    /// Draw graphs
    #[command(subcommand)]
    Graph(Graph),
    /// Ask the router who would get a question
    Route(Route),
    /// List the devices that models can run on
    Devices,
    /// List the loaded models
    Engines,
    /// Say which model belongs on which devices, and why
    Plan {
        /// Models to find room for as if no other were loaded; without them, all models as they lie now
        models: Vec<String>,
    },
    /// Load a model
    Load {
        /// Its name in the catalog
        model: String,
    },
    /// Unload a model
    Unload {
        /// Its name in the catalog
        model: String,
        /// Interrupt the steps that run on it; they are tried again later
        #[arg(long)]
        interrupt: bool,
    },
}

/// A task to hand in.
#[derive(Debug, Flags)]
pub(crate) struct Submit {
    /// The graph to run; without it, the daemon's default one
    #[arg(long, value_name = "NAME", conflicts_with = "role")]
    pub(crate) graph: Option<String>,
    /// A single role to run
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
    /// Nobody waits for the answer: let other tasks go first
    #[arg(long)]
    pub(crate) batch: bool,
    /// A note to keep with the task; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// The same id again gives the same task, not a second one
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// The request; `-` reads it from standard input
    pub(crate) text: String,
}

/// `artel task`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Hand in a task and print its id
    Submit(Submit),
    /// Say how a task stands
    Get {
        /// The task
        id: String,
    },
    /// List tasks, the newest first
    List(TaskList),
    /// Stream what happens to a task, from its beginning
    Watch {
        /// The task
        id: String,
        /// Leave out events up to this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
        /// Leave out the tokens; results are shown when a step ends
        #[arg(long)]
        no_tokens: bool,
    },
    /// Cancel a task, or one running step of it
    Cancel {
        /// The task
        id: String,
        /// The step
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
        /// Why; kept with the task
        #[arg(long, value_name = "TEXT", default_value = "cancelled on the command line")]
        reason: String,
    },
    /// Answer a step that waits for a person
    Answer(Answer),
    /// Start a new task from the middle of an old one
    Fork(Fork),
    /// Say which role would have been right for a router's decision
    Feedback(Feedback),
    /// Draw a task's run: its steps with times, tokens and decisions
    Show {
        /// The task
        id: String,
    },
}

/// `artel task list`.
#[derive(Debug, Flags)]
pub(crate) struct TaskList {
    /// Tasks in this state; may be repeated
    #[arg(long = "state", value_name = "STATE", value_enum)]
    pub(crate) states: Vec<State>,
    /// Tasks of this graph
    #[arg(long, value_name = "NAME")]
    pub(crate) graph: Option<String>,
    /// Tasks that run this single role
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
    /// Tasks with this label; may be repeated, and all must be there
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// The most tasks to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Queued,
    Running,
    Waiting,
    Completed,
    Failed,
    Cancelled,
}

/// `artel task answer`.
#[derive(Debug, Flags)]
#[command(group = clap::ArgGroup::new("answer").required(true).args(["value", "text"]))]
pub(crate) struct Answer {
    /// The task
    pub(crate) id: String,
    /// The step; needed if several wait
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// A JSON value, for a step with a schema
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) value: Option<serde_json::Value>,
    /// The answer as text; `-` reads it from standard input
    pub(crate) text: Option<String>,
}

/// `artel task fork`.
#[derive(Debug, Flags)]
pub(crate) struct Fork {
    /// The old task
    pub(crate) id: String,
    /// The first step to run anew; without it, all of them
    #[arg(long, value_name = "STEP")]
    pub(crate) from: Option<String>,
    /// Run under the catalog that serves now, not under the old task's
    #[arg(long)]
    pub(crate) current: bool,
    /// A note to keep with the new task; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Label>,
    /// The same id again gives the same task, not a second one
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// `artel catalog`.
#[derive(Debug, Subcommand)]
pub(crate) enum Catalog {
    /// List what the daemon serves
    List {
        /// Only this kind
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
    /// Print one definition
    Show {
        /// What it defines
        #[arg(value_enum)]
        kind: Kind,
        /// Its name
        name: String,
    },
    /// Ask the daemon whether a directory would be a valid catalog
    Validate {
        /// Where the YAML files lie
        dir: PathBuf,
    },
    /// Let the daemon serve a directory from now on
    Apply {
        /// Where the YAML files lie
        dir: PathBuf,
        /// Refuse if the daemon serves another version than this one
        #[arg(long, value_name = "VERSION")]
        expect: Option<String>,
    },
}

/// What a document defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Role,
    Graph,
    Model,
    Adapter,
    Router,
}

/// `artel graph`.
#[derive(Debug, Subcommand)]
pub(crate) enum Graph {
    /// Draw a graph of the catalog
    Show {
        /// Its name
        name: String,
        /// How to draw it; not with --json
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// How to draw a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    Text,
    /// For Mermaid, which Markdown pages render.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// A note to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// What is noted.
    pub(crate) key: String,
    /// The note.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some(("", _)) => Err("the key before `=` is empty"),
            Some((key, value)) => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            None => Err("a label is written KEY=VALUE"),
        }
    }
}

fn json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests;
