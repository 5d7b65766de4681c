//! `cargo xtask bench`: eight tasks over three roles of one model, one by one and all at once, on the real daemon.
//!
//! Prints the tokens per second of both and their ratio, for five repeats in turn.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use artel_tests::{Daemon, daemon, task_request};

const MEASURED_REPEATS: usize = 5;
const ROUND_TASKS: usize = 8;

const CATALOG: &str = "
model: talk
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 1024
sequences: 8
---
role: baker
description: D.
model: talk
prompt: You are a baker and explain breads at length.
sampling: {temperature: 0, max_tokens: 64}
limits: {concurrency: 8}
---
role: sailor
description: D.
model: talk
prompt: You are a sailor and explain boats at length.
sampling: {temperature: 0, max_tokens: 64}
limits: {concurrency: 8}
---
role: smith
description: D.
model: talk
prompt: You are a smith and explain iron at length.
sampling: {temperature: 0, max_tokens: 64}
limits: {concurrency: 8}
";

/// Output tokens per second of a round.
async fn round(daemon: &Daemon, is_concurrent: bool) -> f64 {
    let start = Instant::now();
    let mut runs = Vec::new();
    for n in 0..ROUND_TASKS {
        let role = ["baker", "sailor", "smith"][n % 3];
        let mut run = daemon.run(task_request("Explain what matters most in your trade.").with_role(role)).await;
        if !is_concurrent {
            run.end().await.text();
        }
        runs.push(run);
    }
    let mut tokens = 0;
    for run in &mut runs {
        if is_concurrent {
            run.end().await.text();
        }
        tokens += daemon.task(&run.id).await.usage.unwrap().output_tokens;
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let daemon = daemon().with_yaml(CATALOG).start().await;
    round(&daemon, true).await;
    let (mut single, mut together, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MEASURED_REPEATS {
        let (one, all) = (round(&daemon, false).await, round(&daemon, true).await);
        println!("one by one {one:6.1} tokens/s   at once {all:6.1} tokens/s   ratio {:.2}", all / one);
        single.push(one);
        together.push(all);
        ratios.push(all / one);
    }
    let (one, all, ratio) = (median(single), median(together), median(ratios));
    println!("median: one by one {one:.1} tokens/s, at once {all:.1} tokens/s, ratio {ratio:.2}");
}
