//! `artel route` and `artel task feedback`.

use std::path::PathBuf;

use clap::Args as Flags;

/// The threshold of the shipped graph `mentor`.
const CONFIDENCE: f64 = 0.4;

/// `artel route`.
#[derive(Debug, Flags)]
pub(crate) struct Route {
    /// The graph of the router node
    #[arg(long, value_name = "NAME", requires = "node")]
    pub(crate) graph: Option<String>,
    /// The router node whose candidates and threshold apply
    #[arg(long, value_name = "NAME", requires = "graph")]
    pub(crate) node: Option<String>,
    /// A candidate; may be repeated. Without any: the node's, or every role with examples
    #[arg(long = "role", value_name = "NAME")]
    pub(crate) roles: Vec<String>,
    /// Choose among the graphs that have examples
    #[arg(long, conflicts_with_all = ["roles", "graph"])]
    pub(crate) graphs: bool,
    /// Ask this signal (rule, embedding, linear, keyword, label); may be repeated. Without any: those that are weighed
    #[arg(long = "signal", value_name = "NAME", conflicts_with_all = ["fit", "eval"])]
    pub(crate) signals: Vec<String>,
    /// The router of the catalog whose weights apply
    #[arg(long, value_name = "NAME")]
    pub(crate) settings: Option<String>,
    /// Fit the weights to the cases of a file (YAML, or JSONL: {text, role}) and print them as YAML
    #[arg(long, value_name = "FILE", conflicts_with = "eval")]
    pub(crate) fit: Option<PathBuf>,
    /// Fit to what people said with `artel task feedback`, too
    #[arg(long, conflicts_with = "eval")]
    pub(crate) feedback: bool,
    /// Write the fitted YAML here rather than print it
    #[arg(long, value_name = "FILE", conflicts_with = "eval")]
    pub(crate) write: Option<PathBuf>,
    /// Measure the router with the cases of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) eval: Option<PathBuf>,
    /// Below this confidence a question counts as turned away, for --eval
    #[arg(long, value_name = "NUMBER", default_value_t = CONFIDENCE, requires = "eval")]
    pub(crate) confidence: f64,
    /// Draw what --eval found as a picture
    #[arg(long, value_name = "FILE", requires = "eval")]
    pub(crate) svg: Option<PathBuf>,
    /// The question; `-` reads it from standard input
    #[arg(required_unless_present_any = ["fit", "eval", "feedback"], conflicts_with_all = ["fit", "eval", "feedback"])]
    pub(crate) text: Option<String>,
}

/// `artel task feedback`.
#[derive(Debug, Flags)]
pub(crate) struct Feedback {
    /// The task
    pub(crate) id: String,
    /// The role; `none` if no candidate is right
    #[arg(long, value_name = "NAME")]
    pub(crate) role: String,
    /// The router's step; without it, the task's first decision
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// A remark
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
}
