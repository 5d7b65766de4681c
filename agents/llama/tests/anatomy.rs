//! What a header says of memory, against what llama.cpp says once it has loaded the real demo models.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use artel_llama::gguf::{self, Anatomy};
use artel_llama::{Cache, CacheType, Llama, Options};

const CHAT: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const EMBEDDING: &str = "all-MiniLM-L6-v2.F16.gguf";

fn path(file: &str) -> PathBuf {
    let given = std::env::var_os("ARTEL_TEST_MODELS").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/artel/models"));
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask setup`", dir.display());
    dir.join(file)
}

fn anatomy(file: &str) -> Anatomy {
    gguf::anatomy(&path(file)).unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What llama.cpp writes while it loads.
fn log(options: Options) -> String {
    let log = Log::default();
    let writer = log.clone();
    let level = tracing_subscriber::filter::LevelFilter::TRACE;
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || drop(Llama::load(options).unwrap()));
    let log = log.0.lock().unwrap();
    String::from_utf8_lossy(&log).into_owned()
}

fn options(file: &str, context: u32, sequences: u32, form: CacheType) -> Options {
    Options {
        path: path(file),
        sha256: None,
        context: Some(context),
        sequences,
        threads: 1,
        devices: Some(vec!["CPU".to_owned()]),
        split: artel_llama::Split::None,
        shares: Vec::new(),
        embedding: file == EMBEDDING,
        template: None,
        cache: Cache { keys: form, values: form },
    }
}

/// Bytes of all buffers of a sort, as `... KV buffer size = 11.25 MiB` tells them.
fn buffers(log: &str, sort: &str) -> u64 {
    let size = |line: &str| {
        let (_, size) = line.split_once(&format!("{sort} buffer size ="))?;
        let (size, _) = size.split_once("MiB")?;
        Some(size.trim().parse::<f64>().unwrap())
    };
    (log.lines().filter_map(size).sum::<f64>() * f64::from(1 << 20)) as u64
}

fn near(reckoned: u64, told: u64) {
    let off = reckoned.abs_diff(told);
    // It is told with two digits of a MiB.
    assert!(off < 16 << 10, "reckoned {reckoned}, llama.cpp has {told}");
}

#[test]
fn a_token_of_the_chat_model_takes_23040_bytes() {
    let found = anatomy(CHAT);
    let form = |form| found.cache_per_token(Cache { keys: form, values: form });
    assert_eq!(found.layers.len(), 30);
    assert_eq!([CacheType::F16, CacheType::Q8_0].map(form), [23_040, 12_240]);
    assert!(found.unreckoned.is_empty());
}

#[test]
fn the_embedding_model_keeps_no_cache() {
    let found = anatomy(EMBEDDING);
    assert_eq!((found.layers.len(), found.cache_per_token(Cache::default()), found.tied), (6, 0, 0));
}

#[test]
fn all_bytes_of_the_files_are_accounted_for() {
    for file in [CHAT, EMBEDDING] {
        let header = gguf::inspect(&path(file)).unwrap();
        let weights = anatomy(file).weights();
        // Tokens and their merges are in the header, and some bytes align.
        assert!((header.size - 4_000_000..header.size).contains(&weights), "{file}: {weights} of {}", header.size);
    }
}

#[test]
fn llama_cpp_allocates_what_is_reckoned() {
    let found = anatomy(CHAT);
    for (context, sequences, form) in [(1024, 4, CacheType::F16), (512, 1, CacheType::F32), (2048, 2, CacheType::Q8_0)]
    {
        let log = log(options(CHAT, context, sequences, form));
        let tokens = u64::from(context * sequences);
        near(found.weights(), buffers(&log, "model"));
        near(tokens * found.cache_per_token(Cache { keys: form, values: form }), buffers(&log, "KV"));
    }
    let log = log(options(EMBEDDING, 256, 1, CacheType::F16));
    assert_eq!(buffers(&log, "KV"), 0);
    near(anatomy(EMBEDDING).weights(), buffers(&log, "model"));
}
