//! How far a download is: what its thread tells the requests that wait for it.

use crate::error::Error;

/// The progress of a download.
#[derive(Debug, Clone, Default)]
pub struct DownloadProgress {
    /// Bytes downloaded.
    pub done_bytes: u64,
    /// Bytes of the whole file, once known.
    pub total_bytes: Option<u64>,
    /// The result, once it has ended.
    pub(crate) result: Option<Result<(), Error>>,
}

impl DownloadProgress {
    /// The fraction downloaded, from 0 to 1.
    pub fn fraction(&self) -> f32 {
        match self.total_bytes {
            Some(total) if total > 0 => (self.done_bytes as f64 / total as f64).min(1.0) as f32,
            _ => 0.0,
        }
    }
}
