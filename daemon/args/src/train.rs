//! `artel train`.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand, ValueEnum};

/// `artel train`.
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Install the trainer: a Python environment of its own in the daemon's data directory; goes on where it was ended
    Setup,
    /// Start a run of a training, and follow it to its end; it goes on without this command
    Start {
        /// The name of the training
        name: String,
        /// Do not follow it
        #[arg(long)]
        detach: bool,
    },
    /// Follow a run to its end
    Watch {
        /// The id of the run
        run: String,
    },
    /// List runs, the newest first
    List {
        /// Only those of this training
        name: Option<String>,
    },
    /// Show a run: how far it is, its losses, its curve, and what it left out
    Show {
        /// The id of the run
        run: String,
        /// Write the curve of its loss to this file as a picture
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Show what is different between two runs
    Compare {
        /// The id of a run
        one: String,
        /// The id of another run
        other: String,
    },
    /// End a run for good
    Stop {
        /// The id of the run
        run: String,
    },
    /// Write the adapter of a run into a directory
    Export(TrainExportArgs),
    /// Delete a run with its adapter
    Delete {
        /// The id of the run
        run: String,
    },
}

/// `artel train export`.
#[derive(Debug, Flags)]
pub struct TrainExportArgs {
    /// The id of the run
    pub run: String,
    /// The directory, which is made if it is missing; files of the same names are replaced
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// In which form
    #[arg(long, value_enum, value_name = "FORM", default_value_t = AdapterFormatArg::Gguf)]
    pub format: AdapterFormatArg,
}

/// The form of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdapterFormatArg {
    /// One GGUF, for Artel and llama.cpp
    Gguf,
    /// The files of Hugging Face's PEFT, for Transformers and vLLM
    Peft,
}
