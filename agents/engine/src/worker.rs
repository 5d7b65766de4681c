//! The one thread that owns a model: takes jobs in, asks the schedule, computes, samples, delivers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Instant;

use crate::backend::{Backend, Forced, Lane, Limits, Slot, Text, Token};
use crate::command::Command;
use crate::cost::Cost;
use crate::counters::Counters;
use crate::draft::Record;
use crate::expected::Expected;
use crate::lanes::{Lanes, MAX_LANES};
use crate::options::Options;
use crate::prefix::Prefixes;
use crate::request::{Class, Error, Reason};
use crate::schedule::{self, Waiting};
use crate::seats::{Seats, Spot};
use crate::sequence::{Job, Sequence, Work};
use crate::shelf::Shelf;
use crate::turn::Turn;
use crate::waiting::{Waiter, Who, urgency};

mod compute;
mod gather;

pub(crate) struct Worker<B: Backend> {
    backend: B,
    text: Arc<dyn Text>,
    limits: Limits,
    options: Options,
    commands: mpsc::Receiver<Command>,
    counters: Arc<Counters>,
    lanes: Lanes,
    waiting: Vec<Waiter<B::Sampler>>,
    seats: Seats<Sequence<B::Sampler>>,
    prefixes: Prefixes,
    shelf: Option<Shelf>,
    served: HashMap<Arc<str>, u64>,
    last: Lane,
    arrivals: u64,
    /// What prompts cost; turns the target gap into a chunk.
    cost: Cost,
    record: Record,
    apart: HashMap<Lane, gather::Apart>,
    /// Seconds that a cell took to be moved the last time.
    cell_move: Option<f64>,
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
        expected: Expected,
    ) -> Self {
        let (text, mut limits) = (backend.text(), backend.limits());
        // One entry of a batch stays for prompts, so those who decode can never shut them out, nor one another.
        limits.sequences = limits.sequences.min(limits.batch.saturating_sub(1).max(1));
        Self {
            backend,
            text,
            seats: Seats::new(limits.sequences),
            prefixes: Prefixes::new(options.prefixes, expected),
            shelf: options.shelf.as_ref().filter(|_| options.prefixes > 0).and_then(Shelf::open),
            limits,
            options,
            commands,
            counters,
            lanes: Lanes::default(),
            waiting: Vec::new(),
            served: HashMap::new(),
            last: Lane::BASE,
            arrivals: 0,
            cost: Cost::default(),
            record: Record::default(),
            apart: HashMap::new(),
            cell_move: None,
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
        for sequence in self.seats.clear() {
            sequence.fail(Error::Gone(reason.clone()));
        }
        for waiter in self.waiting.drain(..) {
            waiter.fail(Error::Gone(reason.clone()));
        }
        reason
    }

    fn work(&mut self) -> End {
        loop {
            if let Err(end) = self.listen() {
                return end;
            }
            self.sweep();
            self.clear_lanes();
            self.admit();
            self.dismiss();
            self.count();
            if let Err(reason) = self.step() {
                return End::Fatal(reason);
            }
        }
    }

    /// Takes all commands that are there; waits for one if there is nothing to compute.
    fn listen(&mut self) -> Result<(), End> {
        let busy = !self.waiting.is_empty() && self.has_free_slot()
            || self.seats.taken().values().any(|s| s.job.reader.is_gone() || s.job.reader.has_room());
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
        self.waiting.iter().any(|waiter| self.seats.has_free(waiter.lane))
    }

    fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Generate(job) => self.enqueue(job),
            Command::Adapters(keys) => self.lanes.list(keys),
            // Whoever asked has gone.
            Command::Embed(_, answer) if answer.is_closed() => drop(self.counters.embeds.fetch_sub(1, Relaxed)),
            Command::Embed(texts, answer) => {
                let embedded = {
                    let _turn = self.options.turn.as_ref().map(Turn::take);
                    let began = Instant::now();
                    let embedded = self.backend.embed(&texts);
                    self.counters.computed(began.elapsed());
                    embedded
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

    fn enqueue(&mut self, job: Box<Job>) {
        // No lane is loaded, and perhaps another one unloaded, for what somebody may ask later.
        if job.class == Class::Along && !self.has_lane(&job) {
            return spare(*job);
        }
        match self.lane_of(&job) {
            Ok(lane) => {
                self.arrivals += 1;
                self.waiting.push(Waiter { lane, arrival: self.arrivals, who: Who::New(job) });
                self.bound();
            }
            Err(reason) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(Error::Bad(reason));
            }
        }
    }

    /// Whether the lane that a job runs in is loaded.
    fn has_lane(&mut self, job: &Job) -> bool {
        job.adapter.as_ref().is_none_or(|(path, scale)| self.lanes.find(&(path.clone(), scale.to_bits())).is_some())
    }

    /// The lane that a job runs in, loaded if need be, for which an idle one may have to go.
    fn lane_of(&mut self, job: &Job) -> Result<Lane, String> {
        let Some((path, scale)) = &job.adapter else { return Ok(Lane::BASE) };
        let key = (path.clone(), scale.to_bits());
        if let Some(lane) = self.lanes.find(&key) {
            return Ok(lane);
        }
        if self.lanes.len() >= MAX_LANES {
            let idle = |lane| is_idle(&self.seats, &self.waiting, lane);
            let oldest = self.lanes.oldest(idle).ok_or("too many adapters are in use at once")?;
            self.unload(oldest);
        }
        let lane = self.backend.lane(path, *scale)?;
        self.lanes.add(key, lane);
        Ok(lane)
    }

    /// Drops the lanes of adapters that nobody wants any more, once nobody sits in them.
    fn clear_lanes(&mut self) {
        let idle = |lane| is_idle(&self.seats, &self.waiting, lane);
        for lane in self.lanes.unlisted(idle) {
            self.unload(lane);
        }
    }

    fn unload(&mut self, lane: Lane) {
        self.seats.forget(lane);
        self.prefixes.forget(lane);
        self.backend.unload(lane);
        tracing::info!(lane = lane.0, "an adapter is unloaded");
    }

    /// Refuses the newcomer if the queue is too long even after everybody who can has sat down or gone.
    fn bound(&mut self) {
        // What is read along does not stay.
        let counts = |waiter: &Waiter<_>| waiter.is_new() && waiter.job().class != Class::Along;
        let is_full = |this: &Self| this.waiting.iter().filter(|w| counts(w)).count() > this.options.queue;
        if !is_full(self) {
            return;
        }
        self.sweep();
        self.admit();
        if !is_full(self) {
            return;
        }
        let new = (0..self.waiting.len()).filter(|at| counts(&self.waiting[*at]));
        let newest = new.max_by_key(|at| self.waiting[*at].arrival).expect("the queue is not empty");
        self.counters.failed.fetch_add(1, Relaxed);
        self.waiting.swap_remove(newest).fail(Error::Busy(self.options.queue));
    }

    /// Ends the sequences whose readers are gone and frees their cells, before anything else is computed.
    fn sweep(&mut self) {
        let gone = self.waiting.extract_if(.., |waiter| waiter.job().reader.is_gone());
        let cancelled = gone.filter(|waiter| waiter.job().class.is_asked_for()).count();
        self.counters.cancelled.fetch_add(cancelled as u64, Relaxed);
        let gone = self.seats.taken().iter().filter(|(_, s)| s.job.reader.is_gone()).map(|(at, _)| *at);
        for at in gone.collect::<Vec<_>>() {
            // What was computed for others is of use to them.
            let primes = self.seats.get(at).filter(|sequence| matches!(sequence.work, Work::Prime));
            let cells = primes.map(|sequence| sequence.cells()).unwrap_or_default();
            let left = self.leave(at, cells);
            let cancelled = left.is_some_and(|sequence| sequence.job.class.is_asked_for());
            self.counters.cancelled.fetch_add(u64::from(cancelled), Relaxed);
        }
    }

    /// What is read along is of use now or not at all: who finds no seat is done.
    fn dismiss(&mut self) {
        let seats = &self.seats;
        let late = |waiter: &mut Waiter<B::Sampler>| waiter.job().class == Class::Along && !seats.has_free(waiter.lane);
        for waiter in self.waiting.extract_if(.., late) {
            if let Who::New(job) = waiter.who {
                spare(*job);
            }
        }
    }

    /// Empties a seat, and its cells but for what is said to stay in them.
    fn leave(&mut self, (lane, slot): (Lane, Slot), cells: Vec<Token>) -> Option<Sequence<B::Sampler>> {
        if cells.is_empty() {
            self.backend.trim(lane, slot, 0);
        }
        let along = self.seats.get((lane, slot)).filter(|sequence| sequence.job.class == Class::Along);
        let reads = along.map(|sequence| sequence.job.flow.clone());
        let sequence = self.seats.leave((lane, slot), cells, reads);
        self.count();
        sequence
    }

    fn admit(&mut self) {
        let mut lanes: Vec<Lane> = self.waiting.iter().map(|waiter| waiter.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            while let Some(at) = self.next_for(lane) {
                if !self.seats.has_free(lane) && !self.make_room(at, lane) {
                    break;
                }
                let Waiter { lane, arrival, who } = self.waiting.swap_remove(at);
                match who {
                    Who::New(job) => self.seat(*job, lane, arrival),
                    Who::Paused(sequence, state) => self.seat_again(*sequence, lane, &state),
                }
            }
        }
    }

    /// Who is next for a seat of a lane; those whose opening is being computed are not.
    fn next_for(&self, lane: Lane) -> Option<usize> {
        let ready = |waiter: &&Waiter<B::Sampler>| {
            let waits = waiter.is_new() && self.computes_opening_of(waiter.job(), lane).is_some();
            waiter.lane == lane && !waits
        };
        let view = |waiter: &Waiter<B::Sampler>| waiter.view(self.served_of(&waiter.job().flow));
        let views: Vec<Waiting> = self.waiting.iter().filter(ready).map(view).collect();
        let arrival = schedule::admit(&views, lane).map(|at| views[at].arrival)?;
        self.waiting.iter().position(|waiter| waiter.arrival == arrival)
    }

    /// Makes the least urgent sequence of a lane wait again, for one that is more urgent. Its cells go to host memory; what
    /// is computed ahead of time leaves them where they are.
    fn make_room(&mut self, at: usize, lane: Lane) -> bool {
        let newcomer = urgency(self.waiting[at].job());
        let seated = self.seats.taken().iter().filter(|((l, _), s)| *l == lane && urgency(&s.job) > newcomer);
        let Some((seat, sequence)) = seated.max_by_key(|(_, s)| (urgency(&s.job), s.arrival)) else { return false };
        let (seat, ahead) = (*seat, matches!(sequence.work, Work::Prime));
        let bare = ahead || sequence.position() == 0;
        let state = if bare { Ok(Vec::new()) } else { self.backend.save(seat.0, seat.1) };
        // A model whose cells cannot be saved lets nobody pass.
        let Ok(state) = state else { return false };
        let cells = self.seats.get(seat).map(|s| s.cells()).unwrap_or_default();
        let Some(sequence) = self.leave(seat, cells) else { return false };
        let arrival = sequence.arrival;
        let who = if ahead { Who::New(Box::new(sequence.job)) } else { Who::Paused(Box::new(sequence), state) };
        self.waiting.push(Waiter { lane, arrival, who });
        true
    }

    /// Brings a sequence back that made room.
    fn seat_again(&mut self, sequence: Sequence<B::Sampler>, lane: Lane, state: &[u8]) {
        let slot = self.best(lane, &[], 0).slot;
        self.backend.trim(lane, slot, 0);
        if sequence.position() > 0
            && let Err(reason) = self.backend.restore(lane, slot, state)
        {
            self.backend.trim(lane, slot, 0);
            self.counters.failed.fetch_add(1, Relaxed);
            return sequence.fail(Error::Model(reason));
        }
        self.seats.sit((lane, slot), sequence);
    }

    /// The seat of a sequence that is computing the very opening that a job waits for: computing it twice would help
    /// neither.
    fn computes_opening_of(&self, job: &Job, lane: Lane) -> Option<(Lane, Slot)> {
        let same = |s: &Sequence<B::Sampler>| {
            s.keeps
                && s.computed < s.job.opening as u32
                && s.job.opening == job.opening
                && s.job.prompt[..job.opening] == job.prompt[..job.opening]
        };
        let of_lane = self.seats.taken().range((lane, Slot(0))..=(lane, Slot(u32::MAX)));
        (job.opening > 0).then(|| of_lane.into_iter().find(|(_, s)| same(s)).map(|(at, _)| *at)).flatten()
    }

    fn served_of(&self, flow: &Arc<str>) -> u64 {
        self.served.get(flow).copied().unwrap_or(0)
    }

    fn seat(&mut self, mut job: Job, lane: Lane, arrival: u64) {
        let opening = job.prompt[..job.opening].to_vec();
        if let Some(shelf) = &mut self.shelf {
            shelf.add_lane(lane, self.backend.fingerprint(lane));
        }
        self.fetch(lane, &job);
        if job.class == Class::Ahead && self.prefixes.has(lane, &opening) {
            return spare(job);
        }
        match self.work_of(&mut job) {
            Ok((work, lead)) => {
                let Some((slot, shared)) = self.prepare(lane, &job) else { return spare(job) };
                // A flow that was away must not claim the time that it did not use.
                let least = self.seats.taken().values().map(|s| self.served_of(&s.job.flow)).min().unwrap_or(0);
                let served = self.served.entry(job.flow.clone()).or_default();
                *served = (*served).max(least);
                let keeps = shared < opening.len() && self.options.prefixes > 0 && !self.prefixes.has(lane, &opening);
                if job.class.is_asked_for() {
                    self.counters.shared.fetch_add(shared as u64, Relaxed);
                }
                let mut sequence = Sequence::new(job, arrival, work, shared as u32, keeps);
                let led = sequence.lead(lead, &*self.text, self.limits.context);
                self.counters.output.fetch_add(u64::from(led), Relaxed);
                self.seats.sit((lane, slot), sequence);
            }
            Err(reason) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(Error::Bad(reason));
            }
        }
    }

    /// What a job is there for, and how its output must begin.
    fn work_of(&mut self, job: &mut Job) -> Result<(Work<B::Sampler>, Forced), String> {
        if !job.class.is_asked_for() {
            return Ok((Work::Prime, Forced::default()));
        }
        if let Some(choosing) = job.choice.take() {
            return Ok((Work::Choose(choosing), Forced::default()));
        }
        let mut sampler = self.backend.sampler(&job.sampling, job.schema.as_deref(), &job.prompt)?;
        let lead = self.backend.forced(&mut sampler)?;
        Ok((Work::Write(sampler), lead))
    }

    /// Brings what is on disk of a prompt, and not in memory, back into memory.
    fn fetch(&mut self, lane: Lane, job: &Job) {
        let known = self.prefixes.find(lane, &job.prompt).map_or(0, |(length, _)| length);
        let whole = job.class == Class::Ahead;
        let found = self.shelf.as_mut().and_then(|shelf| shelf.find(lane, &job.prompt, known, whole));
        if let Some(found) = found {
            self.prefixes.keep(lane, &job.flow, &found.tokens, &found.state.into(), found.seconds);
            self.counters.prefix_bytes.store(self.prefixes.bytes() as u64, Relaxed);
        }
    }

    /// A free slot and how many tokens of the prompt are in its cells: what somebody left there, or what is kept, whichever
    /// is more. None if what is to be read along would cost more of what was read along for others.
    fn prepare(&mut self, lane: Lane, job: &Job) -> Option<(Slot, usize)> {
        let kept = self.prefixes.find(lane, &job.prompt);
        let Spot { slot, there, worth } = self.best(lane, &job.prompt, kept.as_ref().map_or(0, |(length, _)| *length));
        if job.class == Class::Along && worth < 0 {
            return None;
        }
        if let Some((length, state)) = kept.filter(|(length, _)| *length > there) {
            self.backend.trim(lane, slot, 0);
            let restored = self.backend.restore(lane, slot, &state);
            if let Err(reason) = &restored {
                tracing::warn!(reason, "a kept prefix is of no use; it is computed");
                self.backend.trim(lane, slot, 0);
            }
            return Some((slot, if restored.is_ok() { length } else { 0 }));
        }
        let whole = self.backend.trim(lane, slot, there as u32);
        Some((slot, if whole { there } else { 0 }))
    }

    /// The free slot that is best for a prompt of which so many tokens are kept.
    fn best(&self, lane: Lane, prompt: &[Token], kept: usize) -> Spot {
        let best = self.seats.best(lane, prompt, kept, |flow| self.prefixes.expects(flow));
        best.expect("whoever asks has seen a free slot")
    }

    /// Keeps the opening that a sequence has just computed. One that was computed for this alone is done.
    fn keep(&mut self, at: (Lane, Slot)) {
        let state = self.backend.save(at.0, at.1);
        let sequence = self.seats.get(at).expect("openings are of seated sequences");
        sequence.keeps = false;
        let (job, seconds) = (&sequence.job, sequence.effort.as_secs_f64());
        match state {
            Ok(state) => {
                let (state, opening) = (state.into(), &job.prompt[..job.opening]);
                self.prefixes.keep(at.0, &job.flow, opening, &state, seconds);
                if let Some(shelf) = &mut self.shelf {
                    shelf.put(at.0, opening, &state, seconds);
                }
            }
            Err(reason) => tracing::warn!(reason, flow = %job.flow, "a prefix cannot be kept"),
        }
        self.counters.prefix_bytes.store(self.prefixes.bytes() as u64, Relaxed);
    }

    fn count(&self) {
        self.counters.busy.store(self.seats.taken().len() as u64, Relaxed);
        self.counters.queued.store(self.waiting.len() as u64, Relaxed);
    }
}

/// Ends what was to be computed for others, before any of it is.
fn spare(job: Job) {
    Sequence::new(job, 0, Work::<()>::Prime, 0, false).finish(Reason::End);
}

/// Whether nobody sits in a lane or waits for a seat there.
fn is_idle<S>(seats: &Seats<Sequence<S>>, waiting: &[Waiter<S>], lane: Lane) -> bool {
    seats.taken().keys().all(|(l, _)| *l != lane) && waiting.iter().all(|waiter| waiter.lane != lane)
}
