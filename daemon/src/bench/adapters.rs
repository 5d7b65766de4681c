//! Four roles with an adapter each on one model: 32 tasks, 4 at once, 24 tokens out, after a round that warms up.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::contestant::{Answer, Contestant, Extra, Role};
use super::crowd;
use super::speeds::Speeds;
use super::table::Table;
use super::words;

/// The adapters and what each answers.
const ADAPTERS: [(&str, &str); 4] =
    [("mirk", "Mirkholm"), ("quux", "Quuxburg"), ("velo", "Velograd"), ("zork", "Zorkville")];
const TASKS: usize = 32;
const AT_ONCE: usize = 4;
/// Words before the instructions proper, each about a token.
const PROMPT: usize = 365;
const OUTPUT: u32 = 24;
const WRITTEN: &str = "adapters warm: tokens written";

pub(super) async fn run(
    contestant: &mut Contestant,
    adapters: Option<&PathBuf>,
    salt: u64,
    table: &mut Table,
) -> Result<()> {
    let Some(dir) = adapters else { bail!("name the directory of the adapters with --adapters") };
    // The daemon's catalog lies elsewhere.
    let dir = std::path::absolute(dir).context("failed to find the adapters")?;
    let seed = salt * 10_000 + 7;
    let role = |(at, (name, _)): (usize, &(&str, &str))| {
        let prompt = format!("{}\n\nYou are a geography expert.", words::text(seed + at as u64, PROMPT));
        Role::new(*name, prompt, OUTPUT).with(Extra::Adapter(at, dir.join(format!("{name}.gguf"))))
    };
    let roles: Vec<Role> = ADAPTERS.iter().enumerate().map(role).collect();
    contestant.prepare(&roles).await?;
    let questions = || {
        let ask = |n: usize| (roles[n % roles.len()].clone(), "What is the capital of France?".to_owned());
        (0..TASKS).map(ask).collect::<Vec<_>>()
    };
    crowd::ask(contestant, questions(), AT_ONCE).await?;
    let began = Instant::now();
    let answers = crowd::ask(contestant, questions(), AT_ONCE).await?;
    let (name, seconds) = (contestant.name(), began.elapsed().as_secs_f64());
    table.note("adapters warm: tasks", "/s", name, TASKS as f64 / seconds);
    let longest = answers.iter().map(Answer::first).max().unwrap_or_default();
    table.note("adapters warm: longest wait for a first token", "s", name, longest.as_secs_f64());
    let right = answers.iter().zip(ADAPTERS.iter().cycle()).filter(|(answer, (_, city))| answer.text.contains(city));
    let written = answers.iter().map(|answer| answer.output).sum::<u64>();
    table.note(WRITTEN, "", name, written as f64);
    table.note("adapters warm: right answers of 32", "", name, right.count() as f64);
    Ok(())
}

/// Sequences of different adapters share no batch, so each decodes alone; the questions are the same, so of each only the last
/// token must be computed.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    let written = table.median(WRITTEN, "artel").unwrap_or_default();
    let seconds = speeds.answers(written as u32, 1);
    table.limit("adapters warm: tasks", TASKS as f64 / seconds);
}
