//! The data types of keys and values in the KV cache.

/// The types of the KV cache: with smaller types more tokens fit into the same memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvCacheTypes {
    /// The type of the keys.
    pub keys: GgmlType,
    /// The type of the values.
    pub values: GgmlType,
}

/// A ggml type for a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GgmlType {
    /// 32 bits.
    F32,
    /// 16 bits, the precision of most models.
    #[default]
    F16,
    /// 16 bits with the range of `F32`.
    Bf16,
    /// 8.5 bits.
    Q8_0,
    /// 4.5 bits.
    Q4_0,
}

impl GgmlType {
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
