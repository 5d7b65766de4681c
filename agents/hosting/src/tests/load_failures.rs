//! A model that cannot be loaded: how often its loader is asked, in paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::{EngineHandle, LoadError};
use artel_placement::{ModelFootprint, Placement};
use artel_roles::Model;
use async_trait::async_trait;
use ractor::{ActorRef, call};
use tokio::time::{Instant, sleep};

use crate::engine_host::Message;
use crate::tests::host;
use crate::{LoadProgress, Loader, MemoryDemand, zero_footprint};

const SECOND: Duration = Duration::from_secs(1);

/// Fails each time it is asked, and counts.
struct FailingLoader {
    error: LoadError,
    /// Whether the model's memory is known, and loading fails.
    has_footprint: bool,
    asked: Mutex<Vec<Instant>>,
}

impl FailingLoader {
    fn new(error: LoadError, has_footprint: bool) -> Arc<Self> {
        Arc::new(Self { error, has_footprint, asked: Mutex::default() })
    }

    fn fail<T>(&self) -> Result<T, LoadError> {
        self.asked.lock().unwrap().push(Instant::now());
        Err(self.error.clone())
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The pauses between two times that it was asked, in whole seconds.
    fn pauses(&self) -> Vec<u64> {
        self.asked.lock().unwrap().windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

#[async_trait]
impl Loader for FailingLoader {
    async fn load(&self, _: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        self.fail()
    }

    async fn footprint(&self, model: &Model, _: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        if self.has_footprint { Ok(zero_footprint(model)) } else { self.fail() }
    }
}

/// Why a request for an engine is refused.
async fn refusal(host: &ActorRef<Message>) -> String {
    call!(host, Message::Acquire).unwrap().unwrap_err().to_string()
}

/// Asks for an engine once a second for so long, as the steps of a busy daemon do; returns the last refusal.
async fn ask_for(host: &ActorRef<Message>, time: Duration) -> String {
    let started = Instant::now();
    let mut last = refusal(host).await;
    while started.elapsed() < time {
        sleep(SECOND).await;
        last = refusal(host).await;
    }
    last
}

#[tokio::test(start_paused = true)]
async fn a_missing_file_is_asked_for_in_pauses_that_grow() {
    for has_footprint in [false, true] {
        let loader = FailingLoader::new(LoadError::permanent("talk.gguf: no such file"), has_footprint);
        let host = host(loader.clone()).await;
        ask_for(&host, 1200 * SECOND).await;
        assert_eq!(loader.pauses(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let told = refusal(&host).await;
        assert!(told.starts_with("talk.gguf: no such file; it is tried again in "), "{told}");
        assert!(told.ends_with("s, at once with `artel load talk`"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_catalog_and_a_load_by_name_end_the_pause() {
    let loader = FailingLoader::new(LoadError::permanent("no such file"), false);
    let host = host(loader.clone()).await;
    ask_for(&host, 60 * SECOND).await;
    let asked = loader.asked();
    refusal(&host).await;
    assert_eq!(loader.asked(), asked, "the pause is not over");
    host.cast(Message::SetWorkload(Box::default())).unwrap();
    refusal(&host).await;
    assert_eq!(loader.asked(), asked + 1);
    for more in [2, 3] {
        assert!(call!(host, Message::ForceAcquire).unwrap().is_err());
        assert_eq!(loader.asked(), asked + more);
    }
    ask_for(&host, 5 * SECOND).await;
    assert_eq!(loader.pauses()[asked + 2..], [1, 2], "pauses begin anew");
}

#[tokio::test(start_paused = true)]
async fn a_footprint_that_may_soon_be_known_is_asked_for_each_second() {
    let loader = FailingLoader::new(LoadError::transient("the download failed"), false);
    let host = host(loader.clone()).await;
    assert_eq!(ask_for(&host, 100 * SECOND).await, "the download failed");
    let pauses = loader.pauses();
    assert!(pauses.len() >= 90 && pauses.iter().all(|pause| *pause <= 2), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_starts_is_given_up_and_tried_once_by_name() {
    let loader = FailingLoader::new(LoadError::transient("killed"), true);
    let host = host(loader.clone()).await;
    let last = ask_for(&host, 600 * SECOND).await;
    assert_eq!(loader.pauses(), [1, 2, 4, 8]);
    assert_eq!(last, "killed; given up after 5 failures: `artel load` tries again");
    assert!(call!(host, Message::ForceAcquire).unwrap().is_err());
    ask_for(&host, 600 * SECOND).await;
    assert_eq!(loader.asked(), 6);
}
