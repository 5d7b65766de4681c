//! Hashes of all that the cells of a context depend on.

use sha2::{Digest as _, Sha256};

use crate::context_params::{ContextParams, FlashAttention};
use crate::kv_cache::KvCacheTypes;

/// The format in which llama.cpp serializes the cells of a sequence, identified by its version.
const STATE_FORMAT_VERSION: &str = "llama-cpp-sys-2 0.1.161";

/// The fingerprint of cells without adapters; `content` identifies the model's file.
pub(crate) fn of_model(params: &ContextParams, content: &[u8]) -> [u8; 32] {
    of_parts(&[state_format(params.kv_cache, params.flash_attention).as_bytes(), content])
}

/// The fingerprint of the same with one more adapter at a scale; `content` identifies the adapter's file.
pub(crate) fn of_adapter(model: &[u8; 32], content: &[u8], scale: f32) -> [u8; 32] {
    of_parts(&[model, content, &scale.to_le_bytes()])
}

/// Describes the cells of a context. Part of the fingerprint that names prefix files on disk, so its words must not change.
fn state_format(kv_cache: KvCacheTypes, flash_attention: FlashAttention) -> String {
    let KvCacheTypes { keys, values } = kv_cache;
    let attention = match flash_attention {
        FlashAttention::Auto => "Fused",
        FlashAttention::Disabled => "Matrices",
    };
    format!("{STATE_FORMAT_VERSION}, Cache {{ keys: {keys:?}, values: {values:?} }}, {attention}")
}

fn of_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_name_prefix_files_stay() {
        assert_eq!(
            state_format(KvCacheTypes::default(), FlashAttention::Disabled),
            "llama-cpp-sys-2 0.1.161, Cache { keys: F16, values: F16 }, Matrices"
        );
    }
}
