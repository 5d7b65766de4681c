//! Classifies a new question into one of eight labels, with the prompt cached: as JSON under a schema, and as one token with
//! its probability.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::baseline::LlamaBaseline;
use crate::prompt_text;
use crate::role::{BenchRole, RoleOption};
use crate::table::BenchTable;
use crate::target::BenchTarget;

const LABELS: [&str; 8] = ["gguf", "lora", "rag", "deepspeed", "transformers", "planner", "critic", "hardware"];
const QUESTIONS: u64 = 16;
/// Words of a question, about one token each.
const QUESTION_WORDS: usize = 16;

pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 3;
    let labels: Vec<String> = LABELS.map(str::to_owned).to_vec();
    let prompt = format!(
        "{}\n\nYou choose who answers a question. Answer with one of these names and nothing else: {}.",
        prompt_text::generate(seed, 300),
        LABELS.join(", ")
    );
    let json = BenchRole::new("chooser", prompt.clone(), 24).with(RoleOption::EnumJson(labels.clone()));
    // Artel scores labels in one way, which is compared with both ways of the other server.
    let token = BenchRole::new("chooser", prompt, 24).with(RoleOption::EnumToken(labels));
    target.install_roles(std::slice::from_ref(&json)).await?;
    for (format, role) in [("as JSON", &json), ("as one token", &token)] {
        let mut times = Vec::new();
        for n in 0..=QUESTIONS {
            let question = prompt_text::generate(seed + 100 + n, QUESTION_WORDS);
            let answer = target.client().ask(role, &question, |_| {}).await?;
            let is_json = matches!(role.option, RoleOption::EnumJson(_)) || matches!(target, BenchTarget::Own(_));
            if is_json && !LABELS.iter().any(|label| answer.text.contains(label)) {
                bail!("{} answered `{}`, which is not one of the labels", target.name(), answer.text);
            }
            // The first question is not counted: nothing is cached yet.
            times.extend((n > 0).then(|| answer.finished_at - answer.sent_at));
        }
        table.record(
            &format!("choose {format}: decision latency"),
            "ms",
            target.name(),
            median(times).as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

/// At least the question must be computed.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    for format in ["as JSON", "as one token"] {
        table.set_limit(
            &format!("choose {format}: decision latency"),
            baseline.prefill_seconds(QUESTION_WORDS as u32 + prompt_text::CHAT_TEMPLATE_TOKENS) * 1e3,
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
