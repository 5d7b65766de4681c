//! The one thread that owns a model: takes jobs in, asks the schedule, computes, samples, delivers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::{Backend, Embedded, Entry, Fault, Lane, Limits, Sampled, Slot, Text};
use crate::handle::{Counters, Options};
use crate::request::{Error, Reason};
use crate::schedule::{self, AGEING, Budget, Share, View, Waiting};
use crate::sequence::{Job, Sequence, Went};
use crate::turn::Turn;

/// What other threads ask of the worker.
pub(crate) enum Command {
    Generate(Job),
    Embed(Vec<String>, oneshot::Sender<Result<Embedded, String>>),
    /// A stream was drained or dropped: look again.
    Wake,
    /// End; all sequences fail.
    Close,
}

pub(crate) struct Worker<B: Backend> {
    backend: B,
    text: Arc<dyn Text>,
    limits: Limits,
    options: Options,
    commands: mpsc::Receiver<Command>,
    counters: Arc<Counters>,
    waiting: Vec<(Job, Lane, u64)>,
    seated: BTreeMap<(Lane, Slot), Sequence<B::Sampler>>,
    served: HashMap<Arc<str>, u64>,
    last: Lane,
    arrivals: u64,
    /// Seconds per prompt token, a moving average; what turns the target gap into a chunk.
    prefill_cost: f64,
}

/// Why the loop ended.
enum End {
    Closed,
    Fatal(String),
}

impl<B: Backend> Worker<B> {
    pub(crate) fn new(
        backend: B,
        options: Options,
        commands: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
    ) -> Self {
        let (text, mut limits) = (backend.text(), backend.limits());
        // One entry of a batch stays for prompts, so those who decode can never shut them out, nor one another.
        limits.sequences = limits.sequences.min(limits.batch.saturating_sub(1).max(1));
        Self {
            backend,
            text,
            limits,
            options,
            commands,
            counters,
            waiting: Vec::new(),
            seated: BTreeMap::new(),
            served: HashMap::new(),
            last: Lane::BASE,
            arrivals: 0,
            prefill_cost: 0.0,
        }
    }

    /// Works until all handles are gone, `Close` comes or the model is gone; says why it ended.
    pub(crate) fn run(mut self) -> String {
        let reason = match self.work() {
            End::Closed => "it was closed".to_owned(),
            End::Fatal(reason) => {
                tracing::error!(%reason, "the model is gone");
                reason
            }
        };
        for (_, sequence) in std::mem::take(&mut self.seated) {
            sequence.fail(Error::Gone(reason.clone()));
        }
        for (job, ..) in self.waiting.drain(..) {
            job.fail(Error::Gone(reason.clone()));
        }
        reason
    }

    fn work(&mut self) -> End {
        loop {
            if let Err(end) = self.listen() {
                return end;
            }
            self.sweep();
            self.admit();
            self.count();
            if let Err(reason) = self.step() {
                return End::Fatal(reason);
            }
        }
    }

    /// Takes all commands that are there; waits for one if there is nothing to compute.
    fn listen(&mut self) -> Result<(), End> {
        let busy = !self.waiting.is_empty() && self.has_free_slot()
            || self.seated.values().any(|s| s.job.reader.is_gone() || s.job.reader.has_room());
        if !busy {
            let command = self.commands.recv().map_err(|_| End::Closed)?;
            self.command(command)?;
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.command(command)?,
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(End::Closed),
            }
        }
    }

    fn has_free_slot(&self) -> bool {
        self.waiting.iter().any(|(_, lane, _)| self.free_slot(*lane).is_some())
    }

    fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Generate(job) => self.enqueue(job),
            // Whoever asked has gone.
            Command::Embed(_, answer) if answer.is_closed() => drop(self.counters.embeds.fetch_sub(1, Relaxed)),
            Command::Embed(texts, answer) => {
                let embedded = {
                    let _turn = self.options.turn.as_ref().map(Turn::take);
                    self.backend.embed(&texts)
                };
                self.counters.embeds.fetch_sub(1, Relaxed);
                // Whoever asked may have stopped waiting.
                let _ = answer.send(embedded);
            }
            Command::Wake => {}
            Command::Close => return Err(End::Closed),
        }
        Ok(())
    }

    fn enqueue(&mut self, job: Job) {
        let lane = match &job.adapter {
            None => Ok(Lane::BASE),
            Some((path, scale)) => self.backend.lane(path, *scale),
        };
        match lane {
            Ok(lane) => {
                self.arrivals += 1;
                self.waiting.push((job, lane, self.arrivals));
                self.bound();
            }
            Err(reason) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(Error::Bad(reason));
            }
        }
    }

    /// Refuses the newcomer if the queue is too long even after everybody who can has sat down or gone.
    fn bound(&mut self) {
        if self.waiting.len() <= self.options.queue {
            return;
        }
        self.sweep();
        self.admit();
        if self.waiting.len() <= self.options.queue {
            return;
        }
        let newest = (0..self.waiting.len()).max_by_key(|at| self.waiting[*at].2).expect("the queue is not empty");
        let (job, ..) = self.waiting.swap_remove(newest);
        self.counters.failed.fetch_add(1, Relaxed);
        job.fail(Error::Busy(self.options.queue));
    }

    /// Ends the sequences whose readers are gone and frees their cells, before anything else is computed.
    fn sweep(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|(job, ..)| !job.reader.is_gone());
        self.counters.cancelled.fetch_add((before - self.waiting.len()) as u64, Relaxed);
        let gone: Vec<_> = self.seated.iter().filter(|(_, s)| s.job.reader.is_gone()).map(|(at, _)| *at).collect();
        for (lane, slot) in gone {
            self.seated.remove(&(lane, slot));
            self.backend.forget(lane, slot);
            self.counters.cancelled.fetch_add(1, Relaxed);
        }
    }

    fn free_slot(&self, lane: Lane) -> Option<Slot> {
        (0..self.limits.sequences).map(Slot).find(|slot| !self.seated.contains_key(&(lane, *slot)))
    }

    fn admit(&mut self) {
        let mut lanes: Vec<Lane> = self.waiting.iter().map(|(_, lane, _)| *lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            while let Some(slot) = self.free_slot(lane) {
                let views: Vec<Waiting> =
                    self.waiting.iter().map(|(job, l, n)| self.waiting_view(job, *l, *n)).collect();
                let Some(at) = schedule::admit(&views, lane) else { break };
                let (job, lane, arrival) = self.waiting.swap_remove(at);
                self.seat(job, lane, slot, arrival);
            }
        }
    }

    fn waiting_view(&self, job: &Job, lane: Lane, arrival: u64) -> Waiting {
        let periods = job.since.elapsed().as_secs() / AGEING.as_secs();
        Waiting { lane, class: job.class, served: self.served_of(&job.flow), arrival, periods: periods as u32 }
    }

    fn served_of(&self, flow: &Arc<str>) -> u64 {
        self.served.get(flow).copied().unwrap_or(0)
    }

    fn seat(&mut self, job: Job, lane: Lane, slot: Slot, arrival: u64) {
        match self.backend.sampler(&job.sampling, job.schema.as_deref(), &job.prompt) {
            Ok(sampler) => {
                // A flow that was away must not claim the time that it did not use.
                let least = self.seated.values().map(|s| self.served_of(&s.job.flow)).min().unwrap_or(0);
                let served = self.served.entry(job.flow.clone()).or_default();
                *served = (*served).max(least);
                self.seated.insert((lane, slot), Sequence::new(job, arrival, sampler));
            }
            Err(reason) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(Error::Bad(reason));
            }
        }
    }

    fn count(&self) {
        self.counters.busy.store(self.seated.len() as u64, Relaxed);
        self.counters.queued.store(self.waiting.len() as u64, Relaxed);
    }

    fn budget(&self) -> Budget {
        let chunk = if self.prefill_cost > 0.0 { self.options.gap.as_secs_f64() / self.prefill_cost } else { 64.0 };
        Budget { batch: self.limits.batch, chunk: (chunk as u32).max(8).min(self.limits.batch) }
    }

    /// Computes one batch. An error means that the model is gone.
    fn step(&mut self) -> Result<(), String> {
        let views: Vec<View> = self
            .seated
            .iter()
            .map(|((lane, slot), s)| View {
                slot: *slot,
                lane: *lane,
                class: s.job.class,
                served: self.served_of(&s.job.flow),
                arrival: s.arrival,
                prompt: s.prompt_left(),
                blocked: !s.job.reader.has_room(),
            })
            .collect();
        let Some((lane, shares)) = schedule::next(&views, self.budget(), self.last) else { return Ok(()) };
        self.last = lane;
        self.compute(lane, &shares)
    }

    fn compute(&mut self, lane: Lane, shares: &[Share]) -> Result<(), String> {
        let (entries, wanted) = self.entries(lane, shares);
        let (computed, took) = {
            let _turn = self.options.turn.as_ref().map(Turn::take);
            let began = Instant::now();
            (self.backend.decode(lane, &entries), began.elapsed())
        };
        match computed {
            Ok(()) => {
                self.counters.steps.fetch_add(1, Relaxed);
                self.learn(shares, took);
                self.settle(lane, shares, &wanted);
                Ok(())
            }
            Err(Fault::Fatal(reason)) => Err(reason),
            // Only the guilty one fails: the others are computed again, each alone.
            Err(Fault::Batch(_)) if shares.len() > 1 => {
                shares.iter().try_for_each(|share| self.compute(lane, std::slice::from_ref(share)))
            }
            Err(Fault::Batch(reason)) => {
                shares.iter().for_each(|share| self.fail(lane, share.slot, Error::Model(reason.clone())));
                Ok(())
            }
        }
    }

    /// The batch, and for each share the entry with its logits if it wants them.
    fn entries(&mut self, lane: Lane, shares: &[Share]) -> (Vec<Entry>, Vec<Option<usize>>) {
        let (mut entries, mut wanted) = (Vec::new(), Vec::new());
        for share in shares {
            let sequence = self.seated.get_mut(&(lane, share.slot)).expect("shares are of seated sequences");
            sequence.begin();
            let last = sequence.prompt_left() == 0 || sequence.prompt_left() == share.tokens;
            let (from, tokens) = sequence.share(share.tokens);
            entries.extend(tokens.iter().zip(from..).map(|(token, position)| Entry {
                slot: share.slot,
                position,
                token: *token,
                logits: false,
            }));
            if let (true, Some(entry)) = (last, entries.last_mut()) {
                entry.logits = true;
            }
            wanted.push(last.then(|| entries.len() - 1));
        }
        (entries, wanted)
    }

    /// Learns what a prompt token costs, from batches that are mostly prompt.
    fn learn(&mut self, shares: &[Share], took: Duration) {
        let tokens: u32 = shares.iter().map(|s| s.tokens).sum();
        if tokens >= 16 && tokens as usize >= 2 * shares.len() {
            let cost = took.as_secs_f64() / f64::from(tokens);
            self.prefill_cost = if self.prefill_cost > 0.0 { 0.8 * self.prefill_cost + 0.2 * cost } else { cost };
        }
    }

    fn settle(&mut self, lane: Lane, shares: &[Share], wanted: &[Option<usize>]) {
        for (share, entry) in shares.iter().zip(wanted) {
            let sequence = self.seated.get_mut(&(lane, share.slot)).expect("shares are of seated sequences");
            if sequence.prompt_left() > 0 {
                self.counters.prompt.fetch_add(u64::from(share.tokens), Relaxed);
            }
            sequence.advance(share.tokens);
            *self.served.entry(sequence.job.flow.clone()).or_default() += u64::from(share.tokens);
            if let Some(entry) = entry {
                self.sample(lane, share.slot, *entry);
            }
        }
    }

    fn sample(&mut self, lane: Lane, slot: Slot, entry: usize) {
        let sequence = self.seated.get_mut(&(lane, slot)).expect("sampled sequences are seated");
        let went = match self.backend.sample(lane, entry, &mut sequence.sampler) {
            Err(reason) => return self.fail(lane, slot, Error::Model(reason)),
            Ok(Sampled::End) => Went::Over(Reason::End),
            Ok(Sampled::Token(token)) => {
                self.counters.output.fetch_add(1, Relaxed);
                sequence.take(token, &*self.text)
            }
        };
        if let (Went::Over(reason), Some(sequence)) = (went, self.over(went, lane, slot)) {
            self.counters.finished.fetch_add(1, Relaxed);
            sequence.finish(reason);
        }
    }

    /// Frees the place of a sequence that is over, before its reader hears of the end.
    fn over(&mut self, went: Went, lane: Lane, slot: Slot) -> Option<Sequence<B::Sampler>> {
        if went == Went::On {
            return None;
        }
        self.backend.forget(lane, slot);
        let sequence = self.seated.remove(&(lane, slot));
        self.count();
        sequence
    }

    fn fail(&mut self, lane: Lane, slot: Slot, error: Error) {
        self.backend.forget(lane, slot);
        if let Some(sequence) = self.seated.remove(&(lane, slot)) {
            self.counters.failed.fetch_add(1, Relaxed);
            self.count();
            sequence.fail(error);
        }
    }
}
