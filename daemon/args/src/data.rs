//! `artel data`.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand, ValueEnum};

/// `artel data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show samples: what the role's model reads, and the answer that is right
    Show(DataShowArgs),
    /// List what was left out and why, duplicates, leaks, lengths and languages
    Lint {
        /// The name of the training
        name: String,
    },
    /// Write samples as JSON lines: chats in the form of OpenAI's and of Hugging Face's libraries
    Export(DataExportArgs),
}

/// `artel data show`.
#[derive(Debug, Flags)]
pub struct DataShowArgs {
    /// The name of the training
    pub name: String,
    /// Which samples [default: all]
    #[arg(long, value_enum, value_name = "PART")]
    pub part: Option<SamplePartArg>,
    /// The most samples to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `artel data export`.
#[derive(Debug, Flags)]
pub struct DataExportArgs {
    /// The name of the training
    pub name: String,
    /// The file, which is replaced if it exists [default: standard output]
    pub file: Option<PathBuf>,
    /// Which samples [default: all]
    #[arg(long, value_enum, value_name = "PART")]
    pub part: Option<SamplePartArg>,
}

/// A part of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplePartArg {
    /// Those that are trained on
    Train,
    /// Those that are measured by
    HeldOut,
}
