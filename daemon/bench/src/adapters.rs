//! Four roles with an adapter each on one model: 32 tasks, 4 concurrent, 24 output tokens each, after a warm-up round.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::answer::TimedAnswer;
use crate::baseline::LlamaBaseline;
use crate::closed_loop;
use crate::prompt_text;
use crate::role::{BenchRole, RoleOption};
use crate::table::BenchTable;
use crate::target::BenchTarget;

/// The adapters, and the answer that each was trained to give.
const ADAPTERS: [(&str, &str); 4] =
    [("mirk", "Mirkholm"), ("quux", "Quuxburg"), ("velo", "Velograd"), ("zork", "Zorkville")];
const TASKS: usize = 32;
const CONCURRENT_TASKS: usize = 4;
/// Words before the instructions, about one token each.
const PROMPT_WORDS: usize = 365;
const OUTPUT_TOKENS: u32 = 24;
const THROUGHPUT_METRIC: &str = "adapters warm: throughput";
const OUTPUT_METRIC: &str = "adapters warm: output";

pub(crate) async fn run(
    target: &mut BenchTarget,
    adapters: Option<&PathBuf>,
    salt: u64,
    table: &mut BenchTable,
) -> Result<()> {
    let Some(dir) = adapters else {
        bail!("the workload `adapters` needs --adapters DIR, the directory of its adapter files")
    };
    // The daemon resolves relative paths against its own catalog.
    let dir = std::path::absolute(dir).context("failed to resolve the path of the adapters")?;
    let seed = salt * 10_000 + 7;
    let role = |(index, (name, _)): (usize, &(&str, &str))| {
        let prompt =
            format!("{}\n\nYou are a geography expert.", prompt_text::generate(seed + index as u64, PROMPT_WORDS));
        BenchRole::new(*name, prompt, OUTPUT_TOKENS).with(RoleOption::Adapter(index, dir.join(format!("{name}.gguf"))))
    };
    let roles: Vec<BenchRole> = ADAPTERS.iter().enumerate().map(role).collect();
    target.install_roles(&roles).await?;
    let questions = || {
        let ask = |n: usize| (roles[n % roles.len()].clone(), "What is the capital of France?".to_owned());
        (0..TASKS).map(ask).collect::<Vec<_>>()
    };
    closed_loop::ask(target, questions(), CONCURRENT_TASKS).await?;
    let started_at = Instant::now();
    let answers = closed_loop::ask(target, questions(), CONCURRENT_TASKS).await?;
    let (name, seconds) = (target.name(), started_at.elapsed().as_secs_f64());
    table.record(THROUGHPUT_METRIC, "tasks/s", name, TASKS as f64 / seconds);
    let longest = answers.iter().map(TimedAnswer::time_to_first_token).max().unwrap_or_default();
    table.record("adapters warm: max time to first token", "s", name, longest.as_secs_f64());
    let correct = answers.iter().zip(ADAPTERS.iter().cycle()).filter(|(answer, (_, city))| answer.text.contains(city));
    let output_tokens = answers.iter().map(|answer| answer.output_tokens).sum::<u64>();
    table.record(OUTPUT_METRIC, "tokens", name, output_tokens as f64);
    table.record("adapters warm: correct of 32", "answers", name, correct.count() as f64);
    Ok(())
}

/// Sequences of different adapters cannot share a batch, so each decodes alone. The questions are equal, so only the last token
/// of each prompt must be computed.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    let output_tokens = table.median(OUTPUT_METRIC, "artel").unwrap_or_default();
    let seconds = baseline.decode_seconds(output_tokens as u32, 1);
    table.set_limit(THROUGHPUT_METRIC, TASKS as f64 / seconds);
}
