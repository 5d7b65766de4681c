//! Eight sequences without a common prefix that generate at once: the daemon's overhead over llama.cpp's own batched decoding.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::baseline::{LlamaBaseline, SEQUENCES};
use crate::prompt_text;
use crate::role::BenchRole;
use crate::table::BenchTable;
use crate::target::BenchTarget;

const PROMPT_WORDS: usize = 150;
const OUTPUT_TOKENS: u32 = 256;

const METRIC: &str = "decode: throughput of 8 sequences";

/// Returns the KV cells that a sequence had at the midpoint of the measurement, on average.
pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<Option<u32>> {
    let seed = salt * 10_000 + 13;
    let role =
        |n: u64| BenchRole::new(format!("teller-{n}"), prompt_text::generate(seed + n, PROMPT_WORDS), OUTPUT_TOKENS);
    let roles: Vec<BenchRole> = (0..u64::from(SEQUENCES)).map(role).collect();
    target.warm_up(&roles).await?;
    let mut requests = Vec::new();
    for (n, role) in roles.into_iter().enumerate() {
        let client = target.client();
        let question = format!("Tell me a long story of {}.", prompt_text::generate(seed + 100 + n as u64, 5));
        requests.push(tokio::spawn(async move { client.ask(&role, &question, |_| {}).await }));
    }
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.context("a request panicked")??);
    }
    // Count only the time in which all of them generate.
    let from = answers.iter().filter_map(|a| a.chunk_times.first().copied()).max();
    let to = answers.iter().filter_map(|a| a.chunk_times.last().copied()).min();
    let Some((from, to)) = from.zip(to).filter(|(from, to)| from < to) else {
        eprintln!("nothing was measured: the {SEQUENCES} sequences never generated at the same time");
        return Ok(None);
    };
    let within = |at: &&Instant| (from..to).contains(*at);
    let chunks: usize = answers.iter().map(|a| a.chunk_times.iter().filter(within).count()).sum();
    let before: usize = answers.iter().map(|a| a.chunk_times.iter().filter(|at| **at < from).count()).sum();
    // A chunk may hold several tokens, for example the two halves of a character.
    let (all_chunks, tokens): (usize, u64) =
        answers.iter().fold((0, 0), |(p, t), a| (p + a.chunk_times.len(), t + a.output_tokens));
    let per_chunk = tokens as f64 / all_chunks.max(1) as f64;
    table.record(METRIC, "tokens/s", target.name(), chunks as f64 * per_chunk / (to - from).as_secs_f64());
    let prompt_tokens: u64 = answers.iter().map(|a| a.prompt_tokens).sum();
    let midpoint = prompt_tokens as f64 + (before as f64 + chunks as f64 / 2.0) * per_chunk;
    Ok(Some((midpoint / f64::from(SEQUENCES)) as u32))
}

/// Records llama.cpp's speed at the same sizes on the model's file as it is; the daemon may compute with other weights.
pub(crate) fn record_file_baseline(baseline: &LlamaBaseline, table: &mut BenchTable) {
    table.record(METRIC, "tokens/s", "llama.cpp", baseline.decode_tokens_per_second(SEQUENCES as usize));
}

/// Sets the limit: llama.cpp's speed at the same sizes and with the same weights, the median of all repeats.
pub(crate) fn set_limits(baselines: &[LlamaBaseline], table: &mut BenchTable) {
    let mut rates: Vec<f64> =
        baselines.iter().map(|baseline| baseline.decode_tokens_per_second(SEQUENCES as usize)).collect();
    rates.sort_by(f64::total_cmp);
    if let Some(median) = rates.get(rates.len() / 2) {
        table.set_limit(METRIC, *median);
    }
}
