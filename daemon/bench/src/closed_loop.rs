//! A closed loop of load: a fixed number of requests is in flight until all are answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};

use crate::answer::TimedAnswer;
use crate::role::BenchRole;
use crate::target::BenchTarget;

/// Sends the questions in this order, `concurrency` at once; returns the answers in the order of the questions.
pub(crate) async fn ask(
    target: &BenchTarget,
    questions: Vec<(BenchRole, String)>,
    concurrency: usize,
) -> Result<Vec<TimedAnswer>> {
    const LOCK: &str = "no task panics while it holds the lock";
    let questions: VecDeque<(usize, (BenchRole, String))> = questions.into_iter().enumerate().collect();
    let (queue, answers) = (Arc::new(Mutex::new(questions)), Arc::new(Mutex::new(Vec::new())));
    let mut workers = Vec::new();
    for _ in 0..concurrency {
        let (client, queue, answers) = (target.client(), queue.clone(), answers.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let next = queue.lock().expect(LOCK).pop_front();
                let Some((index, (role, question))) = next else { return Ok::<_, anyhow::Error>(()) };
                let answer = client.ask(&role, &question, |_| {}).await?;
                answers.lock().expect(LOCK).push((index, answer));
            }
        }));
    }
    for worker in workers {
        worker.await.context("a worker panicked")??;
    }
    let mut answers = std::mem::take(&mut *answers.lock().expect(LOCK));
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
