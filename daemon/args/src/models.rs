//! `artel embed` and `artel rerank`.

use clap::{Args as Flags, ValueEnum};

/// `artel embed`.
#[derive(Debug, Flags)]
pub struct EmbedArgs {
    /// The name of a model with `use: embedding`
    pub model: String,
    /// The texts [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Keep so many numbers of each vector, for models that were trained for it [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: Option<u32>,
    /// What the texts are: the model's prefix for it is put before each [default: the texts as they are]
    #[arg(long = "as", value_name = "KIND")]
    pub kind: Option<InputKind>,
    /// Cut texts that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    /// Let interactive work go first
    #[arg(long)]
    pub batch: bool,
}

/// What texts to embed are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputKind {
    /// They ask, or are compared with each other
    Query,
    /// They are searched
    Passage,
}

/// `artel rerank`.
#[derive(Debug, Flags)]
pub struct RerankArgs {
    /// The name of a model with `use: rerank`
    pub model: String,
    /// The documents [default: the lines of standard input]
    #[arg(value_name = "DOCUMENT")]
    pub documents: Vec<String>,
    /// The query
    #[arg(long, value_name = "TEXT")]
    pub query: String,
    /// Show only so many of the best [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    /// Cut documents that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    /// Let interactive work go first
    #[arg(long)]
    pub batch: bool,
}
