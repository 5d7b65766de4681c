//! One of eight roles for a new question, the prompt cached: as JSON under a schema, and as one token with its probability.

use std::time::Duration;

use anyhow::{Result, bail};

use super::contestant::{Contestant, Extra, Role};
use super::speeds::Speeds;
use super::table::Table;
use super::words;

const LABELS: [&str; 8] = ["gguf", "lora", "rag", "deepspeed", "transformers", "planner", "critic", "hardware"];
const QUESTIONS: u64 = 16;
/// Words of a question, each about a token.
const QUESTION: usize = 16;

pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<()> {
    let seed = salt * 10_000 + 3;
    let labels: Vec<String> = LABELS.map(str::to_owned).to_vec();
    let prompt = format!(
        "{}\n\nYou choose who answers a question. Answer with one of these names and nothing else: {}.",
        words::text(seed, 300),
        LABELS.join(", ")
    );
    let json = Role::new("chooser", prompt.clone(), 24).with(Extra::OneOf(labels.clone()));
    // Artel has one way to choose, so it is measured against both of the other server's.
    let token = Role::new("chooser", prompt, 24).with(Extra::Token(labels));
    contestant.prepare(std::slice::from_ref(&json)).await?;
    for (what, role) in [("as JSON", &json), ("as one token", &token)] {
        let mut times = Vec::new();
        for n in 0..=QUESTIONS {
            let question = words::text(seed + 100 + n, QUESTION);
            let answer = contestant.asker().ask(role, &question, |_| {}).await?;
            let is_json = matches!(role.extra, Extra::OneOf(_)) || contestant.name() == "artel";
            if is_json && !LABELS.iter().any(|label| answer.text.contains(label)) {
                bail!("{} chose `{}`, which is no label", contestant.name(), answer.text);
            }
            // The first question finds nothing cached.
            times.extend((n > 0).then(|| answer.ended - answer.asked));
        }
        table.note(&format!("choose {what}: a decision"), "ms", contestant.name(), median(times).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// The question alone must be computed.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    for what in ["as JSON", "as one token"] {
        table.limit(&format!("choose {what}: a decision"), speeds.prompts(QUESTION as u32 + words::FRAME) * 1e3);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
