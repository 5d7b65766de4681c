//! Eight sequences that share nothing, generating: all that the daemon does against llama.cpp's own batched decoding.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::contestant::{Contestant, Role};
use super::speeds::{SEQUENCES, Speeds};
use super::table::Table;
use super::words;

const PROMPT: usize = 150;
const OUTPUT: u32 = 256;

const MEASURE: &str = "decode: tokens of 8 sequences";

/// Gives how many cells each sequence had halfway, on average.
pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<Option<u32>> {
    let seed = salt * 10_000 + 13;
    let role = |n: u64| Role::new(format!("teller-{n}"), words::text(seed + n, PROMPT), OUTPUT);
    let roles: Vec<Role> = (0..u64::from(SEQUENCES)).map(role).collect();
    contestant.warm(&roles).await?;
    let mut tellers = Vec::new();
    for (n, role) in roles.into_iter().enumerate() {
        let asker = contestant.asker();
        let question = format!("Tell me a long story of {}.", words::text(seed + 100 + n as u64, 5));
        tellers.push(tokio::spawn(async move { asker.ask(&role, &question, |_| {}).await }));
    }
    let mut answers = Vec::new();
    for teller in tellers {
        answers.push(teller.await.context("a teller panicked")??);
    }
    // Only while all of them generate.
    let from = answers.iter().filter_map(|a| a.pieces.first().copied()).max();
    let to = answers.iter().filter_map(|a| a.pieces.last().copied()).min();
    let Some((from, to)) = from.zip(to).filter(|(from, to)| from < to) else {
        eprintln!("nothing was measured: at no time did all {SEQUENCES} generate");
        return Ok(None);
    };
    let within = |at: &&Instant| (from..to).contains(*at);
    let pieces: usize = answers.iter().map(|a| a.pieces.iter().filter(within).count()).sum();
    let before: usize = answers.iter().map(|a| a.pieces.iter().filter(|at| **at < from).count()).sum();
    // A piece may have several tokens, such as half a character and the other half.
    let (all, tokens): (usize, u64) = answers.iter().fold((0, 0), |(p, t), a| (p + a.pieces.len(), t + a.output));
    let per_piece = tokens as f64 / all.max(1) as f64;
    table.note(MEASURE, "/s", contestant.name(), pieces as f64 * per_piece / (to - from).as_secs_f64());
    let prompts: u64 = answers.iter().map(|a| a.prompt).sum();
    let halfway = prompts as f64 + (before as f64 + pieces as f64 / 2.0) * per_piece;
    Ok(Some((halfway / f64::from(SEQUENCES)) as u32))
}

/// llama.cpp's own speed at the same sizes on the model's file as it is, which need not be what a daemon computes with.
pub(super) fn of_file(speeds: &Speeds, table: &mut Table) {
    table.note(MEASURE, "/s", "llama.cpp", speeds.decoded(SEQUENCES as usize));
}

/// llama.cpp's own speed at the same sizes and with the same weights, the median of all repeats.
pub(super) fn limits(speeds: &[Speeds], table: &mut Table) {
    let mut speeds: Vec<f64> = speeds.iter().map(|speeds| speeds.decoded(SEQUENCES as usize)).collect();
    speeds.sort_by(f64::total_cmp);
    if let Some(median) = speeds.get(speeds.len() / 2) {
        table.limit(MEASURE, *median);
    }
}
