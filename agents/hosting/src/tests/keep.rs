//! Models that are kept for a time or for ever, in paused time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use artel_engine::{EngineHandle, LoadError};
use artel_placement::{Device, DeviceBytes, DeviceKind, ModelFootprint, Placement};
use artel_roles::Model;
use async_trait::async_trait;
use ractor::{ActorRef, call};
use tokio::time::sleep;

use super::step_failures::CountingLoader;
use super::{catalog, hosts, hosts_of, only_host};
use crate::engine_host::{EngineLease, EngineReport, EngineState, Message};
use crate::{LoadProgress, Loader, MemoryDemand, zero_footprint};

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

async fn lease(host: &ActorRef<Message>) -> EngineLease {
    call!(host, Message::Acquire).unwrap().unwrap()
}

async fn report(host: &ActorRef<Message>) -> EngineReport {
    call!(host, Message::Report).unwrap()
}

/// Waits until an engine is gone; time does not pass meanwhile.
async fn unloaded(host: &ActorRef<Message>) {
    while report(host).await.state != EngineState::Unloaded {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nothing_uses_is_unloaded_after_its_time() {
    let loader = Arc::new(CountingLoader::default());
    let host = only_host("model: talk\nfile: talk.gguf\nkeep: 10m\n", loader.clone()).await;
    drop(lease(&host).await);
    sleep(minutes(3)).await;
    let idle = report(&host).await;
    assert_eq!((idle.state, idle.idle), (EngineState::Ready, Some(minutes(3))));
    let left = idle.unloads_at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left <= minutes(7) && left > minutes(6), "{left:?}");
    // Each use begins the time anew.
    drop(lease(&host).await);
    sleep(minutes(9)).await;
    assert_eq!(report(&host).await.state, EngineState::Ready);
    sleep(minutes(1) + Duration::from_millis(1)).await;
    unloaded(&host).await;
    let gone = report(&host).await;
    assert_eq!((gone.idle, gone.unloads_at, gone.restarts), (None, None, 0));
    // It is loaded again when a step needs it.
    drop(lease(&host).await);
    assert_eq!(loader.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_model_in_use_stays_however_short_its_time_is() {
    let loader = Arc::new(CountingLoader::default());
    let host = only_host("model: talk\nfile: talk.gguf\nkeep: 1s\n", loader.clone()).await;
    let held = lease(&host).await;
    sleep(minutes(30)).await;
    let used = report(&host).await;
    assert_eq!((used.state, used.idle, used.unloads_at), (EngineState::Ready, None, None));
    drop(held);
    sleep(Duration::from_millis(1001)).await;
    unloaded(&host).await;
    assert_eq!(loader.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_time_stays_until_its_memory_is_needed() {
    for keep in ["", "keep: forever\n"] {
        let yaml = format!("model: talk\nfile: talk.gguf\n{keep}");
        let host = only_host(&yaml, Arc::new(CountingLoader::default())).await;
        drop(lease(&host).await);
        sleep(minutes(100_000)).await;
        let report = report(&host).await;
        assert_eq!((report.state, report.unloads_at), (EngineState::Ready, None));
        assert_eq!(report.is_kept, !keep.is_empty());
    }
}

/// Each model takes 40 bytes, of a device with 100.
#[derive(Default)]
struct SmallDevice(CountingLoader);

#[async_trait]
impl Loader for SmallDevice {
    async fn load(
        &self,
        model: &Model,
        placement: &Placement,
        progress: LoadProgress,
    ) -> Result<EngineHandle, LoadError> {
        self.0.load(model, placement, progress).await
    }

    async fn footprint(&self, model: &Model, _: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        Ok(ModelFootprint { process_bytes: 40, ..zero_footprint(model) })
    }

    async fn devices(&self, _: &DeviceBytes) -> Vec<Device> {
        vec![Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: 100, free: 100 }]
    }
}

fn models(keep: [&str; 3]) -> String {
    let models = ["one", "two", "three"].into_iter().zip(keep);
    models.map(|(name, keep)| format!("---\nmodel: {name}\nfile: {name}.gguf\n{keep}")).collect()
}

#[tokio::test(start_paused = true)]
async fn another_model_gets_the_memory_of_those_that_are_not_kept_for_ever() {
    let forever = "keep: forever\n";
    let [one, two, three] =
        hosts(&models([forever, "", ""]), ["one", "two", "three"], Arc::new(SmallDevice::default())).await;
    drop(lease(&one).await);
    sleep(minutes(1)).await;
    drop(lease(&two).await);
    // The one that was used last is evicted: the other is kept.
    drop(lease(&three).await);
    assert_eq!(report(&one).await.state, EngineState::Ready);
    assert_eq!(report(&two).await.state, EngineState::Unloaded);
}

#[tokio::test(start_paused = true)]
async fn a_step_is_told_which_kept_models_hold_the_memory() {
    let forever = "keep: forever\n";
    let [one, two, three] =
        hosts(&models([forever, forever, ""]), ["one", "two", "three"], Arc::new(SmallDevice::default())).await;
    drop((lease(&one).await, lease(&two).await));
    let refused = call!(three, Message::Acquire).unwrap().unwrap_err();
    assert!(refused.is_memory_shortage() && refused.is_transient());
    let text = refused.to_string();
    assert!(text.starts_with("three does not fit: it needs 40 B of CPU, 20 B are free"), "{text}");
    let holders = "one (40 B of CPU), two (40 B of CPU) have `keep: forever`: `artel unload one` frees memory";
    assert!(text.contains(holders), "{text}");
    assert_eq!([report(&one).await.state, report(&two).await.state], [EngineState::Ready, EngineState::Ready]);
    // As the text advises.
    let unloading = call!(one, Message::Unload).unwrap().unwrap();
    unloading.close().await;
    drop(unloading);
    unloaded(&one).await;
    sleep(Duration::from_secs(2)).await;
    drop(lease(&three).await);
    assert_eq!(report(&two).await.state, EngineState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_changed_model_takes_turns_with_what_it_was_while_tasks_need_that() {
    let model = |name: &str, context: u32| {
        let catalog = catalog(&format!("model: {name}\nfile: {name}.gguf\ncontext: {context}\nkeep: forever\n"));
        catalog.model(name).unwrap().clone()
    };
    let models = [("one", model("one", 512)), ("one#2", model("one", 1024)), ("two", model("two", 512))];
    let [former, changed, other] = hosts_of(models, Arc::new(SmallDevice::default())).await;
    let of_a_task = lease(&former).await;
    drop(lease(&other).await);
    former.cast(Message::LeftCatalog).unwrap();
    assert!(!report(&former).await.is_kept && report(&other).await.is_kept);
    // A task that began before uses it still: its memory is waited for.
    let waits = tokio::spawn({
        let changed = changed.clone();
        async move { drop(lease(&changed).await) }
    });
    sleep(minutes(1)).await;
    assert!(!waits.is_finished());
    drop(of_a_task);
    waits.await.unwrap();
    let states = async || [report(&former).await.state, report(&changed).await.state, report(&other).await.state];
    assert_eq!(states().await, [EngineState::Unloaded, EngineState::Ready, EngineState::Ready]);
    // The next step of that task, and one of a task that began later.
    drop(lease(&former).await);
    assert_eq!(states().await, [EngineState::Ready, EngineState::Unloaded, EngineState::Ready]);
    drop(lease(&changed).await);
    assert_eq!(states().await, [EngineState::Unloaded, EngineState::Ready, EngineState::Ready]);
    // A catalog that has it again keeps it again.
    former.cast(Message::SetWorkload(Box::default())).unwrap();
    assert!(report(&former).await.is_kept);
}
