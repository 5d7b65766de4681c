//! Memory estimates from headers, compared with the buffers that llama.cpp allocates for the real demo models.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use artel_gguf::MemoryEstimate;
use artel_llama::{KvCacheTypes, LlamaBackend, Options};
use artel_model::{KvCacheType, ModelPurpose};

use crate::demo_models;

const CHAT: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const EMBEDDING: &str = "all-MiniLM-L6-v2.F16.gguf";

fn estimate(file: &str) -> MemoryEstimate {
    artel_gguf::estimate_memory(&demo_models::path(file)).unwrap()
}

/// Bytes of one token in the KV cache over all layers, with keys and values of the same type.
fn kv_cache_bytes_per_token(estimate: &MemoryEstimate, ggml_type: KvCacheType) -> u64 {
    let id = match ggml_type {
        KvCacheType::F32 => 0,
        KvCacheType::F16 => 1,
        KvCacheType::Bf16 => 30,
        KvCacheType::Q8_0 => 8,
        KvCacheType::Q4_0 => 2,
    };
    let (elements, bytes) = artel_gguf::block_layout(id).unwrap();
    let of = |count: u64| count.div_ceil(elements) * bytes;
    estimate.layers.iter().map(|layer| of(layer.key_elements) + of(layer.value_elements)).sum()
}

#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of llama.cpp while it loads.
fn log(options: Options) -> String {
    let log = CapturedLog::default();
    let writer = log.clone();
    let level = tracing_subscriber::filter::LevelFilter::TRACE;
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || drop(LlamaBackend::load(options).unwrap()));
    let log = log.0.lock().unwrap();
    String::from_utf8_lossy(&log).into_owned()
}

fn options(file: &str, context: u32, sequences: u32, ggml_type: KvCacheType) -> Options {
    Options {
        path: demo_models::path(file),
        dequantized: None,
        sha256: None,
        context: Some(context),
        sequences,
        threads: 1,
        devices: Some(vec!["CPU".to_owned()]),
        split_mode: artel_model::SplitMode::None,
        tensor_split: Vec::new(),
        gpu_layers: None,
        cpu_expert_layers: 0,
        purpose: if file == EMBEDDING { ModelPurpose::Embedding } else { ModelPurpose::Chat },
        template: None,
        template_kwargs: serde_json::Map::new(),
        kv_cache: KvCacheTypes { keys: ggml_type, values: ggml_type },
    }
}

/// Bytes of all buffers of a kind, as logged by `... KV buffer size = 11.25 MiB`.
fn buffers(log: &str, kind: &str) -> u64 {
    let size = |line: &str| {
        let (_, size) = line.split_once(&format!("{kind} buffer size ="))?;
        let (size, _) = size.split_once("MiB")?;
        Some(size.trim().parse::<f64>().unwrap())
    };
    (log.lines().filter_map(size).sum::<f64>() * f64::from(1 << 20)) as u64
}

fn assert_near(estimated: u64, logged: u64) {
    let difference = estimated.abs_diff(logged);
    // The log rounds to two decimals of a MiB.
    assert!(difference < 16 << 10, "estimated {estimated}, llama.cpp logged {logged}");
}

#[test]
fn a_token_of_the_chat_model_takes_23040_bytes() {
    let found = estimate(CHAT);
    assert_eq!(found.layers.len(), 30);
    let bytes = [KvCacheType::F16, KvCacheType::Q8_0].map(|ggml_type| kv_cache_bytes_per_token(&found, ggml_type));
    assert_eq!(bytes, [23_040, 12_240]);
    assert!(found.unaccounted.is_empty());
}

#[test]
fn the_embedding_model_has_no_kv_cache() {
    let found = estimate(EMBEDDING);
    assert_eq!((found.layers.len(), kv_cache_bytes_per_token(&found, KvCacheType::F16), found.tied), (6, 0, 0));
}

#[test]
fn all_bytes_of_the_files_are_accounted_for() {
    for file in [CHAT, EMBEDDING] {
        let header = artel_gguf::inspect(&demo_models::path(file)).unwrap();
        let weights = estimate(file).weight_bytes();
        // The rest is the header with the vocabulary and its merges, and padding.
        assert!(
            (header.file_bytes - 4_000_000..header.file_bytes).contains(&weights),
            "{file}: {weights} of {}",
            header.file_bytes
        );
    }
}

#[test]
fn llama_cpp_allocates_the_estimated_bytes() {
    let found = estimate(CHAT);
    for (context, sequences, ggml_type) in
        [(1024, 4, KvCacheType::F16), (512, 1, KvCacheType::F32), (2048, 2, KvCacheType::Q8_0)]
    {
        let log = log(options(CHAT, context, sequences, ggml_type));
        let tokens = u64::from(context * sequences);
        assert_near(found.weight_bytes(), buffers(&log, "model"));
        assert_near(tokens * kv_cache_bytes_per_token(&found, ggml_type), buffers(&log, "KV"));
    }
    let log = log(options(EMBEDDING, 256, 1, KvCacheType::F16));
    assert_eq!(buffers(&log, "KV"), 0);
    assert_near(estimate(EMBEDDING).weight_bytes(), buffers(&log, "model"));
}
