//! An engine on which steps fail again and again: it is loaded anew, and given up in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{EngineHandle, Error, LoadError, Options};
use artel_placement::Placement;
use artel_roles::Model;
use artel_task::TaskId;
use async_trait::async_trait;
use ractor::{ActorRef, call};

use crate::engine_host::{EngineLease, EngineState, Message};
use crate::tests::host;
use crate::{LoadProgress, Loader};

/// Loads scripted engines, and counts.
#[derive(Default)]
pub(super) struct CountingLoader(AtomicU32);

impl CountingLoader {
    /// The loads so far.
    pub(super) fn loads(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Loader for CountingLoader {
    async fn load(&self, _: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let limits = EngineLimits {
            context_tokens: 64,
            sequences: 1,
            batch_tokens: 16,
            prefill_multiple: 1,
            can_truncate_kv: true,
            can_shift: true,
        };
        EngineHandle::spawn("talk", Options::default(), move || Ok(ScriptedBackend::new(limits, |_| String::new())))
            .await
    }
}

async fn lease(host: &ActorRef<Message>) -> EngineLease {
    call!(host, Message::Acquire).unwrap().unwrap()
}

/// Leases the engine and notes this result.
async fn note(host: &ActorRef<Message>, result: Result<(), Error>) {
    lease(host).await.note(&result);
}

fn failure() -> Result<(), Error> {
    Err(Error::Model("llama_decode failed".to_owned()))
}

#[tokio::test]
async fn an_engine_on_which_five_steps_in_a_row_fail_is_loaded_anew() {
    let loader = Arc::new(CountingLoader::default());
    let host = host(loader.clone()).await;
    for _ in 0..4 {
        note(&host, failure()).await;
    }
    // A success, and errors that are not the engine's.
    note(&host, Ok(())).await;
    for error in [Error::InvalidRequest("no".to_owned()), Error::QueueFull(1), Error::Ended("killed".to_owned())] {
        note(&host, Err(error)).await;
    }
    for _ in 0..4 {
        note(&host, failure()).await;
    }
    assert_eq!(call!(host, Message::Report).unwrap().restarts, 0);
    note(&host, failure()).await;
    // Waits for the new engine.
    drop(lease(&host).await);
    let report = call!(host, Message::Report).unwrap();
    assert_eq!((report.restarts, loader.loads()), (1, 2));
    let reason = report.last_error.unwrap();
    assert_eq!(reason, "5 steps in a row failed on it, the last one because the model failed: llama_decode failed");
}

#[tokio::test]
async fn an_engine_that_never_does_anything_well_is_given_up() {
    let loader = Arc::new(CountingLoader::default());
    let host = host(loader.clone()).await;
    for _ in 0..25 {
        note(&host, failure()).await;
    }
    let state = loop {
        match call!(host, Message::Report).unwrap().state {
            EngineState::Failed { reason, retry_after: None } => break reason,
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(state.contains("5 steps in a row failed"), "{state}");
    assert_eq!(loader.loads(), 5);
    let refused = call!(host, Message::Acquire).unwrap().unwrap_err().to_string();
    assert!(refused.contains("given up after 5 failures"), "{refused}");
}

/// The engine ends while it computes for a task.
async fn end_under(host: &ActorRef<Message>, task: TaskId) {
    let lease = call!(host, Message::AcquireFor, task).unwrap().unwrap();
    lease.close().await;
    lease.note::<()>(&Err(Error::Ended("killed".to_owned())));
}

#[tokio::test]
async fn an_engine_that_two_tasks_end_in_each_attempt_serves_others() {
    let loader = Arc::new(CountingLoader::default());
    let host = host(loader.clone()).await;
    for _ in 0..4 {
        for task in [1, 2] {
            end_under(&host, TaskId::from_bytes([task; 16])).await;
        }
    }
    drop(lease(&host).await);
    assert_eq!(loader.loads(), 9);
}

#[tokio::test]
async fn an_engine_that_ends_under_five_tasks_is_given_up() {
    let host = host(Arc::new(CountingLoader::default())).await;
    for task in 1..=5 {
        end_under(&host, TaskId::from_bytes([task; 16])).await;
    }
    let refused = call!(host, Message::Acquire).unwrap().unwrap_err().to_string();
    assert!(refused.contains("given up after 5 failures"), "{refused}");
}
