//! One stream of tokens, and a prompt of about 2000 tokens that arrives meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::answer::TimedAnswer;
use crate::baseline::LlamaBaseline;
use crate::prompt_text;
use crate::role::BenchRole;
use crate::table::BenchTable;
use crate::target::BenchTarget;

const LONG_PROMPT_WORDS: usize = 1950;
/// Chunks of the stream before the long prompt is sent.
const WARMUP_CHUNKS: usize = 20;
/// Questions to try until one gets a long answer.
const ATTEMPTS: u64 = 20;
const TTFT_METRIC: &str = "stall: time to first token of the long prompt";

pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 5;
    let talker = BenchRole::new("talker", "You tell long stories.", 900);
    let reader = BenchRole::new("reader", "You read.", 8);
    target.install_roles(&[talker.clone(), reader.clone()]).await?;
    // The model is loaded before anything is measured.
    target.client().ask(&reader, "Ready?", |_| {}).await?;
    let stream = start_stream(target, &talker, seed).await?;
    let sent = Instant::now();
    let long = target.client().ask(&reader, &prompt_text::generate(seed + 1, LONG_PROMPT_WORDS), |_| {}).await?;
    let streamed = stream.await.context("the stream panicked")??;
    let ttft = long.time_to_first_token();
    let name = target.name();
    table.record(
        "stall: longest gap between tokens",
        "s",
        name,
        longest_gap(&streamed, sent, sent + ttft).as_secs_f64(),
    );
    table.record(TTFT_METRIC, "s", name, ttft.as_secs_f64());
    Ok(())
}

/// At least the long prompt must be prefilled.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    table.set_limit(TTFT_METRIC, baseline.prefill_seconds(LONG_PROMPT_WORDS as u32));
}

/// Starts a stream and waits for its first chunks. A small model may end early on one subject, so several are tried.
async fn start_stream(target: &BenchTarget, talker: &BenchRole, seed: u64) -> Result<JoinHandle<Result<TimedAnswer>>> {
    for attempt in 0..ATTEMPTS {
        let (sender, mut chunks) = mpsc::unbounded_channel();
        let (client, talker) = (target.client(), talker.clone());
        let question = format!("Tell me a long story of {}.", prompt_text::generate(seed + 100 + attempt, 5));
        let stream = tokio::spawn(async move {
            let on_chunk = move |count| {
                // The receiver is dropped once enough chunks have arrived.
                let _ = sender.send(count);
            };
            client.ask(&talker, &question, on_chunk).await
        });
        while let Some(count) = chunks.recv().await {
            if count >= WARMUP_CHUNKS {
                return Ok(stream);
            }
        }
        stream.await.context("the stream panicked")??;
    }
    bail!("the model ended every stream before {WARMUP_CHUNKS} tokens")
}

/// The longest gap between chunks that overlaps this interval.
fn longest_gap(answer: &TimedAnswer, from: Instant, to: Instant) -> Duration {
    let overlapping = answer.chunk_times.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
    overlapping.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
