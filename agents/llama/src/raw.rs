//! llama.cpp's pointers as owned values. What is safe here stays within what llama.cpp promises; each hazard is checked
//! before the call, because llama.cpp answers many mistakes with an abort of the process.

use std::ffi::CString;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, OnceLock};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

mod chain;
pub(crate) mod device;
pub(crate) mod exit;
pub(crate) mod log;
pub(crate) mod number;
mod threads;

pub(crate) use chain::Chain;
pub(crate) use threads::Threads;

/// Initialises llama.cpp once for the process and sends its log to ours.
pub(crate) fn start() {
    static STARTED: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    STARTED.get_or_init(|| {
        log::start();
        // An error means that it is initialised already, which is as good.
        LlamaBackend::init().ok()
    });
}

/// Where a model's layers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Spread {
    /// All to one device.
    #[default]
    One,
    /// Some layers to each.
    Layers,
    /// Some rows of each matrix to each.
    Rows,
}

/// How a model is loaded.
#[derive(Default)]
pub(crate) struct Loading<'a> {
    /// Devices by name; `CPU` is where layers lie that go nowhere else. None: wherever llama.cpp puts it.
    pub(crate) devices: Option<&'a [String]>,
    pub(crate) spread: Spread,
    /// The share of each device; empty: as their free memory is.
    pub(crate) shares: &'a [f32],
    /// Takes the share that is loaded, from 0 to 1.
    pub(crate) progress: Option<&'a (dyn Fn(f32) + Sync)>,
}

unsafe extern "C" fn progress(share: f32, told: *mut std::ffi::c_void) -> bool {
    // SAFETY: `Model::load` gives a pointer to what lives until it returns.
    let told = unsafe { &*told.cast::<Option<&(dyn Fn(f32) + Sync)>>() };
    if let Some(told) = told {
        told(share);
    }
    true
}

/// A loaded model. Contexts and adapters hold it, so it is freed last.
pub(crate) struct Model(NonNull<sys::llama_model>);

// SAFETY: llama.cpp never changes a model or its vocabulary after loading, apart from the list of adapters that it
// keeps for freeing, which only `Adapter::load` and `Drop` touch, both on the one thread that owns the backend.
unsafe impl Send for Model {}
// SAFETY: as above; what other threads call (tokenizing, pieces) only reads the vocabulary.
unsafe impl Sync for Model {}

impl Model {
    /// None if llama.cpp refuses; an error if there is no such device.
    pub(crate) fn load(path: &Path, loading: &Loading<'_>) -> Result<Option<Arc<Self>>, String> {
        start();
        let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) else { return Ok(None) };
        let others: Option<Vec<String>> =
            loading.devices.map(|names| names.iter().filter(|name| *name != "CPU").cloned().collect());
        let mut devices = others.as_deref().map(device::pick).transpose()?;
        // SAFETY: the number of devices is a constant of the library.
        let mut shares = vec![0.0f32; unsafe { sys::llama_max_devices() }];
        if loading.shares.len() > shares.len() {
            return Err(format!("llama.cpp spreads a model over at most {} devices", shares.len()));
        }
        shares[..loading.shares.len()].copy_from_slice(loading.shares);
        // SAFETY: the defaults are plain data; everything that they point to outlives the call, and llama.cpp copies the shares.
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
                params.split_mode = match loading.spread {
                    Spread::One => sys::LLAMA_SPLIT_MODE_NONE,
                    Spread::Layers => sys::LLAMA_SPLIT_MODE_LAYER,
                    Spread::Rows => sys::LLAMA_SPLIT_MODE_ROW,
                };
            }
            if !loading.shares.is_empty() {
                params.tensor_split = shares.as_ptr();
            }
            params.progress_callback = Some(progress);
            params.progress_callback_user_data = (&raw const loading.progress).cast_mut().cast();
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

    pub(crate) fn width(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn vocabulary(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) }
    }

    pub(crate) fn template(&self) -> Option<String> {
        // SAFETY: llama.cpp gives a null pointer or a C string that lives as long as the model.
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

    /// The token that ends a turn, or else the one that ends a text.
    pub(crate) fn end_of_turn(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        let token = unsafe { sys::llama_vocab_eot(self.vocab()) };
        if token < 0 { self.eos() } else { token }
    }

    /// Whether it carries a state along that cannot be taken back token by token.
    pub(crate) fn is_recurrent(&self) -> bool {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_is_recurrent(self.0.as_ptr()) || sys::llama_model_is_hybrid(self.0.as_ptr()) }
    }

    pub(crate) fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab()) }
    }

    pub(crate) fn ends(&self, token: i32) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        (0..self.vocabulary()).contains(&token) && unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }

    /// `special`: the model's own first and last tokens are added; `markers`: texts of control tokens become them.
    pub(crate) fn tokenize(&self, text: &str, special: bool, markers: bool) -> Option<Vec<i32>> {
        let length = i32::try_from(text.len()).ok()?;
        let mut tokens = vec![0; text.len() + 8];
        let room = i32::try_from(tokens.len()).ok()?;
        // SAFETY: pointers and lengths belong together; llama.cpp writes at most `room` tokens.
        let count = unsafe {
            sys::llama_tokenize(self.vocab(), text.as_ptr().cast(), length, tokens.as_mut_ptr(), room, special, markers)
        };
        tokens.truncate(usize::try_from(count).ok()?);
        Some(tokens)
    }

    /// Appends a token's bytes.
    pub(crate) fn piece(&self, token: i32, special: bool, out: &mut Vec<u8>) {
        if !(0..self.vocabulary()).contains(&token) {
            return;
        }
        let mut buffer = vec![0u8; 64];
        loop {
            let room = i32::try_from(buffer.len()).expect("token texts are short");
            // SAFETY: the token is in the vocabulary; llama.cpp writes at most `room` bytes.
            let length =
                unsafe { sys::llama_token_to_piece(self.vocab(), token, buffer.as_mut_ptr().cast(), room, 0, special) };
            match usize::try_from(length) {
                Ok(length) => return out.extend_from_slice(&buffer[..length]),
                Err(_) => buffer.resize(length.unsigned_abs() as usize, 0),
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts and adapters hold an `Arc` of us, so none is left.
        unsafe { sys::llama_model_free(self.0.as_ptr()) }
    }
}

/// What a context is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) context: u32,
    pub(crate) sequences: u32,
    pub(crate) batch: u32,
    pub(crate) threads: u32,
    pub(crate) embedding: bool,
    pub(crate) cache: crate::Cache,
    pub(crate) attention: Attention,
}

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attention {
    /// In one piece (flash attention) where the device can.
    Fused,
    /// As products of matrices.
    Matrices,
}

/// A LoRA adapter of a model.
pub(crate) struct Adapter {
    adapter: NonNull<sys::llama_adapter_lora>,
    _model: Arc<Model>,
}

impl Adapter {
    pub(crate) fn load(model: &Arc<Model>, path: &Path) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: called on the one thread that owns the backend; the model outlives the adapter, which holds it.
        let adapter = unsafe { sys::llama_adapter_lora_init(model.0.as_ptr(), path.as_ptr()) };
        NonNull::new(adapter).map(|adapter| Self { adapter, _model: model.clone() })
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: the context that used it was dropped before: `Context` owns its adapter.
        unsafe { sys::llama_adapter_lora_free(self.adapter.as_ptr()) }
    }
}

/// One cache and compute graph over a model.
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    model: Arc<Model>,
    shape: Shape,
    batch: sys::llama_batch,
    /// Declared after the context's own pointer and freed in `Drop` order after it.
    _adapter: Option<Adapter>,
    _threads: Arc<Threads>,
}

impl Context {
    pub(crate) fn new(
        model: &Arc<Model>,
        threads: &Arc<Threads>,
        shape: Shape,
        adapter: Option<(Adapter, f32)>,
    ) -> Option<Self> {
        // SAFETY: the defaults are plain data and the model is loaded; null is checked.
        let context = unsafe {
            let mut params = sys::llama_context_default_params();
            // Texts to embed share the cells of one; sequences of a chat have their own.
            let streams = if shape.embedding { 1 } else { shape.sequences };
            params.n_ctx = shape.context.checked_mul(streams)?;
            params.n_batch = shape.batch;
            params.n_ubatch = shape.batch;
            params.n_seq_max = shape.sequences;
            params.n_threads = i32::try_from(shape.threads).ok()?;
            params.n_threads_batch = params.n_threads;
            params.embeddings = shape.embedding;
            params.kv_unified = shape.embedding;
            (params.type_k, params.type_v) = (shape.cache.keys.raw(), shape.cache.values.raw());
            params.flash_attn_type = match shape.attention {
                Attention::Fused => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
                Attention::Matrices => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            };
            params.no_perf = true;
            NonNull::new(sys::llama_init_from_model(model.0.as_ptr(), params))?
        };
        if let Some((adapter, scale)) = &adapter {
            let (mut adapters, mut scales) = ([adapter.adapter.as_ptr()], [*scale]);
            // SAFETY: both arrays have one element and are read during the call only.
            let code = unsafe {
                sys::llama_set_adapters_lora(context.as_ptr(), adapters.as_mut_ptr(), 1, scales.as_mut_ptr())
            };
            if code != 0 {
                // SAFETY: the context was just made and is used nowhere else.
                unsafe { sys::llama_free(context.as_ptr()) };
                return None;
            }
        }
        threads.attach(context);
        // SAFETY: plain allocation, one sequence per token.
        let batch = unsafe { sys::llama_batch_init(i32::try_from(shape.batch).ok()?, 0, 1) };
        let (model, _threads, _adapter) = (model.clone(), threads.clone(), adapter.map(|(adapter, _)| adapter));
        Some(Self { context, model, shape, batch, _adapter, _threads })
    }

    /// Tokens that one sequence may have.
    pub(crate) fn room(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx_seq(self.context.as_ptr()) }
    }

    /// Computes (token, position, sequence, wants logits). The code is llama.cpp's: 0 is well, 1 no room, others faults.
    pub(crate) fn decode(&mut self, entries: impl ExactSizeIterator<Item = (i32, u32, u32, bool)>) -> Result<(), i32> {
        if entries.len() == 0 || entries.len() > self.shape.batch as usize {
            return Err(-1);
        }
        self.batch.n_tokens = entries.len() as i32;
        for (at, (token, position, sequence, logits)) in entries.enumerate() {
            let fits = sequence < self.shape.sequences
                && position < self.room()
                && (0..self.model.vocabulary()).contains(&token);
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
        // SAFETY: the batch is filled and within all limits.
        match unsafe { sys::llama_decode(self.context.as_ptr(), self.batch) } {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// The logits after an entry of the last batch that wanted them.
    pub(crate) fn logits(&mut self, entry: usize) -> Option<&mut [f32]> {
        // SAFETY: llama.cpp gives null for an entry without logits; the row has one number per token and stays
        // untouched until the next decode, which needs `&mut self`.
        unsafe {
            let row = sys::llama_get_logits_ith(self.context.as_ptr(), i32::try_from(entry).ok()?);
            let length = usize::try_from(self.model.vocabulary()).ok()?;
            (!row.is_null()).then(|| std::slice::from_raw_parts_mut(row, length))
        }
    }

    /// The pooled embedding of a sequence of the last batch.
    pub(crate) fn embedding(&self, sequence: u32) -> Option<Vec<f32>> {
        // SAFETY: llama.cpp gives null if there is none; the vector has the model's width.
        unsafe {
            let vector = sys::llama_get_embeddings_seq(self.context.as_ptr(), i32::try_from(sequence).ok()?);
            (!vector.is_null()).then(|| std::slice::from_raw_parts(vector, self.model.width()).to_vec())
        }
    }

    /// Frees the cells of one sequence from a position on. False if the model cannot free a part of them.
    pub(crate) fn trim(&mut self, sequence: u32, from: u32) -> bool {
        if sequence >= self.shape.sequences {
            return false;
        }
        // SAFETY: the sequence exists; llama.cpp answers false where only the whole can be removed. Models without a cache
        // have no memory object.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            memory.is_null() || sys::llama_memory_seq_rm(memory, sequence as i32, from as i32, -1)
        }
    }

    /// Whether cells can be moved to other positions. ggml cannot turn keys of BF16, and aborts when it is asked to.
    pub(crate) fn shifts(&self) -> bool {
        if self.shape.cache.keys == crate::CacheType::Bf16 {
            return false;
        }
        // SAFETY: the context is alive; models without a cache have no memory object.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            !memory.is_null() && sys::llama_memory_can_shift(memory)
        }
    }

    /// Frees `drop` cells of one sequence after the first `keep` and moves those behind them there.
    pub(crate) fn shift(&mut self, sequence: u32, keep: u32, drop: u32) -> bool {
        let Ok(end) = i32::try_from(u64::from(keep) + u64::from(drop)) else { return false };
        if sequence >= self.shape.sequences || !self.shifts() {
            return false;
        }
        // SAFETY: the sequence exists and the memory can shift; positions stay above zero, because those moved are at least
        // `keep + drop`.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            let freed = sys::llama_memory_seq_rm(memory, sequence as i32, keep as i32, end);
            if freed {
                sys::llama_memory_seq_add(memory, sequence as i32, end, -1, -(drop as i32));
            }
            freed
        }
    }

    /// The cells of one sequence as bytes; `None` if llama.cpp cannot give them.
    pub(crate) fn save(&mut self, sequence: u32) -> Option<Vec<u8>> {
        if sequence >= self.shape.sequences {
            return None;
        }
        // SAFETY: the sequence exists; llama.cpp writes at most as many bytes as the buffer has, and says how many.
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

    /// Fills the cells of one sequence, which must be empty. The bytes must come from [`Self::save`] of this model and
    /// adapter: llama.cpp checks their shape, not their meaning.
    pub(crate) fn restore(&mut self, sequence: u32, bytes: &[u8]) -> bool {
        if sequence >= self.shape.sequences {
            return false;
        }
        // SAFETY: the sequence exists; llama.cpp reads at most as many bytes as there are and answers 0 for a bad shape.
        unsafe {
            sys::llama_state_seq_set_data(self.context.as_ptr(), bytes.as_ptr(), bytes.len(), sequence as i32) > 0
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both were made in `new` and are used nowhere else; the adapter and the model are freed after.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.context.as_ptr());
        }
    }
}
