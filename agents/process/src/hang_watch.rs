//! Watches an engine process: asks it for its heartbeat, looks at what the kernel tells about it, and reports a hang.

use std::sync::{Arc, Weak};
use std::time::Duration;

use artel_engine::Heartbeat;
use tokio::sync::{SetOnce, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use crate::cpu_lease::BrokerMember;
use crate::hang_detector::{EngineCondition, EngineObservation, HangDetector, HangPolicy};
use crate::process_sample::ProcessSample;
use crate::wire::v1::engine_client::EngineClient;
use crate::wire::{self, v1};

/// The observations of a timeout: many enough that it is kept to a few percent.
const OBSERVATIONS_DIVISOR: u32 = 20;
/// The shortest time between two observations, each of which costs some system calls.
const MIN_OBSERVATION_INTERVAL: Duration = Duration::from_millis(100);
/// The longest one: the CPU lease of a silent engine is revoked after a few of them.
const MAX_OBSERVATION_INTERVAL: Duration = Duration::from_secs(1);

/// An engine process to watch.
pub(crate) struct HangWatch {
    pub(crate) client: EngineClient<Channel>,
    pub(crate) process_id: u32,
    pub(crate) policy: HangPolicy,
    /// Its membership in the CPU lease, for as long as that is connected.
    pub(crate) lease_member: Weak<BrokerMember>,
    pub(crate) ended: watch::Receiver<Option<String>>,
    /// Set when the engine hangs, with the reason.
    pub(crate) hung: Arc<SetOnce<String>>,
}

impl HangWatch {
    /// Watches until the process has ended, hangs, or the result is dropped.
    pub(crate) fn start(self) -> AbortOnDropHandle<()> {
        let mut ended = self.ended.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                reason = self.observe() => {
                    // The engine ends once.
                    let _ = self.hung.set(reason);
                }
                // An error means that nothing waits for its end any more.
                _ = ended.wait_for(Option::is_some) => {}
            }
        }))
    }

    /// Observes until the engine hangs; returns why it counts as hung.
    async fn observe(&self) -> String {
        let interval =
            (self.policy.timeout / OBSERVATIONS_DIVISOR).clamp(MIN_OBSERVATION_INTERVAL, MAX_OBSERVATION_INTERVAL);
        let mut detector = HangDetector::new(self.policy.clone());
        let mut answer = Box::pin(fetch_heartbeat(self.client.clone()));
        let mut observed_at = Instant::now();
        loop {
            let due = observed_at + interval;
            // One question is open at a time: a process that is slow to answer is not asked again meanwhile.
            let heartbeat = tokio::time::timeout_at(due, &mut answer).await;
            if heartbeat.is_ok() {
                tokio::time::sleep_until(due).await;
                answer = Box::pin(fetch_heartbeat(self.client.clone()));
            }
            let process = ProcessSample::read(self.process_id);
            let now = Instant::now();
            let elapsed = now.duration_since(std::mem::replace(&mut observed_at, now));
            let heartbeat = heartbeat.ok().flatten();
            match detector.observe(&EngineObservation { elapsed, interval, heartbeat, process }) {
                EngineCondition::Alive => self.resume_lease(),
                EngineCondition::Silent => self.revoke_lease(),
                EngineCondition::Hung(reason) => return reason.to_string(),
            }
        }
    }

    fn revoke_lease(&self) {
        if self.lease_member.upgrade().is_some_and(|member| member.suspend()) {
            tracing::warn!(
                process = self.process_id,
                "an engine that shows no sign of life held the CPU; other engines compute without waiting for it"
            );
        }
    }

    fn resume_lease(&self) {
        if let Some(member) = self.lease_member.upgrade() {
            member.resume();
        }
    }
}

/// The heartbeat; `None` if the call fails, as it does when the process exits.
async fn fetch_heartbeat(mut client: EngineClient<Channel>) -> Option<Heartbeat> {
    let response = client.get_heartbeat(v1::GetHeartbeatRequest {}).await;
    response.ok().map(|response| wire::heartbeat_of(response.into_inner()))
}
