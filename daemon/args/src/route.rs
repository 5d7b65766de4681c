//! `artel route` and `artel task feedback`.

use std::path::PathBuf;

use clap::Args as Flags;

/// The threshold of the shipped graph `mentor`.
const DEFAULT_CONFIDENCE: f64 = 0.4;

/// `artel route`.
#[derive(Debug, Flags)]
pub struct RouteArgs {
    /// The graph that contains the router node
    #[arg(long, value_name = "NAME", requires = "node")]
    pub graph: Option<String>,
    /// The router node whose candidates and threshold apply
    #[arg(long, value_name = "NAME", requires = "graph")]
    pub node: Option<String>,
    /// A candidate; may be repeated [default: the candidates of the node, or every role with examples]
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// Select among the graphs that have examples, instead of roles
    #[arg(long, conflicts_with_all = ["roles", "graph"])]
    pub graphs: bool,
    /// A signal to evaluate: rule, embedding, linear, keyword or label; may be repeated [default: the weighted ones]
    #[arg(long = "signal", value_name = "NAME", conflicts_with_all = ["fit", "eval"])]
    pub signals: Vec<String>,
    /// The `router` definition of the catalog whose weights apply [default: that of the node, or `default`]
    #[arg(long, value_name = "NAME")]
    pub settings: Option<String>,
    /// Fit the weights to the labelled cases of a file (YAML, or JSONL: {text, role}) and print them as YAML
    #[arg(long, value_name = "FILE", conflicts_with = "eval")]
    pub fit: Option<PathBuf>,
    /// Fit the weights to the feedback of `artel task feedback` as well
    #[arg(long, conflicts_with = "eval")]
    pub feedback: bool,
    /// Write the fitted YAML to a file instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "eval")]
    pub write: Option<PathBuf>,
    /// Evaluate the router on the labelled cases of a file (as for --fit): accuracy, calibration and latency
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// The confidence below which --eval counts a question as rejected, from 0 to 1
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_CONFIDENCE, requires = "eval")]
    pub confidence: f64,
    /// Write the results of --eval as an SVG picture
    #[arg(long, value_name = "FILE", requires = "eval")]
    pub svg: Option<PathBuf>,
    /// The question; `-` reads it from standard input
    #[arg(required_unless_present_any = ["fit", "eval", "feedback"], conflicts_with_all = ["fit", "eval", "feedback"])]
    pub text: Option<String>,
}

/// `artel task feedback`.
#[derive(Debug, Flags)]
pub struct FeedbackArgs {
    /// The id of the task
    pub id: String,
    /// The correct role; `none` if no candidate is correct
    #[arg(long, value_name = "NAME")]
    pub role: String,
    /// The step of the router [default: the first decision of the task]
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// A comment, up to 4096 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
}
