//! The speed of llama.cpp alone on this machine: the upper bound of any server that uses it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use artel_engine::backend::{Backend as _, BatchToken, Slot};
use artel_engine::{AdapterSet, Token};
use artel_gguf::HalfType;
use artel_llama::{KvCacheTypes, LlamaBackend};
use artel_model::{DeviceKind, KvCacheType, SplitMode};
use tempfile::TempDir;

use crate::own_daemon::CONTEXT_TOKENS;

/// Sequences that decode at once, as many as an engine has.
pub(crate) const SEQUENCES: u32 = 8;
/// KV cells of each sequence at the midpoint of the measurement, unless a workload sets another number.
pub(crate) const MIDPOINT_CELLS: u32 = 664;
/// Tokens decoded in each sequence.
const DECODED_TOKENS: u32 = 48;
/// An arbitrary token.
const TOKEN: Token = Token(1000);

/// Speeds in tokens per second.
#[derive(Debug, Clone)]
pub(crate) struct LlamaBaseline {
    prefill: f64,
    /// Of all sequences together, by the number of sequences that decode at once.
    decode: BTreeMap<usize, f64>,
}

impl LlamaBaseline {
    /// As [`Self::measure_file`], with the weights and the KV cache types that a daemon would compute with.
    pub(crate) fn measure(model: &Path, threads: u32, cells: u32) -> Result<Self> {
        let gpus = artel_llama::devices()
            .iter()
            .any(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu));
        let is_faster = !gpus && artel_gguf::estimate_memory(model)?.is_faster_dequantized;
        let Some(half) = artel_llama::fast_half_type().filter(|_| is_faster) else {
            return Self::measure_file(model, threads, cells);
        };
        let dir = TempDir::new().context("failed to create a directory for the converted weights")?;
        let recast =
            artel_gguf::dequantize(model, dir.path(), half, u64::MAX, &artel_llama::dequantize_blocks, &|_| ())?;
        let cache_type = if half == HalfType::Bf16 { KvCacheType::Bf16 } else { KvCacheType::F16 };
        Self::measure_with(&recast, threads, cells, KvCacheTypes { keys: cache_type, values: cache_type })
    }

    /// Loads the model's file and measures, with this many KV cells in each sequence at the midpoint. Blocks for seconds.
    pub(crate) fn measure_file(model: &Path, threads: u32, cells: u32) -> Result<Self> {
        Self::measure_with(model, threads, cells, KvCacheTypes::default())
    }

    fn measure_with(model: &Path, threads: u32, cells: u32, cache: KvCacheTypes) -> Result<Self> {
        let filled = cells.saturating_sub(DECODED_TOKENS / 2).max(1);
        let options = artel_llama::Options {
            path: model.to_owned(),
            dequantized: None,
            sha256: None,
            context: Some(CONTEXT_TOKENS.max(filled + DECODED_TOKENS)),
            sequences: SEQUENCES,
            threads,
            devices: None,
            split_mode: SplitMode::None,
            tensor_split: Vec::new(),
            gpu_layers: None,
            cpu_expert_layers: 0,
            purpose: artel_model::ModelPurpose::Chat,
            template: None,
            template_kwargs: serde_json::Map::new(),
            kv_cache: cache,
        };
        let mut model = LlamaBackend::load(options)?;
        let prefill = fill(&mut model, filled)?;
        let widths = [1, SEQUENCES / 2, SEQUENCES];
        let decode = widths.map(|width| Ok((width as usize, decode(&mut model, width, filled)?)));
        let decode = decode.into_iter().collect::<Result<_>>()?;
        Ok(Self { prefill, decode })
    }

    /// Seconds to prefill this many prompt tokens.
    pub(crate) fn prefill_seconds(&self, tokens: u32) -> f64 {
        f64::from(tokens) / self.prefill
    }

    /// Seconds to decode this many tokens with this many concurrent sequences.
    pub(crate) fn decode_seconds(&self, tokens: u32, concurrency: usize) -> f64 {
        f64::from(tokens) / self.decode_tokens_per_second(concurrency)
    }

    /// Tokens per second with this many concurrent sequences, or the next larger number that was measured.
    pub(crate) fn decode_tokens_per_second(&self, concurrency: usize) -> f64 {
        let measured = self.decode.range(concurrency..).next().or_else(|| self.decode.last_key_value());
        measured.map_or(f64::NAN, |(_, speed)| *speed)
    }
}

/// Fills the KV cells of all sequences; returns the tokens per second of the second one, when caches are warm. The others get
/// copies of the cells.
fn fill(model: &mut LlamaBackend, filled: u32) -> Result<f64> {
    let batch = model.limits().prefill_multiple.max(16) * 2;
    let mut speed = 0.0;
    for slot in [0, 1] {
        let started_at = Instant::now();
        for from in (0..filled).step_by(batch as usize) {
            let positions = from..(from + batch).min(filled);
            let entry = |position| BatchToken { slot: Slot(slot), position, token: TOKEN, needs_logits: false };
            run(model, &positions.map(entry).collect::<Vec<_>>())?;
        }
        speed = f64::from(filled) / started_at.elapsed().as_secs_f64();
    }
    let cells = model.save_state(Slot(0))?;
    for slot in 2..SEQUENCES {
        model.restore_state(Slot(slot), &cells)?;
    }
    Ok(speed)
}

fn decode(model: &mut LlamaBackend, sequences: u32, filled: u32) -> Result<f64> {
    for slot in 0..sequences {
        model.truncate_kv(Slot(slot), filled);
    }
    let started_at = Instant::now();
    for position in filled..filled + DECODED_TOKENS {
        let entry = |slot| BatchToken { slot: Slot(slot), position, token: TOKEN, needs_logits: true };
        run(model, &(0..sequences).map(entry).collect::<Vec<_>>())?;
    }
    Ok(f64::from(sequences * DECODED_TOKENS) / started_at.elapsed().as_secs_f64())
}

fn run(model: &mut LlamaBackend, batch: &[BatchToken]) -> Result<()> {
    model.decode(AdapterSet::NONE, batch).map_err(|e| anyhow!("llama.cpp failed: {e}"))
}
