//! Where engines come from.

use async_trait::async_trait;

use artel_roles::Model;

/// Loads a model into an engine; the daemon does it with llama.cpp, tests with a script.
#[async_trait]
pub trait Loader: Send + Sync + 'static {
    /// Loads the model; the error says what is wrong and what to do.
    async fn load(&self, model: &Model) -> Result<artel_engine::Handle, String>;
}
