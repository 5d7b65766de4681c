//! llama.cpp's pointers as owned values. The safe functions rely only on documented guarantees of llama.cpp, and check their
//! arguments before each call, because llama.cpp aborts the process on many invalid arguments.

use std::ffi::CString;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, OnceLock};

use llama_cpp_sys_2 as sys;

use crate::LlamaSplitMode;

pub(crate) mod device;
pub(crate) mod exit;
pub(crate) mod half_float;
pub(crate) mod log;
mod sampler_chain;
mod thread_pool;

pub(crate) use sampler_chain::SamplerChain;
pub(crate) use thread_pool::ComputeThreadPool;

/// Initialises llama.cpp once per process and forwards its log.
pub(crate) fn init() {
    static BACKEND: OnceLock<Option<llama_cpp_2::llama_backend::LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        // The only error is that it is initialised already.
        llama_cpp_2::llama_backend::LlamaBackend::init().ok()
    });
}

/// How a model is loaded.
#[derive(Default)]
pub(crate) struct LoadParams<'a> {
    /// Devices by name; `CPU` holds the layers that are on no other device. `None`: llama.cpp chooses.
    pub(crate) devices: Option<&'a [String]>,
    pub(crate) split_mode: LlamaSplitMode,
    /// The proportion of each device; empty: proportional to free memory.
    pub(crate) tensor_split: &'a [f32],
    /// Takes the fraction loaded, from 0 to 1.
    pub(crate) progress: Option<&'a (dyn Fn(f32) + Sync)>,
}

unsafe extern "C" fn progress(fraction: f32, callback: *mut std::ffi::c_void) -> bool {
    // SAFETY: `LlamaModel::load` passes a pointer to `LoadParams::progress`, which lives until it returns.
    let callback = unsafe { &*callback.cast::<Option<&(dyn Fn(f32) + Sync)>>() };
    if let Some(callback) = callback {
        callback(fraction);
    }
    true
}

/// A loaded model. Contexts and adapters hold an `Arc` of it, so it is freed last.
pub(crate) struct LlamaModel(NonNull<sys::llama_model>);

// SAFETY: llama.cpp never changes a model or its vocabulary after loading, except for its list of adapters to free, which only
// `LoraHandle::load` and `Drop` access, both on the one thread that owns the backend.
unsafe impl Send for LlamaModel {}
// SAFETY: as above; the functions that other threads call (tokenizing, detokenizing) only read the vocabulary.
unsafe impl Sync for LlamaModel {}

impl LlamaModel {
    /// `None` if llama.cpp cannot load the file; an error if a device does not exist.
    pub(crate) fn load(path: &Path, load_params: &LoadParams<'_>) -> Result<Option<Arc<Self>>, String> {
        init();
        let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) else { return Ok(None) };
        let offload_devices: Option<Vec<String>> =
            load_params.devices.map(|names| names.iter().filter(|name| *name != "CPU").cloned().collect());
        let mut devices = offload_devices.as_deref().map(device::find_by_name).transpose()?;
        // SAFETY: the function has no arguments and returns a constant.
        let mut tensor_split = vec![0.0f32; unsafe { sys::llama_max_devices() }];
        if load_params.tensor_split.len() > tensor_split.len() {
            return Err(format!("llama.cpp can split a model over at most {} devices", tensor_split.len()));
        }
        tensor_split[..load_params.tensor_split.len()].copy_from_slice(load_params.tensor_split);
        // SAFETY: the parameters are plain data; all pointers in them outlive the call, and llama.cpp copies `tensor_split`.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = -1;
            if let Some(devices) = &mut devices {
                if devices.is_empty() {
                    params.n_gpu_layers = 0;
                }
                // The list ends with a null pointer.
                devices.push(ptr::null_mut());
                params.devices = devices.as_mut_ptr();
                params.main_gpu = 0;
                params.split_mode = match load_params.split_mode {
                    LlamaSplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
                    LlamaSplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
                    LlamaSplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
                };
            }
            if !load_params.tensor_split.is_empty() {
                params.tensor_split = tensor_split.as_ptr();
            }
            params.progress_callback = Some(progress);
            params.progress_callback_user_data = (&raw const load_params.progress).cast_mut().cast();
            sys::llama_model_load_from_file(path.as_ptr(), params)
        };
        Ok(NonNull::new(model).map(|model| Arc::new(Self(model))))
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded; its vocabulary lives as long.
        unsafe { sys::llama_model_get_vocab(self.0.as_ptr()) }
    }

    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is loaded.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn embedding_size(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn vocabulary_size(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) }
    }

    pub(crate) fn chat_template(&self) -> Option<String> {
        // SAFETY: llama.cpp returns null or a C string that lives as long as the model.
        let template = unsafe { sys::llama_model_chat_template(self.0.as_ptr(), ptr::null()) };
        // SAFETY: checked for null.
        (!template.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(template) }.to_string_lossy().into_owned())
    }

    pub(crate) fn bos(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_bos(self.vocab()) }
    }

    pub(crate) fn eos(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_eos(self.vocab()) }
    }

    /// The end-of-turn token, or the end-of-text token if there is none.
    pub(crate) fn end_of_turn(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        let token = unsafe { sys::llama_vocab_eot(self.vocab()) };
        if token < 0 { self.eos() } else { token }
    }

    /// Whether it has a recurrent state, which cannot be truncated token by token.
    pub(crate) fn is_recurrent(&self) -> bool {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_is_recurrent(self.0.as_ptr()) || sys::llama_model_is_hybrid(self.0.as_ptr()) }
    }

    pub(crate) fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab()) }
    }

    pub(crate) fn is_end_of_generation(&self, token: i32) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        (0..self.vocabulary_size()).contains(&token) && unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }

    /// `add_special` adds the model's begin and end tokens; `parse_special` converts the texts of control tokens to them.
    pub(crate) fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Option<Vec<i32>> {
        let length = i32::try_from(text.len()).ok()?;
        let mut tokens = vec![0; text.len() + 8];
        let capacity = i32::try_from(tokens.len()).ok()?;
        let (text, out) = (text.as_ptr().cast(), tokens.as_mut_ptr());
        // SAFETY: the lengths are those of the buffers; llama.cpp writes at most `capacity` tokens.
        let count =
            unsafe { sys::llama_tokenize(self.vocab(), text, length, out, capacity, add_special, parse_special) };
        tokens.truncate(usize::try_from(count).ok()?);
        Some(tokens)
    }

    /// Appends the bytes of a token; `special` includes control tokens.
    pub(crate) fn append_piece(&self, token: i32, special: bool, out: &mut Vec<u8>) {
        if !(0..self.vocabulary_size()).contains(&token) {
            return;
        }
        let mut buffer = vec![0u8; 64];
        loop {
            let capacity = i32::try_from(buffer.len()).expect("token texts are short");
            let start = buffer.as_mut_ptr().cast();
            // SAFETY: the token is in the vocabulary; llama.cpp writes at most `capacity` bytes.
            let length = unsafe { sys::llama_token_to_piece(self.vocab(), token, start, capacity, 0, special) };
            match usize::try_from(length) {
                Ok(length) => return out.extend_from_slice(&buffer[..length]),
                Err(_) => buffer.resize(length.unsigned_abs() as usize, 0),
            }
        }
    }
}

impl Drop for LlamaModel {
    fn drop(&mut self) {
        // SAFETY: contexts and adapters hold an `Arc` of the model, so none uses it any more.
        unsafe { sys::llama_model_free(self.0.as_ptr()) }
    }
}

/// The parameters of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextParams {
    pub(crate) context_tokens: u32,
    pub(crate) sequences: u32,
    pub(crate) batch_tokens: u32,
    pub(crate) threads: u32,
    pub(crate) is_embedding: bool,
    pub(crate) kv_cache: crate::KvCacheTypes,
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

/// A LoRA adapter of a model.
pub(crate) struct LoraHandle {
    adapter: NonNull<sys::llama_adapter_lora>,
    _model: Arc<LlamaModel>,
}

impl LoraHandle {
    pub(crate) fn load(model: &Arc<LlamaModel>, path: &Path) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: called on the one thread that owns the backend; the adapter holds the model, so the model outlives it.
        let adapter = unsafe { sys::llama_adapter_lora_init(model.0.as_ptr(), path.as_ptr()) };
        NonNull::new(adapter).map(|adapter| Self { adapter, _model: model.clone() })
    }
}

impl Drop for LoraHandle {
    fn drop(&mut self) {
        // SAFETY: `LlamaContext` owns its adapter and is freed before it.
        unsafe { sys::llama_adapter_lora_free(self.adapter.as_ptr()) }
    }
}

/// A KV cache and a compute graph over a model.
pub(crate) struct LlamaContext {
    context: NonNull<sys::llama_context>,
    model: Arc<LlamaModel>,
    params: ContextParams,
    batch: sys::llama_batch,
    /// Freed after the context, because fields are dropped after `Drop::drop`.
    _adapter: Option<LoraHandle>,
    _threads: Arc<ComputeThreadPool>,
}

impl LlamaContext {
    pub(crate) fn new(
        model: &Arc<LlamaModel>,
        threads: &Arc<ComputeThreadPool>,
        params: ContextParams,
        adapter: Option<(LoraHandle, f32)>,
    ) -> Option<Self> {
        // SAFETY: the parameters are plain data and the model is loaded; null is checked.
        let context = unsafe {
            let mut raw = sys::llama_context_default_params();
            // Embedding sequences share the cells of one stream; chat sequences have a stream each.
            let streams = if params.is_embedding { 1 } else { params.sequences };
            raw.n_ctx = params.context_tokens.checked_mul(streams)?;
            raw.n_batch = params.batch_tokens;
            raw.n_ubatch = params.batch_tokens;
            raw.n_seq_max = params.sequences;
            raw.n_threads = i32::try_from(params.threads).ok()?;
            raw.n_threads_batch = raw.n_threads;
            raw.embeddings = params.is_embedding;
            raw.kv_unified = params.is_embedding;
            (raw.type_k, raw.type_v) = (params.kv_cache.keys.raw(), params.kv_cache.values.raw());
            raw.flash_attn_type = match params.flash_attention {
                FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
                FlashAttention::Disabled => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            };
            raw.no_perf = true;
            NonNull::new(sys::llama_init_from_model(model.0.as_ptr(), raw))?
        };
        if let Some((adapter, scale)) = &adapter {
            let (mut adapters, mut scales) = ([adapter.adapter.as_ptr()], [*scale]);
            // SAFETY: both arrays have one element and are read during the call only.
            let code = unsafe {
                sys::llama_set_adapters_lora(context.as_ptr(), adapters.as_mut_ptr(), 1, scales.as_mut_ptr())
            };
            if code != 0 {
                // SAFETY: the context was just created and is used nowhere else.
                unsafe { sys::llama_free(context.as_ptr()) };
                return None;
            }
        }
        threads.attach(context);
        // SAFETY: allocates a batch of tokens with one sequence id each.
        let batch = unsafe { sys::llama_batch_init(i32::try_from(params.batch_tokens).ok()?, 0, 1) };
        let (model, _threads, _adapter) = (model.clone(), threads.clone(), adapter.map(|(adapter, _)| adapter));
        Some(Self { context, model, params, batch, _adapter, _threads })
    }

    /// Tokens that one sequence may hold.
    pub(crate) fn max_sequence_tokens(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx_seq(self.context.as_ptr()) }
    }

    /// Computes a batch of (token, position, sequence, needs logits). The error is llama.cpp's code: 1 means that the KV cache is
    /// full, others are failures; -1 is also returned for an invalid batch.
    pub(crate) fn decode(&mut self, entries: impl ExactSizeIterator<Item = (i32, u32, u32, bool)>) -> Result<(), i32> {
        if entries.len() == 0 || entries.len() > self.params.batch_tokens as usize {
            return Err(-1);
        }
        self.batch.n_tokens = entries.len() as i32;
        for (at, (token, position, sequence, logits)) in entries.enumerate() {
            let fits = sequence < self.params.sequences
                && position < self.max_sequence_tokens()
                && (0..self.model.vocabulary_size()).contains(&token);
            if !fits {
                return Err(-1);
            }
            // SAFETY: `at` is below the batch's size, for which all arrays were allocated.
            unsafe {
                *self.batch.token.add(at) = token;
                *self.batch.pos.add(at) = position as i32;
                *self.batch.n_seq_id.add(at) = 1;
                **self.batch.seq_id.add(at) = sequence as i32;
                *self.batch.logits.add(at) = i8::from(logits);
            }
        }
        // SAFETY: the batch is filled and all its entries are in range.
        match unsafe { sys::llama_decode(self.context.as_ptr(), self.batch) } {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// The logits of an entry of the last batch, if it requested them.
    pub(crate) fn logits(&mut self, entry: usize) -> Option<&mut [f32]> {
        // SAFETY: llama.cpp returns null for an entry without logits; the row has one number per token of the vocabulary and is
        // valid until the next decode, which needs `&mut self`.
        unsafe {
            let row = sys::llama_get_logits_ith(self.context.as_ptr(), i32::try_from(entry).ok()?);
            let length = usize::try_from(self.model.vocabulary_size()).ok()?;
            (!row.is_null()).then(|| std::slice::from_raw_parts_mut(row, length))
        }
    }

    /// The pooled embedding of a sequence of the last batch.
    pub(crate) fn embedding(&self, sequence: u32) -> Option<Vec<f32>> {
        // SAFETY: llama.cpp returns null if there is none; the vector has the model's embedding size.
        unsafe {
            let vector = sys::llama_get_embeddings_seq(self.context.as_ptr(), i32::try_from(sequence).ok()?);
            (!vector.is_null()).then(|| std::slice::from_raw_parts(vector, self.model.embedding_size()).to_vec())
        }
    }

    /// Frees the cells of one sequence from a position on. False if the model cannot free only a part of them.
    pub(crate) fn truncate(&mut self, sequence: u32, from: u32) -> bool {
        if sequence >= self.params.sequences {
            return false;
        }
        // SAFETY: the sequence exists; llama.cpp returns false if only the whole sequence can be removed. Models without a KV
        // cache have no memory object.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            memory.is_null() || sys::llama_memory_seq_rm(memory, sequence as i32, from as i32, -1)
        }
    }

    /// Whether cells can be shifted to other positions. ggml aborts on a shift of BF16 keys, which it cannot rotate.
    pub(crate) fn can_shift(&self) -> bool {
        if self.params.kv_cache.keys == crate::GgmlType::Bf16 {
            return false;
        }
        // SAFETY: the context is valid; models without a KV cache have no memory object.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            !memory.is_null() && sys::llama_memory_can_shift(memory)
        }
    }

    /// Frees `discard` cells of one sequence after the first `keep` and shifts the following ones into their place.
    pub(crate) fn shift(&mut self, sequence: u32, keep: u32, discard: u32) -> bool {
        let Ok(end) = i32::try_from(u64::from(keep) + u64::from(discard)) else { return false };
        if sequence >= self.params.sequences || !self.can_shift() {
            return false;
        }
        // SAFETY: the sequence exists and the memory can shift; positions stay non-negative, because the shifted ones are at
        // least `keep + discard`.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            let freed = sys::llama_memory_seq_rm(memory, sequence as i32, keep as i32, end);
            if freed {
                sys::llama_memory_seq_add(memory, sequence as i32, end, -1, -(discard as i32));
            }
            freed
        }
    }

    /// Serializes the cells of one sequence; `None` if llama.cpp cannot do that.
    pub(crate) fn save(&mut self, sequence: u32) -> Option<Vec<u8>> {
        if sequence >= self.params.sequences {
            return None;
        }
        // SAFETY: the sequence exists; llama.cpp writes at most `size` bytes and returns how many.
        unsafe {
            let size = sys::llama_state_seq_get_size(self.context.as_ptr(), sequence as i32);
            let mut bytes = vec![0u8; size];
            let written =
                sys::llama_state_seq_get_data(self.context.as_ptr(), bytes.as_mut_ptr(), size, sequence as i32);
            (written > 0 && written <= size).then(|| {
                bytes.truncate(written);
                bytes
            })
        }
    }

    /// Restores the cells of one sequence, which must be empty. The bytes must come from [`Self::save`] of the same model and
    /// adapter: llama.cpp checks their format, not their content.
    pub(crate) fn restore(&mut self, sequence: u32, bytes: &[u8]) -> bool {
        if sequence >= self.params.sequences {
            return false;
        }
        // SAFETY: the sequence exists; llama.cpp reads at most `bytes.len()` bytes and returns 0 for an invalid format.
        unsafe {
            sys::llama_state_seq_set_data(self.context.as_ptr(), bytes.as_ptr(), bytes.len(), sequence as i32) > 0
        }
    }
}

impl Drop for LlamaContext {
    fn drop(&mut self) {
        // SAFETY: `new` created both, and nothing else uses them; the adapter and the model are freed later.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.context.as_ptr());
        }
    }
}
