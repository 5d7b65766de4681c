//! The backend: one model with one context, and the adapters that batches are computed with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use artel_constraint::{Compiler, Constraint};
use artel_engine::backend::{
    self as engine_backend, BatchToken, DecodeError, EngineLimits, ForcedTokens, Sampled, Slot,
};
use artel_engine::{
    AdapterSet, Backend, CallConstraint, SamplingOptions, SamplingParams, TextTokenizer, Token, TokenLogprob, Tokenizer,
};
use artel_model::{DeviceMemory, first_piece};
use serde_json::Value;

use crate::chat_tokenizer::ChatTokenizer;
use crate::constraint::{self, schema_error};
use crate::context_params::{ContextParams, computes_on_cpu, pinned_cores};
use crate::device_buffers::buffers_by_device;
use crate::error::{Error, is_lack_of_memory};
use crate::lazy_calls::{CallBeginning, LazyCalls};
use crate::options::Options;
use crate::pooling::PooledResult;
use crate::raw::context::LlamaContext;
use crate::raw::dry_samplers::DrySamplers;
use crate::raw::model::{LlamaModel, LoadParams, LoraHandle};
use crate::raw::sampler_chain::SamplerChain;
use crate::raw::thread_pool::ComputeThreadPool;
use crate::raw::{log, process};
use crate::text_tokens::TextTokens;
use crate::token_bias::TokenBias;
use crate::{fingerprint, logprobs, pooling};

/// A loaded model.
pub struct LlamaBackend {
    /// Comes before the adapters and the model, so that it is dropped before them.
    context: LlamaContext,
    /// The index is the number of the set; the first is that of no adapters.
    adapters: Vec<Option<LoadedAdapters>>,
    /// Those of the last batch.
    applied: AdapterSet,
    /// Adapters by the hash of their file: sets may share them.
    adapter_files: HashMap<[u8; 32], Weak<LoraHandle>>,
    /// Made for the first schema.
    schemas: Option<Compiler>,
    dry_samplers: DrySamplers,
    /// What the file states.
    sampling_defaults: SamplingOptions,
    text: Arc<ChatTokenizer>,
    text_tokens: Arc<TextTokens>,
    /// What is made of a text that is computed as a whole; `None` for a chat model.
    pooling: Option<PooledResult>,
    model: Arc<LlamaModel>,
    params: ContextParams,
    architecture: String,
    device_buffers: Vec<DeviceMemory>,
    is_on_cpu: bool,
    seed: u32,
}

/// Adapters that apply together.
struct LoadedAdapters {
    /// Each with its scale.
    adapters: Vec<(Rc<LoraHandle>, f32)>,
    fingerprint: [u8; 32],
}

/// The sampling state of a sequence.
pub struct SequenceSampler {
    chain: SamplerChain,
    constraint: Option<Constraint>,
    /// What holds it to calls of tools once one begins.
    lazy_calls: Option<LazyCalls>,
    /// Whether both wait for the end of a reasoning.
    is_held: bool,
}

impl SequenceSampler {
    /// The constraint, unless it is held.
    fn constraint(&mut self) -> Option<&mut Constraint> {
        self.constraint.as_mut().filter(|_| !self.is_held)
    }
}

impl LlamaBackend {
    /// Checks and loads the file, and creates the context. Blocks until done.
    pub fn load(options: Options) -> Result<Self, Error> {
        Self::load_with_progress(options, &|_| {})
    }

    /// As [`Self::load`]; `progress` takes the fraction loaded, from 0 to 1.
    pub fn load_with_progress(options: Options, progress: &(dyn Fn(f32) + Sync)) -> Result<Self, Error> {
        Self::load_with_params(options, progress, |params| params)
    }

    /// As [`Self::load_with_progress`]; `adjust` changes the parameters that follow from the options.
    pub(crate) fn load_with_params(
        options: Options,
        progress: &(dyn Fn(f32) + Sync),
        adjust: fn(ContextParams) -> ContextParams,
    ) -> Result<Self, Error> {
        // What is wrong with the copy alone is told of the copy.
        let weights = &first_piece(options.dequantized.as_ref().unwrap_or(&options.path));
        let header = artel_gguf::inspect(weights)?;
        artel_gguf::check_purpose(&options.path, &header, options.purpose)?;
        if let Some(sha256) = &options.sha256 {
            artel_gguf::verify_sha256(weights, sha256)?;
        }
        drop((log::take_buffers(), log::take_errors()));
        let load_params = LoadParams {
            devices: options.devices.as_deref(),
            split_mode: options.split_mode,
            tensor_split: &options.tensor_split,
            gpu_layers: options.gpu_layers,
            cpu_expert_layers: options.cpu_expert_layers,
            progress: Some(progress),
        };
        let model =
            LlamaModel::load(weights, &load_params)?.ok_or_else(|| Error::of_load(weights, log::take_errors()))?;
        let pooling = PooledResult::of(options.purpose, &header.architecture);
        if pooling.is_some_and(|result| !result.takes_outputs(model.classifier_outputs())) {
            return Err(Error::Classifier { path: options.path, outputs: model.classifier_outputs() });
        }
        let params = adjust(ContextParams::of(&options, model.trained_context().max(1)));
        let is_on_cpu = computes_on_cpu(options.devices.as_deref());
        let threads = ComputeThreadPool::new(params.threads, &pinned_cores(params.threads, is_on_cpu))
            .map(Arc::new)
            .ok_or(Error::Threads(params.threads))?;
        let no_context = || {
            let ContextParams { context_tokens: context, sequences, .. } = params;
            Error::Context { path: options.path.clone(), context, sequences, reason: log::take_errors() }
        };
        drop(log::take_errors());
        let context = LlamaContext::new(&model, &threads, params).ok_or_else(no_context)?;
        let content = match &options.sha256 {
            Some(sha256) => sha256.concatenated().into_bytes(),
            None => artel_gguf::sampled_hash(weights)?.to_vec(),
        };
        let text_tokens = Arc::new(TextTokens::new(model.clone(), options.purpose));
        let text =
            Arc::new(ChatTokenizer::new(model.clone(), options.template, options.template_kwargs, &options.path));
        model.create_text_tables();
        process::skip_static_destructors();
        let device_buffers = buffers_by_device(log::take_buffers());
        // That of the load is no change of adapters.
        let _ = log::take_reservation_time();
        let fingerprint = fingerprint::of_model(&params, &content);
        Ok(Self {
            context,
            adapters: vec![Some(LoadedAdapters { adapters: Vec::new(), fingerprint })],
            applied: AdapterSet::NONE,
            adapter_files: HashMap::new(),
            schemas: None,
            dry_samplers: DrySamplers::default(),
            sampling_defaults: artel_gguf::stated_sampling(&options.path, &header),
            text,
            text_tokens,
            pooling,
            model,
            params,
            architecture: header.architecture,
            device_buffers,
            is_on_cpu,
            seed: std::process::id(),
        })
    }

    /// The buffers on each of its devices, as logged by llama.cpp.
    pub fn device_buffers(&self) -> &[DeviceMemory] {
        &self.device_buffers
    }

    /// Whether the CPU computes; the engines of a machine must then exclude each other.
    pub fn computes_on_cpu(&self) -> bool {
        self.is_on_cpu
    }

    /// The tokens of its vocabulary.
    pub(crate) fn vocabulary_size(&self) -> i32 {
        self.model.vocabulary_size()
    }

    /// The logits of an entry of the last batch.
    pub(crate) fn entry_logits(&mut self, entry: usize) -> Result<&mut [f32], engine_backend::Error> {
        self.context.logits(entry).ok_or_else(|| compute_error("this entry has no logits"))
    }

    /// The compiler of schemas, which is made for the first one.
    fn compiler(&mut self) -> Result<&Compiler, engine_backend::Error> {
        match &mut self.schemas {
            Some(compiler) => Ok(compiler),
            none => Ok(none.insert(constraint::compiler(&self.model)?)),
        }
    }

    /// The adapter in a file, which other sets may have loaded already.
    fn adapter(&mut self, path: &Path) -> Result<(Rc<LoraHandle>, [u8; 32]), engine_backend::Error> {
        artel_gguf::inspect_adapter(path, &self.architecture).map_err(|e| adapter_error(&e))?;
        // Of the whole file: adapters that differ in a few tensors must not be taken for one another.
        let content = artel_gguf::content_hash(path).map_err(|e| adapter_error(&e))?;
        if let Some(loaded) = self.adapter_files.get(&content).and_then(Weak::upgrade) {
            return Ok((loaded, content));
        }
        drop(log::take_errors());
        let adapter = LoraHandle::load(&self.model, path).ok_or_else(|| refused_adapter(path, &log::take_errors()))?;
        let adapter = Rc::new(adapter);
        self.adapter_files.retain(|_, loaded| loaded.strong_count() > 0);
        self.adapter_files.insert(content, Rc::downgrade(&adapter));
        Ok((adapter, content))
    }
}

impl Backend for LlamaBackend {
    type Sampler = SequenceSampler;

    fn limits(&self) -> EngineLimits {
        let context = &self.context;
        EngineLimits {
            context_tokens: context.max_sequence_tokens(),
            sequences: self.params.sequences,
            batch_tokens: self.params.batch_tokens,
            prefill_multiple: self.params.prefill_multiple(self.is_on_cpu),
            can_truncate_kv: !self.model.is_recurrent(),
            can_shift: !self.model.is_recurrent() && context.can_shift(),
        }
    }

    fn sampling_defaults(&self) -> SamplingOptions {
        self.sampling_defaults.clone()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.text.clone()
    }

    fn text_tokenizer(&self) -> Arc<dyn TextTokenizer> {
        self.text_tokens.clone()
    }

    fn load_adapters(&mut self, adapters: &[(PathBuf, f32)]) -> Result<AdapterSet, engine_backend::Error> {
        let mut fingerprint = self.fingerprint(AdapterSet::NONE);
        let mut loaded = Vec::new();
        for (path, scale) in adapters {
            let (adapter, content) = self.adapter(path)?;
            fingerprint = fingerprint::of_adapter(&fingerprint, &content, *scale);
            if loaded.iter().any(|(other, _)| Rc::ptr_eq(other, &adapter)) {
                let message = format!("{}: two of these adapters have the same content", path.display());
                return Err(engine_backend::Error::Adapter(message));
            }
            loaded.push((adapter, *scale));
        }
        let loaded = Some(LoadedAdapters { adapters: loaded, fingerprint });
        let free = self.adapters.iter().position(Option::is_none);
        let at = free.unwrap_or(self.adapters.len());
        match free {
            Some(at) => self.adapters[at] = loaded,
            None => self.adapters.push(loaded),
        }
        Ok(AdapterSet(at as u32))
    }

    fn unload_adapters(&mut self, adapters: AdapterSet) {
        let of_set = self.adapters.get_mut(adapters.0 as usize).filter(|_| adapters != AdapterSet::NONE);
        if let Some(unloaded) = of_set.and_then(Option::take) {
            // The context must not refer to an adapter that is freed here. Its next batch pays for the change.
            if self.applied == adapters {
                self.context.apply_adapters(&[]);
                self.applied = AdapterSet::NONE;
            }
            drop(unloaded);
        }
    }

    fn create_sampler(
        &mut self,
        sampling: &SamplingParams,
        schema: Option<&Value>,
        prompt: &[Token],
    ) -> Result<SequenceSampler, engine_backend::Error> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bias = TokenBias::of_texts(&sampling.logit_bias, &self.model);
        let context_tokens = self.context.max_sequence_tokens();
        let dry_samplers = &mut self.dry_samplers;
        let chain = SamplerChain::new(sampling, (&self.model, dry_samplers), bias, context_tokens, self.seed);
        let mut chain = chain.ok_or_else(|| compute_error("llama.cpp failed to create a sampler chain"))?;
        let constraint = match schema {
            None => None,
            Some(schema) => Some(constraint::compile(self.compiler()?, schema)?),
        };
        chain.accept_prompt(prompt.iter().map(|token| token.0));
        Ok(SequenceSampler { chain, constraint, lazy_calls: None, is_held: false })
    }

    fn constrain_calls(
        &mut self,
        sampler: &mut SequenceSampler,
        calls: &CallConstraint,
    ) -> Result<(), engine_backend::Error> {
        let constraint = self.compiler()?.compile_calls(&calls.grammar).map_err(schema_error)?;
        match &calls.trigger {
            Some(trigger) => sampler.lazy_calls = Some(LazyCalls::new(trigger.clone(), constraint)),
            None => sampler.constraint = Some(constraint),
        }
        Ok(())
    }

    fn decode(&mut self, adapters: AdapterSet, batch: &[BatchToken]) -> Result<(), DecodeError> {
        let of_set = self.adapters.get(adapters.0 as usize).and_then(Option::as_ref);
        let of_set = of_set.ok_or_else(|| DecodeError::Batch(format!("no adapters have number {}", adapters.0)))?;
        if self.applied != adapters {
            if !self.context.apply_adapters(&of_set.adapters) {
                return Err(DecodeError::Batch("llama.cpp refused the adapters".to_owned()));
            }
            self.applied = adapters;
        }
        let entries = batch.iter().map(|e| (e.token.0, e.position, e.slot.0, e.needs_logits));
        match self.context.decode(entries) {
            Ok(()) => Ok(()),
            Err(code @ -1) => {
                Err(DecodeError::Batch(format!("an entry is out of range (llama_decode returned {code})")))
            }
            Err(1) => Err(DecodeError::Batch("the KV cache is full (llama_decode returned 1)".to_owned())),
            Err(code) => Err(DecodeError::Fatal(format!("llama_decode failed with code {code}"))),
        }
    }

    fn take_switch_time(&mut self) -> Option<Duration> {
        log::take_reservation_time()
    }

    fn sample(&mut self, entry: usize, sampler: &mut SequenceSampler) -> Result<Sampled, engine_backend::Error> {
        let mask = match sampler.constraint() {
            None => None,
            Some(constraint) => match constraint.mask().map_err(schema_error)? {
                None => return Ok(Sampled::End),
                mask => mask,
            },
        };
        let logits = self.entry_logits(entry)?;
        let token = match &mask {
            None => sampler.chain.sample(logits, |_| true),
            Some(mask) => sampler.chain.sample(logits, |id| mask.is_allowed(id)),
        };
        let token = token.ok_or_else(|| match sampler.chain.has_bias() {
            true => engine_backend::Error::Schema("`logit_bias` forbids every token that may come".to_owned()),
            false => compute_error("no token is allowed at this position"),
        })?;
        if self.model.is_end_of_generation(token) {
            return Ok(Sampled::End);
        }
        sampler.chain.accept(token);
        if let Some(constraint) = sampler.constraint() {
            constraint.accept(token.cast_unsigned()).map_err(schema_error)?;
        }
        if !sampler.is_held
            && let Some(lazy) = sampler.lazy_calls.take()
        {
            let mut bytes = Vec::new();
            self.model.append_piece(token, true, &mut bytes);
            match lazy.accept(token.cast_unsigned(), bytes) {
                CallBeginning::Later(lazy) => sampler.lazy_calls = Some(lazy),
                CallBeginning::Now(constraint) => sampler.constraint = Some(constraint),
                CallBeginning::Never => {}
            }
        }
        Ok(Sampled::Token(Token(token)))
    }

    fn logprobs(&mut self, entry: usize, token: Token, top: u32) -> Result<TokenLogprob, engine_backend::Error> {
        let model = self.model.clone();
        Ok(logprobs::of_token(&model, self.entry_logits(entry)?, token.0, top))
    }

    fn hold_schema(&mut self, sampler: &mut SequenceSampler, is_held: bool) {
        sampler.is_held = is_held;
    }

    fn append_unsampled(&mut self, sampler: &mut SequenceSampler, tokens: &[Token]) {
        tokens.iter().for_each(|token| sampler.chain.accept(token.0));
    }

    fn forced_tokens(&mut self, sampler: &mut SequenceSampler) -> Result<ForcedTokens, engine_backend::Error> {
        let Some(constraint) = sampler.constraint() else { return Ok(ForcedTokens::default()) };
        let tokens: Vec<Token> = constraint.take_forced().into_iter().map(|token| Token(token.cast_signed())).collect();
        let is_complete = constraint.is_complete();
        tokens.iter().for_each(|token| sampler.chain.accept(token.0));
        Ok(ForcedTokens { tokens, is_complete })
    }

    fn logits(&mut self, entry: usize, tokens: &[Token]) -> Result<Vec<f32>, engine_backend::Error> {
        let logits = self.entry_logits(entry)?;
        let logit = |token: &Token| logits.get(usize::try_from(token.0).ok()?).copied();
        tokens
            .iter()
            .map(logit)
            .collect::<Option<_>>()
            .ok_or_else(|| compute_error("a label has a token outside of the vocabulary"))
    }

    fn shift_kv(&mut self, slot: Slot, keep: u32, discard: u32) -> bool {
        self.context.shift(slot.0, keep, discard)
    }

    fn truncate_kv(&mut self, slot: Slot, from: u32) -> bool {
        // A sequence as a whole can always be freed.
        self.context.truncate(slot.0, from) || (self.context.truncate(slot.0, 0) && from == 0)
    }

    fn fingerprint(&self, adapters: AdapterSet) -> [u8; 32] {
        let loaded = self.adapters.get(adapters.0 as usize).and_then(Option::as_ref);
        loaded.map(|loaded| loaded.fingerprint).unwrap_or_default()
    }

    fn save_state(&mut self, slot: Slot) -> Result<Vec<u8>, engine_backend::Error> {
        self.context.save(slot.0).ok_or_else(|| state_error("llama.cpp cannot serialize the KV cache of this model"))
    }

    fn restore_state(&mut self, slot: Slot, state: &[u8]) -> Result<(), engine_backend::Error> {
        let is_restored = self.context.restore(slot.0, state);
        is_restored.then_some(()).ok_or_else(|| state_error("llama.cpp rejected the serialized KV cache"))
    }

    fn pool(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, engine_backend::Error> {
        let Some(result) = self.pooling else {
            let reason = "this model is a chat model: it neither embeds nor reranks".to_owned();
            return Err(engine_backend::Error::Unsupported(reason));
        };
        let (model, params) = (self.model.clone(), self.params);
        pooling::pool(&model, &mut self.context, &params, result, texts)
    }
}

/// The error for a file of an adapter that was not accepted. Errors that may pass are not the adapter's.
fn adapter_error(error: &artel_gguf::Error) -> engine_backend::Error {
    if error.is_transient() {
        engine_backend::Error::Exhausted(error.to_string())
    } else {
        engine_backend::Error::Adapter(error.to_string())
    }
}

/// The error for an adapter that llama.cpp did not load, with its error messages.
fn refused_adapter(path: &Path, reason: &str) -> engine_backend::Error {
    let message = format!("{}: llama.cpp cannot load this adapter: {reason}", path.display());
    if is_lack_of_memory(reason) {
        engine_backend::Error::Exhausted(message)
    } else {
        engine_backend::Error::Adapter(message)
    }
}

fn compute_error(reason: &str) -> engine_backend::Error {
    engine_backend::Error::Compute(reason.to_owned())
}

fn state_error(reason: &str) -> engine_backend::Error {
    engine_backend::Error::State(reason.to_owned())
}
