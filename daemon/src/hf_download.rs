//! Downloads files from the Hugging Face hub on first use. No other code of the program accesses the hub.
//!
//! An existing file is used without asking the hub for a newer one: the address can name a revision instead. A missing file is
//! downloaded once for all requests, in this process and in others: a thread of its own writes a partial file beside the final
//! path, under a lock, and renames it when it is complete and its hash matches. An interrupted download is resumed by the next
//! attempt.

mod download;
mod endpoint;
mod partial_file;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use download::Download;
use endpoint::HfEndpoint;
use stop::StopOnDrop;

/// Downloads files of the hub into the directory of models.
pub(crate) struct HfDownloader {
    models: PathBuf,
    offline: bool,
    /// The hub; or the error in the environment variables, which is reported when something is downloaded.
    endpoint: Result<Arc<HfEndpoint>, String>,
    downloads: Mutex<HashMap<PathBuf, watch::Receiver<DownloadProgress>>>,
    /// Stops all downloads when the downloader is dropped.
    stop: StopOnDrop,
}

/// The progress of a download.
#[derive(Debug, Clone, Default)]
pub(crate) struct DownloadProgress {
    /// Bytes downloaded.
    pub(crate) done_bytes: u64,
    /// Bytes of the whole file, once known.
    pub(crate) total_bytes: Option<u64>,
    /// The result, once it has ended.
    result: Option<Result<(), String>>,
}

impl DownloadProgress {
    /// The fraction downloaded, from 0 to 1.
    pub(crate) fn fraction(&self) -> f32 {
        match self.total_bytes {
            Some(total) if total > 0 => (self.done_bytes as f64 / total as f64).min(1.0) as f32,
            _ => 0.0,
        }
    }
}

impl HfDownloader {
    /// Downloads into this directory, from the hub named by the environment. Offline, it downloads nothing.
    pub(crate) fn new(models: PathBuf, offline: bool) -> Self {
        let endpoint = HfEndpoint::from_env().map(Arc::new);
        Self { models, offline, endpoint, downloads: Mutex::default(), stop: StopOnDrop::default() }
    }

    /// The path of a file, downloaded first if it does not exist. `sha256` is its expected hash, if known. The download continues
    /// if this future is dropped.
    pub(crate) async fn get(
        &self,
        address: &HfUri,
        sha256: Option<&str>,
        progress: impl Fn(&DownloadProgress),
    ) -> Result<PathBuf, String> {
        let path = self.models.join(address.path());
        if path.exists() {
            return Ok(path);
        }
        if self.offline {
            let path = path.display();
            return Err(format!("{address} is missing at {path}, and downloads are disabled (offline)"));
        }
        let mut updates = self.join(address, &path, sha256)?;
        loop {
            let now = updates.borrow_and_update().clone();
            progress(&now);
            if let Some(result) = now.result {
                return result.map(|()| path);
            }
            if updates.changed().await.is_err() {
                return Err(format!("the download of {address} has stopped"));
            }
        }
    }

    /// The fraction of a file that is downloaded, while the download runs.
    pub(crate) fn fraction(&self, address: &HfUri) -> Option<f32> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let updates = downloads.get(&self.models.join(address.path()))?;
        updates.has_changed().ok()?;
        let progress = updates.borrow();
        progress.result.is_none().then(|| progress.fraction())
    }

    /// Subscribes to the running download of a file, or starts one.
    fn join(
        &self,
        address: &HfUri,
        path: &PathBuf,
        sha256: Option<&str>,
    ) -> Result<watch::Receiver<DownloadProgress>, String> {
        let endpoint = self.endpoint.clone()?;
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        // A download has ended if its sender is dropped or its result is set.
        let is_running = |updates: &&watch::Receiver<DownloadProgress>| {
            updates.has_changed().is_ok() && updates.borrow().result.is_none()
        };
        if let Some(updates) = downloads.get(path).filter(is_running) {
            return Ok(updates.clone());
        }
        let (progress, updates) = watch::channel(DownloadProgress::default());
        let (stop, sha256) = (self.stop.token(), sha256.map(str::to_owned));
        let download = Download { endpoint, address: address.clone(), path: path.clone(), sha256, stop, progress };
        // A thread of its own, for which the exit of the program does not wait: the partial file is resumed after the next start.
        let thread = std::thread::Builder::new().name("fetch".to_owned());
        thread
            .spawn(move || download.run())
            .map_err(|e| format!("failed to start a thread to download {address}: {e}"))?;
        downloads.insert(path.clone(), updates.clone());
        Ok(updates)
    }
}
