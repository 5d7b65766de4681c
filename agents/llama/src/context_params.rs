//! The parameters of a context, decided from the options of its model: how large its batches are and how it computes attention.

use artel_model::{DeviceKind, KvCacheType, ModelPurpose};

use crate::cores::physical_cores;

use crate::kv_cache::KvCacheTypes;
use crate::options::Options;
use crate::raw::device::devices;

/// Tokens of a batch on the CPU: as fast per token as larger batches, and short enough that new requests are noticed soon. Two
/// tiles of flash attention fit, and the tokens of decoding sequences.
const CPU_BATCH_TOKENS: u32 = 2 * FLASH_TILE_TOKENS + 16;
/// The prefill multiple of flash attention on the CPU: ggml processes the queries of a sequence in tiles of 64, and smaller
/// chunks of a prompt cost considerably more.
const FLASH_TILE_TOKENS: u32 = 64;
/// The prefill multiple of attention by matrix products, whose cost per query hardly depends on their number and is close to
/// that of flash attention with full tiles. Multiples of the tiles of ggml's kernels waste nothing, and a small one lets the
/// scheduler approach the target inter-token latency closely.
const MATMUL_TILE_TOKENS: u32 = 8;
/// The largest context with attention by matrix products on the CPU; for larger ones the memory of the products outweighs their
/// speed.
const MAX_MATMUL_CONTEXT_TOKENS: u32 = 8192;
/// Tokens of a batch on a GPU, which needs larger batches to be efficient.
const GPU_BATCH_TOKENS: u32 = 512;
/// Texts that are computed as a whole in one batch if their tokens fit.
const MAX_BATCH_TEXTS: u32 = 16;
/// The default context: enough for the prompt of a role, a question and an answer.
const DEFAULT_CONTEXT_TOKENS: u32 = 4096;

/// The parameters of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextParams {
    pub(crate) context_tokens: u32,
    pub(crate) sequences: u32,
    pub(crate) batch_tokens: u32,
    pub(crate) threads: u32,
    pub(crate) purpose: ModelPurpose,
    /// Whether the sequences share the cells of one stream, instead of having `context_tokens` each.
    pub(crate) shares_cells: bool,
    pub(crate) kv_cache: KvCacheTypes,
    pub(crate) flash_attention: FlashAttention,
}

/// Whether attention is computed by a fused kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlashAttention {
    /// By flash attention where the device supports it.
    Auto,
    /// By matrix products.
    Disabled,
}

impl ContextParams {
    /// The parameters for a model that was trained with contexts of `trained` tokens.
    pub(crate) fn of(options: &Options, trained: u32) -> Self {
        let Options { threads, purpose, kv_cache, .. } = *options;
        let pools = purpose.pools();
        let context = options.context.unwrap_or(DEFAULT_CONTEXT_TOKENS.min(trained));
        // A model that pools computes a text in one batch, so its batch is as large as its context.
        let context_tokens = if pools { context.min(trained) } else { context };
        let devices = options.devices.as_deref();
        let chat_batch = if computes_on_cpu(devices) { CPU_BATCH_TOKENS } else { GPU_BATCH_TOKENS };
        let (sequences, batch_tokens) =
            if pools { (MAX_BATCH_TEXTS, context_tokens) } else { (options.sequences, chat_batch) };
        let is_like_cpu = computes_as_on_cpu(devices) && !pools;
        let flash_attention = flash_attention(is_like_cpu, context_tokens, kv_cache);
        let shares_cells = pools;
        Self { context_tokens, sequences, batch_tokens, threads, purpose, shares_cells, kv_cache, flash_attention }
    }

    /// The same for sequences that are computed one after another, and only the last of a batch goes on in the next one:
    /// batches hold parts of several without being split, and there are cells for one sequence of the context and a batch.
    pub(crate) fn for_consecutive_sequences(self) -> Self {
        Self { shares_cells: true, context_tokens: self.context_tokens.saturating_add(self.batch_tokens), ..self }
    }

    /// Prompt tokens that cost less together than in smaller pieces.
    pub(crate) fn prefill_multiple(&self, is_on_cpu: bool) -> u32 {
        match (is_on_cpu, self.flash_attention) {
            (false, _) => 1,
            (true, FlashAttention::Auto) => FLASH_TILE_TOKENS,
            (true, FlashAttention::Disabled) => MATMUL_TILE_TOKENS,
        }
    }
}

/// Whether the CPU computes with these devices.
pub(crate) fn computes_on_cpu(names: Option<&[String]>) -> bool {
    match names {
        Some(names) => names.iter().all(|name| name == "CPU"),
        None => devices().iter().all(|device| matches!(device.kind, DeviceKind::Cpu | DeviceKind::Accelerator)),
    }
}

/// Whether only the CPU or devices of RPC servers compute. The hardware behind an RPC server is unknown, and on a remote CPU a
/// model should give the same output as on the local one.
fn computes_as_on_cpu(names: Option<&[String]>) -> bool {
    let is_remote = |name: &String| name.starts_with("RPC[");
    computes_on_cpu(names) || names.is_some_and(|names| names.iter().all(|name| name == "CPU" || is_remote(name)))
}

/// The attention kernel of a chat model: on CPUs matrix products, which are fast for small chunks of a prompt too, unless the
/// values are quantized, which they cannot read.
fn flash_attention(is_on_cpu: bool, context_tokens: u32, kv_cache: KvCacheTypes) -> FlashAttention {
    let is_unquantized = matches!(kv_cache.values, KvCacheType::F32 | KvCacheType::F16 | KvCacheType::Bf16);
    if is_on_cpu && is_unquantized && context_tokens <= MAX_MATMUL_CONTEXT_TOKENS {
        FlashAttention::Disabled
    } else {
        FlashAttention::Auto
    }
}

/// The cores to which threads are pinned: all, if there are as many threads. The system migrates threads too late for ones that
/// synchronize a thousand times per batch; but with more cores than threads, it knows better which cores are free.
pub(crate) fn pinned_cores(threads: u32, is_on_cpu: bool) -> Vec<usize> {
    let all = physical_cores().filter(|_| is_on_cpu).unwrap_or_default();
    if all.len() == threads as usize { all } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(devices: &[&str], values: KvCacheType) -> Options {
        Options {
            path: "m.gguf".into(),
            dequantized: None,
            sha256: None,
            context: None,
            sequences: 3,
            threads: 2,
            devices: Some(devices.iter().map(|name| (*name).to_owned()).collect()),
            split_mode: artel_model::SplitMode::None,
            tensor_split: Vec::new(),
            gpu_layers: None,
            cpu_expert_layers: 0,
            purpose: ModelPurpose::Chat,
            template: None,
            template_kwargs: serde_json::Map::new(),
            kv_cache: KvCacheTypes { keys: KvCacheType::F16, values },
        }
    }

    #[test]
    fn batches_and_attention_follow_from_the_devices() {
        let of = |devices: &[&str], values| ContextParams::of(&options(devices, values), 2048);
        let cpu = of(&["CPU"], KvCacheType::F16);
        assert_eq!((cpu.context_tokens, cpu.sequences, cpu.batch_tokens), (2048, 3, CPU_BATCH_TOKENS));
        assert_eq!((cpu.flash_attention, cpu.prefill_multiple(true)), (FlashAttention::Disabled, MATMUL_TILE_TOKENS));
        let quantized = of(&["CPU"], KvCacheType::Q8_0);
        assert_eq!(quantized.prefill_multiple(true), FLASH_TILE_TOKENS, "matrix products cannot read such values");
        let remote = of(&["CPU", "RPC[box:1]"], KvCacheType::F16);
        assert_eq!((remote.flash_attention, remote.batch_tokens), (FlashAttention::Disabled, GPU_BATCH_TOKENS));
        let gpu = of(&["CUDA0"], KvCacheType::F16);
        assert_eq!((gpu.flash_attention, gpu.prefill_multiple(false)), (FlashAttention::Auto, 1));
    }

    #[test]
    fn an_embedding_model_computes_a_whole_text_in_one_batch() {
        let embedding =
            Options { purpose: ModelPurpose::Embedding, context: Some(4096), ..options(&["CPU"], KvCacheType::F16) };
        let params = ContextParams::of(&embedding, 512);
        assert_eq!((params.context_tokens, params.batch_tokens, params.sequences), (512, 512, MAX_BATCH_TEXTS));
        assert_eq!(params.flash_attention, FlashAttention::Auto);
        let long = Options { context: Some(2 * MAX_MATMUL_CONTEXT_TOKENS), ..options(&["CPU"], KvCacheType::F16) };
        let params = ContextParams::of(&long, 512);
        assert_eq!((params.context_tokens, params.flash_attention), (16_384, FlashAttention::Auto));
    }
}
