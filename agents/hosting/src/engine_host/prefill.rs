//! What an engine computes ahead of time: the prefixes of its roles.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use artel_engine::{EngineHandle, LoadError, Request};
use artel_roles::{Adapter, Model};
use tokio::task::{JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use crate::loader::Loader;
use crate::model_workload::ModelWorkload;

/// Prefills the prefixes of a workload one after the other, until it is dropped. The engine keeps no other adapters.
pub(super) fn start(
    handle: EngineHandle,
    workload: ModelWorkload,
    model: &Model,
    loader: Arc<dyn Loader>,
) -> AbortOnDropHandle<()> {
    let ModelWorkload { mut prefixes, adapters, hashed, .. } = workload;
    handle.retain_adapters(adapters);
    let model = model.name.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut checks = AdapterChecks::start(hashed, &loader);
        loop {
            checks.note_finished();
            let Some(at) = prefixes.iter().position(|prefix| checks.verdict(prefix).is_some()) else {
                match checks.wait().await {
                    true => continue,
                    false => return,
                }
            };
            let prefix = prefixes.remove(at);
            if checks.verdict(&prefix) == Some(AdapterVerdict::Refused) {
                continue;
            }
            let role = prefix.flow.clone();
            if let Err(error) = handle.prefill(prefix).await {
                tracing::warn!(%model, %role, %error, "failed to prefill the prompt of a role");
            }
        }
    }))
}

/// Whether an engine may read the adapters of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AdapterVerdict {
    /// All files are what their documents state.
    Fits,
    /// One of the files is another one, or cannot be had.
    Refused,
}

/// The result for a file.
type AdapterCheck = (PathBuf, Result<(), LoadError>);

/// The downloads and comparisons of the adapters whose documents state a hash. All run at once: a role waits for no adapter but its
/// own, and one that is downloaded may take hours.
struct AdapterChecks {
    running: JoinSet<AdapterCheck>,
    /// The files of the running ones; one that several documents name is here several times.
    pending: Vec<PathBuf>,
    /// The files that an engine must not read.
    refused: Vec<PathBuf>,
}

impl AdapterChecks {
    fn start(hashed: Vec<(PathBuf, Adapter)>, loader: &Arc<dyn Loader>) -> Self {
        let mut distinct: Vec<(PathBuf, Adapter)> = Vec::new();
        for (path, adapter) in hashed {
            // Two documents may name a file with the same hash, which is computed once.
            if !distinct.iter().any(|(known, other)| *known == path && other.sha256 == adapter.sha256) {
                distinct.push((path, adapter));
            }
        }
        let (pending, mut running) = (distinct.iter().map(|(path, _)| path.clone()).collect(), JoinSet::new());
        for (path, adapter) in distinct {
            let loader = loader.clone();
            running.spawn(async move {
                let fetched = loader.fetch_adapter(&adapter).await;
                (path, fetched)
            });
        }
        Self { running, pending, refused: Vec::new() }
    }

    /// None while one of its adapters is still checked, unless another one is refused already.
    fn verdict(&self, prefix: &Request) -> Option<AdapterVerdict> {
        let has_any = |files: &[PathBuf]| prefix.adapters.iter().any(|(path, _)| files.contains(path));
        if has_any(&self.refused) {
            return Some(AdapterVerdict::Refused);
        }
        (!has_any(&self.pending)).then_some(AdapterVerdict::Fits)
    }

    /// Notes the checks that have ended meanwhile.
    fn note_finished(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            self.note(ended);
        }
    }

    /// Waits for the end of a check; false if none is left.
    async fn wait(&mut self) -> bool {
        let Some(ended) = self.running.join_next().await else { return false };
        self.note(ended);
        true
    }

    fn note(&mut self, ended: Result<AdapterCheck, JoinError>) {
        // The file of a check that panicked stays pending: its roles are not prefilled.
        let Ok((path, fetched)) = ended else { return };
        if let Some(at) = self.pending.iter().position(|pending| *pending == path) {
            self.pending.swap_remove(at);
        }
        if let Err(error) = fetched {
            tracing::warn!(path = %path.display(), %error, "an adapter is not loaded ahead of time");
            self.refused.push(path);
        }
    }
}
