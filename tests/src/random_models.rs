//! Small models of random weights with the shapes of large ones: mixtures of experts, sliding windows, files in pieces.
//!
//! `tests/scripts/random_gguf.py` makes each when a test first needs it; it stays in the cache for the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use sha2::{Digest as _, Sha256};

use crate::prerequisites::{cache, models, python};
use crate::scripts::script;

/// Enough of a hash to tell versions of the script apart.
const HASH_CHARS: usize = 16;
/// The model whose tokenizer and chat template they have.
const VOCABULARY: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// A model of random weights, which follow from its options alone.
#[derive(Debug, Clone)]
pub struct RandomModel {
    architecture: String,
    options: Vec<String>,
}

impl RandomModel {
    /// One of an architecture by llama.cpp's name, with weights of 8 bits.
    pub fn new(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), options: Vec::new() }
    }

    /// With an option of the script, such as `--quant` and `mxfp4`.
    #[must_use]
    pub fn with(mut self, option: &str, value: &str) -> Self {
        self.options.extend([option, value].map(str::to_owned));
        self
    }

    /// The path of its file, or of the first one of its pieces.
    pub fn file(&self) -> PathBuf {
        let script = script("random_gguf.py");
        let hash = Sha256::new().chain_update(fs::read(&script).unwrap()).chain_update(self.options.join(" "));
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let root = cache().join("random-models");
        let dir = root.join(format!("{}-{}", self.architecture, &hash[..HASH_CHARS]));
        if !dir.is_dir() {
            // Another test may make the same one meanwhile: each writes into a directory of its own.
            let part = root.join(format!("{}-{}.part", self.architecture, process::id()));
            self.write(&script, &part);
            if fs::rename(&part, &dir).is_err() {
                fs::remove_dir_all(&part).unwrap();
            }
        }
        first_file(&dir)
    }

    fn write(&self, script: &Path, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        let mut command = Command::new(python());
        command.arg(script).arg(&self.architecture).arg(dir.join(format!("{}.gguf", self.architecture)));
        command.arg("--vocabulary").arg(models().join(VOCABULARY)).args(&self.options);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The only file of a directory, or the first of the pieces, whose names count up.
fn first_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.min().unwrap_or_else(|| panic!("{} has no file: remove it", dir.display()))
}
