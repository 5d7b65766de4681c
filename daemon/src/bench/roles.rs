//! Many roles on one model: 32 tasks over 8 roles with prompts of some 640 tokens, 8 at once, 48 tokens out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::contestant::{Answer, Contestant, Role};
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
    let role = |n: u64| Role { name: format!("role-{n}"), prompt: words::text(seed + n, PROMPT), max_tokens: OUTPUT };
    let roles: Vec<Role> = (0..ROLES).map(role).collect();
    let began = Instant::now();
    contestant.prepare(&roles).await?;
    let cold = round(contestant, &roles, seed + 1000).await?;
    note(table, contestant, "cold", began, &cold);
    let began = Instant::now();
    let warm = round(contestant, &roles, seed + 2000).await?;
    note(table, contestant, "warm", began, &warm);
    if contestant.restart().await? {
        let began = Instant::now();
        let again = round(contestant, &roles, seed + 3000).await?;
        note(table, contestant, "restart", began, &again);
    }
    Ok(())
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

/// All tasks, so many at once, each role in turn.
async fn round(contestant: &Contestant, roles: &[Role], seed: u64) -> Result<Vec<Answer>> {
    let questions: VecDeque<(Role, String)> =
        (0..TASKS).map(|n| (roles[n as usize % roles.len()].clone(), words::text(seed + n, QUESTION))).collect();
    let (queue, answers) = (Arc::new(Mutex::new(questions)), Arc::new(Mutex::new(Vec::new())));
    let mut workers = Vec::new();
    for _ in 0..AT_ONCE {
        let (asker, queue, answers) = (contestant.asker(), queue.clone(), answers.clone());
        workers.push(tokio::spawn(async move {
            const SOUND: &str = "nothing panics while it holds the queue";
            loop {
                let next = queue.lock().expect(SOUND).pop_front();
                let Some((role, question)) = next else { return Ok::<_, anyhow::Error>(()) };
                let answer = asker.ask(&role, &question, |_| {}).await?;
                answers.lock().expect(SOUND).push(answer);
            }
        }));
    }
    for worker in workers {
        worker.await.context("a worker panicked")??;
    }
    let answers = std::mem::take(&mut *answers.lock().expect("all workers have ended"));
    Ok(answers)
}
