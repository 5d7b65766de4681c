//! Decisions among 8 and among 200 roles: by the signals that ship, by the labels of a chat model, and, to compare with, as a
//! name that the same model generates within a JSON schema.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::contestant::{Extra, Role};
use super::own::Own;
use super::table::Table;
use super::words;

/// How many candidates there are.
const CANDIDATES: [u64; 2] = [8, 200];
/// Questions of each repeat: enough for a 95th percentile that is not the slowest one.
const QUESTIONS: u64 = 40;
/// Generations of each repeat, which take much longer.
const GENERATIONS: u64 = 20;
/// Words of a question.
const LENGTH: usize = 20;

pub(super) async fn run(own: &mut Own, salt: u64, table: &mut Table) -> Result<()> {
    for candidates in CANDIDATES {
        own.serve(documents(candidates)).await?;
        let question = |at: u64| words::text(salt * 100_000 + candidates * 1000 + at, LENGTH);
        for (settings, name) in [("shipped", "shipped signals"), ("label", "labels")] {
            let (mut times, mut tokens) = (Vec::new(), Vec::new());
            // The first question pays for what is computed once.
            own.route(settings, "Ready?").await?;
            own.rest().await?;
            for at in 0..QUESTIONS {
                let decision = own.route(settings, &question(at)).await?;
                if decision.scores.len() as u64 != candidates {
                    bail!("{} of {candidates} candidates were scored", decision.scores.len());
                }
                let took = decision.duration.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
                times.push(took);
                tokens.push(f64::from(decision.computed_tokens));
            }
            note(table, &format!("{candidates} roles, {name}"), &mut times);
            tokens.sort_by(f64::total_cmp);
            table.note(&format!("{candidates} roles, {name}: tokens computed"), "", "artel", tokens[tokens.len() / 2]);
        }
        let chooser = Role { name: "chooser".to_owned(), prompt: String::new(), max_tokens: 64, extra: Extra::None };
        own.asker().ask(&chooser, "Ready?", |_| {}).await?;
        own.rest().await?;
        let mut times = Vec::new();
        for at in 0..GENERATIONS {
            let asked = Instant::now();
            own.asker().ask(&chooser, &question(QUESTIONS + at), |_| {}).await?;
            times.push(asked.elapsed());
        }
        note(table, &format!("{candidates} roles, generated as JSON"), &mut times);
    }
    Ok(())
}

fn note(table: &mut Table, what: &str, times: &mut [Duration]) {
    times.sort();
    for (name, percent) in [("p50", 50), ("p95", 95)] {
        let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
        table.note(&format!("{what}: {name}"), "ms", "artel", times[at].as_secs_f64() * 1e3);
    }
}

/// Roles, and one whose answer is the name of one of them.
fn documents(candidates: u64) -> Vec<Value> {
    let about = |n: u64| words::text(n + 7, 12);
    let name = |n: u64| format!("role-{n}");
    let role = |n: u64| {
        let examples: Vec<String> = (0..4).map(|at| words::text(n * 10 + at + 1000, LENGTH)).collect();
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
