//! The heartbeat of an engine over a scripted model.

use artel_engine::scripted::{BatchGate, ScriptedBackend};
use artel_engine::{EngineActivity, EngineHandle, Heartbeat, Options, PoolingRequest, SharedCpu};

use crate::engine::LIMITS;
use crate::requests::ask;

/// Waits until the engine's thread does something.
async fn until(engine: &EngineHandle, wanted: impl Fn(EngineActivity) -> bool) -> Heartbeat {
    loop {
        let heartbeat = engine.heartbeat().unwrap();
        if wanted(heartbeat.activity) {
            return heartbeat;
        }
        tokio::task::yield_now().await;
    }
}

fn is_batch_of_known_cost(activity: EngineActivity) -> bool {
    matches!(activity, EngineActivity::Computes { expected: Some(_) })
}

#[tokio::test]
async fn a_batch_that_does_not_end_leaves_the_heartbeat_as_it_is() {
    let gate = BatchGate::default();
    let model = ScriptedBackend::new(LIMITS, |_| "x".repeat(20)).with_gate(&gate);
    let options = Options { shared_cpu: Some(SharedCpu::default()), ..Options::default() };
    let engine = EngineHandle::spawn("test", options, || Ok(model)).await.unwrap();
    let idle = until(&engine, |activity| activity == EngineActivity::Idle).await;
    let mut stream = engine.generate(ask("hello")).await.unwrap();
    gate.wait_until_held();
    let first = engine.heartbeat().unwrap();
    assert!(first.beats > idle.beats);
    assert_eq!(first.activity, EngineActivity::Computes { expected: None }, "nothing is known of a first batch");
    gate.pass(2);
    gate.wait_until_held();
    let held = until(&engine, is_batch_of_known_cost).await;
    assert_eq!(engine.heartbeat(), Some(held), "no other thread records a beat");
    gate.open();
    while stream.recv().await.is_some() {}
    let rested = until(&engine, |activity| activity == EngineActivity::Idle).await;
    assert!(rested.beats > held.beats);
    engine.pool(PoolingRequest::of_router(vec!["one".to_owned()])).await.unwrap();
    assert!(until(&engine, |activity| activity == EngineActivity::Idle).await.beats > rested.beats);
}
