//! Why a model cannot be loaded, and why devices cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use artel_engine::LoadError;

/// The reason why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, damaged or of the wrong kind.
    #[error(transparent)]
    File(#[from] artel_gguf::Error),
    /// A device does not exist, or does not answer.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A classifier that does not give one score for a text.
    #[error(
        "{path}: this model cannot rerank: its classifier has {outputs} outputs, where a reranker has one score; name another file, \
         or remove `use: rerank`"
    )]
    Classifier {
        /// The file.
        path: PathBuf,
        /// The outputs of its classifier.
        outputs: u32,
    },
    /// llama.cpp refused the file.
    #[error("{path}: llama.cpp cannot load this model: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// llama.cpp's error messages.
        reason: String,
    },
    /// Not enough memory for the weights.
    #[error("{path}: not enough memory for this model: {reason}; free memory, or place the model on other devices")]
    Memory {
        /// The file.
        path: PathBuf,
        /// llama.cpp's error messages.
        reason: String,
    },
    /// The system refused to create the threads.
    #[error("failed to create {0} compute threads: lower `threads`, or raise the limit of processes")]
    Threads(u32),
    /// Not enough memory for the context, or a combination of parameters that llama.cpp refuses for this model.
    #[error(
        "{path}: failed to create a context of {sequences} sequences of {context} tokens: {}",
        context_problem(.reason)
    )]
    Context {
        /// The file.
        path: PathBuf,
        /// Tokens per sequence.
        context: u32,
        /// Sequences.
        sequences: u32,
        /// llama.cpp's error messages.
        reason: String,
    },
}

impl Error {
    /// A file that llama.cpp did not load, with its error messages.
    pub(crate) fn of_load(path: &Path, reason: String) -> Self {
        let path = path.to_owned();
        if is_lack_of_memory(&reason) { Self::Memory { path, reason } } else { Self::Load { path, reason } }
    }

    /// Whether loading may succeed later as it is.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::File(error) => error.is_transient(),
            Self::Device(error) => error.is_transient(),
            Self::Classifier { .. } | Self::Load { .. } => false,
            Self::Memory { .. } | Self::Threads(_) => true,
            Self::Context { reason, .. } => may_lack_memory(reason),
        }
    }
}

/// Whether llama.cpp's error messages speak of a lack of memory; nothing else tells it from a bad file.
pub(crate) fn is_lack_of_memory(reason: &str) -> bool {
    ["to allocate", "out of memory", "bad_alloc", "Cannot allocate memory"].iter().any(|words| reason.contains(words))
}

/// Whether a context may have been refused for lack of memory: llama.cpp says so, or gives no reason.
pub(crate) fn may_lack_memory(reason: &str) -> bool {
    reason.is_empty() || is_lack_of_memory(reason)
}

/// The reason why a context was refused, and what to do.
fn context_problem(reason: &str) -> String {
    match (reason, may_lack_memory(reason)) {
        ("", _) => "llama.cpp gives no reason; lower `context` or `sequences`".to_owned(),
        (_, true) => format!("{reason}; lower `context` or `sequences`"),
        (_, false) => format!("{reason}; change the model's settings"),
    }
}

/// Why devices cannot be used or served.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("no device `{name}`; available: {}", .available.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names of all devices.
        available: Vec<String>,
    },
    /// The model is to be split over more devices than llama.cpp supports.
    #[error("llama.cpp can split a model over at most {max} devices")]
    TooMany {
        /// The largest number of devices.
        max: usize,
    },
    /// The text is not an address.
    #[error("`{}` is not an address", .address.escape_debug())]
    InvalidAddress {
        /// The text.
        address: String,
    },
    /// The host name of an RPC server cannot be resolved.
    #[error("failed to resolve RPC server {address}: {source}")]
    Resolve {
        /// The server.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The host name of an RPC server has no address.
    #[error("RPC server {address} has no network address")]
    NoAddress {
        /// The server.
        address: String,
    },
    /// An RPC server accepts no connection.
    #[error("failed to connect to RPC server {address}: {source}")]
    Connect {
        /// The server.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// An RPC server reports no devices, or is none.
    #[error("RPC server {address} has no devices")]
    NoDevices {
        /// The server.
        address: String,
    },
    /// This build cannot use RPC servers.
    #[error("llama.cpp was built without RPC")]
    NoRpc,
    /// The address is in use, or not one of this machine.
    #[error("llama.cpp's RPC server cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
    },
}

impl DeviceError {
    /// Whether the same call may succeed later: another machine is unreachable, which may pass.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::NoAddress { .. } | Self::Connect { .. } | Self::NoDevices { .. } => true,
            Self::Unknown { .. }
            | Self::TooMany { .. }
            | Self::InvalidAddress { .. }
            | Self::NoRpc
            | Self::Listen { .. } => false,
        }
    }
}

fn load_error(error: &dyn std::error::Error, is_transient: bool) -> LoadError {
    if is_transient { LoadError::transient(error.to_string()) } else { LoadError::permanent(error.to_string()) }
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        load_error(&error, error.is_transient())
    }
}

impl From<DeviceError> for LoadError {
    fn from(error: DeviceError) -> Self {
        load_error(&error, error.is_transient())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_may_pass_and_a_bad_file_stays_bad() {
        let of = |reason: &str| LoadError::from(Error::of_load(Path::new("m.gguf"), reason.to_owned()));
        let lacking = of("error loading model: unable to allocate CUDA0 buffer");
        assert!(lacking.is_transient() && lacking.to_string().starts_with("m.gguf: not enough memory"), "{lacking}");
        let unknown = of("error loading model: unknown model architecture: 'lemma'");
        assert!(!unknown.is_transient() && unknown.to_string().contains("cannot load this model"), "{unknown}");
        let missing = artel_gguf::inspect(Path::new("/nowhere/m.gguf")).unwrap_err();
        assert!(!LoadError::from(Error::from(missing)).is_transient());
    }

    #[test]
    fn a_context_that_lacks_memory_may_fit_later_and_refused_parameters_stay_refused() {
        let of = |reason: &str| {
            let (path, reason) = (PathBuf::from("m.gguf"), reason.to_owned());
            LoadError::from(Error::Context { path, context: 4096, sequences: 2, reason })
        };
        let lacking = of("failed to allocate buffer for kv cache");
        assert!(lacking.is_transient(), "{lacking}");
        assert_eq!(
            lacking.to_string(),
            "m.gguf: failed to create a context of 2 sequences of 4096 tokens: failed to allocate buffer for kv cache; \
             lower `context` or `sequences`"
        );
        assert!(of("").is_transient(), "llama.cpp does not log every failure");
        let refused = of("V cache quantization requires flash_attn");
        assert!(!refused.is_transient() && refused.to_string().ends_with("; change the model's settings"), "{refused}");
    }

    #[test]
    fn an_unreachable_server_may_come_back_and_an_unknown_device_does_not() {
        let address = || "box:1".to_owned();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(LoadError::from(DeviceError::Connect { address: address(), source: refused }).is_transient());
        let unknown = DeviceError::Unknown { name: "CUDA7".to_owned(), available: vec!["CPU".to_owned()] };
        assert_eq!(unknown.to_string(), "no device `CUDA7`; available: CPU");
        assert!(!LoadError::from(Error::from(unknown)).is_transient());
        assert_eq!(DeviceError::NoDevices { address: address() }.to_string(), "RPC server box:1 has no devices");
    }
}
