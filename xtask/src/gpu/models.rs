//! The models of the runs: tiny ones of random weights with the shapes of large ones, and the demo model with its adapters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{models, shell};

/// Architectures, and how their matrices are stored.
const RANDOM: [(&str, &str); 6] = [
    ("llama", "q8_0"),
    ("qwen3", "q4_0"),
    ("gemma3", "f16"),
    ("qwen3moe", "q8_0"),
    ("hy_v3", "q8_0"),
    ("gpt-oss", "mxfp4"),
];
/// Layers of a model of random weights.
const RANDOM_LAYERS: u32 = 6;
/// Layers of the demo model.
const DEMO_LAYERS: u32 = 30;

/// A model file.
#[derive(Debug, Clone)]
pub(crate) struct TrialModel {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Its layers, without the output.
    pub(crate) layers: u32,
    pub(crate) has_experts: bool,
    /// Whether its words make sense: it was trained, and there are adapters for it.
    pub(crate) is_demo: bool,
}

/// The demo model, and the ones of random weights, whose files it makes below `dir`.
pub(crate) fn prepare(cache: &Path, dir: &Path) -> Result<Vec<TrialModel>> {
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let script = repository().join("tests/scripts/random_gguf.py");
    let mut all = Vec::new();
    for (architecture, quant) in RANDOM {
        let file = dir.join(format!("{architecture}-{quant}.gguf"));
        // Anew each time: it takes seconds, and the script may have changed.
        let mut make = Command::new(shell::python(cache));
        make.arg(&script)
            .arg(architecture)
            .arg(&file)
            .args(["--quant", quant, "--vocabulary"])
            .arg(models::chat(cache));
        let output = make.output().with_context(|| format!("failed to start {make:?}"))?;
        anyhow::ensure!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
        let has_experts = matches!(architecture, "qwen3moe" | "hy_v3" | "gpt-oss");
        let name = architecture.to_owned();
        all.push(TrialModel { name, file, layers: RANDOM_LAYERS, has_experts, is_demo: false });
    }
    all.push(demo(cache));
    Ok(all)
}

/// The demo model.
pub(crate) fn demo(cache: &Path) -> TrialModel {
    let (name, file) = ("smollm".to_owned(), models::chat(cache));
    TrialModel { name, file, layers: DEMO_LAYERS, has_experts: false, is_demo: true }
}

/// The directory of the adapters for the demo model.
pub(crate) fn adapters() -> PathBuf {
    repository().join("tests/fixtures/adapters")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
