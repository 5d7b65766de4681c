//! The data types of keys and values in the KV cache.

use artel_model::KvCacheType;

/// The types of the KV cache: with smaller types more tokens fit into the same memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvCacheTypes {
    /// The type of the keys.
    pub keys: KvCacheType,
    /// The type of the values.
    pub values: KvCacheType,
}

/// The number that ggml has for a type.
pub(crate) fn ggml_type(kind: KvCacheType) -> llama_cpp_sys_2::ggml_type {
    match kind {
        KvCacheType::F32 => llama_cpp_sys_2::GGML_TYPE_F32,
        KvCacheType::F16 => llama_cpp_sys_2::GGML_TYPE_F16,
        KvCacheType::Bf16 => llama_cpp_sys_2::GGML_TYPE_BF16,
        KvCacheType::Q8_0 => llama_cpp_sys_2::GGML_TYPE_Q8_0,
        KvCacheType::Q4_0 => llama_cpp_sys_2::GGML_TYPE_Q4_0,
    }
}
