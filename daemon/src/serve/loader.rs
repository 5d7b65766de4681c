//! Models into engines, with llama.cpp.

use std::path::PathBuf;
use std::sync::Arc;

use artel_actors::Loader;
use artel_engine::{Handle, Turn};
use artel_process::{Counter, Program};
use artel_roles::Model;
use async_trait::async_trait;

use super::config::{Config, Engines};
use super::files;
use crate::engine::{Common, Spec};

/// Loads engines, each into a process of its own or all into this one. They take turns on the cores.
pub(super) struct LlamaLoader {
    models: PathBuf,
    common: Common,
    place: Where,
}

enum Where {
    Processes(Counter),
    Here(Turn),
}

impl LlamaLoader {
    pub(super) fn new(config: &Config) -> Self {
        let common =
            Common { threads: config.threads, gap: config.gap, prefixes: config.prefixes, shelf: config.shelf.clone() };
        let place = match config.engines {
            Engines::Processes => Where::Processes(Counter::default()),
            Engines::Inside => Where::Here(Turn::default()),
        };
        Self { models: config.crew.models.clone(), common, place }
    }
}

#[async_trait]
impl Loader for LlamaLoader {
    async fn load(&self, model: &Model) -> Result<Handle, String> {
        let spec = Spec::of(model, files::find(&model.candidates(&self.models))?, &self.common);
        let loaded = match &self.place {
            Where::Here(turn) => spec.load(turn.clone(), Arc::new(|_| {})).await.map(|(handle, _)| handle),
            Where::Processes(counter) => {
                let started = artel_process::start(program(&spec)?, Some(counter), |_| {}).await;
                started.map(|started| started.handle)
            }
        };
        loaded.map_err(|reason| format!("model `{}`: {reason}", model.name))
    }
}

/// This very program, even if its file was replaced meanwhile.
fn program(spec: &Spec) -> Result<Program, String> {
    let itself = PathBuf::from("/proc/self/exe");
    let path = if itself.exists() { Ok(itself) } else { std::env::current_exe() };
    Ok(Program {
        path: path.map_err(|e| format!("the program does not find itself: {e}"))?,
        args: vec!["engine".to_owned()],
        // An abort says its place; a debugger that is called for more would hold everything up.
        env: vec![("GGML_NO_BACKTRACE".to_owned(), "1".to_owned())],
        name: spec.name.clone(),
        spec: serde_json::to_string(spec).map_err(|e| format!("the model cannot be described: {e}"))?,
    })
}
