//! Files of a hub of models, fetched when they are first needed. Nothing else in the program reaches the hub.
//!
//! A file that is there is used, and nobody is asked whether there is a newer one: whoever needs that names a revision. One
//! that is not there is fetched once, however many wait for it, in this process or in others: a thread of its own writes it
//! beside its place, under a lock, and it is moved there when it is whole and its hash right. Whatever interrupts that, the
//! next attempt goes on where it ended.

mod fetch;
mod part;
mod source;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use fetch::Fetch;
use source::Source;
use stop::StopOnDrop;

/// Files of a hub, below a directory of models.
pub(crate) struct Hub {
    models: PathBuf,
    offline: bool,
    /// Where they come from; or what is wrong with the environment, which matters when something is fetched.
    source: Result<Arc<Source>, String>,
    going: Mutex<HashMap<PathBuf, watch::Receiver<Going>>>,
    /// Fetches stop when there is no hub any more.
    stop: StopOnDrop,
}

/// How far a file is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Going {
    /// Bytes that are there.
    pub(crate) done: u64,
    /// Bytes that it has, once the hub has said so.
    pub(crate) size: Option<u64>,
    /// That it is there, or why it cannot be.
    end: Option<Result<(), String>>,
}

impl Going {
    /// The share that is there, from 0 to 1.
    pub(crate) fn share(&self) -> f32 {
        match self.size {
            Some(size) if size > 0 => (self.done as f64 / size as f64).min(1.0) as f32,
            _ => 0.0,
        }
    }
}

impl Hub {
    /// Fetches into this directory, from where the environment says; offline, nothing.
    pub(crate) fn new(models: PathBuf, offline: bool) -> Self {
        let source = Source::of_environment().map(Arc::new);
        Self { models, offline, source, going: Mutex::default(), stop: StopOnDrop::default() }
    }

    /// Where the file is, fetched if it must be; `sha256` is what it should have, as far as that is known. The fetch goes on if
    /// this is given up.
    pub(crate) async fn get(
        &self,
        address: &HfUri,
        sha256: Option<&str>,
        progress: impl Fn(&Going),
    ) -> Result<PathBuf, String> {
        let path = self.models.join(address.path());
        if path.exists() {
            return Ok(path);
        }
        if self.offline {
            let place = path.display();
            return Err(format!("{address} is not here, and nothing is fetched offline; it is looked for at {place}"));
        }
        let mut going = self.join(address, &path, sha256)?;
        loop {
            let now = going.borrow_and_update().clone();
            progress(&now);
            if let Some(end) = now.end {
                return end.map(|()| path);
            }
            if going.changed().await.is_err() {
                return Err(format!("fetching {address} has stopped"));
            }
        }
    }

    /// The share of a file that is there, while it is fetched.
    pub(crate) fn share(&self, address: &HfUri) -> Option<f32> {
        let going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        let going = going.get(&self.models.join(address.path()))?;
        going.has_changed().ok()?;
        let going = going.borrow();
        going.end.is_none().then(|| going.share())
    }

    /// Takes part in the fetch that runs, or begins one.
    fn join(&self, address: &HfUri, path: &PathBuf, sha256: Option<&str>) -> Result<watch::Receiver<Going>, String> {
        let source = self.source.clone()?;
        let mut all = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose sender is gone has ended, and so has one that says so.
        let runs = |going: &&watch::Receiver<Going>| going.has_changed().is_ok() && going.borrow().end.is_none();
        if let Some(going) = all.get(path).filter(runs) {
            return Ok(going.clone());
        }
        let (told, going) = watch::channel(Going::default());
        let (stop, sha256) = (self.stop.stop(), sha256.map(str::to_owned));
        let fetch = Fetch { source, address: address.clone(), path: path.clone(), sha256, stop, told };
        // A thread of its own, which the end of the program does not wait for: what it has written is good for the next start.
        let thread = std::thread::Builder::new().name("fetch".to_owned());
        thread.spawn(move || fetch.run()).map_err(|e| format!("failed to start a thread to fetch {address}: {e}"))?;
        all.insert(path.clone(), going.clone());
        Ok(going)
    }
}
