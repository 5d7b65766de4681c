//! The downloads of a process: at most one for each file.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use artel_model::{PieceHashes, PieceNumbers};
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use crate::disk::DiskSpace;
use crate::download::Download;
use crate::endpoint::{AttemptFault, HfEndpoint};
use crate::error::Error;
use crate::job::DownloadJob;
use crate::progress::DownloadProgress;
use crate::statement::HubStatement;
use crate::stop::StopOnDrop;
use crate::token::HubTokenSource;

/// Downloads files of the hub into the directory of models.
pub struct HfDownloader {
    models: PathBuf,
    offline: bool,
    /// The hub; or the error in the environment variables, which is reported when something is downloaded.
    endpoint: Result<Arc<HfEndpoint>, Error>,
    downloads: Mutex<HashMap<PathBuf, watch::Receiver<DownloadProgress>>>,
    disk: Arc<DiskSpace>,
    /// Stops all downloads when the downloader is dropped.
    stop: StopOnDrop,
}

impl HfDownloader {
    /// Downloads into this directory, from the hub named by the environment, with the token of the environment or of systemd.
    /// Offline, it downloads nothing.
    pub fn new(models: PathBuf, offline: bool) -> Self {
        let endpoint = HfEndpoint::from_env(HubTokenSource::find(None).as_ref()).map(Arc::new);
        Self {
            models,
            offline,
            endpoint,
            downloads: Mutex::default(),
            disk: Arc::default(),
            stop: StopOnDrop::default(),
        }
    }

    /// With the token in this file, if one is named.
    #[must_use]
    pub fn with_token_file(self, file: Option<&Path>) -> Self {
        let Some(file) = file else { return self };
        let endpoint = HfEndpoint::from_env(HubTokenSource::find(Some(file)).as_ref()).map(Arc::new);
        Self { endpoint, ..self }
    }

    /// The path of a file, or of the first piece of a model, downloaded first if it does not exist, with all pieces. `sha256` has the
    /// expected hash of each, if known. The download continues if this future is dropped.
    ///
    /// # Errors
    /// The file is not here and cannot be downloaded.
    pub async fn get(
        &self,
        address: &HfUri,
        sha256: Option<&PieceHashes>,
        progress: impl Fn(&DownloadProgress),
    ) -> Result<PathBuf, Error> {
        let path = self.path(address);
        if self.has(address) {
            return Ok(path);
        }
        if self.offline {
            return Err(self.offline_error(address));
        }
        let mut updates = self.join(address, &path, sha256)?;
        loop {
            let now = updates.borrow_and_update().clone();
            progress(&now);
            if let Some(result) = now.result {
                return result.map(|()| path);
            }
            if updates.changed().await.is_err() {
                return Err(Error::Stopped(Box::new(address.clone())));
            }
        }
    }

    /// Whether a file is here, with all of its pieces.
    pub fn has(&self, address: &HfUri) -> bool {
        address.pieces().iter().all(|piece| self.path(piece).exists())
    }

    /// Where a file is or will be; of a model in pieces, the first.
    pub fn path(&self, address: &HfUri) -> PathBuf {
        self.models.join(address.path())
    }

    /// What the hub states of a file, or of all pieces of a model together, asked once and without downloading it.
    ///
    /// # Errors
    /// Downloads are disabled, or the hub does not answer or has no such file for this client.
    pub async fn statement(&self, address: &HfUri) -> Result<HubStatement, Error> {
        if self.offline {
            return Err(self.offline_error(address));
        }
        let (endpoint, asked) = (self.endpoint.clone()?, address.pieces());
        let ask = move || asked.iter().map(|piece| endpoint.statement(piece, None)).collect::<Result<Vec<_>, _>>();
        let answer =
            tokio::task::spawn_blocking(ask).await.map(|stated| stated.map(|all| HubStatement::of_pieces(&all)));
        answer.map_err(|_| Error::Cancelled(Box::new(address.clone())))?.map_err(|fault| match fault {
            AttemptFault::Final(error) => error,
            AttemptFault::Interrupted(cause, _) => Error::Unanswered { address: Box::new(address.clone()), cause },
        })
    }

    /// The fraction of a file that is downloaded, while the download runs.
    pub fn fraction(&self, address: &HfUri) -> Option<f32> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let updates = downloads.get(&self.path(address))?;
        updates.has_changed().ok()?;
        let progress = updates.borrow();
        progress.result.is_none().then(|| progress.fraction())
    }

    /// Subscribes to the running download of a file, or starts one.
    fn join(
        &self,
        address: &HfUri,
        path: &PathBuf,
        sha256: Option<&PieceHashes>,
    ) -> Result<watch::Receiver<DownloadProgress>, Error> {
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
        let job = DownloadJob { pieces: self.pieces(address, sha256, &endpoint)?, progress };
        // A thread of its own, for which the exit of the program does not wait: the partial file is resumed after the next start.
        let thread = std::thread::Builder::new().name("fetch".to_owned());
        thread
            .spawn(move || job.run())
            .map_err(|e| Error::Thread { address: Box::new(address.clone()), cause: Arc::new(e) })?;
        downloads.insert(path.clone(), updates.clone());
        Ok(updates)
    }

    /// The downloads of all pieces of a file, each with its hash.
    fn pieces(
        &self,
        address: &HfUri,
        sha256: Option<&PieceHashes>,
        endpoint: &Arc<HfEndpoint>,
    ) -> Result<Vec<Download>, Error> {
        let pieces = address.pieces();
        if let Some(hashes) = sha256.map(PieceHashes::count).filter(|hashes| *hashes != pieces.len()) {
            return Err(Error::HashCount { address: Box::new(address.clone()), pieces: pieces.len(), hashes });
        }
        let stop = self.stop.token();
        let download = |(at, piece): (usize, HfUri)| Download {
            endpoint: endpoint.clone(),
            path: self.path(&piece),
            address: piece,
            sha256: sha256.and_then(|hashes| hashes.get(at)).map(str::to_owned),
            disk: self.disk.clone(),
            stop: stop.clone(),
        };
        Ok(pieces.into_iter().enumerate().map(download).collect())
    }

    fn offline_error(&self, address: &HfUri) -> Error {
        let (pieces, path, address) = (address.pieces(), self.path(address), Box::new(address.clone()));
        if pieces.len() == 1 {
            return Error::Offline { address, path };
        }
        let numbers = (1..).zip(&pieces).filter(|(_, piece)| !self.path(piece).exists()).map(|(number, _)| number);
        let missing = PieceNumbers { numbers: numbers.collect(), count: pieces.len() as u32 };
        Error::OfflinePieces { address, missing, dir: path.parent().unwrap_or(&self.models).to_owned() }
    }
}
