//! Many roles on one model: 32 tasks over 8 roles with prompts of some 640 tokens, 8 at once, 48 tokens out.

use std::time::Instant;

use anyhow::Result;

use super::contestant::{Answer, Contestant, Role};
use super::crowd;
use super::speeds::Speeds;
use super::table::Table;
use super::words;

const ROLES: u64 = 8;
const TASKS: u64 = 32;
const AT_ONCE: usize = 8;
/// Words, each about a token.
const PROMPT: usize = 625;
const QUESTION: usize = 16;
const OUTPUT: u32 = 48;

pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<()> {
    let seed = salt * 10_000 + 1;
    let role = |n: u64| Role::new(format!("role-{n}"), words::text(seed + n, PROMPT), OUTPUT);
    let roles: Vec<Role> = (0..ROLES).map(role).collect();
    let began = Instant::now();
    contestant.prepare(&roles).await?;
    let cold = crowd::ask(contestant, questions(&roles, seed + 1000), AT_ONCE).await?;
    note(table, contestant, "cold", began, &cold);
    let began = Instant::now();
    let warm = crowd::ask(contestant, questions(&roles, seed + 2000), AT_ONCE).await?;
    note(table, contestant, "warm", began, &warm);
    if contestant.restart().await? {
        let began = Instant::now();
        let again = crowd::ask(contestant, questions(&roles, seed + 3000), AT_ONCE).await?;
        note(table, contestant, "restart", began, &again);
    }
    Ok(())
}

/// What nobody can beat on this machine: each role's prompt computed once, and all questions, and all answers as wide as
/// they are asked for.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    let questions = speeds.prompts(TASKS as u32 * (QUESTION as u32 + words::FRAME));
    let answers = speeds.answers(TASKS as u32 * OUTPUT, AT_ONCE);
    let openings = speeds.prompts(ROLES as u32 * PROMPT as u32);
    let tasks = TASKS as f64;
    table.limit("roles cold: tasks", tasks / (openings + questions + answers));
    for phase in ["warm", "restart"] {
        table.limit(&format!("roles {phase}: tasks"), tasks / (questions + answers));
    }
}

fn note(table: &mut Table, contestant: &Contestant, phase: &str, began: Instant, answers: &[Answer]) {
    let seconds = began.elapsed().as_secs_f64();
    let sum = |f: fn(&Answer) -> u64| answers.iter().map(f).sum::<u64>() as f64;
    let mut note =
        |what: &str, unit, value| table.note(&format!("roles {phase}: {what}"), unit, contestant.name(), value);
    note("tasks", "/s", answers.len() as f64 / seconds);
    note("tokens written", "/s", sum(|a| a.output) / seconds);
    note("prompt tokens computed", "", sum(|a| a.computed));
    let longest = answers.iter().map(Answer::first).max().unwrap_or_default();
    note("longest wait for a first token", "s", longest.as_secs_f64());
}

/// Questions to each role in turn.
fn questions(roles: &[Role], seed: u64) -> Vec<(Role, String)> {
    (0..TASKS).map(|n| (roles[n as usize % roles.len()].clone(), words::text(seed + n, QUESTION))).collect()
}
