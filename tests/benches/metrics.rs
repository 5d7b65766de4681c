//! What the metrics cost where they are counted: for each token, for each step, and for a scrape.

use std::hint::black_box;
use std::time::{Duration, Instant};

use artel_metrics::{Metrics, ScrapeSample};

/// Rounds of each measurement, of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 7;
/// Repetitions in a round: some milliseconds of the cheapest.
const REPEATS: u32 = 1_000_000;
/// Texts that are made in a round.
const TEXT_REPEATS: u32 = 20;
/// Roles with figures, as many as can have their own.
const ROLES: usize = artel_metrics::MAX_ROLE_VALUES;

fn main() {
    let metrics = Metrics::new();
    let role = metrics.tasks.role("writer");
    let mut gaps = role.token_gaps();
    let mut last = Instant::now();
    let per_token = fastest(REPEATS, || {
        let now = Instant::now();
        gaps.observe_time(black_box(now.duration_since(std::mem::replace(&mut last, now))));
    });
    println!("for each token, the clock included: {per_token:?}");
    let per_lookup = fastest(REPEATS, || drop(black_box(metrics.tasks.role(black_box("writer")))));
    println!("for each start of a step, the look-up of its role: {per_lookup:?}");
    for number in 1..ROLES {
        metrics.tasks.role(&format!("role-{number}"));
    }
    let sample = ScrapeSample::default();
    let per_text = fastest(TEXT_REPEATS, || drop(black_box(metrics.scrape(&sample))));
    println!("for each scrape with {ROLES} roles: {per_text:?}, {} bytes", metrics.encode().len());
}

/// The time of one repetition in the fastest round.
fn fastest(repeats: u32, mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        (0..repeats).for_each(|_| work());
        start.elapsed() / repeats
    };
    (0..ROUNDS).map(round).min().expect("there are rounds")
}
