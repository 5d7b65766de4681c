//! Many roles on one model: 32 tasks over 8 roles with prompts of about 640 tokens, 8 concurrent, 48 output tokens each.

use std::time::Instant;

use anyhow::Result;

use crate::answer::TimedAnswer;
use crate::baseline::LlamaBaseline;
use crate::closed_loop;
use crate::prompt_text;
use crate::role::BenchRole;
use crate::table::BenchTable;
use crate::target::BenchTarget;

const ROLES: u64 = 8;
const TASKS: u64 = 32;
const CONCURRENT_TASKS: usize = 8;
/// Words, about one token each.
const PROMPT_WORDS: usize = 625;
const QUESTION_WORDS: usize = 16;
const OUTPUT_TOKENS: u32 = 48;

pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 1;
    let role =
        |n: u64| BenchRole::new(format!("role-{n}"), prompt_text::generate(seed + n, PROMPT_WORDS), OUTPUT_TOKENS);
    let roles: Vec<BenchRole> = (0..ROLES).map(role).collect();
    let started_at = Instant::now();
    target.install_roles(&roles).await?;
    let cold = closed_loop::ask(target, questions(&roles, seed + 1000), CONCURRENT_TASKS).await?;
    record(table, target, "cold", started_at, &cold);
    let started_at = Instant::now();
    let warm = closed_loop::ask(target, questions(&roles, seed + 2000), CONCURRENT_TASKS).await?;
    record(table, target, "warm", started_at, &warm);
    if target.restart().await? {
        let started_at = Instant::now();
        let restarted = closed_loop::ask(target, questions(&roles, seed + 3000), CONCURRENT_TASKS).await?;
        record(table, target, "restart", started_at, &restarted);
    }
    Ok(())
}

/// The upper bound of this machine: each role's prompt and all questions are prefilled once, and all answers are decoded at the
/// given concurrency.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    let questions =
        baseline.prefill_seconds(TASKS as u32 * (QUESTION_WORDS as u32 + prompt_text::CHAT_TEMPLATE_TOKENS));
    let answers = baseline.decode_seconds(TASKS as u32 * OUTPUT_TOKENS, CONCURRENT_TASKS);
    let prompts = baseline.prefill_seconds(ROLES as u32 * PROMPT_WORDS as u32);
    let tasks = TASKS as f64;
    table.set_limit("roles cold: throughput", tasks / (prompts + questions + answers));
    for phase in ["warm", "restart"] {
        table.set_limit(&format!("roles {phase}: throughput"), tasks / (questions + answers));
    }
}

fn record(table: &mut BenchTable, target: &BenchTarget, phase: &str, started_at: Instant, answers: &[TimedAnswer]) {
    let seconds = started_at.elapsed().as_secs_f64();
    let sum = |f: fn(&TimedAnswer) -> u64| answers.iter().map(f).sum::<u64>() as f64;
    let mut record =
        |metric: &str, unit, value| table.record(&format!("roles {phase}: {metric}"), unit, target.name(), value);
    record("throughput", "tasks/s", answers.len() as f64 / seconds);
    record("output", "tokens/s", sum(|a| a.output_tokens) / seconds);
    record("prefilled", "tokens", sum(|a| a.prefill_tokens));
    let longest = answers.iter().map(TimedAnswer::time_to_first_token).max().unwrap_or_default();
    record("max time to first token", "s", longest.as_secs_f64());
}

/// Questions, round robin over the roles.
fn questions(roles: &[BenchRole], seed: u64) -> Vec<(BenchRole, String)> {
    (0..TASKS)
        .map(|n| (roles[n as usize % roles.len()].clone(), prompt_text::generate(seed + n, QUESTION_WORDS)))
        .collect()
}
