//! A loaded model, its vocabulary and its adapters.

use std::ffi::CString;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use artel_model::SplitMode;
use llama_cpp_sys_2 as sys;

use super::{device, process};
use crate::error::DeviceError;

/// How a model is loaded.
#[derive(Default)]
pub(crate) struct LoadParams<'a> {
    /// Devices by name; `CPU` holds the layers that are on no other device. `None`: llama.cpp chooses.
    pub(crate) devices: Option<&'a [String]>,
    pub(crate) split_mode: SplitMode,
    /// The proportion of each device; empty: proportional to free memory.
    pub(crate) tensor_split: &'a [f32],
    /// The layers on the devices, counted from the last one, the output as one of them. `None`: all.
    pub(crate) gpu_layers: Option<u32>,
    /// The first layers whose experts are on the CPU.
    pub(crate) cpu_expert_layers: u32,
    /// Takes the fraction loaded, from 0 to 1.
    pub(crate) progress: Option<&'a (dyn Fn(f32) + Sync)>,
}

/// A token that a text in a prompt may stand for, such as the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlToken {
    pub(crate) id: i32,
    pub(crate) text: String,
    /// Whether whitespace before it belongs to it.
    pub(crate) strips_left: bool,
    /// Whether whitespace after it belongs to it.
    pub(crate) strips_right: bool,
}

/// The tokens around a query and a document, where the vocabulary has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PairMarks {
    /// Before the query.
    pub(crate) begin: Option<i32>,
    /// After each of both.
    pub(crate) end: Option<i32>,
    /// Between both.
    pub(crate) separator: Option<i32>,
}

unsafe extern "C" fn progress(fraction: f32, callback: *mut std::ffi::c_void) -> bool {
    // SAFETY: `LlamaModel::load` passes a pointer to `LoadParams::progress`, which lives until it returns.
    let callback = unsafe { &*callback.cast::<Option<&(dyn Fn(f32) + Sync)>>() };
    if let Some(callback) = callback {
        callback(fraction);
    }
    true
}

/// The regular expression for the tensors of experts in the first `layers`, as llama.cpp's `--n-cpu-moe` builds them, but one for
/// all layers: llama.cpp compiles each expression anew for each tensor. `None` for no layers.
fn expert_pattern(layers: u32) -> Option<CString> {
    let numbers: Vec<String> = (0..layers).map(|layer| layer.to_string()).collect();
    let pattern = format!("blk\\.({})\\.ffn_(up|down|gate|gate_up)_(ch|)exps", numbers.join("|"));
    let pattern = CString::new(pattern).expect("the pattern has no null byte");
    (layers > 0).then_some(pattern)
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
    pub(crate) fn load(path: &Path, load_params: &LoadParams<'_>) -> Result<Option<Arc<Self>>, DeviceError> {
        process::init();
        let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) else { return Ok(None) };
        let offload_devices: Option<Vec<String>> =
            load_params.devices.map(|names| names.iter().filter(|name| *name != "CPU").cloned().collect());
        let mut devices = offload_devices.as_deref().map(device::find_by_name).transpose()?;
        // SAFETY: the function has no arguments and returns a constant.
        let mut tensor_split = vec![0.0f32; unsafe { sys::llama_max_devices() }];
        if load_params.tensor_split.len() > tensor_split.len() {
            return Err(DeviceError::TooMany { max: tensor_split.len() });
        }
        tensor_split[..load_params.tensor_split.len()].copy_from_slice(load_params.tensor_split);
        let experts = expert_pattern(load_params.cpu_expert_layers);
        // SAFETY: the function has no arguments and returns a buffer type that is never freed.
        let cpu = unsafe { sys::ggml_backend_cpu_buffer_type() };
        let on_cpu = |pattern: &CString| sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft: cpu };
        let end = sys::llama_model_tensor_buft_override { pattern: ptr::null(), buft: ptr::null_mut() };
        let overrides: Vec<_> = experts.iter().map(on_cpu).chain([end]).collect();
        // SAFETY: the parameters are plain data; all pointers in them outlive the call, which is the last to use them, and llama.cpp
        // copies `tensor_split`. The list of overrides ends with a null pattern.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = load_params.gpu_layers.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
            if experts.is_some() {
                params.tensor_buft_overrides = overrides.as_ptr();
            }
            if let Some(devices) = &mut devices {
                if devices.is_empty() {
                    params.n_gpu_layers = 0;
                }
                // The list ends with a null pointer.
                devices.push(ptr::null_mut());
                params.devices = devices.as_mut_ptr();
                params.main_gpu = 0;
                params.split_mode = match load_params.split_mode {
                    SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
                    SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
                    SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
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

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.0.as_ptr()
    }

    pub(super) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded; its vocabulary lives as long.
        unsafe { sys::llama_model_get_vocab(self.0.as_ptr()) }
    }

    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is loaded.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.0.as_ptr()) }).unwrap_or(0)
    }

    /// The numbers of a pooled embedding, which may differ from the width of the layers.
    pub(crate) fn embedding_size(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn vocabulary_size(&self) -> i32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) }
    }

    /// The tokens whose texts are read as plain text unless `parse_special` is set.
    pub(crate) fn control_tokens(&self) -> Vec<ControlToken> {
        let has = |attributes: sys::llama_token_attr, wanted| attributes & wanted != 0;
        let control = |id: i32| {
            // SAFETY: the token is in the vocabulary, which lives as long as the model.
            let attributes = unsafe { sys::llama_vocab_get_attr(self.vocab(), id) };
            if !has(attributes, sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN) {
                return None;
            }
            // SAFETY: the same; llama.cpp returns a C string that lives as long as the vocabulary.
            let text = unsafe { std::ffi::CStr::from_ptr(sys::llama_vocab_get_text(self.vocab(), id)) };
            Some(ControlToken {
                id,
                text: text.to_str().ok()?.to_owned(),
                strips_left: has(attributes, sys::LLAMA_TOKEN_ATTR_LSTRIP),
                strips_right: has(attributes, sys::LLAMA_TOKEN_ATTR_RSTRIP),
            })
        };
        (0..self.vocabulary_size()).filter_map(control).collect()
    }

    /// The text of a token, control tokens included.
    pub(crate) fn token_text(&self, token: i32) -> String {
        let mut bytes = Vec::new();
        self.append_piece(token, true, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn chat_template(&self) -> Option<String> {
        self.template(ptr::null())
    }

    /// The template of this name, which a file may have beside that of chats.
    pub(crate) fn chat_template_of(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        self.template(name.as_ptr())
    }

    fn template(&self, name: *const std::ffi::c_char) -> Option<String> {
        // SAFETY: the name is null or a C string that outlives the call; llama.cpp returns null or a C string that lives as long as
        // the model.
        let template = unsafe { sys::llama_model_chat_template(self.0.as_ptr(), name) };
        // SAFETY: checked for null.
        (!template.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(template) }.to_string_lossy().into_owned())
    }

    /// The outputs of the classifier of a model that ranks texts.
    pub(crate) fn classifier_outputs(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_cls_out(self.0.as_ptr()) }
    }

    /// The tokens around a query and a document. What ends a text is what separates texts if nothing else does.
    pub(crate) fn pair_marks(&self) -> PairMarks {
        let known = |token: i32| (token >= 0).then_some(token);
        // SAFETY: the vocabulary lives as long as the model.
        let (separator, adds_end, adds_separator) = unsafe {
            let vocab = self.vocab();
            (sys::llama_vocab_sep(vocab), sys::llama_vocab_get_add_eos(vocab), sys::llama_vocab_get_add_sep(vocab))
        };
        PairMarks {
            begin: known(self.bos()).filter(|_| self.adds_bos()),
            end: known(self.eos()).or_else(|| known(separator)).filter(|_| adds_end),
            separator: known(separator).filter(|_| adds_separator),
        }
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

    /// Creates the tables of tokenization and detokenization, which llama.cpp does at their first use.
    pub(crate) fn create_text_tables(&self) {
        let mut bytes = Vec::new();
        let tokens = self.tokenize("a\n", false, false).unwrap_or_default();
        tokens.into_iter().for_each(|token| self.append_piece(token, false, &mut bytes));
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
        // SAFETY: the context and the adapters hold an `Arc` of the model, so none uses it any more.
        unsafe { sys::llama_model_free(self.0.as_ptr()) }
    }
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

    pub(super) fn as_ptr(&self) -> *mut sys::llama_adapter_lora {
        self.adapter.as_ptr()
    }
}

impl Drop for LoraHandle {
    fn drop(&mut self) {
        // SAFETY: the backend frees an adapter after the context has others in its place, or is freed itself.
        unsafe { sys::llama_adapter_lora_free(self.adapter.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::expert_pattern;

    #[test]
    fn experts_of_the_first_layers_match_one_pattern() {
        assert_eq!(expert_pattern(0), None);
        let pattern = expert_pattern(3).map(|pattern| pattern.to_string_lossy().into_owned());
        assert_eq!(pattern.as_deref(), Some(r"blk\.(0|1|2)\.ffn_(up|down|gate|gate_up)_(ch|)exps"));
    }
}
