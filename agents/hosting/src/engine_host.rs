//! The host of one model's engine.

mod args;
mod engine_users;
mod hosted_engine;
mod idle_timer;
mod lease;
mod load_failures;
mod message;
mod placement_command;
mod prefill;
mod report;
mod step_failures;
mod unavailable;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use artel_engine::backend::EngineLimits;
use artel_engine::{EngineHandle, LoadError};
use artel_metrics::{EngineEnd, LoadOutcome, ModelMetrics};
use artel_model::KeepLoaded;
use artel_placement::{DeviceBytes, Placement};
use artel_roles::Model;
use artel_task::{Clock, TaskId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::loader::{LoadProgress, Loader};
use crate::model_scheduler::{self, EngineId, EngineStatus};
use crate::model_workload::ModelWorkload;

use engine_users::EngineUsers;
use hosted_engine::HostedEngine;
use lease::LeaseWaiter;
use load_failures::LoadFailures;
use step_failures::StepFailures;

pub use args::EngineHostArgs;
pub use lease::{EngineLease, lease_or_failure};
pub use message::Message;
pub use placement_command::PlacementCommand;
use report::adapters_text;
pub use report::{EngineReport, EngineState};
pub use step_failures::LeaseOutcome;
pub use unavailable::EngineUnavailable;

/// An engine that has served for this long was healthy: if it exits then, that counts as a first failure.
const HEALTHY_AGE: Duration = Duration::from_secs(60);

/// Loads the engine of a model when it is first needed and the model scheduler has placed it, holds it, and loads it again
/// after it exited.
///
/// States: unloaded -> loading -> ready -> unloading (evicted, idle for long enough, or on request) -> unloaded; ready -> failed (the engine exited)
/// -> loading (at once); ready -> unloading -> failed (its steps fail again and again) -> loading (at once); loading -> failed ->
/// loading (after a pause), or -> given up; unloaded -> failed (no placement) -> loading (after a pause). Every change is reported
/// to the scheduler.
pub struct EngineHost;

/// The state of an engine host.
pub struct State {
    id: EngineId,
    model: Arc<Model>,
    /// Whether the newest catalog does not have the model.
    has_left_catalog: bool,
    loader: Arc<dyn Loader>,
    scheduler: ActorRef<model_scheduler::Message>,
    clock: Clock,
    metrics: Arc<ModelMetrics>,
    engine: HostedEngine,
    generation: u64,
    waiters: VecDeque<LeaseWaiter>,
    leases: u32,
    users: EngineUsers,
    draining: bool,
    /// When it was last used or loaded, for eviction.
    idle_since: Instant,
    /// The wall time of the last use, for reports.
    last_used: Option<SystemTime>,
    load_time: Duration,
    placement: Option<Box<Placement>>,
    device_bytes: DeviceBytes,
    /// Placements received so far, see [`EngineStatus::placement_version`].
    placement_version: u64,
    /// If the last status said that the engine is ready and without waiters: whether it had leases.
    reported_in_use: Option<bool>,
    failures: LoadFailures,
    /// The failures of steps on the engine that is loaded.
    step_failures: StepFailures,
    /// Set while an engine is ended because of these: the reason, and when it became ready.
    failing: Option<(String, Instant)>,
    restarts: u32,
    /// The reason of the last unexpected exit.
    last_error: Option<String>,
    workload: ModelWorkload,
    /// The prefill in progress; another workload or engine replaces it.
    prefill: Option<AbortOnDropHandle<()>>,
    /// Set while the engine is ready and its model is kept for a time.
    idle_timer: Option<AbortOnDropHandle<()>>,
}

impl Actor for EngineHost {
    type Msg = Message;
    type State = State;
    type Arguments = EngineHostArgs;

    async fn pre_start(&self, me: ActorRef<Message>, arguments: EngineHostArgs) -> Result<State, ActorProcessingErr> {
        let EngineHostArgs { id, model, loader, scheduler, clock, metrics } = arguments;
        let mut state = State {
            id,
            model,
            has_left_catalog: false,
            loader,
            scheduler,
            clock,
            metrics,
            engine: HostedEngine::Unloaded,
            generation: 0,
            waiters: VecDeque::new(),
            leases: 0,
            users: EngineUsers::default(),
            draining: false,
            idle_since: Instant::now(),
            last_used: None,
            load_time: Duration::ZERO,
            placement: None,
            device_bytes: DeviceBytes::new(),
            placement_version: 0,
            reported_in_use: None,
            failures: LoadFailures::default(),
            step_failures: StepFailures::default(),
            failing: None,
            restarts: 0,
            last_error: None,
            workload: ModelWorkload::default(),
            prefill: None,
            idle_timer: None,
        };
        state.send_status(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Acquire(reply) => state.acquire(&me, None, reply),
            Message::AcquireFor(task, reply) => state.acquire(&me, Some(task), reply),
            Message::ForceAcquire(reply) => {
                state.failures.on_forced();
                state.clear_failure();
                state.acquire(&me, None, reply);
            }
            Message::LeaseReleased { generation, task, outcome } => {
                state.on_lease_released(&me, generation, task, outcome);
            }
            Message::SetWorkload(workload) => state.set_workload(&me, *workload),
            Message::LeftCatalog => {
                state.has_left_catalog = true;
                state.send_status(&me);
            }
            Message::Placement(PlacementCommand::Place(placement)) => state.set_placement(&me, placement),
            Message::Placement(PlacementCommand::SetDraining(draining)) => {
                state.draining = draining;
                state.grant_leases(&me);
            }
            Message::Placement(PlacementCommand::Evict) => {
                state.draining = true;
                state.unload_if_idle(&me);
            }
            Message::Unload(reply) => {
                let handle = state.unload(&me);
                if handle.is_some() {
                    state.metrics.ended(EngineEnd::Requested);
                    state.send_unloaded("unloaded on request");
                }
                send_reply(reply, handle);
            }
            Message::Engine(reply) => send_reply(reply, state.engine.weak_handle()),
            Message::Report(reply) => state.report(reply),
            Message::SetScheduler(scheduler) => {
                state.scheduler = scheduler;
                (state.draining, state.reported_in_use) = (false, None);
                state.grant_leases(&me);
            }
            Message::Loaded(result) => state.on_loaded(&me, result),
            Message::EngineExited { generation, reason } => state.on_engine_exited(&me, generation, reason),
            Message::IdleTimeOver(generation) => state.on_idle_time_over(&me, generation),
            #[cfg(feature = "test-panics")]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }

    async fn post_stop(&self, me: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // A scheduler that has stopped does not need the message.
        let _ = state.scheduler.cast(model_scheduler::Message::HostStopped(state.id.clone(), me.get_id()));
        Ok(())
    }
}

impl State {
    fn acquire(
        &mut self,
        me: &ActorRef<Message>,
        task: Option<TaskId>,
        reply: RpcReplyPort<Result<EngineLease, EngineUnavailable>>,
    ) {
        // The message about its end may still be on its way.
        if let Some(reason) = self.engine.handle().and_then(EngineHandle::end_reason) {
            self.on_engine_exited(me, self.generation, reason);
        }
        if let Some(refusal) = self.engine.refusal(&self.id, self.failures.count()) {
            return send_reply(reply, Err(refusal));
        }
        self.clear_failure();
        self.waiters.push_back(LeaseWaiter { task, reply, since: Instant::now() });
        self.grant_leases(me);
    }

    /// Forgets a failure, so that the next request loads at once.
    fn clear_failure(&mut self) {
        if matches!(self.engine, HostedEngine::Failed { .. }) {
            self.engine = HostedEngine::Unloaded;
        }
    }

    /// Grants leases to all waiters if the engine is ready and not draining, and sends the scheduler what changed.
    fn grant_leases(&mut self, me: &ActorRef<Message>) {
        if let HostedEngine::Ready { handle, .. } = &self.engine
            && !self.draining
        {
            while let Some(LeaseWaiter { task, reply, .. }) = self.waiters.pop_front() {
                self.leases += 1;
                self.users.on_granted(task);
                self.last_used = Some(self.clock.system_time());
                let (host, generation) = (me.clone(), self.generation);
                let release = move |outcome| {
                    // A host that was restarted counts its leases anew.
                    let _ = host.cast(Message::LeaseReleased { generation, task, outcome });
                };
                // If the caller stopped waiting, the lease is dropped here and counted as released.
                let _ = reply.send(Ok(EngineLease::new(handle.clone(), release)));
            }
        }
        self.send_status_if_changed(me);
    }

    fn on_lease_released(
        &mut self,
        me: &ActorRef<Message>,
        generation: u64,
        task: Option<TaskId>,
        outcome: LeaseOutcome,
    ) {
        self.leases = self.leases.saturating_sub(1);
        (self.idle_since, self.last_used) = (Instant::now(), Some(self.clock.system_time()));
        if generation == self.generation {
            self.users.on_released(task, &outcome);
            if let Some(reason) = self.step_failures.on_lease_ended(outcome) {
                self.end_failing(me, reason);
            }
        }
        if self.draining {
            self.unload_if_idle(me);
        }
        self.send_status_if_changed(me);
    }

    /// Ends an engine on which steps fail again and again; it counts as exited once its memory is free.
    fn end_failing(&mut self, me: &ActorRef<Message>, reason: String) {
        // Otherwise it is being unloaded for another reason.
        if let HostedEngine::Ready { handle, since, .. } = &self.engine {
            tracing::error!(model = %self.id, reason, "the engine is ended");
            let handle = handle.clone();
            (self.failing, self.prefill, self.idle_timer) = (Some((reason, *since)), None, None);
            self.engine = HostedEngine::Unloading(handle.downgrade());
            tokio::spawn(async move { handle.close().await });
            self.send_status(me);
        }
    }

    fn set_placement(&mut self, me: &ActorRef<Message>, placement: Result<Box<Placement>, EngineUnavailable>) {
        self.placement_version += 1;
        match placement {
            Err(reason) => self.on_placement_failed(me, &reason),
            // It is loaded or being loaded already.
            Ok(_) if matches!(self.engine, HostedEngine::Ready { .. } | HostedEngine::Loading(_)) => {
                self.send_status(me);
            }
            Ok(placement) => {
                self.device_bytes = placement.bytes();
                self.placement = Some(placement.clone());
                self.draining = false;
                self.load(me, placement);
                self.send_status(me);
            }
        }
    }

    fn load(&mut self, me: &ActorRef<Message>, placement: Box<Placement>) {
        let fraction = Arc::new(AtomicU32::new(0));
        self.engine = HostedEngine::Loading(fraction.clone());
        self.idle_since = Instant::now();
        let (me, model, loader) = (me.clone(), self.model.clone(), self.loader.clone());
        tokio::spawn(async move {
            tracing::info!(model = %model.name, devices = placement.devices().join(","), "loading the model");
            let progress: LoadProgress = Arc::new(move |loaded| fraction.store(loaded.to_bits(), Ordering::Relaxed));
            let task = tokio::spawn(async move { loader.load(&model, &placement, progress).await });
            let result = task.await.unwrap_or_else(|e| Err(LoadError::transient(format!("loading panicked: {e}"))));
            // A host that was restarted meanwhile drops the engine.
            let _ = me.cast(Message::Loaded(result));
        });
    }

    fn on_loaded(&mut self, me: &ActorRef<Message>, result: Result<EngineHandle, LoadError>) {
        let handle = match result {
            Ok(handle) => handle,
            Err(error) => return self.on_load_failed(me, error),
        };
        self.failures.on_loaded();
        (self.step_failures, self.failing) = (StepFailures::default(), None);
        self.users = EngineUsers::default();
        self.load_time = self.idle_since.elapsed();
        self.metrics.loaded(self.load_time);
        let EngineLimits { context_tokens, sequences, batch_tokens, .. } = handle.limits();
        let (model, seconds) = (&self.model.name, self.load_time.as_secs_f64());
        tracing::info!(%model, context_tokens, sequences, batch_tokens, seconds, "the engine is ready");
        self.generation += 1;
        let (since, ready_since) = (Instant::now(), self.clock.system_time());
        self.engine = HostedEngine::Ready { handle: handle.clone(), since, ready_since };
        hosted_engine::watch_exit(me, &handle, self.generation);
        self.grant_leases(me);
        self.start_prefill(handle);
        self.idle_timer = idle_timer::start(me, self.generation, self.model.keep, since);
    }

    /// Fails the waiters of a load that failed; it may be tried again after a pause.
    fn on_load_failed(&mut self, me: &ActorRef<Message>, error: LoadError) {
        tracing::error!(model = %self.id, %error, "failed to load the model");
        self.metrics.load_failed(LoadOutcome::Failed);
        self.send_unloaded(&format!("failed to load: {error}"));
        let reason = EngineUnavailable::Load(error);
        let pause = self.failures.on_load_failed(&reason);
        self.set_failed(&reason, pause);
        self.fail_waiters(me, &reason, pause);
    }

    /// Fails the waiters because the model has no placement, or because it is not known which one it needs.
    fn on_placement_failed(&mut self, me: &ActorRef<Message>, reason: &EngineUnavailable) {
        tracing::error!(model = %self.id, %reason, "cannot place the model");
        self.metrics.load_failed(LoadOutcome::Unplaced);
        let pause = Some(self.failures.on_placement_failed(reason));
        self.set_failed(reason, pause);
        self.fail_waiters(me, reason, pause);
    }

    fn fail_waiters(&mut self, me: &ActorRef<Message>, reason: &EngineUnavailable, pause: Option<Duration>) {
        let told = pause.map_or_else(|| reason.clone(), |pause| reason.during_pause(&self.id, pause));
        for waiter in self.waiters.drain(..) {
            send_reply(waiter.reply, Err(told.clone()));
        }
        self.send_status(me);
    }

    /// Sets the state after a failure: the engine may be loaded again after the pause; without one, it is given up.
    fn set_failed(&mut self, reason: &EngineUnavailable, pause: Option<Duration>) {
        self.set_unloaded();
        let retry_at = pause.map(|pause| Instant::now() + pause);
        if retry_at.is_none() {
            let failures = self.failures.count();
            tracing::error!(model = %self.id, failures, "gave up loading the model: `artel load` tries again");
        }
        self.engine = HostedEngine::Failed { reason: reason.clone(), retry_at };
    }

    /// Tells the scheduler why the engine, which was loaded or being loaded, is gone.
    fn send_unloaded(&self, reason: &str) {
        // A scheduler that was restarted has lost its history anyway.
        let _ = self.scheduler.cast(model_scheduler::Message::EngineUnloaded(self.id.clone(), reason.to_owned()));
    }

    /// Sets the state after the engine's memory was freed.
    fn set_unloaded(&mut self) {
        self.engine = HostedEngine::Unloaded;
        (self.prefill, self.idle_timer, self.placement) = (None, None, None);
        self.device_bytes.clear();
        self.draining = false;
    }

    fn on_engine_exited(&mut self, me: &ActorRef<Message>, generation: u64, reason: String) {
        if generation != self.generation {
            return;
        }
        match std::mem::replace(&mut self.engine, HostedEngine::Unloaded) {
            HostedEngine::Ready { since, handle, .. } => {
                self.metrics.ended(if handle.has_hung() { EngineEnd::Hung } else { EngineEnd::Exited });
                // What it did well before shows that it does not always fail: a step may have ended it.
                let was_healthy = self.step_failures.has_served() || since.elapsed() >= HEALTHY_AGE;
                let tasks = self.users.take();
                self.on_unexpected_end(me, reason, was_healthy, &tasks);
            }
            HostedEngine::Unloading(_) => match self.failing.take() {
                Some((reason, since)) => {
                    self.metrics.ended(EngineEnd::Failing);
                    // One that has never done anything well was not healthy, however long it was there.
                    let was_healthy = self.step_failures.has_served() && since.elapsed() >= HEALTHY_AGE;
                    self.on_unexpected_end(me, reason, was_healthy, &BTreeSet::new());
                }
                None => self.set_unloaded(),
            },
            // It was unloaded, and is being loaded again already.
            other => self.engine = other,
        }
        self.send_status(me);
    }

    /// The engine has ended without being asked to, or because its steps failed.
    fn on_unexpected_end(
        &mut self,
        me: &ActorRef<Message>,
        reason: String,
        was_healthy: bool,
        tasks: &BTreeSet<TaskId>,
    ) {
        tracing::warn!(model = %self.id, reason, was_healthy, "the engine exited unexpectedly");
        self.send_unloaded(&format!("the engine exited unexpectedly: {reason}"));
        let pause = self.failures.on_exited(was_healthy, tasks);
        self.restarts += 1;
        self.last_error = Some(reason.clone());
        let reason = EngineUnavailable::Exited(reason);
        self.set_failed(&reason, pause);
        if pause.is_none() {
            self.fail_waiters(me, &reason, None);
        }
    }

    fn set_workload(&mut self, me: &ActorRef<Message>, workload: ModelWorkload) {
        (self.workload, self.has_left_catalog) = (workload, false);
        // The catalog may have changed.
        self.failures.reset();
        self.clear_failure();
        if let HostedEngine::Ready { handle, .. } = &self.engine {
            let handle = handle.clone();
            self.start_prefill(handle);
        }
        self.send_status(me);
    }

    /// Whether it is kept for ever. A model that only running tasks need keeps out none that follows it.
    fn is_kept(&self) -> bool {
        self.model.keep == KeepLoaded::Forever && !self.has_left_catalog
    }

    fn start_prefill(&mut self, handle: EngineHandle) {
        self.prefill = Some(prefill::start(handle, self.workload.clone(), &self.model, self.loader.clone()));
    }

    /// Unloads a ready engine. A load in progress continues, since steps wait for it.
    fn unload(&mut self, me: &ActorRef<Message>) -> Option<EngineHandle> {
        match std::mem::replace(&mut self.engine, HostedEngine::Unloaded) {
            HostedEngine::Ready { handle, since, .. } => {
                tracing::info!(model = %self.model.name, "unloading the model");
                if since.elapsed() >= HEALTHY_AGE {
                    self.failures.reset();
                }
                self.engine = HostedEngine::Unloading(handle.downgrade());
                (self.prefill, self.idle_timer) = (None, None);
                self.send_status(me);
                Some(handle)
            }
            HostedEngine::Failed { .. } => {
                self.set_unloaded();
                None
            }
            other => {
                self.engine = other;
                None
            }
        }
    }

    fn unload_if_idle(&mut self, me: &ActorRef<Message>) {
        if self.leases == 0 {
            self.close_unused(me, EngineEnd::Evicted);
        }
    }

    fn close_unused(&mut self, me: &ActorRef<Message>, end: EngineEnd) {
        if let Some(handle) = self.unload(me) {
            self.metrics.ended(end);
            // Without leases, closing interrupts only prefills.
            tokio::spawn(async move { handle.close().await });
        }
    }

    /// Since when the engine has been idle, if it is ready and nothing uses or waits for it.
    fn idle_since(&self) -> Option<Instant> {
        let HostedEngine::Ready { since, .. } = &self.engine else { return None };
        (self.leases == 0 && self.waiters.is_empty()).then(|| self.idle_since.max(*since))
    }

    /// Unloads the engine if it has been idle for as long as its model is kept; otherwise, asks again when it may have been.
    fn on_idle_time_over(&mut self, me: &ActorRef<Message>, generation: u64) {
        let Some(time) = idle_timer::keep_time(self.model.keep).filter(|_| generation == self.generation) else {
            return;
        };
        match self.idle_since() {
            Some(since) if since.elapsed() >= time => {
                self.close_unused(me, EngineEnd::Idle);
                self.send_unloaded(&format!("nothing has used it for {time:?}, as its `keep` says"));
            }
            since => {
                let since = since.unwrap_or_else(Instant::now);
                self.idle_timer = idle_timer::start(me, generation, self.model.keep, since);
            }
        }
    }

    /// Whether the engine is in use, if it is ready and grants leases at once.
    fn in_use(&self) -> Option<bool> {
        let is_ready = matches!(self.engine, HostedEngine::Ready { .. }) && self.waiters.is_empty() && !self.draining;
        is_ready.then_some(self.leases > 0)
    }

    /// Sends the status unless only the number of leases has changed: the scheduler does not need every step.
    fn send_status_if_changed(&mut self, me: &ActorRef<Message>) {
        if self.reported_in_use.is_none() || self.reported_in_use != self.in_use() {
            self.send_status(me);
        }
    }

    fn send_status(&mut self, me: &ActorRef<Message>) {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        self.reported_in_use = self.in_use();
        let status = EngineStatus {
            model: self.model.clone(),
            demand: self.workload.memory_demand(),
            residency: self.engine.residency(),
            leases: self.leases,
            waiting_steps: self.waiters.len() as u32,
            waiting_since: self.waiters.front().map(|waiter| waiter.since),
            idle_since: self.idle_since,
            load_time: self.load_time,
            device_bytes: self.device_bytes.clone(),
            is_kept: self.is_kept(),
            has_left_catalog: self.has_left_catalog,
            placement_version: self.placement_version,
        };
        let message = model_scheduler::Message::Status(self.id.clone(), me.get_derived(), Box::new(status));
        // A scheduler that has stopped is restarted and sent the status then.
        let _ = self.scheduler.cast(message);
    }

    fn report(&self, reply: RpcReplyPort<EngineReport>) {
        let (handle, idle) = (self.engine.handle().cloned(), self.idle_since().map(|since| since.elapsed()));
        let report = EngineReport {
            id: self.id.to_string(),
            model: self.model.clone(),
            state: self.engine.state(self.draining, || self.loader.download_progress(&self.model)),
            stats: None,
            limits: handle.as_ref().map(EngineHandle::limits),
            sampling_defaults: handle.as_ref().map(EngineHandle::sampling_defaults).unwrap_or_default(),
            placement: self.placement.as_deref().cloned(),
            device_bytes: self.device_bytes.clone(),
            adapters: self.workload.adapters.iter().map(|set| adapters_text(set)).collect(),
            process_id: handle.as_ref().and_then(EngineHandle::process_id),
            restarts: self.restarts,
            last_error: self.last_error.clone(),
            ready_since: self.engine.ready_since(),
            last_used: self.last_used,
            active_steps: self.leases,
            load_time: self.load_time,
            waiting_steps: self.waiters.len() as u32,
            idle,
            is_kept: self.is_kept(),
            unloads_at: idle_timer::unloads_after(self.model.keep, idle).map(|time| self.clock.system_time() + time),
        };
        report.send_with_stats(handle, reply);
    }
}

/// The caller may have stopped waiting.
fn send_reply<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
