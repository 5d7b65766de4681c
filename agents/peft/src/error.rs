//! Why an adapter is not converted.

use std::io;
use std::path::{Path, PathBuf};

use crate::architecture::SUPPORTED;

/// The characters of a name in a file that a message repeats.
const MAX_SHOWN_CHARS: usize = 100;

/// Why an adapter is not converted. Nothing is written then.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The model's or the adapter's GGUF file cannot be used.
    #[error(transparent)]
    Gguf(#[from] artel_gguf::Error),
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}; check the path and the access to it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file or a directory cannot be written.
    #[error("{path}: cannot be written: {source}; check the path, the access to it and the free disk space")]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is not what its name says, or is larger than any adapter.
    #[error("{path}: {reason}; save the adapter again with PEFT's `save_pretrained`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is sound, and what it says cannot be converted.
    #[error("{path}: {refusal}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is refused.
        refusal: AdapterRefusal,
    },
}

impl ConvertError {
    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn refused(path: &Path) -> impl Fn(AdapterRefusal) -> Self {
        move |refusal| Self::Refused { path: path.to_owned(), refusal }
    }
}

/// What cannot be converted. Names of modules and tensors are shortened and escaped: they are content of a file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterRefusal {
    /// The architecture of the model.
    #[error(
        "the model's architecture is `{0}`, and adapters are converted for {SUPPORTED}; convert this one with llama.cpp's \
         `convert_lora_to_gguf.py`"
    )]
    Architecture(String),
    /// The model says no number of heads by which the rows of queries and keys are ordered.
    #[error("`{0}` is missing or out of range, and the order of rows depends on it; convert the model again")]
    HeadCount(String),
    /// The weights are pickled.
    #[error("the weights are in `adapter_model.bin`, which is code; save the adapter with `safe_serialization=True`")]
    Pickled,
    /// A setting of PEFT whose effect GGUF cannot have.
    #[error("`{key}` is set: {reason}")]
    Setting {
        /// Its key in `adapter_config.json`.
        key: &'static str,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A setting that this crate does not know, and that may change what the adapter does.
    #[error(
        "`{0}` is set, and it is not known whether it changes what the adapter does; train without it, or remove it if it \
         concerns training alone"
    )]
    UnknownSetting(String),
    /// A kind of adapter other than LoRA.
    #[error("the adapter is of type `{0}`, and GGUF holds LoRA alone; train a LoRA")]
    Kind(String),
    /// A pattern of modules that cannot be read.
    #[error("`{key}` has the pattern `{pattern}`, which cannot be used: {reason}; name the modules in full")]
    Pattern {
        /// `rank_pattern` or `alpha_pattern`.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The embedding of tokens is adapted.
    #[error("`{0}` adapts the embedding of tokens, which is not converted; train without `embed_tokens`")]
    Embedding(String),
    /// The head is adapted, and the model has none of its own.
    #[error(
        "`{0}` adapts the head, and the model has no `output.weight`: its head is its embedding of tokens; train without \
         `lm_head`"
    )]
    SharedHead(String),
    /// A whole weight or a bias, which is no LoRA.
    #[error(
        "`{0}` is a whole tensor and no part of a LoRA; train without `modules_to_save`, biases and new tokens, or merge \
         the adapter into its model"
    )]
    WholeTensor(String),
    /// A tensor of a layer that the architecture does not have, or that cannot be adapted.
    #[error(
        "`{tensor}` is of no linear layer of a model of architecture `{architecture}`; train with `target_modules` among \
         {targets}"
    )]
    Module {
        /// The tensor.
        tensor: String,
        /// The model's architecture.
        architecture: &'static str,
        /// The names of its linear layers.
        targets: String,
    },
    /// The model has no linear layer of this name.
    #[error("the model has no linear layer `{target}`; name some of {targets}")]
    Target {
        /// The name.
        target: String,
        /// The names of its linear layers.
        targets: String,
    },
    /// The model has no such layer.
    #[error(
        "`{module}` adapts `{weight}`, which the model does not have; name the model that the adapter was trained for"
    )]
    NotInModel {
        /// The module.
        module: String,
        /// The weight in the model's file.
        weight: String,
    },
    /// One of two matrices is missing.
    #[error("`{module}` has no lora_{missing}; the file is incomplete: save or fetch the adapter again")]
    Unpaired {
        /// The module.
        module: String,
        /// `A` or `B`.
        missing: &'static str,
    },
    /// Two tensors are the same matrix.
    #[error("`{0}` is adapted twice; save the adapter again")]
    Twice(String),
    /// The matrices do not fit each other or the model's weight.
    #[error(
        "`{module}`: lora_A is {} x {} and lora_B is {} x {}, and the model's weight is {} x {} (rows x columns); name the \
         model that the adapter was trained for", a[0], a[1], b[0], b[1], weight[0], weight[1]
    )]
    Shape {
        /// The module.
        module: String,
        /// Rows and columns of A: rank and inputs.
        a: [u64; 2],
        /// Rows and columns of B: outputs and rank.
        b: [u64; 2],
        /// Rows and columns of the model's weight: outputs and inputs.
        weight: [u64; 2],
    },
    /// The rank differs from that in the settings.
    #[error("`{module}` has rank {found}, and the settings say {stated}; save the adapter again with its own settings")]
    Rank {
        /// The module.
        module: String,
        /// The rank of the matrices.
        found: u64,
        /// The rank by `r` and `rank_pattern`.
        stated: u64,
    },
    /// The rank or a matrix is larger than any that is served.
    #[error(
        "`{module}` has rank {rank} and a matrix of {elements} numbers, the limits are {max_rank} and {max_elements}; train \
         with a lower rank"
    )]
    TooLarge {
        /// The module.
        module: String,
        /// The rank.
        rank: u64,
        /// Numbers of the larger matrix.
        elements: u64,
        /// The largest rank.
        max_rank: u64,
        /// The most numbers of a matrix.
        max_elements: u64,
    },
    /// The rows of queries or keys are no whole heads.
    #[error("`{module}` has {rows} rows, which are no {heads} heads of pairs; convert the model again")]
    Heads {
        /// The module.
        module: String,
        /// The outputs.
        rows: u64,
        /// The number of heads.
        heads: u64,
    },
    /// The scale is zero, which llama.cpp takes for one, or no number.
    #[error("the scale of `{0}` is zero or out of range; train with a `lora_alpha` above zero")]
    Scale(String),
    /// Numbers of a type that is not converted.
    #[error(
        "`{tensor}` has numbers of type {number_type}, and F32, F16 and BF16 are converted; save the adapter in one of them"
    )]
    NumberType {
        /// The tensor.
        tensor: String,
        /// The type, as its file says it.
        number_type: String,
    },
    /// A number that is none.
    #[error(
        "`{0}` has numbers that are infinite or none (NaN); its training has diverged: train with a lower learning rate"
    )]
    NotFinite(String),
    /// There is nothing in the adapter.
    #[error("the adapter has no tensors; save it again after training")]
    Empty,
}

/// A name from a file, as a message shows it.
pub(crate) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
