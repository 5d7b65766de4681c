//! Router decisions among 8 and among 200 roles: by the shipped signals, by label scores of a chat model, and, for comparison,
//! as a name that the same model generates under a JSON schema.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::own_daemon::OwnDaemon;
use crate::prompt_text;
use crate::role::{BenchRole, RoleOption};
use crate::table::BenchTable;

/// Numbers of candidates.
const CANDIDATE_COUNTS: [u64; 2] = [8, 200];
/// Questions of each repeat: enough for a 95th percentile that is not the slowest one.
const QUESTIONS: u64 = 40;
/// Generated answers of each repeat; fewer, because they take much longer.
const GENERATIONS: u64 = 20;
/// Words of a question.
const QUESTION_WORDS: usize = 20;

pub(crate) async fn run(own: &mut OwnDaemon, salt: u64, table: &mut BenchTable) -> Result<()> {
    for candidates in CANDIDATE_COUNTS {
        own.apply_documents(documents(candidates)).await?;
        let question = |n: u64| prompt_text::generate(salt * 100_000 + candidates * 1000 + n, QUESTION_WORDS);
        for (settings, name) in [("shipped", "shipped signals"), ("label", "label scores")] {
            let (mut times, mut tokens) = (Vec::new(), Vec::new());
            // The first question is not counted: it includes the one-time embedding of the candidates.
            own.route(settings, "Ready?").await?;
            own.wait_until_idle().await?;
            for n in 0..QUESTIONS {
                let decision = own.route(settings, &question(n)).await?;
                if decision.scores.len() as u64 != candidates {
                    bail!("only {} of {candidates} candidates were scored", decision.scores.len());
                }
                let latency =
                    decision.duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default();
                times.push(latency);
                tokens.push(f64::from(decision.prefill_tokens));
            }
            record_percentiles(table, &format!("{candidates} roles, {name}"), &mut times);
            tokens.sort_by(f64::total_cmp);
            table.record(
                &format!("{candidates} roles, {name}: prefilled"),
                "tokens",
                "artel",
                tokens[tokens.len() / 2],
            );
        }
        let chooser =
            BenchRole { name: "chooser".to_owned(), prompt: String::new(), max_tokens: 64, option: RoleOption::None };
        own.client().ask(&chooser, "Ready?", |_| {}).await?;
        own.wait_until_idle().await?;
        let mut times = Vec::new();
        for n in 0..GENERATIONS {
            let sent_at = Instant::now();
            own.client().ask(&chooser, &question(QUESTIONS + n), |_| {}).await?;
            times.push(sent_at.elapsed());
        }
        record_percentiles(table, &format!("{candidates} roles, generated as JSON"), &mut times);
    }
    Ok(())
}

fn record_percentiles(table: &mut BenchTable, label: &str, times: &mut [Duration]) {
    times.sort();
    for (name, percent) in [("p50", 50), ("p95", 95)] {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        table.record(&format!("{label}: {name}"), "ms", "artel", times[rank].as_secs_f64() * 1e3);
    }
}

/// The candidate roles, and a role whose answer is the name of one of them.
fn documents(candidates: u64) -> Vec<Value> {
    let about = |n: u64| prompt_text::generate(n + 7, 12);
    let name = |n: u64| format!("role-{n}");
    let role = |n: u64| {
        let examples: Vec<String> =
            (0..4).map(|at| prompt_text::generate(n * 10 + at + 1000, QUESTION_WORDS)).collect();
        json!({"role": name(n), "description": about(n), "examples": examples, "model": "bench", "prompt": "You answer."})
    };
    let list: Vec<String> = (0..candidates).map(|n| format!("{}: {}", name(n), about(n))).collect();
    let names: Vec<String> = (0..candidates).map(name).collect();
    let weights = json!({"weight": 1.0});
    let mut all: Vec<Value> = (0..candidates).map(role).collect();
    all.extend([
        json!({
            "role": "chooser", "description": "Names a role.", "model": "bench",
            "prompt": format!("Name the expert who should answer the question.\nExperts:\n{}", list.join("\n")),
            "output": {
                "type": "object", "additionalProperties": false, "required": ["role"],
                "properties": {"role": {"enum": names}},
            },
            "sampling": {"temperature": 0, "max_tokens": 64},
            "overflow": "truncate",
        }),
        json!({"router": "shipped", "signals": {"embedding": weights, "linear": weights, "keyword": weights}}),
        json!({"router": "label", "signals": {"label": {"model": "bench", "weight": 1.0}}}),
        json!({
            "graph": "bench", "description": "Chooses.", "start": "pick",
            "nodes": {"pick": {"router": {"roles": (0..candidates).map(name).collect::<Vec<_>>()}, "next": "done"}},
        }),
    ]);
    all
}
