//! What llama.cpp itself does on this machine, with nothing around it: the limit of what any server can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use artel_engine::backend::{Backend as _, BatchToken, Slot};
use artel_engine::{AdapterContext, Token};
use artel_llama::{KvCacheTypes, GgmlType, BackendDeviceKind, LlamaBackend, gguf};
use tempfile::TempDir;

use super::own::CONTEXT;

/// Sequences of the measured decoding, as many as an engine has.
pub(super) const SEQUENCES: u32 = 8;
/// Cells of each sequence halfway through its measured decoding, unless a workload has others.
pub(super) const CELLS: u32 = 664;
/// Tokens decoded in each sequence.
const DECODED: u32 = 48;
/// A token that means nothing in particular.
const TOKEN: Token = Token(1000);

/// Tokens in a second.
#[derive(Debug, Clone)]
pub(super) struct Speeds {
    prompt: f64,
    /// Of all sequences together, by how many decode at once.
    decode: BTreeMap<usize, f64>,
}

impl Speeds {
    /// As [`Self::of_file`], with the weights and the cache that a daemon would compute with.
    pub(super) fn measure(model: &Path, threads: u32, cells: u32) -> Result<Self> {
        let gpus = artel_llama::devices().iter().any(|device| matches!(device.kind, BackendDeviceKind::Gpu | BackendDeviceKind::IntegratedGpu));
        let Some(half) = gguf::estimate_memory(model)?.preferred_half_type.filter(|_| !gpus) else {
            return Self::of_file(model, threads, cells);
        };
        let dir = TempDir::new().context("failed to make a directory for the weights")?;
        let recast = gguf::dequantize(model, dir.path(), half, u64::MAX, &|_| ())?;
        let form = if half == gguf::HalfType::Bf16 { GgmlType::Bf16 } else { GgmlType::F16 };
        Self::with(&recast, threads, cells, KvCacheTypes { keys: form, values: form })
    }

    /// Loads the model and measures, with so many cells of each sequence halfway through. Blocks for some fifteen seconds.
    pub(super) fn of_file(model: &Path, threads: u32, cells: u32) -> Result<Self> {
        Self::with(model, threads, cells, KvCacheTypes::default())
    }

    fn with(model: &Path, threads: u32, cells: u32, cache: KvCacheTypes) -> Result<Self> {
        let filled = cells.saturating_sub(DECODED / 2).max(1);
        let options = artel_llama::Options {
            path: model.to_owned(),
            sha256: None,
            context: Some(CONTEXT.max(filled + DECODED)),
            sequences: SEQUENCES,
            threads,
            devices: None,
            split_mode: artel_llama::LlamaSplitMode::None,
            tensor_split: Vec::new(),
            is_embedding: false,
            template: None,
            kv_cache: cache,
        };
        let mut model = LlamaBackend::load(options)?;
        let prompt = fill(&mut model, filled)?;
        let widths = [1, SEQUENCES / 2, SEQUENCES];
        let decode = widths.map(|width| Ok((width as usize, decode(&mut model, width, filled)?)));
        let decode = decode.into_iter().collect::<Result<_>>()?;
        Ok(Self { prompt, decode })
    }

    /// Seconds to compute so many prompt tokens.
    pub(super) fn prompts(&self, tokens: u32) -> f64 {
        f64::from(tokens) / self.prompt
    }

    /// Seconds to generate so many tokens, so many sequences at once.
    pub(super) fn answers(&self, tokens: u32, at_once: usize) -> f64 {
        f64::from(tokens) / self.decoded(at_once)
    }

    /// Tokens in a second, so many sequences at once, or the next number of them that was measured.
    pub(super) fn decoded(&self, at_once: usize) -> f64 {
        let measured = self.decode.range(at_once..).next().or_else(|| self.decode.last_key_value());
        measured.map_or(f64::NAN, |(_, speed)| *speed)
    }
}

/// Fills the cells of all sequences; tokens in a second of the second one, when all is warm. The others get the same cells.
fn fill(model: &mut LlamaBackend, filled: u32) -> Result<f64> {
    let batch = model.limits().grain.max(16) * 2;
    let mut speed = 0.0;
    for slot in [0, 1] {
        let began = Instant::now();
        for from in (0..filled).step_by(batch as usize) {
            let positions = from..(from + batch).min(filled);
            let entry = |position| BatchToken { slot: Slot(slot), position, token: TOKEN, needs_logits: false };
            run(model, &positions.map(entry).collect::<Vec<_>>())?;
        }
        speed = f64::from(filled) / began.elapsed().as_secs_f64();
    }
    let cells = model.save_state(AdapterContext::BASE, Slot(0)).map_err(|e| anyhow!(e))?;
    for slot in 2..SEQUENCES {
        model.restore_state(AdapterContext::BASE, Slot(slot), &cells).map_err(|e| anyhow!(e))?;
    }
    Ok(speed)
}

fn decode(model: &mut LlamaBackend, sequences: u32, filled: u32) -> Result<f64> {
    for slot in 0..sequences {
        model.truncate_kv(AdapterContext::BASE, Slot(slot), filled);
    }
    let began = Instant::now();
    for position in filled..filled + DECODED {
        let entry = |slot| BatchToken { slot: Slot(slot), position, token: TOKEN, needs_logits: true };
        run(model, &(0..sequences).map(entry).collect::<Vec<_>>())?;
    }
    Ok(f64::from(sequences * DECODED) / began.elapsed().as_secs_f64())
}

fn run(model: &mut LlamaBackend, batch: &[BatchToken]) -> Result<()> {
    model.decode(AdapterContext::BASE, batch).map_err(|e| anyhow!("llama.cpp failed: {e}"))
}
