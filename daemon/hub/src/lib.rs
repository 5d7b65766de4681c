//! Downloads of GGUF files from Hugging Face: an `hf:` address goes in, the path of a complete and verified file comes out.
//!
//! No other crate accesses the hub. An existing file is used without asking the hub for a newer one: the address can name a
//! revision instead. A missing file is downloaded once for all requests, in this process and in others: a thread of its own
//! writes a partial file beside the final path, under a lock, and renames it when it is complete and its hash matches. An
//! interrupted download is resumed by the next attempt, or by the next start of the program. A model in pieces is one download: the
//! hub is asked for all pieces before any is fetched, and several are fetched at once.
//!
//! [`disk`] says how much space is left for such files. This crate does not know what is in a file beyond its first bytes, nor
//! which model needs it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod disk;
mod download;
mod downloader;
mod endpoint;
mod error;
mod interruption;
mod job;
mod partial_file;
mod progress;
mod statement;
mod stop;
mod token;

pub use downloader::HfDownloader;
pub use error::{Error, HashSource, MissingPart};
pub use interruption::Interruption;
pub use progress::DownloadProgress;
pub use statement::HubStatement;
pub use token::HubTokenSource;
