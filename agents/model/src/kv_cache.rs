//! The data types of a KV cache.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The data type of a KV cache: a smaller one fits more tokens into the same memory, at some cost in quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvCacheType {
    /// 4 bytes per element.
    F32,
    /// 2 bytes, as precise as most models are.
    #[default]
    F16,
    /// 2 bytes with the range of `F32`.
    Bf16,
    /// 34 bytes per 32 elements.
    Q8_0,
    /// 18 bytes per 32 elements.
    Q4_0,
}

impl KvCacheType {
    /// All of them, the most common first.
    pub const ALL: [Self; 5] = [Self::F16, Self::F32, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// Bytes of this many elements.
    pub fn bytes(self, elements: u64) -> u64 {
        let blocks = |bytes: u64| elements.div_ceil(32).saturating_mul(bytes);
        match self {
            Self::F32 => elements.saturating_mul(4),
            Self::F16 | Self::Bf16 => elements.saturating_mul(2),
            Self::Q8_0 => blocks(34),
            Self::Q4_0 => blocks(18),
        }
    }

    /// Its name in YAML, which is ggml's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

impl fmt::Display for KvCacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_row_are_those_of_ggml() {
        let bytes = KvCacheType::ALL.map(|kind| (kind.as_str(), kind.bytes(64)));
        assert_eq!(bytes, [("f16", 128), ("f32", 256), ("bf16", 128), ("q8_0", 68), ("q4_0", 36)]);
        assert_eq!(KvCacheType::Q8_0.bytes(33), 68, "a part of a block takes a whole one");
    }
}
