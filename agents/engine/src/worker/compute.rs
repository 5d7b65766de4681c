//! Batches: from the schedule through the model to the readers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Worker;
use crate::backend::{Backend, Entry, Fault, Lane, Sampled, Slot};
use crate::choice::Needs;
use crate::draft::{Chances, Drafts, LONGEST};
use crate::request::{Class, Error, Reason};
use crate::schedule::{self, Budget, Share, View};
use crate::sequence::{Sequence, Went, Work};
use crate::turn::Turn;

/// A share and what its entries in the batch are for.
struct Planned {
    share: Share,
    /// Whether its tokens are of a prompt.
    prompt: bool,
    /// The entry behind which something is decided: the last one that is certain.
    decides: Option<usize>,
    /// Entries behind that one, which are on trial.
    drafts: u32,
}

impl<B: Backend> Worker<B> {
    fn budget(&self, sequences: &[View]) -> Budget {
        let gap = self.options.gap.mul_f64(schedule::stretch(sequences));
        let chunk = schedule::chunk(self.cost.fits(gap), self.limits.grain);
        Budget { batch: self.limits.batch, chunk: chunk.min(self.limits.batch) }
    }

    /// Sequences whose openings others wait for are as urgent as the most urgent of those.
    fn urgency(&self) -> HashMap<(Lane, Slot), Class> {
        let mut urgency = HashMap::new();
        for waiter in self.waiting.iter().filter(|waiter| waiter.is_new()) {
            if let Some(at) = self.computes_opening_of(waiter.job(), waiter.lane) {
                let class = urgency.entry(at).or_insert(waiter.job().class);
                *class = waiter.job().class.min(*class);
            }
        }
        urgency
    }

    /// Computes what comes next of one lane. An error means that the model is gone.
    pub(super) fn step(&mut self) -> Result<(), String> {
        self.forget_what_is_too_much();
        self.draft();
        let urgency = self.urgency();
        let view = |(at, s): (&(Lane, Slot), &Sequence<B::Sampler>)| View {
            slot: at.1,
            lane: at.0,
            class: urgency.get(at).map_or(s.job.class, |class| s.job.class.min(*class)),
            served: self.served_of(&s.job.flow),
            arrival: s.arrival,
            prompt: s.to_next_stop(),
            wants: s.certain(),
            drafts: s.drafted(),
            blocked: !s.job.reader.has_room(),
        };
        let views: Vec<View> = self.seats.taken().iter().map(view).collect();
        let Some((lane, shares)) = schedule::next(&views, self.budget(&views), self.last) else { return Ok(()) };
        self.last = lane;
        let decodes = |share: &Share| views.iter().any(|v| (v.lane, v.slot, v.prompt) == (lane, share.slot, 0));
        let (mut decoding, mut prompts): (Vec<Share>, Vec<Share>) = shares.into_iter().partition(decodes);
        let room = self.limits.batch - decoding.iter().map(|share| share.tokens).sum::<u32>();
        schedule::bridge(&mut decoding, &mut prompts, &views, lane, room);
        // One after the other. llama.cpp does so too, but takes a token of each prompt along with those who decode, and the
        // cells of all of them are looked at as far as those of the longest reach.
        let mut took = Duration::ZERO;
        if !decoding.is_empty() {
            took = self.compute(lane, &decoding)?;
        }
        // Who read a token along with those who decode may have failed there.
        prompts.retain(|share| self.seats.taken().contains_key(&(lane, share.slot)));
        if !prompts.is_empty() {
            self.compute(lane, &prompts)?;
        }
        let slots: Vec<Slot> = decoding.iter().map(|share| share.slot).collect();
        self.gather(lane, schedule::passes(&slots, &[]), took);
        Ok(())
    }

    /// Makes room in the cells of sequences that outgrow the context and may.
    fn forget_what_is_too_much(&mut self) {
        let context = self.limits.context;
        let full = self.seats.taken().iter().filter_map(|(at, s)| Some((*at, s.forgets(context)?)));
        for (at, (keep, cells)) in full.collect::<Vec<_>>() {
            if !self.backend.shift(at.0, at.1, keep, cells) {
                self.fail(at, Error::Model("it outgrew the context, and its cells cannot be moved".to_owned()));
            } else if let Some(sequence) = self.seats.get(at) {
                sequence.forget(keep, cells);
            }
        }
    }

    /// Lets those who decode propose what comes next, as far as that pays.
    fn draft(&mut self) {
        if !self.limits.rewinds || self.options.drafts == Drafts::Never {
            return;
        }
        let decodes = |s: &Sequence<B::Sampler>| s.prompt_left() == 0 && matches!(s.work, Work::Write(_));
        let seats = self.seats.taken().iter().filter(|(_, s)| decodes(s)).map(|(at, _)| *at).collect::<Vec<_>>();
        let mut lanes: BTreeMap<Lane, (Chances, Vec<(Lane, Slot)>)> = BTreeMap::new();
        for at in &seats {
            let sequence = self.seats.get(*at).expect("it was just seen");
            let room = self.limits.context.saturating_sub(sequence.position() + sequence.certain());
            sequence.propose(room.min(LONGEST));
            let (chances, drafting) = lanes.entry(at.0).or_default();
            chances.sequences += 1;
            chances.certain += sequence.certain() as usize;
            if sequence.drafted() > 0 {
                chances.proposals.push((sequence.job.flow.clone(), sequence.drafted()));
                drafting.push(*at);
            }
        }
        for (chances, drafting) in lanes.values() {
            let lengths = match self.options.drafts {
                Drafts::Never => vec![0; drafting.len()],
                Drafts::WherePays => self.record.lengths(chances, self.cost.usual()),
                Drafts::Always(tokens) => vec![tokens; drafting.len()],
            };
            for (at, length) in drafting.iter().zip(lengths) {
                self.seats.get(*at).expect("it was just seen").draft_at_most(length);
            }
        }
    }

    /// Computes these shares and says how long the model took, waiting for its turn not included.
    fn compute(&mut self, lane: Lane, shares: &[Share]) -> Result<Duration, String> {
        let (entries, planned) = self.entries(lane, shares);
        let (computed, took) = {
            let _turn = self.options.turn.as_ref().map(Turn::take);
            let began = Instant::now();
            (self.backend.decode(lane, &entries), began.elapsed())
        };
        self.counters.computed(took);
        match computed {
            Ok(()) => {
                self.counters.steps.fetch_add(1, Relaxed);
                let of = |what: fn(&Planned) -> u32| planned.iter().map(what).sum::<u32>();
                tracing::trace!(
                    lane = lane.0,
                    sequences = planned.len(),
                    tokens = entries.len(),
                    prompts = of(|plan| if plan.prompt { plan.share.tokens } else { 0 }),
                    drafts = of(|plan| plan.drafts),
                    ?took,
                    "a batch"
                );
                self.learn(&planned, took);
                self.settle(lane, &planned, took);
                Ok(took)
            }
            Err(Fault::Fatal(reason)) => Err(reason),
            // Only the guilty one fails: the others are computed again, each alone.
            Err(Fault::Batch(_)) if shares.len() > 1 => {
                let mut alone = |share| self.compute(lane, std::slice::from_ref(share));
                shares.iter().try_fold(took, |sum, share| Ok(sum + alone(share)?))
            }
            Err(Fault::Batch(reason)) => {
                shares.iter().for_each(|share| self.fail((lane, share.slot), Error::Model(reason.clone())));
                Ok(took)
            }
        }
    }

    /// The batch, and what it is for.
    fn entries(&mut self, lane: Lane, shares: &[Share]) -> (Vec<Entry>, Vec<Planned>) {
        let (mut entries, mut planned) = (Vec::new(), Vec::new());
        for share in shares {
            let sequence = self.seats.get((lane, share.slot)).expect("shares are of seated sequences");
            sequence.begin();
            let prompt = sequence.prompt_left() > 0;
            let needed = if prompt { sequence.prompt_left() } else { sequence.certain() };
            let (from, tokens) = sequence.share(share.tokens);
            let decides = (share.tokens >= needed).then(|| entries.len() + needed as usize - 1);
            entries.extend(tokens.into_iter().zip(from..).map(|(token, position)| Entry {
                slot: share.slot,
                position,
                token,
                logits: false,
            }));
            if let Some(first) = decides {
                entries[first..].iter_mut().for_each(|entry| entry.logits = true);
            }
            planned.push(Planned { share: *share, prompt, decides, drafts: share.tokens.saturating_sub(needed) });
        }
        (entries, planned)
    }

    /// Learns what batches of prompts alone cost, and what those without prompts do.
    fn learn(&mut self, planned: &[Planned], took: Duration) {
        let tokens: u32 = planned.iter().map(|p| p.share.tokens).sum();
        if planned.iter().all(|p| !p.prompt) {
            self.record.batch(planned.len(), tokens as usize, took.as_secs_f64());
        } else if planned.iter().all(|p| p.prompt) && tokens as usize >= 2 * planned.len() {
            self.cost.learn(tokens, took.as_secs_f64());
        }
    }

    fn settle(&mut self, lane: Lane, planned: &[Planned], took: Duration) {
        let total: u32 = planned.iter().map(|p| p.share.tokens).sum();
        for plan in planned {
            let (at, tokens) = ((lane, plan.share.slot), plan.share.tokens);
            let sequence = self.seats.get(at).expect("shares are of seated sequences");
            if plan.prompt {
                self.counters.prompt.fetch_add(u64::from(tokens), Relaxed);
                sequence.effort += took.mul_f64(f64::from(tokens) / f64::from(total));
            }
            sequence.advance(tokens);
            let opens = plan.prompt && sequence.is_at_opening();
            if sequence.job.class.is_asked_for() {
                *self.served.entry(sequence.job.flow.clone()).or_default() += u64::from(tokens);
            }
            if opens {
                self.keep(at);
            }
            if let Some(entry) = plan.decides {
                self.decide(at, entry, plan.drafts);
            }
        }
    }

    /// Goes on from the logits at `entry`, and from those of the drafts behind it as long as these are right.
    fn decide(&mut self, at: (Lane, Slot), entry: usize, drafts: u32) {
        let sequence = self.seats.get(at).expect("whoever is decided about is seated");
        let went = match sequence.work {
            // It was computed for others alone.
            Work::Prime => Ok(Went::Over(Reason::End)),
            Work::Choose(_) => self.choose(at, entry),
            Work::Write(_) => self.write(at, entry, drafts),
        };
        match went {
            Ok(Went::On) => {}
            Ok(Went::Over(reason)) => self.end(at, reason),
            Err(reason) => self.fail(at, Error::Model(reason)),
        }
    }

    fn write(&mut self, at: (Lane, Slot), entry: usize, drafts: u32) -> Result<Went, String> {
        let mut right = 0;
        let went = loop {
            let went = self.sample(at, entry + right as usize)?;
            let sequence = self.seats.get(at).expect("it was just sampled");
            if went != Went::On || !sequence.confirm(drafts, &mut right) {
                break went;
            }
        };
        let sequence = self.seats.get(at).expect("it was just sampled");
        if drafts > 0 {
            let (flow, position) = (sequence.job.flow.clone(), sequence.position());
            self.record.drafted(&flow, right, u32::from(right < drafts));
            self.counters.drafted.fetch_add(u64::from(drafts), Relaxed);
            self.counters.accepted.fetch_add(u64::from(right), Relaxed);
            if right < drafts && !self.backend.trim(at.0, at.1, position) {
                return Err("the cells of a draft cannot be freed".to_owned());
            }
        }
        if went == Went::On {
            self.seats.get(at).expect("it was just sampled").flush();
        }
        Ok(went)
    }

    /// Takes in the next token and whatever the schema forces before and after it.
    fn sample(&mut self, at: (Lane, Slot), entry: usize) -> Result<Went, String> {
        let sequence = self.seats.get(at).expect("sampled sequences are seated");
        let Work::Write(sampler) = &mut sequence.work else { return Ok(Went::On) };
        let before = match sequence.lead.take() {
            Some(lead) => lead,
            None => self.backend.forced(sampler)?,
        };
        if before.complete || !before.tokens.is_empty() {
            self.counters.output.fetch_add(before.tokens.len() as u64, Relaxed);
            return Ok(sequence.take_forced(&before, &*self.text));
        }
        let Sampled::Token(token) = self.backend.sample(at.0, entry, sampler)? else {
            return Ok(Went::Over(Reason::End));
        };
        let after = self.backend.forced(sampler)?;
        self.counters.output.fetch_add(1 + after.tokens.len() as u64, Relaxed);
        match sequence.take(token, &*self.text) {
            Went::On => Ok(sequence.take_forced(&after, &*self.text)),
            // It has all that it may have, and that is all there can be.
            Went::Over(Reason::Length) if after.complete && after.tokens.is_empty() => Ok(Went::Over(Reason::End)),
            over => Ok(over),
        }
    }

    fn choose(&mut self, at: (Lane, Slot), entry: usize) -> Result<Went, String> {
        let sequence = self.seats.get(at).expect("whoever chooses is seated");
        let Work::Choose(choosing) = &mut sequence.work else { return Ok(Went::On) };
        let logits = self.backend.scores(at.0, entry, &choosing.wanted())?;
        match choosing.take(&logits) {
            Needs::Nothing(scores) => {
                sequence.send_scores(scores);
                Ok(Went::Over(Reason::End))
            }
            Needs::After(way) => {
                let from = sequence.go(way);
                let freed = self.backend.trim(at.0, at.1, from);
                freed.then_some(Went::On).ok_or_else(|| "the cells of a choice cannot be freed".to_owned())
            }
        }
    }

    /// Frees the place of a sequence that is over, before its reader hears of the end. What is in its cells stays there for
    /// those who begin in the same way, until the place is taken.
    fn end(&mut self, at: (Lane, Slot), reason: Reason) {
        let cells = self.seats.get(at).map(|sequence| sequence.cells()).unwrap_or_default();
        if let Some(sequence) = self.leave(at, cells) {
            self.counters.finished.fetch_add(u64::from(sequence.job.class.is_asked_for()), Relaxed);
            sequence.finish(reason);
        }
    }

    fn fail(&mut self, at: (Lane, Slot), error: Error) {
        if let Some(sequence) = self.leave(at, Vec::new()) {
            self.counters.failed.fetch_add(u64::from(sequence.job.class.is_asked_for()), Relaxed);
            sequence.fail(error);
        }
    }
}
