//! `artel run` and `artel task`.

use std::path::PathBuf;
use std::str::FromStr;

use artel_task::portable;
use clap::{Args as Flags, Subcommand, ValueEnum};

use crate::route::FeedbackArgs;

/// A task to submit.
#[derive(Debug, Flags)]
pub struct SubmitArgs {
    /// The graph to run [default: the default graph of the daemon]
    #[arg(long, value_name = "NAME", conflicts_with = "role")]
    pub graph: Option<String>,
    /// A single role to run, instead of a graph
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// Batch priority: interactive tasks are scheduled first
    #[arg(long)]
    pub batch: bool,
    /// A label to store with the task; may be repeated, up to 64 times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<TaskLabel>,
    /// An idempotency key: a second request with the same key and content returns the same task
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// How a single role answers.
    #[command(flatten)]
    pub answer: AnswerOptionArgs,
    /// The input, up to 1 MiB; `-` reads it from standard input
    pub text: String,
}

/// What the answer of a single role is to be like, within what the role allows.
#[derive(Debug, Default, Flags)]
#[command(next_help_heading = "Options of the answer of a single role")]
pub struct AnswerOptionArgs {
    /// The temperature, 0 to 2; 0 always takes the likeliest token
    #[arg(long, value_name = "T", requires = "role")]
    pub temperature: Option<f32>,
    /// The most tokens of the answer, at most those of the role
    #[arg(long, value_name = "N", requires = "role")]
    pub max_tokens: Option<u32>,
    /// A seed: the same request with the same seed gives the same answer
    #[arg(long, value_name = "SEED", requires = "role")]
    pub seed: Option<u32>,
    /// How many answers to give, 1 to 8; the prompt is computed once
    #[arg(long = "n", value_name = "N", requires = "role")]
    pub answers: Option<u32>,
    /// Tell with `--json` how likely each token was, with this many alternatives, 0 to 20
    #[arg(long, value_name = "N", requires = "role")]
    pub logprobs: Option<u32>,
    /// A file with a JSON schema that the answer satisfies
    #[arg(long, value_name = "FILE", requires = "role")]
    pub schema: Option<PathBuf>,
}

/// `artel task`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Submit a task and print its id, without waiting for it
    Submit(SubmitArgs),
    /// Show the state and the result of a task
    Get {
        /// The id of the task
        id: String,
    },
    /// List tasks, newest first
    List(TaskListArgs),
    /// Stream the events of a task from its start until it ends or is set aside; Ctrl-C stops watching, not the task
    Watch {
        /// The id of the task
        id: String,
        /// Skip events up to this sequence number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
        /// Skip tokens; the output of a step is shown when it ends
        #[arg(long)]
        no_tokens: bool,
    },
    /// Cancel a task, or one of its running steps
    Cancel {
        /// The id of the task
        id: String,
        /// The step to cancel; the rest of the task continues
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
        /// The reason; stored with the task
        #[arg(long, value_name = "TEXT", default_value = "cancelled on the command line")]
        reason: String,
    },
    /// Take up a task again that is set aside
    Resume {
        /// The id of the task
        id: String,
    },
    /// Answer a step that waits for a person
    Answer(AnswerArgs),
    /// Start a new task from a step of an existing one
    Fork(ForkArgs),
    /// Report the correct role for a decision of a router
    Feedback(FeedbackArgs),
    /// Rate an answer, and say what would have been right; trainings learn from it
    Rate(RateArgs),
    /// Erase the text of tasks from the journal and from all caches, and keep their figures; tasks that run are cancelled
    Erase(EraseArgs),
    /// Show the steps of a task with times, tokens and decisions
    Show {
        /// The id of the task
        id: String,
    },
}

/// `artel task list`.
#[derive(Debug, Flags)]
pub struct TaskListArgs {
    /// Tasks in this state; may be repeated
    #[arg(long = "state", value_name = "STATE", value_enum)]
    pub states: Vec<TaskStateFilter>,
    /// Tasks of this graph
    #[arg(long, value_name = "NAME")]
    pub graph: Option<String>,
    /// Tasks that run this single role
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// Tasks of this caller, if tasks of other callers may be seen
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Tasks with this label; if repeated, tasks with all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<TaskLabel>,
    /// The maximum number of tasks
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the doc comment of a value is its help, and the names need none")]
pub enum TaskStateFilter {
    Queued,
    Running,
    Waiting,
    Completed,
    Failed,
    Cancelled,
    #[value(name = "set_aside")]
    SetAside,
}

/// `artel task answer`.
#[derive(Debug, Flags)]
#[command(group = clap::ArgGroup::new("answer").required(true).args(["value", "text"]))]
pub struct AnswerArgs {
    /// The id of the task
    pub id: String,
    /// The step; required if several steps wait
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// The answer as a JSON value, for a step with a schema
    #[arg(long, value_name = "JSON", value_parser = portable::parse)]
    pub value: Option<serde_json::Value>,
    /// The answer as text; `-` reads it from standard input
    pub text: Option<String>,
}

/// `artel task fork`.
#[derive(Debug, Flags)]
pub struct ForkArgs {
    /// The id of the existing task
    pub id: String,
    /// The first step to run again; steps that finished before it are reused [default: all steps run again]
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Use the current catalog, not that of the existing task
    #[arg(long)]
    pub current: bool,
    /// A label to store with the new task; may be repeated, up to 64 times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<TaskLabel>,
    /// An idempotency key: a second request with the same key and content returns the same task
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// `artel task rate`.
#[derive(Debug, Flags)]
pub struct RateArgs {
    /// The id of the task
    pub id: String,
    /// What the answer is
    #[arg(value_enum)]
    pub rating: AnswerRatingArg,
    /// The step that answered [default: the last step of the task that a role has answered]
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// A file with the answer that would have been right, up to 1 MiB; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    pub correct: Option<PathBuf>,
    /// A comment for people, up to 4096 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerRatingArg {
    /// As it should be
    Good,
    /// Not as it should be
    Bad,
}

/// `artel task erase`.
#[derive(Debug, Flags)]
#[command(group = clap::ArgGroup::new("erased").required(true).args(["ids", "owner"]))]
pub struct EraseArgs {
    /// The ids of the tasks
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Erase all tasks of this caller, and all feedback on them and ratings of them
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Erase without asking; required unless standard input is a terminal
    #[arg(long)]
    pub yes: bool,
}

/// A label of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLabel {
    /// The part before the first `=`; not empty.
    pub key: String,
    /// The part after it.
    pub value: String,
}

impl FromStr for TaskLabel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some(("", _)) => Err("the key before `=` is empty"),
            Some((key, value)) => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            None => Err("a label has the form KEY=VALUE"),
        }
    }
}
