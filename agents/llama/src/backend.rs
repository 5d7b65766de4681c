//! The backend: one model with a context per adapter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::backend::{BatchToken, DecodeError, EngineLimits, ForcedTokens, Sampled, Slot};
use artel_engine::{AdapterContext, Backend, Embeddings, SamplingParams, Token, Tokenizer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::BackendDeviceKind;
use crate::chat_tokenizer::ChatTokenizer;
use crate::constraint::{Constraint, ConstraintFactory};
use crate::cores::physical_cores;
use crate::gguf;
use crate::kv_cache::{GgmlType, KvCacheTypes};
use crate::raw::log::{self, BufferPurpose, LoggedBuffer};
use crate::raw::{
    ComputeThreadPool, ContextParams, FlashAttention, LlamaContext, LlamaModel, LoadParams, LoraHandle, SamplerChain,
    device, exit,
};

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
/// Texts that are embedded in one batch if their tokens fit.
const MAX_BATCH_TEXTS: u32 = 16;
/// The default context: enough for the prompt of a role, a question and an answer.
const DEFAULT_CONTEXT_TOKENS: u32 = 4096;

/// The model to load and its parameters.
#[derive(Debug, Clone)]
pub struct Options {
    /// The GGUF file.
    pub path: PathBuf,
    /// The expected SHA-256 in hexadecimal; `None`: not verified.
    pub sha256: Option<String>,
    /// Tokens of one sequence; by default 4096 or the context length in training, whichever is less.
    pub context: Option<u32>,
    /// Concurrent sequences per adapter.
    pub sequences: u32,
    /// Compute threads.
    pub threads: u32,
    /// The devices to use, by name; only `CPU` disables offloading. `None`: llama.cpp uses all GPUs, or the CPU if there are
    /// none.
    pub devices: Option<Vec<String>>,
    /// How the model is split over several devices.
    pub split_mode: LlamaSplitMode,
    /// The proportion of each device, in the order of `devices`; empty: proportional to free memory.
    pub tensor_split: Vec<f32>,
    /// Whether the model is an embedding model instead of a chat model.
    pub is_embedding: bool,
    /// A chat template that replaces that of the GGUF.
    pub template: Option<String>,
    /// The types of the KV cache.
    pub kv_cache: KvCacheTypes,
}

/// How a model is split over its devices; llama.cpp's `llama_split_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LlamaSplitMode {
    /// The whole model is on one device.
    #[default]
    None,
    /// Each device holds some of the layers.
    Layer,
    /// Each device holds some rows of every matrix.
    Row,
}

/// The buffers of a model on one device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceBuffers {
    /// The device's name.
    pub device: String,
    /// The weights.
    pub weights: u64,
    /// The KV cache of one context.
    pub kv_cache: u64,
    /// The compute buffers of one context.
    pub compute: u64,
}

/// The reason why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, damaged or of the wrong kind.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// A device does not exist.
    #[error("{0}")]
    Device(String),
    /// llama.cpp refused the file.
    #[error("{path}: llama.cpp cannot load this model: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// llama.cpp's error messages.
        reason: String,
    },
    /// The system refused to create the threads.
    #[error("failed to create {0} compute threads: lower `threads`, or raise the limit of processes")]
    Threads(u32),
    /// Not enough memory for the context, or invalid parameters.
    #[error(
        "{path}: failed to create a context of {sequences} sequences of {context} tokens; lower `context` or `sequences`"
    )]
    Context {
        /// The file.
        path: PathBuf,
        /// Tokens per sequence.
        context: u32,
        /// Sequences.
        sequences: u32,
    },
}

/// The format in which llama.cpp serializes the cells of a sequence, identified by its version.
const STATE_FORMAT_VERSION: &str = "llama-cpp-sys-2 0.1.161";

/// Describes the cells of a context. Part of the fingerprint that names prefix files on disk, so its words must not change.
fn state_format(kv_cache: KvCacheTypes, flash_attention: FlashAttention) -> String {
    let KvCacheTypes { keys, values } = kv_cache;
    let attention = match flash_attention {
        FlashAttention::Auto => "Fused",
        FlashAttention::Disabled => "Matrices",
    };
    format!("{STATE_FORMAT_VERSION}, Cache {{ keys: {keys:?}, values: {values:?} }}, {attention}")
}

fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether the CPU computes with these devices.
fn computes_on_cpu(devices: Option<&[String]>) -> bool {
    match devices {
        Some(names) => names.iter().all(|name| name == "CPU"),
        None => crate::devices()
            .iter()
            .all(|device| matches!(device.kind, BackendDeviceKind::Cpu | BackendDeviceKind::Accelerator)),
    }
}

/// Whether only the CPU or devices of RPC servers compute. The hardware behind an RPC server is unknown, and on a remote CPU a
/// model should give the same output as on the local one.
fn computes_as_on_cpu(devices: Option<&[String]>) -> bool {
    let is_remote = |name: &String| name.starts_with("RPC[");
    computes_on_cpu(devices) || devices.is_some_and(|names| names.iter().all(|name| name == "CPU" || is_remote(name)))
}

/// The attention kernel of a chat model: on CPUs matrix products, which are fast for small chunks of a prompt too, unless the
/// values are quantized, which they cannot read.
fn flash_attention(is_on_cpu: bool, context: u32, kv_cache: KvCacheTypes) -> FlashAttention {
    let is_unquantized = matches!(kv_cache.values, GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16);
    if is_on_cpu && is_unquantized && context <= MAX_MATMUL_CONTEXT_TOKENS {
        FlashAttention::Disabled
    } else {
        FlashAttention::Auto
    }
}

/// Sums the buffers that llama.cpp logged, by device. A compute buffer is logged again when it grows, so its last size counts.
fn buffers_by_device(buffers: Vec<LoggedBuffer>) -> Vec<DeviceBuffers> {
    let mut by_type: BTreeMap<(String, u8), u64> = BTreeMap::new();
    for LoggedBuffer { buffer_type, purpose, bytes } in buffers {
        match purpose {
            // A model may have several buffers of one type.
            BufferPurpose::Weights | BufferPurpose::KvCache => {
                *by_type.entry((buffer_type, purpose as u8)).or_default() += bytes;
            }
            BufferPurpose::Compute => drop(by_type.insert((buffer_type, purpose as u8), bytes)),
        }
    }
    let mut devices: Vec<DeviceBuffers> = Vec::new();
    for ((buffer_type, purpose), bytes) in by_type {
        let name = device::device_of(&buffer_type);
        let at = devices.iter().position(|buffers| buffers.device == name).unwrap_or_else(|| {
            devices.push(DeviceBuffers { device: name, ..DeviceBuffers::default() });
            devices.len() - 1
        });
        let buffers = &mut devices[at];
        match purpose {
            0 => buffers.weights += bytes,
            1 => buffers.kv_cache += bytes,
            _ => buffers.compute += bytes,
        }
    }
    devices
}

/// A loaded model.
pub struct LlamaBackend {
    // Contexts come first, so that they are dropped before the model. The index is the number of the adapter context.
    contexts: Vec<Option<LoadedContext>>,
    constraints: Option<ConstraintFactory>,
    text: Arc<ChatTokenizer>,
    model: Arc<LlamaModel>,
    threads: Arc<ComputeThreadPool>,
    params: ContextParams,
    architecture: String,
    device_buffers: Vec<DeviceBuffers>,
    is_on_cpu: bool,
    seed: u32,
}

/// The context of one adapter.
struct LoadedContext {
    context: LlamaContext,
    fingerprint: [u8; 32],
}

/// The sampling state of a sequence.
pub struct SequenceSampler {
    chain: SamplerChain,
    constraint: Option<Constraint>,
}

/// The cores to which threads are pinned: all, if there are as many threads. The system migrates threads too late for ones that
/// synchronize a thousand times per batch; but with more cores than threads, it knows better which cores are free.
fn pinned_cores(threads: u32, is_on_cpu: bool) -> Vec<usize> {
    let all = physical_cores().filter(|_| is_on_cpu).unwrap_or_default();
    if all.len() == threads as usize { all } else { Vec::new() }
}

impl LlamaBackend {
    /// Checks and loads the file, and creates the context without an adapter. Blocks until done.
    pub fn load(options: Options) -> Result<Self, Error> {
        Self::load_with_progress(options, &|_| {})
    }

    /// As [`Self::load`]; `progress` takes the fraction loaded, from 0 to 1.
    pub fn load_with_progress(options: Options, progress: &(dyn Fn(f32) + Sync)) -> Result<Self, Error> {
        let header = gguf::inspect(&options.path)?;
        if let Some(sha256) = &options.sha256 {
            gguf::verify_sha256(&options.path, sha256)?;
        }
        let load = || Error::Load { path: options.path.clone(), reason: log::take_errors() };
        drop((log::take_buffers(), log::take_errors()));
        let load_params = LoadParams {
            devices: options.devices.as_deref(),
            split_mode: options.split_mode,
            tensor_split: &options.tensor_split,
            progress: Some(progress),
        };
        let model = LlamaModel::load(&options.path, &load_params).map_err(Error::Device)?.ok_or_else(load)?;
        let trained = model.trained_context().max(1);
        let context = options.context.unwrap_or(DEFAULT_CONTEXT_TOKENS.min(trained));
        // An embedding model computes a text in one batch, so its batch is as large as its context.
        let context = if options.is_embedding { context.min(trained) } else { context };
        let is_on_cpu = computes_on_cpu(options.devices.as_deref());
        let is_like_cpu = computes_as_on_cpu(options.devices.as_deref());
        let chat_batch = if is_on_cpu { CPU_BATCH_TOKENS } else { GPU_BATCH_TOKENS };
        let (sequences, batch_tokens) =
            if options.is_embedding { (MAX_BATCH_TEXTS, context) } else { (options.sequences, chat_batch) };
        let Options { threads, is_embedding, kv_cache, .. } = options;
        let flash_attention = flash_attention(is_like_cpu && !is_embedding, context, kv_cache);
        let params = ContextParams {
            context_tokens: context,
            sequences,
            batch_tokens,
            threads,
            is_embedding,
            kv_cache,
            flash_attention,
        };
        let no_context = || Error::Context { path: options.path.clone(), context, sequences };
        let threads = ComputeThreadPool::new(threads, &pinned_cores(threads, is_on_cpu))
            .map(Arc::new)
            .ok_or(Error::Threads(threads))?;
        let base = LlamaContext::new(&model, &threads, params, None).ok_or_else(no_context)?;
        let text = Arc::new(ChatTokenizer::new(model.clone(), options.template));
        // llama.cpp creates the tables of tokenization and detokenization at their first use.
        let mut bytes = Vec::new();
        model
            .tokenize("a\n", false, false)
            .into_iter()
            .flatten()
            .for_each(|id| model.append_piece(id, false, &mut bytes));
        exit::skip_static_destructors();
        let content = match &options.sha256 {
            Some(sha256) => sha256.as_bytes().to_vec(),
            None => gguf::sampled_hash(&options.path)?.to_vec(),
        };
        let fingerprint = fingerprint(&[state_format(kv_cache, flash_attention).as_bytes(), &content]);
        let (contexts, seed) = (vec![Some(LoadedContext { context: base, fingerprint })], std::process::id());
        let (architecture, device_buffers) = (header.architecture, buffers_by_device(log::take_buffers()));
        Ok(Self {
            contexts,
            constraints: None,
            text,
            model,
            threads,
            params,
            architecture,
            device_buffers,
            is_on_cpu,
            seed,
        })
    }

    /// The buffers on each of its devices, as logged by llama.cpp.
    pub fn device_buffers(&self) -> &[DeviceBuffers] {
        &self.device_buffers
    }

    /// Whether the CPU computes; the engines of a machine must then exclude each other.
    pub fn computes_on_cpu(&self) -> bool {
        self.is_on_cpu
    }

    fn context(&mut self, adapter_context: AdapterContext) -> Option<&mut LlamaContext> {
        self.contexts.get_mut(adapter_context.0 as usize)?.as_mut().map(|loaded| &mut loaded.context)
    }

    fn base(&self) -> &LoadedContext {
        self.contexts[0].as_ref().expect("the context without an adapter is never unloaded")
    }

    /// The tokens of a text to embed, truncated to the batch.
    fn tokens_to_embed(&self, text: &str) -> Result<Vec<i32>, String> {
        let mut tokens = self.model.tokenize(text, true, false).ok_or("the text cannot be tokenized")?;
        let max = self.params.context_tokens as usize;
        if tokens.len() > max {
            // The last token is the separator that BERT was trained with.
            let last = tokens[tokens.len() - 1];
            tokens.truncate(max - 1);
            tokens.push(last);
        }
        Ok(tokens)
    }

    /// Embeds texts that fit into one batch; returns unit vectors.
    fn embed_batch(&mut self, texts: &[Vec<i32>]) -> Result<Vec<Vec<f32>>, String> {
        let width = self.model.embedding_size();
        let context = self.context(AdapterContext::BASE).ok_or("the context without an adapter is missing")?;
        let sequences = || (0u32..).zip(texts).filter(|(_, tokens)| !tokens.is_empty());
        for (sequence, _) in sequences() {
            // A sequence as a whole can always be freed.
            context.truncate(sequence, 0);
        }
        let mut entries = Vec::new();
        for (sequence, tokens) in sequences() {
            entries.extend((0u32..).zip(tokens).map(|(at, token)| (*token, at, sequence, true)));
        }
        if !entries.is_empty() {
            context.decode(entries.into_iter()).map_err(|code| format!("llama_decode failed with code {code}"))?;
        }
        let mut vectors = vec![vec![0.0; width]; texts.len()];
        for (sequence, _) in sequences() {
            let mut vector = context.embedding(sequence).ok_or("the model has no pooled embedding")?;
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x /= length);
            }
            vectors[sequence as usize] = vector;
        }
        Ok(vectors)
    }
}

impl Backend for LlamaBackend {
    type Sampler = SequenceSampler;

    fn limits(&self) -> EngineLimits {
        let context = &self.base().context;
        EngineLimits {
            context_tokens: context.max_sequence_tokens(),
            sequences: self.params.sequences,
            batch_tokens: self.params.batch_tokens,
            prefill_multiple: match (self.is_on_cpu, self.params.flash_attention) {
                (false, _) => 1,
                (true, FlashAttention::Auto) => FLASH_TILE_TOKENS,
                (true, FlashAttention::Disabled) => MATMUL_TILE_TOKENS,
            },
            can_truncate_kv: !self.model.is_recurrent(),
            can_shift: !self.model.is_recurrent() && context.can_shift(),
        }
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.text.clone()
    }

    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterContext, String> {
        gguf::inspect_adapter(path, &self.architecture).map_err(|e| e.to_string())?;
        drop(log::take_errors());
        let adapter = LoraHandle::load(&self.model, path)
            .ok_or_else(|| format!("{}: llama.cpp cannot load this adapter: {}", path.display(), log::take_errors()))?;
        let context = LlamaContext::new(&self.model, &self.threads, self.params, Some((adapter, scale)))
            .ok_or_else(|| format!("{}: not enough memory for the context of this adapter", path.display()))?;
        let content = gguf::sampled_hash(path).map_err(|e| e.to_string())?;
        let fingerprint = fingerprint(&[&self.base().fingerprint, &content, &scale.to_le_bytes()]);
        let loaded = Some(LoadedContext { context, fingerprint });
        let free = self.contexts.iter().position(Option::is_none);
        let at = free.unwrap_or(self.contexts.len());
        match free {
            Some(at) => self.contexts[at] = loaded,
            None => self.contexts.push(loaded),
        }
        Ok(AdapterContext(at as u32))
    }

    fn unload_adapter(&mut self, adapter_context: AdapterContext) {
        if let Some(loaded) =
            self.contexts.get_mut(adapter_context.0 as usize).filter(|_| adapter_context != AdapterContext::BASE)
        {
            *loaded = None;
        }
    }

    fn create_sampler(
        &mut self,
        sampling: &SamplingParams,
        schema: Option<&Value>,
        prompt: &[Token],
    ) -> Result<SequenceSampler, String> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let chain = SamplerChain::new(sampling, self.model.vocabulary_size(), self.seed);
        let mut chain = chain.ok_or("llama.cpp failed to create a sampler chain")?;
        let constraint = match schema {
            None => None,
            Some(schema) => {
                if self.constraints.is_none() {
                    self.constraints = Some(ConstraintFactory::new(&self.model)?);
                }
                self.constraints.as_ref().map(|constraints| constraints.for_schema(schema)).transpose()?
            }
        };
        if sampling.repeat_penalty != 1.0 {
            let from = prompt.len().saturating_sub(64);
            prompt[from..].iter().for_each(|token| chain.accept(token.0));
        }
        Ok(SequenceSampler { chain, constraint })
    }

    fn decode(&mut self, adapter_context: AdapterContext, batch: &[BatchToken]) -> Result<(), DecodeError> {
        let context = self
            .context(adapter_context)
            .ok_or_else(|| DecodeError::Batch(format!("adapter context {} does not exist", adapter_context.0)))?;
        let entries = batch.iter().map(|e| (e.token.0, e.position, e.slot.0, e.needs_logits));
        match context.decode(entries) {
            Ok(()) => Ok(()),
            Err(code @ -1) => {
                Err(DecodeError::Batch(format!("an entry is out of range (llama_decode returned {code})")))
            }
            Err(1) => Err(DecodeError::Batch("the KV cache is full (llama_decode returned 1)".to_owned())),
            Err(code) => Err(DecodeError::Fatal(format!("llama_decode failed with code {code}"))),
        }
    }

    fn sample(
        &mut self,
        adapter_context: AdapterContext,
        entry: usize,
        sampler: &mut SequenceSampler,
    ) -> Result<Sampled, String> {
        let mask = match &mut sampler.constraint {
            None => None,
            Some(constraint) => match constraint.mask()? {
                None => return Ok(Sampled::End),
                mask => mask,
            },
        };
        let context = self.context(adapter_context).ok_or("this adapter context does not exist")?;
        let logits = context.logits(entry).ok_or("this entry has no logits")?;
        let token = match &mask {
            None => sampler.chain.sample(logits, |_| true),
            Some(mask) => sampler.chain.sample(logits, |id| mask.is_allowed(id)),
        };
        let token = token.ok_or("no token is allowed at this position")?;
        if self.model.is_end_of_generation(token) {
            return Ok(Sampled::End);
        }
        sampler.chain.accept(token);
        if let Some(constraint) = &mut sampler.constraint {
            constraint.accept(token)?;
        }
        Ok(Sampled::Token(Token(token)))
    }

    fn forced_tokens(&mut self, sampler: &mut SequenceSampler) -> Result<ForcedTokens, String> {
        let Some(constraint) = &mut sampler.constraint else { return Ok(ForcedTokens::default()) };
        let forced = constraint.take_forced();
        forced.tokens.iter().for_each(|token| sampler.chain.accept(token.0));
        Ok(forced)
    }

    fn logits(&mut self, adapter_context: AdapterContext, entry: usize, tokens: &[Token]) -> Result<Vec<f32>, String> {
        let context = self.context(adapter_context).ok_or("this adapter context does not exist")?;
        let logits = context.logits(entry).ok_or("this entry has no logits")?;
        let logit = |token: &Token| logits.get(usize::try_from(token.0).ok()?).copied();
        tokens
            .iter()
            .map(logit)
            .collect::<Option<_>>()
            .ok_or_else(|| "a label has a token outside of the vocabulary".to_owned())
    }

    fn shift_kv(&mut self, adapter_context: AdapterContext, slot: Slot, keep: u32, discard: u32) -> bool {
        self.context(adapter_context).is_some_and(|context| context.shift(slot.0, keep, discard))
    }

    fn truncate_kv(&mut self, adapter_context: AdapterContext, slot: Slot, from: u32) -> bool {
        let Some(context) = self.context(adapter_context) else { return false };
        // A sequence as a whole can always be freed.
        context.truncate(slot.0, from) || (context.truncate(slot.0, 0) && from == 0)
    }

    fn fingerprint(&self, adapter_context: AdapterContext) -> [u8; 32] {
        let loaded = self.contexts.get(adapter_context.0 as usize).and_then(Option::as_ref);
        loaded.map(|loaded| loaded.fingerprint).unwrap_or_default()
    }

    fn save_state(&mut self, adapter_context: AdapterContext, slot: Slot) -> Result<Vec<u8>, String> {
        let context = self.context(adapter_context).ok_or("this adapter context does not exist")?;
        context.save(slot.0).ok_or_else(|| "llama.cpp cannot serialize the KV cache of this model".to_owned())
    }

    fn restore_state(&mut self, adapter_context: AdapterContext, slot: Slot, state: &[u8]) -> Result<(), String> {
        let context = self.context(adapter_context).ok_or("this adapter context does not exist")?;
        let is_restored = context.restore(slot.0, state);
        is_restored.then_some(()).ok_or_else(|| "llama.cpp rejected the serialized KV cache".to_owned())
    }

    fn embed(&mut self, texts: &[String]) -> Result<Embeddings, String> {
        if !self.params.is_embedding {
            return Err("this model is a chat model, not an embedding model".to_owned());
        }
        let mut embedded = Embeddings::default();
        let texts = texts.iter().map(|text| self.tokens_to_embed(text)).collect::<Result<Vec<_>, _>>()?;
        let mut rest = texts.as_slice();
        while !rest.is_empty() {
            let (mut count, mut tokens) = (0, 0);
            while count < rest.len().min(MAX_BATCH_TEXTS as usize)
                && tokens + rest[count].len() <= self.params.batch_tokens as usize
            {
                tokens += rest[count].len();
                count += 1;
            }
            // Each text alone fits into a batch.
            let (batch, remaining) = rest.split_at(count.max(1));
            embedded.vectors.extend(self.embed_batch(batch)?);
            embedded.tokens += tokens as u32;
            rest = remaining;
        }
        Ok(embedded)
    }
}
