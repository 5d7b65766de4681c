//! One model with a context per lane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine::backend::{BatchToken, DecodeError, ForcedTokens, EngineLimits, Sampled, Slot};
use artel_engine::{Backend, Embeddings, AdapterContext, SamplingParams, Tokenizer, Token};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Kind;
use crate::constraint::{Constraint, Grammars};
use crate::cores::cores;
use crate::gguf;
use crate::raw::log::{self, Buffer, What};
use crate::raw::{Adapter, Attention, Chain, Context, Loading, Model, Shape, Spread, Threads, device, exit};
use crate::text::Vocabulary;

/// Tokens in a batch on the CPU: as fast per token as any, and small enough that whoever comes is seen soon. There is room
/// for two grains of fused attention and for those who decode.
const BATCH: u32 = 2 * FUSED_GRAIN + 16;
/// ggml's fused attention on the CPU takes the queries of a sequence 64 at a time: a prompt of 1,920 tokens is half as dear again
/// in smaller pieces.
const FUSED_GRAIN: u32 = 64;
/// Attention as products of matrices takes any number of queries at about the same speed, within a tenth of that of fused
/// attention with 64; multiples of the tiles of ggml's kernels waste nothing, and small ones come near the gap that is to be
/// kept.
const GRAIN: u32 = 8;
/// Up to so many tokens of context attention is computed as products of matrices on the CPU; the products of longer ones would
/// take more memory than they are worth.
const MATRICES: u32 = 8192;
/// Tokens in a batch where a GPU computes, which wants more at once.
const GPU_BATCH: u32 = 512;
/// Texts that are embedded in one batch, as far as their tokens fit into one.
const TEXTS: u32 = 16;
/// The context when nobody says otherwise: what a role's prompt, a question and an answer need.
const CONTEXT: u32 = 4096;

/// What to load and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The GGUF file.
    pub path: PathBuf,
    /// Its SHA-256 in hexadecimal, if it is to be checked.
    pub sha256: Option<String>,
    /// Tokens that one sequence may have; by default 4096 or what the model was trained with, whichever is less.
    pub context: Option<u32>,
    /// Sequences at once in each lane.
    pub sequences: u32,
    /// Threads to compute with.
    pub threads: u32,
    /// The devices that it may use, by name, `CPU` alone for none but the processor. Without it, wherever llama.cpp puts
    /// it: on all GPUs, or on the processor.
    pub devices: Option<Vec<String>>,
    /// How it is spread over several devices.
    pub split: Split,
    /// The share of each device, in their order; empty: as their free memory is.
    pub shares: Vec<f32>,
    /// Whether the model embeds texts rather than chats.
    pub embedding: bool,
    /// A chat template instead of the GGUF's own.
    pub template: Option<String>,
    /// The form of the cache.
    pub cache: Cache,
}

/// How a model is spread over its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// It is on one device.
    #[default]
    None,
    /// Each device has some of the layers.
    Layer,
    /// Each device has some rows of every matrix.
    Row,
}

/// What a model takes on one device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The device's name.
    pub device: String,
    /// Its part of the weights.
    pub weights: u64,
    /// Its part of the cache of one lane.
    pub cache: u64,
    /// What computing in one lane takes.
    pub compute: u64,
}

/// The form in which keys and values are kept: smaller ones let more tokens into the same memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cache {
    /// Of the keys.
    pub keys: CacheType,
    /// Of the values.
    pub values: CacheType,
}

/// A number format of ggml that caches can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// 32 bits.
    F32,
    /// 16 bits, as precise as most models are.
    #[default]
    F16,
    /// 16 bits with a wide range.
    Bf16,
    /// 8.5 bits.
    Q8_0,
    /// 4.5 bits.
    Q4_0,
}

impl CacheType {
    pub(crate) fn raw(self) -> llama_cpp_sys_2::ggml_type {
        match self {
            Self::F32 => llama_cpp_sys_2::GGML_TYPE_F32,
            Self::F16 => llama_cpp_sys_2::GGML_TYPE_F16,
            Self::Bf16 => llama_cpp_sys_2::GGML_TYPE_BF16,
            Self::Q8_0 => llama_cpp_sys_2::GGML_TYPE_Q8_0,
            Self::Q4_0 => llama_cpp_sys_2::GGML_TYPE_Q4_0,
        }
    }
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not what it should be.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// It was to be on a device that is not there.
    #[error("{0}")]
    Device(String),
    /// llama.cpp refused it.
    #[error("{path}: llama.cpp cannot load this model: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// Its own words.
        reason: String,
    },
    /// The system gives no more threads.
    #[error("the system gives no {0} threads to compute with: lower `threads`, or raise the limit of processes")]
    Threads(u32),
    /// There is no memory for its cache, or the shape is impossible.
    #[error("{path}: no context of {sequences} sequences of {context} tokens; lower `context` or `sequences`")]
    Context {
        /// The file.
        path: PathBuf,
        /// Tokens per sequence.
        context: u32,
        /// Sequences.
        sequences: u32,
    },
}

/// The form in which llama.cpp writes the cells of a sequence: its version.
const STATE_FORM: &str = "llama-cpp-sys-2 0.1.161";

fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether the processor computes, given the devices that are meant.
fn computes_on_cpu(devices: Option<&[String]>) -> bool {
    match devices {
        Some(names) => names.iter().all(|name| name == "CPU"),
        None => crate::devices().iter().all(|device| matches!(device.kind, Kind::Cpu | Kind::Accelerator)),
    }
}

/// Whether the processor computes, or devices of other machines: nobody knows what these are, and on one that is a processor a
/// model should say what it says on ours.
fn computes_as_on_cpu(devices: Option<&[String]>) -> bool {
    let is_remote = |name: &String| name.starts_with("RPC[");
    computes_on_cpu(devices) || devices.is_some_and(|names| names.iter().all(|name| name == "CPU" || is_remote(name)))
}

/// How a chat model computes attention: on processors in the way that is fast for few tokens of a prompt at a time too, which
/// quantized values cannot be read in.
fn attention(on_cpu: bool, context: u32, cache: Cache) -> Attention {
    let whole = matches!(cache.values, CacheType::F32 | CacheType::F16 | CacheType::Bf16);
    if on_cpu && whole && context <= MATRICES { Attention::Matrices } else { Attention::Fused }
}

/// Buffers as llama.cpp told of them, by device. Of a kind of buffer that is told twice, as that for computing is when it
/// grows, the last one counts.
fn memory(buffers: Vec<Buffer>) -> Vec<Memory> {
    let mut by_place: BTreeMap<(String, u8), u64> = BTreeMap::new();
    for Buffer { place, what, bytes } in buffers {
        match what {
            // A model may have several buffers of one kind.
            What::Weights | What::Cache => *by_place.entry((place, what as u8)).or_default() += bytes,
            What::Compute => drop(by_place.insert((place, what as u8), bytes)),
        }
    }
    let mut devices: Vec<Memory> = Vec::new();
    for ((place, what), bytes) in by_place {
        let name = device::device_of(&place);
        let at = devices.iter().position(|memory| memory.device == name).unwrap_or_else(|| {
            devices.push(Memory { device: name, ..Memory::default() });
            devices.len() - 1
        });
        let memory = &mut devices[at];
        match what {
            0 => memory.weights += bytes,
            1 => memory.cache += bytes,
            _ => memory.compute += bytes,
        }
    }
    devices
}

/// A loaded model.
pub struct Llama {
    // Contexts come first: they are dropped before the model that they refer to.
    lanes: Vec<Option<Place>>,
    grammars: Option<Grammars>,
    text: Arc<Vocabulary>,
    model: Arc<Model>,
    threads: Arc<Threads>,
    shape: Shape,
    architecture: String,
    memory: Vec<Memory>,
    on_cpu: bool,
    seed: u32,
}

/// What computes in one lane.
struct Place {
    context: Context,
    fingerprint: [u8; 32],
}

/// A sequence's sampling state.
pub struct Sampler {
    chain: Chain,
    constraint: Option<Constraint>,
}

/// The cores on which threads stay: where they take all that there are. The system moves threads too late for those who wait for
/// each other a thousand times in a batch; but where there are more cores than threads, it knows better which are free.
fn own_cores(threads: u32, on_cpu: bool) -> Vec<usize> {
    let all = cores().filter(|_| on_cpu).unwrap_or_default();
    if all.len() == threads as usize { all } else { Vec::new() }
}

impl Llama {
    /// Checks the file, loads it and makes the context of lane 0. Blocks for as long as that takes.
    pub fn load(options: Options) -> Result<Self, Error> {
        Self::load_telling(options, &|_| {})
    }

    /// As [`Self::load`]; `progress` takes the share that is loaded, from 0 to 1.
    pub fn load_telling(options: Options, progress: &(dyn Fn(f32) + Sync)) -> Result<Self, Error> {
        let header = gguf::inspect(&options.path)?;
        if let Some(sha256) = &options.sha256 {
            gguf::verify_hash(&options.path, sha256)?;
        }
        let load = || Error::Load { path: options.path.clone(), reason: log::errors() };
        drop((log::buffers(), log::errors()));
        let loading = Loading {
            devices: options.devices.as_deref(),
            spread: match options.split {
                Split::None => Spread::One,
                Split::Layer => Spread::Layers,
                Split::Row => Spread::Rows,
            },
            shares: &options.shares,
            progress: Some(progress),
        };
        let model = Model::load(&options.path, &loading).map_err(Error::Device)?.ok_or_else(load)?;
        let trained = model.trained_context().max(1);
        let context = options.context.unwrap_or(CONTEXT.min(trained));
        // An embedding model computes a text in one piece, so its batch is its context.
        let context = if options.embedding { context.min(trained) } else { context };
        let on_cpu = computes_on_cpu(options.devices.as_deref());
        let as_on_cpu = computes_as_on_cpu(options.devices.as_deref());
        let chat = if on_cpu { BATCH } else { GPU_BATCH };
        let (sequences, batch) = if options.embedding { (TEXTS, context) } else { (options.sequences, chat) };
        let Options { threads, embedding, cache, .. } = options;
        let attention = attention(as_on_cpu && !embedding, context, cache);
        let shape = Shape { context, sequences, batch, threads, embedding, cache, attention };
        let no_context = || Error::Context { path: options.path.clone(), context, sequences };
        let threads =
            Threads::new(threads, &own_cores(threads, on_cpu)).map(Arc::new).ok_or(Error::Threads(threads))?;
        let base = Context::new(&model, &threads, shape, None).ok_or_else(no_context)?;
        let text = Arc::new(Vocabulary::new(model.clone(), options.template));
        // The tables of both directions are made when they are first used.
        let mut there_and_back = Vec::new();
        model
            .tokenize("a\n", false, false)
            .into_iter()
            .flatten()
            .for_each(|id| model.piece(id, false, &mut there_and_back));
        exit::without_destructors();
        let content = match &options.sha256 {
            Some(sha256) => sha256.as_bytes().to_vec(),
            None => gguf::sample(&options.path)?.to_vec(),
        };
        let form = format!("{STATE_FORM}, {cache:?}, {attention:?}");
        let fingerprint = fingerprint(&[form.as_bytes(), &content]);
        let (lanes, seed) = (vec![Some(Place { context: base, fingerprint })], std::process::id());
        let (architecture, memory) = (header.architecture, memory(log::buffers()));
        Ok(Self { lanes, grammars: None, text, model, threads, shape, architecture, memory, on_cpu, seed })
    }

    /// What it takes on each of its devices, as llama.cpp tells it.
    pub fn memory(&self) -> &[Memory] {
        &self.memory
    }

    /// Whether the processor computes, which engines on one machine must take turns for.
    pub fn computes_on_cpu(&self) -> bool {
        self.on_cpu
    }

    fn context(&mut self, lane: AdapterContext) -> Option<&mut Context> {
        self.lanes.get_mut(lane.0 as usize)?.as_mut().map(|place| &mut place.context)
    }

    fn base(&self) -> &Place {
        self.lanes[0].as_ref().expect("the base lane is never unloaded")
    }

    /// The tokens of a text to embed, as many as fit into a batch.
    fn tokens_to_embed(&self, text: &str) -> Result<Vec<i32>, String> {
        let mut tokens = self.model.tokenize(text, true, false).ok_or("the text cannot be tokenized")?;
        let room = self.shape.context as usize;
        if tokens.len() > room {
            // The last token is the separator that BERT was trained with.
            let last = tokens[tokens.len() - 1];
            tokens.truncate(room - 1);
            tokens.push(last);
        }
        Ok(tokens)
    }

    /// The unit vectors of texts that fit into one batch.
    fn embed_together(&mut self, texts: &[Vec<i32>]) -> Result<Vec<Vec<f32>>, String> {
        let width = self.model.width();
        let context = self.context(AdapterContext::BASE).ok_or("the model has no context")?;
        let sequences = || (0u32..).zip(texts).filter(|(_, tokens)| !tokens.is_empty());
        for (sequence, _) in sequences() {
            // The whole of a sequence can always be freed.
            context.trim(sequence, 0);
        }
        let mut entries = Vec::new();
        for (sequence, tokens) in sequences() {
            entries.extend((0u32..).zip(tokens).map(|(at, token)| (*token, at, sequence, true)));
        }
        if !entries.is_empty() {
            context.decode(entries.into_iter()).map_err(|code| format!("llama_decode gave {code}"))?;
        }
        let mut vectors = vec![vec![0.0; width]; texts.len()];
        for (sequence, _) in sequences() {
            let mut vector = context.embedding(sequence).ok_or("the model gives no pooled embedding")?;
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x /= length);
            }
            vectors[sequence as usize] = vector;
        }
        Ok(vectors)
    }
}

impl Backend for Llama {
    type Sampler = Sampler;

    fn limits(&self) -> EngineLimits {
        let context = &self.base().context;
        EngineLimits {
            context_tokens: context.room(),
            sequences: self.shape.sequences,
            batch_tokens: self.shape.batch,
            prefill_multiple: match (self.on_cpu, self.shape.attention) {
                (false, _) => 1,
                (true, Attention::Fused) => FUSED_GRAIN,
                (true, Attention::Matrices) => GRAIN,
            },
            can_truncate_kv: !self.model.is_recurrent(),
            can_shift: !self.model.is_recurrent() && context.shifts(),
        }
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.text.clone()
    }

    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterContext, String> {
        gguf::inspect_adapter(path, &self.architecture).map_err(|e| e.to_string())?;
        drop(log::errors());
        let adapter = Adapter::load(&self.model, path)
            .ok_or_else(|| format!("{}: llama.cpp cannot load this adapter: {}", path.display(), log::errors()))?;
        let context = Context::new(&self.model, &self.threads, self.shape, Some((adapter, scale)))
            .ok_or_else(|| format!("{}: no memory for this adapter's context", path.display()))?;
        let content = gguf::sample(path).map_err(|e| e.to_string())?;
        let fingerprint = fingerprint(&[&self.base().fingerprint, &content, &scale.to_le_bytes()]);
        let place = Some(Place { context, fingerprint });
        let free = self.lanes.iter().position(Option::is_none);
        let at = free.unwrap_or(self.lanes.len());
        match free {
            Some(at) => self.lanes[at] = place,
            None => self.lanes.push(place),
        }
        Ok(AdapterContext(at as u32))
    }

    fn unload_adapter(&mut self, lane: AdapterContext) {
        if let Some(place) = self.lanes.get_mut(lane.0 as usize).filter(|_| lane != AdapterContext::BASE) {
            *place = None;
        }
    }

    fn create_sampler(&mut self, sampling: &SamplingParams, schema: Option<&Value>, prompt: &[Token]) -> Result<Sampler, String> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let chain = Chain::new(sampling, self.model.vocabulary(), self.seed);
        let mut chain = chain.ok_or("llama.cpp cannot make a sampler")?;
        let constraint = match schema {
            None => None,
            Some(schema) => {
                if self.grammars.is_none() {
                    self.grammars = Some(Grammars::new(&self.model)?);
                }
                self.grammars.as_ref().map(|grammars| grammars.of(schema)).transpose()?
            }
        };
        if sampling.repeat_penalty != 1.0 {
            let from = prompt.len().saturating_sub(64);
            prompt[from..].iter().for_each(|token| chain.accept(token.0));
        }
        Ok(Sampler { chain, constraint })
    }

    fn decode(&mut self, lane: AdapterContext, batch: &[BatchToken]) -> Result<(), DecodeError> {
        let context = self.context(lane).ok_or_else(|| DecodeError::Batch(format!("there is no lane {}", lane.0)))?;
        let entries = batch.iter().map(|e| (e.token.0, e.position, e.slot.0, e.needs_logits));
        match context.decode(entries) {
            Ok(()) => Ok(()),
            Err(code @ -1) => Err(DecodeError::Batch(format!("an entry is out of range (llama_decode {code})"))),
            Err(1) => Err(DecodeError::Batch("the cache has no room (llama_decode 1)".to_owned())),
            Err(code) => Err(DecodeError::Fatal(format!("llama_decode gave {code}"))),
        }
    }

    fn sample(&mut self, lane: AdapterContext, entry: usize, sampler: &mut Sampler) -> Result<Sampled, String> {
        let mask = match &mut sampler.constraint {
            None => None,
            Some(constraint) => match constraint.mask()? {
                None => return Ok(Sampled::End),
                mask => mask,
            },
        };
        let context = self.context(lane).ok_or("there is no such lane")?;
        let logits = context.logits(entry).ok_or("there are no logits at this entry")?;
        let token = match &mask {
            None => sampler.chain.pick(logits, |_| true),
            Some(mask) => sampler.chain.pick(logits, |id| mask.is_allowed(id)),
        };
        let token = token.ok_or("no token is allowed here")?;
        if self.model.ends(token) {
            return Ok(Sampled::End);
        }
        sampler.chain.accept(token);
        if let Some(constraint) = &mut sampler.constraint {
            constraint.take(token)?;
        }
        Ok(Sampled::Token(Token(token)))
    }

    fn forced_tokens(&mut self, sampler: &mut Sampler) -> Result<ForcedTokens, String> {
        let Some(constraint) = &mut sampler.constraint else { return Ok(ForcedTokens::default()) };
        let forced = constraint.force();
        forced.tokens.iter().for_each(|token| sampler.chain.accept(token.0));
        Ok(forced)
    }

    fn logits(&mut self, lane: AdapterContext, entry: usize, tokens: &[Token]) -> Result<Vec<f32>, String> {
        let context = self.context(lane).ok_or("there is no such lane")?;
        let logits = context.logits(entry).ok_or("there are no logits at this entry")?;
        let logit = |token: &Token| logits.get(usize::try_from(token.0).ok()?).copied();
        tokens.iter().map(logit).collect::<Option<_>>().ok_or_else(|| "a label has a token of another model".to_owned())
    }

    fn shift_kv(&mut self, lane: AdapterContext, slot: Slot, keep: u32, drop: u32) -> bool {
        self.context(lane).is_some_and(|context| context.shift(slot.0, keep, drop))
    }

    fn truncate_kv(&mut self, lane: AdapterContext, slot: Slot, from: u32) -> bool {
        let Some(context) = self.context(lane) else { return false };
        // The whole can always be removed.
        context.trim(slot.0, from) || (context.trim(slot.0, 0) && from == 0)
    }

    fn fingerprint(&self, lane: AdapterContext) -> [u8; 32] {
        let place = self.lanes.get(lane.0 as usize).and_then(Option::as_ref);
        place.map(|place| place.fingerprint).unwrap_or_default()
    }

    fn save_state(&mut self, lane: AdapterContext, slot: Slot) -> Result<Vec<u8>, String> {
        let context = self.context(lane).ok_or("there is no such lane")?;
        context.save(slot.0).ok_or_else(|| "llama.cpp cannot give the state of a sequence of this model".to_owned())
    }

    fn restore_state(&mut self, lane: AdapterContext, slot: Slot, state: &[u8]) -> Result<(), String> {
        let context = self.context(lane).ok_or("there is no such lane")?;
        let done = context.restore(slot.0, state);
        done.then_some(()).ok_or_else(|| "llama.cpp cannot take the state of a sequence".to_owned())
    }

    fn embed(&mut self, texts: &[String]) -> Result<Embeddings, String> {
        if !self.shape.embedding {
            return Err("this model is loaded for chat, not for embeddings".to_owned());
        }
        let mut embedded = Embeddings::default();
        let texts = texts.iter().map(|text| self.tokens_to_embed(text)).collect::<Result<Vec<_>, _>>()?;
        let mut rest = texts.as_slice();
        while !rest.is_empty() {
            let (mut count, mut tokens) = (0, 0);
            while count < rest.len().min(TEXTS as usize) && tokens + rest[count].len() <= self.shape.batch as usize {
                tokens += rest[count].len();
                count += 1;
            }
            // Each of them alone fits, so there is at least one.
            let (now, later) = rest.split_at(count.max(1));
            embedded.vectors.extend(self.embed_together(now)?);
            embedded.tokens += tokens as u32;
            rest = later;
        }
        Ok(embedded)
    }
}
