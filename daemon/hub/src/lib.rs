//! Downloads of GGUF files from Hugging Face: an `hf:` address goes in, the path of a complete and verified file comes out.
//!
//! No other crate accesses the hub. An existing file is used without asking the hub for a newer one: the address can name a
//! revision instead. A missing file is downloaded once for all requests, in this process and in others: a thread of its own
//! writes a partial file beside the final path, under a lock, and renames it when it is complete and its hash matches. An
//! interrupted download is resumed by the next attempt, or by the next start of the program. A model in pieces is one download: the
//! hub is asked for all pieces before any is fetched, several are fetched at once, and all are of one version: of the commit that the
//! hub names when it is asked, whatever the revision of the address means later.
//!
//! [`disk`] says how much space is left for such files. This crate does not know what is in a file beyond its first bytes, nor
//! which model needs it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commit;
pub mod disk;
mod download;
mod downloader;
mod endpoint;
mod error;
mod interruption;
mod job;
mod lock_file;
mod parallel;
mod partial_file;
mod piece_record;
mod piece_set;
mod progress;
mod statement;
mod stop;
mod token;

pub use downloader::HfDownloader;
pub use error::{Error, HashSource, MissingPart, VersionDifference};
pub use interruption::Interruption;
pub use progress::DownloadProgress;
pub use statement::HubStatement;
pub use token::HubTokenSource;
