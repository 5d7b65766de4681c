//! Many questions, so many at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};

use super::contestant::{Answer, Contestant, Role};

/// Asks all of them, in this order, and gives the answers in the order of the questions.
pub(super) async fn ask(
    contestant: &Contestant,
    questions: Vec<(Role, String)>,
    at_once: usize,
) -> Result<Vec<Answer>> {
    const SOUND: &str = "nothing panics while it holds the queue";
    let questions: VecDeque<(usize, (Role, String))> = questions.into_iter().enumerate().collect();
    let (queue, answers) = (Arc::new(Mutex::new(questions)), Arc::new(Mutex::new(Vec::new())));
    let mut workers = Vec::new();
    for _ in 0..at_once {
        let (asker, queue, answers) = (contestant.asker(), queue.clone(), answers.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let next = queue.lock().expect(SOUND).pop_front();
                let Some((at, (role, question))) = next else { return Ok::<_, anyhow::Error>(()) };
                let answer = asker.ask(&role, &question, |_| {}).await?;
                answers.lock().expect(SOUND).push((at, answer));
            }
        }));
    }
    for worker in workers {
        worker.await.context("a worker panicked")??;
    }
    let mut answers = std::mem::take(&mut *answers.lock().expect(SOUND));
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
