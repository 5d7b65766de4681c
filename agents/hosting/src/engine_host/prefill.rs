//! What an engine computes ahead of time: the prefixes of its roles.

use std::path::PathBuf;
use std::sync::Arc;

use artel_engine::EngineHandle;
use artel_roles::{Adapter, Model};
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
    let ModelWorkload { prefixes, adapters, hashed, .. } = workload;
    handle.retain_adapters(adapters);
    let model = model.name.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let refused = refused(&hashed, &*loader).await;
        for prefix in prefixes {
            if prefix.adapters.iter().any(|(path, _)| refused.contains(path)) {
                continue;
            }
            let role = prefix.flow.clone();
            if let Err(error) = handle.prefill(prefix).await {
                tracing::warn!(%model, %role, %error, "failed to prefill the prompt of a role");
            }
        }
    }))
}

/// The files that are not the adapters that their documents state. An engine must not read them.
async fn refused(hashed: &[(PathBuf, Adapter)], loader: &dyn Loader) -> Vec<PathBuf> {
    let mut refused = Vec::new();
    for (path, adapter) in hashed {
        if let Err(error) = loader.fetch_adapter(adapter).await {
            tracing::warn!(path = %path.display(), %error, "an adapter is not loaded ahead of time");
            refused.push(path.clone());
        }
    }
    refused
}
