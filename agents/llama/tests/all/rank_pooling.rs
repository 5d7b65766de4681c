//! A reranker is refused as an embedding model: llama.cpp gives it one score for a text, where an embedding has hundreds of numbers.

use std::fs;

use artel_llama::{KvCacheTypes, LlamaBackend, Options};
use artel_model::{ModelPurpose, SplitMode};

use crate::demo_models;

/// The key of the demo model's pooling, before the type of its value.
const POOLING_KEY: &[u8] = b"bert.pooling_type";

/// The demo embedding model with another type of pooling.
fn with_pooling(pooling: u32) -> tempfile::NamedTempFile {
    let mut bytes = fs::read(demo_models::path("all-MiniLM-L6-v2.F16.gguf")).unwrap();
    let key = bytes.windows(POOLING_KEY.len()).position(|bytes| bytes == POOLING_KEY).unwrap();
    let at = key + POOLING_KEY.len() + 4;
    assert_eq!(bytes[at..at + 4], 1u32.to_le_bytes(), "the model pools by the mean");
    bytes[at..at + 4].copy_from_slice(&pooling.to_le_bytes());
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

fn load(file: &tempfile::NamedTempFile, purpose: ModelPurpose) -> Result<LlamaBackend, artel_llama::Error> {
    LlamaBackend::load(Options {
        path: file.path().to_owned(),
        dequantized: None,
        sha256: None,
        context: Some(256),
        sequences: 1,
        threads: 1,
        devices: Some(vec!["CPU".to_owned()]),
        split_mode: SplitMode::None,
        tensor_split: Vec::new(),
        gpu_layers: None,
        cpu_expert_layers: 0,
        purpose,
        template: None,
        template_kwargs: serde_json::Map::new(),
        kv_cache: KvCacheTypes::default(),
    })
}

#[test]
fn a_model_that_ranks_texts_is_no_embedding_model() {
    // 4 is rank pooling, and llama.cpp aborts at 9.
    for pooling in [4, 9] {
        let Err(error) = load(&with_pooling(pooling), ModelPurpose::Embedding) else {
            panic!("pooling {pooling} gives no vectors")
        };
        assert!(!error.is_transient() && error.to_string().contains("no embedding of a text"), "{error}");
    }
    assert!(load(&with_pooling(2), ModelPurpose::Embedding).is_ok(), "the first token's vector is one of a text");
    // It has no head that would make a score of the vector.
    let Err(error) = load(&with_pooling(4), ModelPurpose::Rerank) else { panic!("it cannot rank") };
    assert!(error.to_string().contains("no head that makes a score"), "{error}");
}
