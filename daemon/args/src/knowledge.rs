//! `artel knowledge`.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand, ValueEnum};

use crate::task::TaskLabel;

/// `artel knowledge`.
#[derive(Debug, Subcommand)]
pub enum KnowledgeCommand {
    /// Find the passages that answer a question
    Search(KnowledgeSearchArgs),
    /// Show how far the index of each knowledge is; of a named one, also the files that could not be read
    Status {
        /// The name of the knowledge [default: all]
        name: Option<String>,
    },
    /// Show a file or text as it was extracted, in passages; without one, list all of them
    Show {
        /// The name of the knowledge
        name: String,
        /// The path of the file, or the name of the text
        source: Option<String>,
    },
    /// Hand in a text, in place of the one of the same name; it is found when the command ends
    Add(KnowledgeAddArgs),
    /// Remove a text that was handed in
    Remove {
        /// The name of the knowledge
        name: String,
        /// The name of the text
        source: String,
    },
    /// Measure by labelled questions how well passages are found: nDCG@10 and recall@5 of words, vectors and both
    Eval {
        /// The name of the knowledge
        name: String,
        /// The questions: a JSON object in each line, with `question` and `answers`, each `{"source": ..., "quote": ...}`
        file: PathBuf,
    },
}

/// `artel knowledge search`.
#[derive(Debug, Flags)]
pub struct KnowledgeSearchArgs {
    /// The name of the knowledge
    pub name: String,
    /// The question
    pub query: String,
    /// How many passages to show, up to 50 [default: as the knowledge says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub top: Option<u32>,
    /// By what passages are found [default: as the knowledge says]
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<SearchModeArg>,
    /// A pattern of sources, such as `*/guide/*.md`; may be repeated, and one must match
    #[arg(long = "source", value_name = "PATTERN")]
    pub sources: Vec<String>,
    /// A label that the source has; may be repeated, and all must match
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<TaskLabel>,
    /// Show how long the parts of the search took
    #[arg(long)]
    pub timings: bool,
}

/// By what passages are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SearchModeArg {
    /// By words and meaning together
    Hybrid,
    /// By meaning
    Vector,
    /// By words
    Keyword,
}

/// `artel knowledge add`.
#[derive(Debug, Flags)]
pub struct KnowledgeAddArgs {
    /// The name of the knowledge
    pub name: String,
    /// The name of the text, such as a URL
    pub source: String,
    /// The file with the text, up to 1 MiB; `-` reads it from standard input
    pub file: PathBuf,
    /// The text is Markdown, with headings and tables
    #[arg(long)]
    pub markdown: bool,
    /// A label that a search may ask for; may be repeated, up to 16 times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<TaskLabel>,
}
