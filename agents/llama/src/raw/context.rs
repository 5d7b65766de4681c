//! The context of a model: the KV cache of its sequences and the graph that computes them.

use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use artel_model::KvCacheType;
use llama_cpp_sys_2 as sys;

use super::model::{LlamaModel, LoraHandle};
use super::thread_pool::ComputeThreadPool;
use crate::context_params::{ContextParams, FlashAttention};
use crate::kv_cache::ggml_type;

/// A KV cache and a compute graph over a model.
pub(crate) struct LlamaContext {
    context: NonNull<sys::llama_context>,
    model: Arc<LlamaModel>,
    params: ContextParams,
    batch: sys::llama_batch,
    _threads: Arc<ComputeThreadPool>,
}

impl LlamaContext {
    pub(crate) fn new(
        model: &Arc<LlamaModel>,
        threads: &Arc<ComputeThreadPool>,
        params: ContextParams,
    ) -> Option<Self> {
        // SAFETY: the parameters are plain data and the model is loaded; null is checked.
        let context = unsafe {
            let mut raw = sys::llama_context_default_params();
            let streams = if params.shares_cells { 1 } else { params.sequences };
            raw.n_ctx = params.context_tokens.checked_mul(streams)?;
            raw.n_batch = params.batch_tokens;
            raw.n_ubatch = params.batch_tokens;
            raw.n_seq_max = params.sequences;
            raw.n_threads = i32::try_from(params.threads).ok()?;
            raw.n_threads_batch = raw.n_threads;
            raw.embeddings = params.purpose.pools();
            raw.kv_unified = params.shares_cells;
            (raw.type_k, raw.type_v) = (ggml_type(params.kv_cache.keys), ggml_type(params.kv_cache.values));
            raw.flash_attn_type = match params.flash_attention {
                FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
                FlashAttention::Disabled => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            };
            raw.no_perf = true;
            NonNull::new(sys::llama_init_from_model(model.as_ptr(), raw))?
        };
        threads.attach(context);
        // SAFETY: allocates a batch of tokens with one sequence id each.
        let batch = unsafe { sys::llama_batch_init(i32::try_from(params.batch_tokens).ok()?, 0, 1) };
        Some(Self { context, model: model.clone(), params, batch, _threads: threads.clone() })
    }

    /// Makes these adapters, each with its scale, those of the following batches, in place of any others. They must not be freed
    /// before others take their place. False if llama.cpp refuses them.
    pub(crate) fn apply_adapters(&mut self, adapters: &[(Rc<LoraHandle>, f32)]) -> bool {
        let (mut pointers, mut scales): (Vec<_>, Vec<f32>) =
            adapters.iter().map(|(adapter, scale)| (adapter.as_ptr(), *scale)).unzip();
        // SAFETY: both arrays have as many elements as are told and are read during the call only. What is told twice in a row
        // changes nothing.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                self.context.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                scales.as_mut_ptr(),
            )
        };
        code == 0
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

    /// What the last batch pooled of a sequence: the first `width` numbers; `None` if there are fewer, or none.
    pub(crate) fn pooled(&self, sequence: u32, width: usize) -> Option<Vec<f32>> {
        // SAFETY: llama.cpp returns null if there is none; the vector has the model's embedding size, but for rank pooling,
        // where it has as many numbers as the classifier has outputs, often one.
        unsafe {
            let length = match sys::llama_pooling_type(self.context.as_ptr()) {
                sys::LLAMA_POOLING_TYPE_RANK => self.model.classifier_outputs() as usize,
                _ => self.model.embedding_size(),
            };
            if width > length {
                return None;
            }
            let vector = sys::llama_get_embeddings_seq(self.context.as_ptr(), i32::try_from(sequence).ok()?);
            (!vector.is_null()).then(|| std::slice::from_raw_parts(vector, width).to_vec())
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
        if self.params.kv_cache.keys == KvCacheType::Bf16 {
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
