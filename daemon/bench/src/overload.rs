//! Load at twice the server's capacity, a quarter of it interactive: the time to the first token of interactive tasks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::answer::TimedAnswer;
use crate::baseline::LlamaBaseline;
use crate::closed_loop;
use crate::prompt_text;
use crate::role::{BenchRole, RoleOption};
use crate::table::BenchTable;
use crate::target::BenchTarget;

const PROMPT_WORDS: usize = 120;
const QUESTION_WORDS: usize = 16;
const OUTPUT_TOKENS: u32 = 32;
/// KV cells of a sequence halfway through its answer.
pub(crate) const MIDPOINT_CELLS: u32 =
    (PROMPT_WORDS + QUESTION_WORDS) as u32 + prompt_text::CHAT_TEMPLATE_TOKENS + OUTPUT_TOKENS / 2;
const TTFT_METRIC: &str = "overload: p95 time to first token, interactive";
const LOAD_METRIC: &str = "overload: offered load";
/// Tasks that measure the server's capacity, and how many of them run at once.
const TRIAL_TASKS: u64 = 24;
const CONCURRENT_TASKS: usize = 8;
/// Tasks that are sent at twice that rate.
const TASKS: u64 = 72;
/// Every n-th task is interactive.
const INTERACTIVE_PERIOD_TASKS: u64 = 4;

pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 9;
    let interactive = BenchRole::new("quick", prompt_text::generate(seed, PROMPT_WORDS), OUTPUT_TOKENS);
    let batch =
        BenchRole::new("slow", prompt_text::generate(seed + 1, PROMPT_WORDS), OUTPUT_TOKENS).with(RoleOption::Batch);
    target.install_roles(&[interactive.clone(), batch.clone()]).await?;
    let role = |n: u64| if n.is_multiple_of(INTERACTIVE_PERIOD_TASKS) { interactive.clone() } else { batch.clone() };
    let task = |n: u64| (role(n), prompt_text::generate(seed + 100 + n, QUESTION_WORDS));
    closed_loop::ask(target, (0..2).map(task).collect(), 1).await?;
    let started_at = Instant::now();
    closed_loop::ask(target, (0..TRIAL_TASKS).map(|n| task(1000 + n)).collect(), CONCURRENT_TASKS).await?;
    let interval = started_at.elapsed().div_f64(2.0 * TRIAL_TASKS as f64);
    let answers = send_open_loop(target, (0..TASKS).map(|n| task(2000 + n)).collect(), interval).await;
    let name = target.name();
    let interactive = answers.iter().step_by(INTERACTIVE_PERIOD_TASKS as usize).flatten();
    table.record(TTFT_METRIC, "s", name, p95_time_to_first_token(interactive).as_secs_f64());
    table.record("overload: lost or failed", "tasks", name, answers.iter().filter(|a| a.is_none()).count() as f64);
    table.record(LOAD_METRIC, "tasks/s", name, 1.0 / interval.as_secs_f64());
    Ok(())
}

/// A first token needs at least the prefill of its own question; the capacity is at most the prefill of all questions and the
/// decoding of all answers at the given concurrency.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    let question = baseline.prefill_seconds(QUESTION_WORDS as u32 + prompt_text::CHAT_TEMPLATE_TOKENS);
    table.set_limit(TTFT_METRIC, question);
    table.set_limit(LOAD_METRIC, 2.0 / (question + baseline.decode_seconds(OUTPUT_TOKENS, CONCURRENT_TASKS)));
}

/// Sends tasks at a fixed rate (open loop); `None` for a task that failed.
async fn send_open_loop(
    target: &BenchTarget,
    tasks: Vec<(BenchRole, String)>,
    interval: Duration,
) -> Vec<Option<TimedAnswer>> {
    let mut ticks = tokio::time::interval(interval);
    let mut sent = Vec::new();
    for (role, question) in tasks {
        ticks.tick().await;
        let client = target.client();
        sent.push(tokio::spawn(async move { client.ask(&role, &question, |_| {}).await }));
    }
    let mut answers = Vec::new();
    for task in sent {
        let answer = task.await.context("a request panicked").and_then(|answer| answer);
        answers.push(answer.inspect_err(|error| eprintln!("a task failed: {error:#}")).ok());
    }
    answers
}

fn p95_time_to_first_token<'a>(answers: impl Iterator<Item = &'a TimedAnswer>) -> Duration {
    let mut waits: Vec<Duration> = answers.map(TimedAnswer::time_to_first_token).collect();
    waits.sort_unstable();
    waits.get((waits.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
