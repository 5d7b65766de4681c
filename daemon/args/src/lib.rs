//! The command line: commands and flags, parsed into types.
//!
//! The doc comments of arguments are the help texts, and the reference of the command line is generated from them. What a
//! command does is not known here: nothing is read, connected or printed but the help.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod bench;
mod cert;
mod daemon;
mod data;
mod fetch;
mod given;
mod init;
mod knowledge;
mod log;
mod models;
#[cfg(test)]
mod reference;
mod route;
mod task;
#[cfg(test)]
mod tests;
mod token;
mod traces;
mod train;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as Flags, CommandFactory as _, FromArgMatches as _, Subcommand, ValueEnum};

pub use address::DaemonAddress;
pub use bench::{BenchArgs, BenchWorkload};
pub use cert::{CertCommand, CertCreateArgs};
pub use clap::Parser;
pub use daemon::{DaemonArgs, default_data_dir};
pub use data::{DataCommand, DataExportArgs, DataShowArgs, SamplePartArg};
pub use fetch::FetchArgs;
pub use given::{FlagSource, GivenFlags};
pub use init::InitArgs;
pub use knowledge::{KnowledgeAddArgs, KnowledgeCommand, KnowledgeSearchArgs, SearchModeArg};
pub use log::{LogArgs, LogCommand};
pub use models::{EmbedArgs, InputKind, RerankArgs};
pub use route::{FeedbackArgs, RouteArgs};
pub use task::{
    AnswerArgs, AnswerOptionArgs, AnswerRatingArg, EraseArgs, ForkArgs, RateArgs, SubmitArgs, TaskCommand, TaskLabel,
    TaskListArgs, TaskStateFilter,
};
pub use token::{TokenCommand, TokenCreateArgs};
pub use traces::TraceArgs;
pub use train::{AdapterFormatArg, TrainCommand, TrainExportArgs};

/// The default address of the daemon, to listen on and to connect to.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7430";

/// The heading of the flags of every command in the help.
const GLOBAL_HEADING: &str = "Global options";

/// A crew of language-model experts: one daemon and its command line
#[derive(Debug, Parser)]
#[command(name = "artel", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 success, 1 the task or check failed, 2 invalid usage, 3 no daemon.")]
pub struct Args {
    /// The flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: CliCommand,
}

impl Args {
    /// Parses the command line; ends the process with the help or the fault of an invalid one.
    pub fn parse_given() -> (Self, GivenFlags) {
        let mut command = Self::command();
        let matches = command.get_matches_mut();
        let args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        (args, GivenFlags::of(&command, &matches))
    }

    /// Every environment variable that is read as a flag of a verb.
    pub fn variables() -> BTreeSet<String> {
        given::variables(&Self::command())
    }

    /// The flags of `serve` without dashes, as in `log_format`.
    pub fn serve_flags() -> Vec<String> {
        let command = Self::command();
        let serve = command.find_subcommand("serve").expect("it is defined");
        serve.get_arguments().map(|arg| arg.get_id().to_string()).collect()
    }
}

/// Flags of every command.
#[derive(Debug, Clone, Flags)]
pub struct GlobalArgs {
    /// The address of the daemon: HOST, HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH [default: the socket
    /// `artel.sock` in the data directory if it exists, the address at which the daemon of that directory listens, or
    /// http://127.0.0.1:7430]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "ARTEL_ADDRESS", value_name = "ADDRESS")]
    pub address: Option<DaemonAddress>,
    /// The data directory of the daemon, which has its socket and the owner's token [default: $XDG_DATA_HOME/artel or
    /// ~/.local/share/artel]
    // Verbs that act like a daemon have a flag of the same id, which is this one for them.
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "ARTEL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The certificates to trust at an https address, in PEM [default: those of the system]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "ARTEL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client certificate to show at an https address, with its chain, in PEM; needs --client-key [default: none]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "ARTEL_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// The key of the client certificate, in PEM [default: none]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "ARTEL_CLIENT_KEY", value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Write only JSON to standard output, one object per line
    #[arg(long, global = true, help_heading = GLOBAL_HEADING)]
    pub json: bool,
    /// When to colour the output; `auto` colours on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, value_name = "WHEN", value_enum)]
    #[arg(default_value_t = ColorMode::Auto)]
    pub color: ColorMode,
}

/// When to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorMode {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Write a first catalog of one's own, with the best model that this machine has memory for, and download the model
    Init(InitArgs),
    /// Run the daemon until SIGINT or SIGTERM; SIGHUP reloads the catalog
    Serve(ServeArgs),
    /// Validate a catalog directory without a daemon; exit code 1 if it is invalid
    Check(CheckArgs),
    /// Download the files of models and adapters that have an `hf:` address, without a daemon
    Fetch(FetchArgs),
    /// Inspect this machine, the settings, the models and the journal without a daemon, and give advice
    Doctor(ServeArgs),
    /// Show the settings of a daemon, and where each comes from, without a daemon
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check or repair the journal without a daemon
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Make the certificates of a daemon that listens beyond this machine
    #[command(subcommand)]
    Cert(CertCommand),
    /// Measure a workload on this machine, alone or compared with another server
    Bench(BenchArgs),
    /// Serve the devices of this machine to daemons on other machines, over llama.cpp's RPC
    RpcServe(RpcServeArgs),
    /// Read documents in a process of its own; started by the daemon
    #[command(hide = true)]
    Extract,
    /// Measure the loss of a model over given answers in a process of its own; started by the daemon
    #[command(hide = true)]
    Measure,
    /// Run one model in a process of its own; started by the daemon
    #[command(hide = true)]
    Engine(EngineArgs),
    /// The commands that need a daemon.
    #[command(flatten)]
    Client(ClientCommand),
}

/// `artel serve`.
#[derive(Debug, Flags)]
pub struct ServeArgs {
    /// The settings of the daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// The address to listen on [default: `listen` of the settings file, or 127.0.0.1:7430]
    // No default of clap's, so that the settings file can set one.
    #[arg(long, env = "ARTEL_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where spans of tasks are sent.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// `artel config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// List every setting with its value, and whether it is a default or comes from a flag, a variable or the settings file
    Show(ServeArgs),
}

/// `artel rpc-serve`.
#[derive(Debug, Flags)]
pub struct RpcServeArgs {
    /// The address to listen on. There is no authentication and no encryption: use it in trusted networks only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50052")]
    pub listen: SocketAddr,
    /// The devices to serve, separated by commas, named as in `artel engine --probe` [default: the GPUs, or the CPU if there is
    /// none]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// CPU threads, if the CPU is served [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroU32>,
    /// Serve a single client, for the process that started this one
    #[arg(long, hide = true)]
    pub one: bool,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `artel engine`.
#[derive(Debug, Flags)]
pub struct EngineArgs {
    /// The model, shown in process lists
    pub model: Option<String>,
    /// List devices instead
    #[arg(long)]
    pub probe: bool,
    /// List the devices of this RPC server
    #[arg(long, requires = "probe", value_name = "HOST:PORT")]
    pub rpc: Option<String>,
    /// Allow core dumps and debuggers
    #[arg(long)]
    pub core_dumps: bool,
}

/// The location of the daemon's state.
#[derive(Debug, Clone, Flags)]
pub struct DataArgs {
    /// The settings file of the daemon, in YAML [default: none]
    #[arg(long, env = "ARTEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the journal and other state [default: $XDG_DATA_HOME/artel or ~/.local/share/artel]
    #[arg(long, env = "ARTEL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `artel journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Read the whole journal and list the damage; exit code 1 if there is any. A daemon may be running
    Check(DataArgs),
    /// Repair a damaged journal: keep readable tasks, list lost ones and keep the damaged files. Stop the daemon first
    Repair(DataArgs),
}

/// `artel check`.
#[derive(Debug, Flags)]
pub struct CheckArgs {
    /// The directory of a catalog that overrides the shipped one [default: only the shipped one]
    pub dir: Option<PathBuf>,
    /// Check the GGUF files as well; the directory of those that are not beside the YAML that names them
    // Not from ARTEL_MODELS: the flag also says that files are checked.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

/// The commands that need a daemon.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Run a task and stream its events until it ends; Ctrl-C cancels it
    Run(SubmitArgs),
    /// Submit, inspect and control tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Inspect or replace roles, graphs and models
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Draw graphs
    #[command(subcommand)]
    Graph(GraphCommand),
    /// Show which role the router selects for a question; fit or evaluate the router
    Route(RouteArgs),
    /// Embed texts with a model of the catalog
    Embed(EmbedArgs),
    /// Rank documents by their relevance to a query with a model of the catalog
    Rerank(RerankArgs),
    /// Search texts that roles answer from, hand in further ones, and show how far their index is
    #[command(subcommand)]
    Knowledge(KnowledgeCommand),
    /// Show and check what roles learn from
    #[command(subcommand)]
    Data(DataCommand),
    /// Train roles on what they learn from
    #[command(subcommand)]
    Train(TrainCommand),
    /// Show or change what the daemon logs
    #[command(subcommand)]
    Log(LogCommand),
    /// Make, list and revoke the tokens of callers
    #[command(subcommand)]
    Token(TokenCommand),
    /// List the devices that models can use, with their memory
    Devices,
    /// List the engines (loaded models) with their state, load and memory
    Engines,
    /// Show which devices each model is placed on, and why
    Plan {
        /// Models to place as if no other were loaded [default: all models, as they are placed now]
        models: Vec<String>,
    },
    /// Load a model and wait until it is ready; idle models are evicted if memory is short
    Load {
        /// The name of the model in the catalog
        model: String,
    },
    /// Unload a model and wait until its memory is free; fails if running steps use it
    Unload {
        /// The name of the model in the catalog
        model: String,
        /// Interrupt the steps that use it; they are retried later
        #[arg(long)]
        interrupt: bool,
    },
}

/// `artel catalog`.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// List the definitions of the current catalog
    List {
        /// Only definitions of this kind
        #[arg(long, value_enum)]
        kind: Option<CatalogKind>,
    },
    /// Print the YAML of a definition
    Show {
        /// The kind of the definition
        #[arg(value_enum)]
        kind: CatalogKind,
        /// The name of the definition
        name: String,
    },
    /// Let the daemon validate a catalog directory; exit code 1 if it is invalid
    Validate {
        /// The directory of the YAML files
        dir: PathBuf,
    },
    /// Replace the catalog of the daemon by a directory, until the daemon reads its own directory again
    Apply {
        /// The directory of the YAML files
        dir: PathBuf,
        /// Fail if the current catalog has another version
        #[arg(long, value_name = "VERSION")]
        expect: Option<String>,
    },
}

/// The kind of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the doc comment of a value is its help, and the names need none")]
pub enum CatalogKind {
    Role,
    Graph,
    Model,
    Adapter,
    Knowledge,
    Router,
    Training,
}

/// `artel graph`.
#[derive(Debug, Subcommand)]
pub enum GraphCommand {
    /// Draw a graph of the catalog
    Show {
        /// The name of the graph
        name: String,
        /// The output format; ignored with --json
        #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
        format: GraphFormat,
    },
}

/// The format of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Text for a terminal.
    Text,
    /// Mermaid, for Markdown pages.
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
}
