//! The one thread that owns a model: takes jobs in, asks the schedule, computes, samples, delivers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::{Backend, Embedded, Entry, Fault, Lane, Limits, Sampled, Slot, Text, Token};
use crate::handle::{Counters, Options};
use crate::prefix::Prefixes;
use crate::request::{Class, Error, Reason};
use crate::schedule::{self, AGEING, Budget, Share, View, Waiting};
use crate::seats::Seats;
use crate::sequence::{Job, Sequence, Went};
use crate::shelf::Shelf;
use crate::turn::Turn;

/// What other threads ask of the worker.
pub(crate) enum Command {
    Generate(Job),
    /// These flows will soon need the beginnings of their prompts, or no longer do.
    Expect(Vec<Arc<str>>, bool),
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
    seats: Seats<Sequence<B::Sampler>>,
    prefixes: Prefixes,
    shelf: Option<Shelf>,
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
            seats: Seats::new(limits.sequences),
            prefixes: Prefixes::new(options.prefixes),
            shelf: options.shelf.as_ref().filter(|_| options.prefixes > 0).and_then(Shelf::open),
            limits,
            options,
            commands,
            counters,
            waiting: Vec::new(),
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
        for sequence in self.seats.clear() {
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
        self.waiting.iter().any(|(_, lane, _)| self.seats.has_free(*lane))
    }

    fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Generate(job) => self.enqueue(job),
            Command::Expect(flows, more) => flows.iter().for_each(|flow| self.prefixes.expect(flow, more)),
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
        let gone = self.seats.taken().iter().filter(|(_, s)| s.job.reader.is_gone()).map(|(at, _)| *at);
        for at in gone.collect::<Vec<_>>() {
            self.leave(at, Vec::new());
            self.counters.cancelled.fetch_add(1, Relaxed);
        }
    }

    /// Empties a seat, and its cells but for what is said to stay in them.
    fn leave(&mut self, (lane, slot): (Lane, Slot), cells: Vec<Token>) -> Option<Sequence<B::Sampler>> {
        if cells.is_empty() {
            self.backend.trim(lane, slot, 0);
        }
        let sequence = self.seats.leave((lane, slot), cells);
        self.count();
        sequence
    }

    fn admit(&mut self) {
        let mut lanes: Vec<Lane> = self.waiting.iter().map(|(_, lane, _)| *lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            while let Some(at) = self.next_for(lane) {
                if !self.seats.has_free(lane) && !self.make_room(at, lane) {
                    break;
                }
                let (job, lane, arrival) = self.waiting.swap_remove(at);
                self.seat(job, lane, arrival);
            }
        }
    }

    /// Who is next for a seat of a lane; those whose opening is being computed are not.
    fn next_for(&self, lane: Lane) -> Option<usize> {
        let ready = |(job, l, _): &&(Job, Lane, u64)| *l == lane && self.computes_opening_of(job, lane).is_none();
        let views: Vec<Waiting> =
            self.waiting.iter().filter(ready).map(|(job, l, n)| self.waiting_view(job, *l, *n)).collect();
        let arrival = schedule::admit(&views, lane).map(|at| views[at].arrival)?;
        self.waiting.iter().position(|(.., n)| *n == arrival)
    }

    /// Makes a sequence that is computed ahead of time wait again, for one that is not.
    fn make_room(&mut self, at: usize, lane: Lane) -> bool {
        let ahead = |s: &Sequence<B::Sampler>| s.job.class == Class::Ahead;
        if self.waiting[at].0.class == Class::Ahead {
            return false;
        }
        let found =
            self.seats.taken().iter().find(|((l, _), s)| *l == lane && ahead(s)).map(|(at, s)| (*at, s.cells()));
        let Some((seat, cells)) = found else { return false };
        let Some(sequence) = self.leave(seat, cells) else { return false };
        self.waiting.push((sequence.job, lane, sequence.arrival));
        true
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

    fn waiting_view(&self, job: &Job, lane: Lane, arrival: u64) -> Waiting {
        let periods = job.since.elapsed().as_secs() / AGEING.as_secs();
        Waiting { lane, class: job.class, served: self.served_of(&job.flow), arrival, periods: periods as u32 }
    }

    fn served_of(&self, flow: &Arc<str>) -> u64 {
        self.served.get(flow).copied().unwrap_or(0)
    }

    fn seat(&mut self, job: Job, lane: Lane, arrival: u64) {
        let opening = job.prompt[..job.opening].to_vec();
        if let Some(shelf) = &mut self.shelf {
            shelf.add_lane(lane, self.backend.fingerprint(lane));
        }
        self.fetch(lane, &job);
        if job.class == Class::Ahead && self.prefixes.has(lane, &opening) {
            return Sequence::new(job, arrival, (), 0, false).finish(Reason::End);
        }
        match self.backend.sampler(&job.sampling, job.schema.as_deref(), &job.prompt) {
            Ok(sampler) => {
                let (slot, shared) = self.prepare(lane, &job.prompt);
                // A flow that was away must not claim the time that it did not use.
                let least = self.seats.taken().values().map(|s| self.served_of(&s.job.flow)).min().unwrap_or(0);
                let served = self.served.entry(job.flow.clone()).or_default();
                *served = (*served).max(least);
                let keeps = shared < opening.len() && self.options.prefixes > 0 && !self.prefixes.has(lane, &opening);
                self.counters.shared.fetch_add(shared as u64, Relaxed);
                self.seats.sit((lane, slot), Sequence::new(job, arrival, sampler, shared as u32, keeps));
            }
            Err(reason) => {
                self.counters.failed.fetch_add(1, Relaxed);
                job.fail(Error::Bad(reason));
            }
        }
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
    /// is more.
    fn prepare(&mut self, lane: Lane, prompt: &[Token]) -> (Slot, usize) {
        let (slot, there) = self.seats.best(lane, prompt).expect("whoever asks has seen a free slot");
        if let Some((length, state)) = self.prefixes.find(lane, prompt).filter(|(length, _)| *length > there) {
            self.backend.trim(lane, slot, 0);
            match self.backend.restore(lane, slot, &state) {
                Ok(()) => return (slot, length),
                Err(reason) => {
                    tracing::warn!(reason, "a kept prefix is of no use; it is computed");
                    self.backend.trim(lane, slot, 0);
                    return (slot, 0);
                }
            }
        }
        let whole = self.backend.trim(lane, slot, there as u32);
        (slot, if whole { there } else { 0 })
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

    fn budget(&self) -> Budget {
        let chunk = schedule::chunk(self.options.gap, self.prefill_cost, self.limits.grain);
        Budget { batch: self.limits.batch, chunk: chunk.min(self.limits.batch) }
    }

    /// Sequences whose openings others wait for are as urgent as the most urgent of those.
    fn urgency(&self) -> HashMap<(Lane, Slot), Class> {
        let mut urgency = HashMap::new();
        for (job, lane, _) in &self.waiting {
            if let Some(at) = self.computes_opening_of(job, *lane) {
                let class = urgency.entry(at).or_insert(job.class);
                *class = job.class.min(*class);
            }
        }
        urgency
    }

    /// Computes one batch. An error means that the model is gone.
    fn step(&mut self) -> Result<(), String> {
        let urgency = self.urgency();
        let view = |(at, s): (&(Lane, Slot), &Sequence<B::Sampler>)| View {
            slot: at.1,
            lane: at.0,
            class: urgency.get(at).map_or(s.job.class, |class| s.job.class.min(*class)),
            served: self.served_of(&s.job.flow),
            arrival: s.arrival,
            prompt: s.to_next_stop(),
            blocked: !s.job.reader.has_room(),
        };
        let views: Vec<View> = self.seats.taken().iter().map(view).collect();
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
                tracing::trace!(lane = lane.0, sequences = shares.len(), tokens = entries.len(), ?took, "a batch");
                self.learn(shares, took);
                self.settle(lane, shares, &wanted, took);
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
            let sequence = self.seats.get((lane, share.slot)).expect("shares are of seated sequences");
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

    fn settle(&mut self, lane: Lane, shares: &[Share], wanted: &[Option<usize>], took: Duration) {
        let total: u32 = shares.iter().map(|share| share.tokens).sum();
        for (share, entry) in shares.iter().zip(wanted) {
            let at = (lane, share.slot);
            let sequence = self.seats.get(at).expect("shares are of seated sequences");
            if sequence.prompt_left() > 0 {
                self.counters.prompt.fetch_add(u64::from(share.tokens), Relaxed);
                sequence.effort += took.mul_f64(f64::from(share.tokens) / f64::from(total));
            }
            sequence.advance(share.tokens);
            let (opens, ahead) = (sequence.is_at_opening(), sequence.job.class == Class::Ahead);
            *self.served.entry(sequence.job.flow.clone()).or_default() += u64::from(share.tokens);
            if opens {
                self.keep(at);
            }
            match entry {
                // It was computed for others alone.
                Some(_) if ahead => self.end(at, Reason::End),
                Some(entry) => self.sample(lane, share.slot, *entry),
                None => {}
            }
        }
    }

    fn sample(&mut self, lane: Lane, slot: Slot, entry: usize) {
        let sequence = self.seats.get((lane, slot)).expect("sampled sequences are seated");
        let went = match self.backend.sample(lane, entry, &mut sequence.sampler) {
            Err(reason) => return self.fail(lane, slot, Error::Model(reason)),
            Ok(Sampled::End) => Went::Over(Reason::End),
            Ok(Sampled::Token(token)) => {
                self.counters.output.fetch_add(1, Relaxed);
                sequence.take(token, &*self.text)
            }
        };
        if let Went::Over(reason) = went {
            self.end((lane, slot), reason);
        }
    }

    /// Frees the place of a sequence that is over, before its reader hears of the end. What is in its cells stays there for
    /// those who begin in the same way, until the place is taken.
    fn end(&mut self, at: (Lane, Slot), reason: Reason) {
        let cells = self.seats.get(at).map(|sequence| sequence.cells()).unwrap_or_default();
        if let Some(sequence) = self.leave(at, cells) {
            self.counters.finished.fetch_add(1, Relaxed);
            sequence.finish(reason);
        }
    }

    fn fail(&mut self, lane: Lane, slot: Slot, error: Error) {
        if let Some(sequence) = self.leave((lane, slot), Vec::new()) {
            self.counters.failed.fetch_add(1, Relaxed);
            sequence.fail(error);
        }
    }
}
