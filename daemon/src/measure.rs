//! `artel measure`: the loss of a model over given answers, in a process of its own. The daemon starts it and communicates over its
//! standard input and output.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use artel_gguf::FloatCopy;
use artel_hub::disk;
use artel_llama::KvCacheTypes;
use artel_llama::loss::{self, TokenSample, answer_loss};
use artel_model::KvCacheType;
use artel_process::measurement::{Measured, MeasurementFailure, MeasurementRequest, serve_on_stdin};
use serde::Deserialize;

use crate::hardening::CoreDumps;
use crate::{signals, telemetry};

/// When memory runs out, the kernel kills a measurement before an engine: it can be repeated.
const OOM_SCORE_ADJ: &str = "500";

/// Measures what the request on standard input says.
pub(crate) fn run() -> ExitCode {
    // Before any other thread starts. What measures shall not slow down what serves, and does if the system refuses.
    let lowered = artel_llama::lower_priority();
    // Best effort: the file may be missing or not writable. Later it would belong to root.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    CoreDumps::forbid().decide(false);
    let _log = telemetry::start_engine();
    if let Err(error) = lowered {
        tracing::warn!(%error, "a measurement runs at the usual priority");
    }
    match handle_signals().and_then(|()| serve_on_stdin(measure).context("failed to serve on standard input")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("artel measure must be started by the daemon: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn handle_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    // The handler stays when the runtime is gone.
    runtime.block_on(async { signals::handle_file_size_limit() }).context("failed to handle signals")
}

fn measure(request: &MeasurementRequest) -> Result<Measured, MeasurementFailure> {
    let (origins, samples) = read_samples(&request.samples)?;
    let longest = samples.iter().map(|sample| sample.prompt.len() + sample.answer.len()).max().unwrap_or(0);
    let model = match &request.f16 {
        Some(to) if float_copy(&request.model, to)? => to,
        _ => &request.model,
    };
    let options = loss::Options {
        threads: request.threads,
        context: u32::try_from(longest).unwrap_or(u32::MAX),
        // Engines have the memory of GPUs, as it was planned.
        devices: Some(vec!["CPU".to_owned()]),
        kv_cache: KvCacheTypes { keys: KvCacheType::F32, values: KvCacheType::F32 },
    };
    let adapters: Vec<_> = request.adapter.iter().map(|adapter| (adapter.clone(), 1.0)).collect();
    let loss = answer_loss(model, &adapters, &samples, &options).map_err(|error| {
        let origin = error.sample().and_then(|index| origins.get(index));
        let message = origin.map_or_else(|| error.to_string(), |origin| format!("{origin}: {error}"));
        MeasurementFailure { message, is_transient: error.is_transient() }
    })?;
    Ok(Measured { nats: loss.nats, tokens: loss.tokens })
}

/// Writes a copy of a model without quantized weights. Returns whether there is one: a model that has none needs none.
fn float_copy(from: &Path, to: &Path) -> Result<bool, MeasurementFailure> {
    let free_bytes = disk::free_bytes(to).map_or(u64::MAX, |free| free.saturating_sub(disk::RESERVED_BYTES));
    let copy = artel_gguf::write_float_copy(from, to, free_bytes, &artel_llama::dequantize_blocks);
    match copy {
        Ok(FloatCopy::Written { .. }) => Ok(true),
        Ok(FloatCopy::NotNeeded) => Ok(false),
        Err(error) => Err(MeasurementFailure { message: error.to_string(), is_transient: error.is_transient() }),
    }
}

/// A line of a file of samples; what else it has is for others.
#[derive(Deserialize)]
struct SampleLine {
    origin: String,
    prompt: Vec<i32>,
    answer: Vec<i32>,
}

/// The samples of a file, and where each of them is from.
fn read_samples(path: &PathBuf) -> Result<(Vec<String>, Vec<TokenSample>), MeasurementFailure> {
    let shown = path.display();
    let unreadable =
        |error| MeasurementFailure { message: format!("{shown}: cannot be read: {error}"), is_transient: true };
    let lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
    let mut read = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(lines) {
        let SampleLine { origin, prompt, answer } =
            serde_json::from_str(&line.map_err(unreadable)?).map_err(|error| MeasurementFailure {
                message: format!(
                    "{shown}:{number}: no sample with `origin`, `prompt` and `answer`: {error}; write the file again"
                ),
                is_transient: false,
            })?;
        read.0.push(origin);
        read.1.push(TokenSample { prompt, answer });
    }
    Ok(read)
}
