//! The one thread that owns a model: takes in jobs, asks the schedule, computes, samples, sends output.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::adapter_sets::{self, AdapterSets, MAX_ADAPTER_SETS};
use crate::adapter_turn::AdapterTurn;
use crate::backend::{self, AdapterSet, Backend, EngineLimits, ForcedTokens, Slot, Token, Tokenizer};
use crate::batch_cost::BatchCost;
use crate::command::EngineCommand;
use crate::compaction::CompactionPolicy;
use crate::counters::Counters;
use crate::disk_prefix_cache::DiskPrefixCache;
use crate::draft::DraftPolicy;
use crate::file_version::FileVersion;
use crate::heartbeat::EngineActivity;
use crate::options::Options;
use crate::pooling_queue::PoolingQueue;
use crate::prefix_cache::PrefixCache;
use crate::prefix_pins::PrefixPins;
use crate::request::{Error, FinishReason, Priority};
use crate::schedule::{self, QueuedView};
use crate::sequence::{Job, Sequence, SequenceKind};
use crate::slot_table::{SlotMatch, SlotTable};
use crate::wait_queue::{QueuedSequence, QueuedState, aged_priority};

mod compact;
mod compute;
mod pool;
mod reason;
mod shared_prompt;

pub(crate) struct EngineWorker<B: Backend> {
    backend: B,
    tokenizer: Arc<dyn Tokenizer>,
    limits: EngineLimits,
    options: Options,
    commands: mpsc::Receiver<EngineCommand>,
    counters: Arc<Counters>,
    adapters: AdapterSets,
    waiting: Vec<QueuedSequence<B::Sampler>>,
    slots: SlotTable<Sequence<B::Sampler>>,
    prefix_cache: PrefixCache,
    disk_cache: Option<DiskPrefixCache>,
    /// Tokens served, by flow.
    served_tokens: HashMap<Arc<str>, u64>,
    turn: AdapterTurn,
    arrivals: u64,
    /// The cost of prompts; turns the target inter-token latency into a chunk.
    batch_cost: BatchCost,
    /// Texts that wait to be computed as a whole.
    pooling: PoolingQueue,
    /// The cost of their batches.
    pooling_cost: BatchCost,
    draft_policy: DraftPolicy,
    compaction: CompactionPolicy,
}

/// Why the loop ended.
enum WorkerExit {
    Closed,
    Fatal(String),
}

impl<B: Backend> EngineWorker<B> {
    pub(crate) fn new(
        backend: B,
        options: Options,
        commands: mpsc::Receiver<EngineCommand>,
        counters: Arc<Counters>,
        pins: PrefixPins,
    ) -> Self {
        let (tokenizer, mut limits) = (backend.tokenizer(), backend.limits());
        // One token of a batch is reserved for prompts, so decoding sequences can never shut out prompts, nor one another.
        limits.sequences = limits.sequences.min(limits.batch_tokens.saturating_sub(1).max(1));
        let disk_cache = options.disk_prefix_cache.as_ref().filter(|_| options.prefix_cache_bytes > 0);
        Self {
            backend,
            tokenizer,
            slots: SlotTable::new(limits.sequences),
            prefix_cache: PrefixCache::new(options.prefix_cache_bytes, pins),
            disk_cache: disk_cache.and_then(DiskPrefixCache::open),
            limits,
            options,
            commands,
            counters,
            adapters: AdapterSets::default(),
            waiting: Vec::new(),
            served_tokens: HashMap::new(),
            turn: AdapterTurn::default(),
            arrivals: 0,
            batch_cost: BatchCost::default(),
            pooling: PoolingQueue::default(),
            pooling_cost: BatchCost::default(),
            draft_policy: DraftPolicy::default(),
            compaction: CompactionPolicy::default(),
        }
    }

    /// Runs until all handles are dropped, `Close` comes or the model is unusable; returns why it ended.
    pub(crate) fn run(mut self) -> String {
        let reason = match self.run_loop() {
            WorkerExit::Closed => "it was closed".to_owned(),
            WorkerExit::Fatal(reason) => {
                tracing::error!(%reason, "the model is unusable; the engine ends");
                reason
            }
        };
        for sequence in self.slots.clear() {
            sequence.fail(Error::Ended(reason.clone()));
        }
        for queued in self.waiting.drain(..) {
            queued.fail(Error::Ended(reason.clone()));
        }
        reason
    }

    fn run_loop(&mut self) -> WorkerExit {
        loop {
            if let Err(exit) = self.receive() {
                return exit;
            }
            self.record_work(None);
            self.cancel_dropped();
            self.unload_unretained();
            self.admit();
            self.drop_unadmitted_prefetch();
            self.update_counters();
            self.pool();
            if let Err(exit) = self.step() {
                return exit;
            }
        }
    }

    /// Handles all pending commands; waits for one if there is nothing to compute.
    fn receive(&mut self) -> Result<(), WorkerExit> {
        let is_busy = !self.pooling.is_empty()
            || !self.waiting.is_empty() && self.slots.has_free()
            || self.slots.running().values().any(|s| s.job.output.is_closed() || s.job.output.has_capacity());
        if !is_busy {
            self.counters.heartbeat.record(EngineActivity::Idle);
            let command = self.commands.recv().map_err(|_| WorkerExit::Closed)?;
            self.record_work(None);
            self.handle(command)?;
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle(command)?,
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(WorkerExit::Closed),
            }
        }
    }

    fn handle(&mut self, command: EngineCommand) -> Result<(), WorkerExit> {
        match command {
            EngineCommand::Submit(job) => self.enqueue(job),
            EngineCommand::RetainAdapters(keys) => self.adapters.retain(keys),
            EngineCommand::Pool(job) => self.pooling.push(job),
            EngineCommand::ForgetText(reply) => self.forget_text(reply),
            EngineCommand::Wake => {}
            EngineCommand::Close => return Err(WorkerExit::Closed),
        }
        Ok(())
    }

    /// Drops what may hold the text of a caller, but for sequences that run: their prefixes are not cached any more.
    fn forget_text(&mut self, reply: oneshot::Sender<io::Result<()>>) {
        // What is prefilled for a request that was dropped would stay resident.
        self.cancel_dropped();
        for sequence in self.slots.running_mut().filter(|sequence| !sequence.job.has_fixed_prefix) {
            sequence.caches_prefix = false;
        }
        for slot in self.slots.take_residents(|_| true) {
            self.backend.truncate_kv(slot, 0);
        }
        self.prefix_cache.remove_text();
        self.counters.prefix_cache_bytes.store(self.prefix_cache.bytes() as u64, Relaxed);
        match &mut self.disk_cache {
            Some(disk_cache) => disk_cache.remove_text(reply),
            // The caller may have stopped waiting.
            None => drop(reply.send(Ok(()))),
        }
    }

    /// Records that a piece of work begins which is expected to take this long.
    fn record_work(&self, expected: Option<Duration>) {
        self.counters.heartbeat.record(EngineActivity::Computes { expected });
    }

    /// Computes while it holds the cores that engines share. Returns the result and how long it took, without the wait for
    /// the cores.
    fn with_cpu<T>(&mut self, expected: Option<Duration>, compute: impl FnOnce(&mut B) -> T) -> (T, Duration) {
        let (result, took) = {
            let _lease = self.options.shared_cpu.as_ref().map(|cpu| {
                self.counters.heartbeat.record(EngineActivity::AwaitsCpu);
                cpu.acquire()
            });
            self.counters.heartbeat.record(EngineActivity::Computes { expected });
            let started = Instant::now();
            (compute(&mut self.backend), started.elapsed())
        };
        self.record_work(None);
        self.counters.add_compute_time(took);
        (result, took)
    }

    fn enqueue(&mut self, job: Box<Job>) {
        // Prefetch never loads an adapter, which might unload another one, for a request that may not come.
        if job.priority == Priority::Prefetch && !self.are_adapters_loaded(&job) {
            return finish_unneeded(*job);
        }
        match job.span.in_scope(|| self.adapters_of(&job)) {
            Ok(adapters) => {
                self.arrivals += 1;
                let (arrival, state) = (self.arrivals, QueuedState::New(job));
                self.waiting.push(QueuedSequence { adapters, arrival, state });
                self.enforce_queue_limit();
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(error.into_refusal());
            }
        }
    }

    /// Whether the adapters of a job are loaded.
    fn are_adapters_loaded(&mut self, job: &Job) -> bool {
        let versions = FileVersion::of_each(job.adapters.iter().map(|(path, _)| path));
        job.adapters.is_empty() || self.adapters.find(&adapter_sets::key_of(&job.adapters), &versions).is_some()
    }

    /// The adapters of a job, loaded if need be, for which the least recently used idle ones may be unloaded.
    fn adapters_of(&mut self, job: &Job) -> Result<AdapterSet, backend::Error> {
        if job.adapters.is_empty() {
            return Ok(AdapterSet::NONE);
        }
        let key = adapter_sets::key_of(&job.adapters);
        // If another file takes the place of one from here on, the next job finds it and loads it.
        let versions = FileVersion::of_each(job.adapters.iter().map(|(path, _)| path));
        if let Some(adapters) = self.adapters.find(&key, &versions) {
            return Ok(adapters);
        }
        if self.adapters.len() >= MAX_ADAPTER_SETS {
            let is_idle = |adapters| is_idle(&self.slots, &self.waiting, adapters);
            let oldest = self.adapters.take_least_recent(is_idle);
            let full = || backend::Error::Exhausted("too many adapters are in use at once".to_owned());
            self.unload(oldest.ok_or_else(full)?);
        }
        let adapters = self.backend.load_adapters(&job.adapters)?;
        self.adapters.add(key, versions, adapters);
        Ok(adapters)
    }

    /// Unloads adapters that are no longer retained or whose files are others by now, once no sequence uses them.
    fn unload_unretained(&mut self) {
        let is_idle = |adapters| is_idle(&self.slots, &self.waiting, adapters);
        for adapters in self.adapters.take_unretained(is_idle) {
            self.unload(adapters);
        }
    }

    fn unload(&mut self, adapters: AdapterSet) {
        for slot in self.slots.take_residents(|owner| owner == adapters) {
            self.backend.truncate_kv(slot, 0);
        }
        self.prefix_cache.remove_adapters(adapters);
        self.backend.unload_adapters(adapters);
        tracing::info!(adapters = adapters.0, "unloaded adapters");
    }

    /// Refuses the newest sequence if the queue is too long even after all possible cancellations and admissions.
    fn enforce_queue_limit(&mut self) {
        // Prefetch never stays in the queue.
        let counts = |queued: &QueuedSequence<_>| queued.is_new() && queued.job().priority != Priority::Prefetch;
        let is_full =
            |this: &Self| this.waiting.iter().filter(|queued| counts(queued)).count() > this.options.max_waiting;
        if !is_full(self) {
            return;
        }
        self.cancel_dropped();
        self.admit();
        if !is_full(self) {
            return;
        }
        let new = (0..self.waiting.len()).filter(|at| counts(&self.waiting[*at]));
        let newest = new.max_by_key(|at| self.waiting[*at].arrival).expect("the queue is not empty");
        self.counters.failed.fetch_add(1, Relaxed);
        self.waiting.swap_remove(newest).fail(Error::QueueFull(self.options.max_waiting));
    }

    /// Ends the sequences whose streams were dropped and frees their cells, before anything else is computed.
    fn cancel_dropped(&mut self) {
        let dropped = self.waiting.extract_if(.., |queued| queued.job().output.is_closed());
        let dropped = dropped.inspect(|queued| queued.job().log_dropped());
        let cancelled = dropped.filter(|queued| queued.job().priority.is_requested()).count();
        self.counters.cancelled.fetch_add(cancelled as u64, Relaxed);
        let dropped = self.slots.running().iter().filter(|(_, s)| s.job.output.is_closed()).map(|(at, _)| *at);
        for at in dropped.collect::<Vec<_>>() {
            // Tokens that were prefilled for later requests stay useful to them.
            let prefill = self.slots.get_mut(at).filter(|sequence| matches!(sequence.kind, SequenceKind::Prefill));
            let resident = prefill.map(|sequence| sequence.resident_tokens()).unwrap_or_default();
            if let Some(sequence) = self.release(at, resident) {
                self.counters.cancelled.fetch_add(u64::from(sequence.job.priority.is_requested()), Relaxed);
                sequence.job.log_dropped();
            }
        }
    }

    /// Prefetch is useful now or not at all: what finds no free slot is dropped.
    fn drop_unadmitted_prefetch(&mut self) {
        let slots = &self.slots;
        let is_late =
            |queued: &mut QueuedSequence<B::Sampler>| queued.job().priority == Priority::Prefetch && !slots.has_free();
        for queued in self.waiting.extract_if(.., is_late) {
            if let QueuedState::New(job) = queued.state {
                finish_unneeded(*job);
            }
        }
    }

    /// Takes a sequence out of its slot and frees its cells, unless these tokens are to stay resident in them.
    fn release(&mut self, slot: Slot, resident: Vec<Token>) -> Option<Sequence<B::Sampler>> {
        if resident.is_empty() {
            self.backend.truncate_kv(slot, 0);
        }
        let prefetch = self.slots.get_mut(slot).filter(|s| s.job.priority == Priority::Prefetch);
        let prefetched_for = prefetch.map(|sequence| sequence.job.flow.clone());
        let sequence = self.slots.release(slot, resident, prefetched_for);
        self.update_counters();
        sequence
    }

    fn admit(&mut self) {
        while let Some(at) = self.next_to_admit() {
            if !self.slots.has_free() && !self.preempt_for(at) {
                break;
            }
            let QueuedSequence { adapters, arrival, state } = self.waiting.swap_remove(at);
            match state {
                QueuedState::New(job) => self.start(*job, adapters, arrival),
                QueuedState::Preempted(sequence, state) => self.resume(*sequence, &state),
            }
        }
    }

    /// The next sequence for a slot. A sequence whose prefix is being computed waits for it.
    fn next_to_admit(&self) -> Option<usize> {
        let is_ready = |queued: &&QueuedSequence<B::Sampler>| {
            let waits_for_prefix = queued.is_new() && self.slot_computing_prefix_of(queued).is_some();
            !waits_for_prefix && !self.waits_for_prompt(queued)
        };
        let now = Instant::now();
        let view = |queued: &QueuedSequence<B::Sampler>| queued.view(self.served_tokens_of(&queued.job().flow), now);
        let views: Vec<QueuedView> = self.waiting.iter().filter(is_ready).map(view).collect();
        let arrival = schedule::admit(&views).map(|at| views[at].arrival)?;
        self.waiting.iter().position(|queued| queued.arrival == arrival)
    }

    /// Preempts the sequence of the lowest priority for a queued one of a higher priority. Its cells are saved in host memory;
    /// those of a prefill stay resident instead.
    fn preempt_for(&mut self, at: usize) -> bool {
        let now = Instant::now();
        let newcomer = aged_priority(self.waiting[at].job(), now);
        let lower = self.slots.running().iter().filter(|(_, s)| aged_priority(&s.job, now) > newcomer);
        let Some((victim, sequence)) = lower.max_by_key(|(_, s)| (aged_priority(&s.job, now), s.arrival)) else {
            return false;
        };
        let (victim, is_prefill) = (*victim, matches!(sequence.kind, SequenceKind::Prefill));
        let needs_no_state = is_prefill || sequence.position() == 0;
        let state = if needs_no_state { Ok(Vec::new()) } else { self.backend.save_state(victim) };
        // A model whose cells cannot be saved preempts nothing.
        let Ok(state) = state else { return false };
        let resident = self.slots.get_mut(victim).map(|s| s.resident_tokens()).unwrap_or_default();
        let Some(sequence) = self.release(victim, resident) else { return false };
        let (adapters, arrival) = (sequence.adapters, sequence.arrival);
        let state = if is_prefill {
            QueuedState::New(Box::new(sequence.job))
        } else {
            QueuedState::Preempted(Box::new(sequence), state)
        };
        self.waiting.push(QueuedSequence { adapters, arrival, state });
        true
    }

    /// Resumes a preempted sequence in a free slot.
    fn resume(&mut self, sequence: Sequence<B::Sampler>, state: &[u8]) {
        let slot = self.best_match(sequence.adapters, &[], 0).slot;
        self.backend.truncate_kv(slot, 0);
        if sequence.position() > 0
            && let Err(error) = self.backend.restore_state(slot, state)
        {
            self.backend.truncate_kv(slot, 0);
            self.slots.remove_resident(slot);
            self.counters.failed.fetch_add(1, Relaxed);
            return sequence.fail(error.into_failure());
        }
        self.slots.assign(slot, sequence);
    }

    /// The slot of a sequence that is computing exactly the prefix that a queued one needs: computing it twice would help neither.
    fn slot_computing_prefix_of(&self, queued: &QueuedSequence<B::Sampler>) -> Option<Slot> {
        let job = queued.job();
        let is_same = |s: &Sequence<B::Sampler>| {
            s.caches_prefix
                && s.adapters == queued.adapters
                && s.num_computed_prompt_tokens < s.job.prefix_len as u32
                && s.job.prefix_len == job.prefix_len
                && s.job.prompt[..job.prefix_len] == job.prompt[..job.prefix_len]
        };
        let mut running = self.slots.running().iter().filter(|_| job.prefix_len > 0);
        running.find(|(_, s)| is_same(s)).map(|(slot, _)| *slot)
    }

    fn served_tokens_of(&self, flow: &Arc<str>) -> u64 {
        self.served_tokens.get(flow).copied().unwrap_or(0)
    }

    /// Starts a new sequence in a free slot.
    fn start(&mut self, mut job: Job, adapters: AdapterSet, arrival: u64) {
        let span = job.span.clone();
        let _in_request = span.enter();
        let prefix = job.prompt[..job.prefix_len].to_vec();
        if let Some(disk_cache) = &mut self.disk_cache {
            disk_cache.index_adapters(adapters, self.backend.fingerprint(adapters));
        }
        self.load_from_disk(adapters, &job);
        if job.priority == Priority::Background && self.prefix_cache.contains(adapters, &prefix) {
            return finish_unneeded(job);
        }
        match self.kind_of(&mut job) {
            Ok((kind, forced_start)) => {
                let Some((slot, cached)) = self.prepare_slot(adapters, &job) else { return finish_unneeded(job) };
                // A flow that was idle must not claim the time that it did not use.
                let running = self.slots.running().values();
                let least = running.map(|s| self.served_tokens_of(&s.job.flow)).min().unwrap_or(0);
                let served = self.served_tokens.entry(job.flow.clone()).or_default();
                *served = (*served).max(least);
                let caches_prefix = cached < prefix.len()
                    && self.options.prefix_cache_bytes > 0
                    && !self.prefix_cache.contains(adapters, &prefix);
                if job.priority.is_requested() {
                    self.counters.cached_tokens.fetch_add(cached as u64, Relaxed);
                }
                let mut sequence = Sequence::new(job, (adapters, arrival), kind, cached as u32, caches_prefix);
                let (tokenizer, context_tokens) = (&*self.tokenizer, self.limits.context_tokens);
                let forced = sequence.append_forced_start(forced_start, tokenizer, context_tokens);
                self.counters.output_tokens.fetch_add(u64::from(forced), Relaxed);
                tracing::debug!(adapters = adapters.0, slot = slot.0, cached, "the request is admitted to a slot");
                self.slots.assign(slot, sequence);
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(error.into_refusal());
            }
        }
    }

    /// The kind of a job's sequence, and the tokens that its output must begin with.
    fn kind_of(&mut self, job: &mut Job) -> Result<(SequenceKind<B::Sampler>, ForcedTokens), backend::Error> {
        if !job.priority.is_requested() {
            return Ok((SequenceKind::Prefill, ForcedTokens::default()));
        }
        if let Some(scoring) = job.scoring.take() {
            return Ok((SequenceKind::Score(scoring), ForcedTokens::default()));
        }
        let mut sampler = self.backend.create_sampler(&job.sampling, job.schema.as_deref(), &job.prompt)?;
        if let Some(calls) = job.calls.as_ref().and_then(|calls| calls.constraint.as_ref()) {
            self.backend.constrain_calls(&mut sampler, calls)?;
        }
        if job.reasoning.as_ref().is_some_and(|reasoning| reasoning.holds_constraint()) {
            self.backend.hold_schema(&mut sampler, true);
        }
        let forced_start = self.backend.forced_tokens(&mut sampler)?;
        Ok((SequenceKind::Generate(sampler), forced_start))
    }

    /// Loads the prefix of a prompt into the prefix cache, if a longer one is on disk than in memory.
    fn load_from_disk(&mut self, adapters: AdapterSet, job: &Job) {
        let in_memory = self.prefix_cache.find(adapters, &job.prompt).map_or(0, |(length, _)| length);
        let may_be_whole = job.priority == Priority::Background;
        let disk_cache = self.disk_cache.as_mut();
        let found = disk_cache.and_then(|cache| cache.find(adapters, &job.prompt, in_memory, may_be_whole));
        if let Some(found) = found {
            let flow = (&job.flow, found.is_fixed);
            self.prefix_cache.insert(adapters, flow, &found.tokens, &found.state.into(), found.seconds);
            self.counters.prefix_cache_bytes.store(self.prefix_cache.bytes() as u64, Relaxed);
        }
    }

    /// A free slot and how many tokens of the prompt are in its cells, resident or restored from the prefix cache, whichever are
    /// more. None if a prefetch would overwrite more prefetched tokens of other flows than it saves.
    fn prepare_slot(&mut self, adapters: AdapterSet, job: &Job) -> Option<(Slot, usize)> {
        let cached = self.prefix_cache.find(adapters, &job.prompt);
        let cached_len = cached.as_ref().map_or(0, |(length, _)| *length);
        let SlotMatch { slot, matched_tokens, saved_tokens } = self.best_match(adapters, &job.prompt, cached_len);
        if job.priority == Priority::Prefetch && saved_tokens < 0 {
            return None;
        }
        if let Some(copied) = self.copy_prompt((adapters, slot), job, matched_tokens.max(cached_len)) {
            return Some((slot, copied));
        }
        if let Some((length, state)) = cached.filter(|(length, _)| *length > matched_tokens) {
            self.backend.truncate_kv(slot, 0);
            let restored = self.backend.restore_state(slot, &state);
            if let Err(error) = &restored {
                tracing::warn!(%error, "cannot restore a prefix from the prefix cache; it is computed");
                self.backend.truncate_kv(slot, 0);
            }
            return Some((slot, if restored.is_ok() { length } else { 0 }));
        }
        let is_kept = self.backend.truncate_kv(slot, matched_tokens as u32);
        Some((slot, if is_kept { matched_tokens } else { 0 }))
    }

    /// The best free slot for a prompt of which so many tokens are in the prefix cache.
    fn best_match(&self, adapters: AdapterSet, prompt: &[Token], cached: usize) -> SlotMatch {
        let best = self.slots.best_match(adapters, prompt, cached, |flow| self.prefix_cache.is_pinned(flow));
        best.expect("callers have checked that a slot is free")
    }

    /// Caches the prefix that a sequence has just computed.
    fn cache_prefix(&mut self, slot: Slot) {
        let state = self.backend.save_state(slot);
        let sequence = self.slots.get_mut(slot).expect("the sequence was just computed");
        sequence.caches_prefix = false;
        let (job, adapters, seconds) = (&sequence.job, sequence.adapters, sequence.prefill_time.as_secs_f64());
        match state {
            Ok(state) => {
                let (state, prefix) = (state.into(), &job.prompt[..job.prefix_len]);
                let is_fixed = job.has_fixed_prefix;
                self.prefix_cache.insert(adapters, (&job.flow, is_fixed), prefix, &state, seconds);
                if let Some(disk_cache) = &mut self.disk_cache {
                    disk_cache.insert(adapters, (prefix, is_fixed), &state, seconds);
                }
            }
            Err(error) => {
                let warn = || tracing::warn!(%error, flow = %job.flow, "cannot save a prefix for the prefix cache");
                job.span.in_scope(warn);
            }
        }
        self.counters.prefix_cache_bytes.store(self.prefix_cache.bytes() as u64, Relaxed);
    }

    fn update_counters(&self) {
        self.counters.running.store(self.slots.running().len() as u64, Relaxed);
        self.counters.waiting.store(self.waiting.len() as u64, Relaxed);
    }
}

/// Finishes a prefill that is not needed, before any of it is computed.
fn finish_unneeded(job: Job) {
    Sequence::new(job, (AdapterSet::NONE, 0), SequenceKind::<()>::Prefill, 0, false).finish(FinishReason::Stop);
}

/// Whether no sequence with these adapters runs or waits for a slot.
fn is_idle<S>(slots: &SlotTable<Sequence<S>>, waiting: &[QueuedSequence<S>], adapters: AdapterSet) -> bool {
    slots.running().values().all(|s| s.adapters != adapters) && waiting.iter().all(|queued| queued.adapters != adapters)
}
