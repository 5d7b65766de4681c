//! The swap policy in a simulation of arriving steps and the models that are swapped for them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{GB, device, model, pinned};
use crate::{Device, DeviceKind, ModelFootprint, ModelQueue, ResidentModel, SwapDecision, decide_swap, place};

const MODELS: [&str; 3] = ["a", "b", "c"];
const MAX_STEP_SECS: u64 = 8;
const LOAD_SECS: u64 = 3;
const MAX_WAIT_SECS: u64 = 30;

/// A step: its arrival, its model, and its duration, in seconds.
#[derive(Debug, Clone, Copy)]
struct SimulatedStep {
    arrival: u64,
    model: usize,
    length: u64,
}

#[derive(Debug, Default)]
struct SimulationOutcome {
    done: usize,
    /// Loads that evicted another model.
    swaps: usize,
    longest_wait: u64,
}

/// An engine in the simulation: when it is ready, the ends of its running steps, and its last use.
#[derive(Debug)]
struct SimulatedEngine {
    ready: u64,
    ends: Vec<u64>,
    used: u64,
}

struct SwapSimulation {
    footprints: Vec<ModelFootprint>,
    devices: Vec<Device>,
    now: u64,
    coming: Vec<SimulatedStep>,
    waiting: Vec<SimulatedStep>,
    at_once: usize,
    engines: BTreeMap<usize, SimulatedEngine>,
    drained: Vec<String>,
    outcome: SimulationOutcome,
}

impl SwapSimulation {
    /// A GPU on which two of the three models fit.
    fn new(mut steps: Vec<SimulatedStep>, at_once: usize) -> Self {
        let devices = vec![device("CUDA0", DeviceKind::Gpu, 8 * GB), device("CPU", DeviceKind::Cpu, 16 * GB)];
        let footprints = MODELS.iter().map(|name| pinned(model(name, 3 * GB), &["CUDA0"])).collect();
        steps.reverse();
        Self {
            footprints,
            devices,
            now: 0,
            coming: steps,
            waiting: Vec::new(),
            at_once,
            engines: BTreeMap::new(),
            drained: Vec::new(),
            outcome: SimulationOutcome::default(),
        }
    }

    fn run(mut self) -> SimulationOutcome {
        while !self.coming.is_empty() || !self.waiting.is_empty() || self.running() > 0 {
            self.finish();
            self.admit();
            self.begin();
            self.decide();
            self.now += 1;
            assert!(self.now < 100_000, "no progress: {:?}", self.outcome);
        }
        self.outcome
    }

    fn running(&self) -> usize {
        self.engines.values().map(|engine| engine.ends.len()).sum()
    }

    fn finish(&mut self) {
        for engine in self.engines.values_mut() {
            let before = engine.ends.len();
            engine.ends.retain(|end| *end > self.now);
            self.outcome.done += before - engine.ends.len();
            if engine.ends.len() < before {
                engine.used = self.now;
            }
        }
    }

    fn admit(&mut self) {
        while self.running() + self.waiting.len() < self.at_once
            && self.coming.last().is_some_and(|step| step.arrival <= self.now)
        {
            let step = self.coming.pop().unwrap();
            self.waiting.push(SimulatedStep { arrival: self.now, ..step });
        }
    }

    fn begin(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for step in waiting {
            match self.engines.get_mut(&step.model) {
                Some(engine)
                    if engine.ready <= self.now && !self.drained.iter().any(|name| name == MODELS[step.model]) =>
                {
                    engine.ends.push(self.now + step.length);
                    engine.used = self.now;
                    self.outcome.longest_wait = self.outcome.longest_wait.max(self.now - step.arrival);
                }
                _ => self.waiting.push(step),
            }
        }
    }

    fn loaded(&self) -> Vec<ResidentModel> {
        let loaded = |(model, engine): (&usize, &SimulatedEngine)| ResidentModel {
            model: MODELS[*model].to_owned(),
            bytes: place(&self.footprints[*model], &self.devices).unwrap().bytes(),
            is_busy: !engine.ends.is_empty() || engine.ready > self.now,
            is_draining: self.drained.iter().any(|name| name == MODELS[*model]),
            waiting_steps: self.waiting.iter().filter(|step| step.model == *model).count() as u32,
            steps_until_use: None,
            idle: Duration::from_secs(self.now - engine.used.min(self.now)),
            load_time: Duration::from_secs(LOAD_SECS),
        };
        self.engines.iter().map(loaded).collect()
    }

    fn decide(&mut self) {
        let oldest_arrival =
            |model: usize| self.waiting.iter().filter(|step| step.model == model).map(|step| step.arrival).min();
        let queues: Vec<ModelQueue<'_>> = (0..MODELS.len())
            .filter(|model| !self.engines.contains_key(model))
            .filter_map(|model| {
                let oldest_wait = Duration::from_secs(self.now - oldest_arrival(model)?);
                Some(ModelQueue {
                    footprint: &self.footprints[model],
                    oldest_wait,
                    load_time: Duration::from_secs(LOAD_SECS),
                })
            })
            .collect();
        let decision = decide_swap(&queues, &self.devices, &self.loaded());
        self.drained.clear();
        match decision {
            SwapDecision::Keep => {}
            SwapDecision::Drain { victims, .. } => self.drained = victims,
            SwapDecision::Swap { model, victims, .. } => {
                let at = |name: &String| MODELS.iter().position(|model| model == name).unwrap();
                for victim in &victims {
                    let gone = self.engines.remove(&at(victim)).unwrap();
                    assert!(gone.ends.is_empty() && gone.ready <= self.now, "{victim} was busy");
                    self.outcome.swaps += 1;
                }
                let ready = self.now + LOAD_SECS;
                self.engines.insert(at(&model), SimulatedEngine { ready, ends: Vec::new(), used: ready });
                assert!(self.engines.len() <= 2, "two fit");
            }
        }
    }
}

fn tasks(seed: u64, count: usize, gap: u64) -> Vec<SimulatedStep> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrival = 0;
    let mut step = || {
        arrival += random.random_range(0..=gap);
        SimulatedStep { arrival, model: random.random_range(0..3), length: random.random_range(1..=MAX_STEP_SECS) }
    };
    (0..count).map(|_| step()).collect()
}

/// Swaps of a server that serves in the order of arrival and evicts the least recently used of two models.
fn swaps_under_lru(steps: &[SimulatedStep]) -> usize {
    let mut loaded: Vec<usize> = Vec::new();
    let mut swaps = 0;
    for step in steps {
        match loaded.iter().position(|model| *model == step.model) {
            Some(at) => drop(loaded.remove(at)),
            None if loaded.len() == 2 => {
                loaded.remove(0);
                swaps += 1;
            }
            None => {}
        }
        loaded.push(step.model);
    }
    swaps
}

#[test]
fn sixty_tasks_over_three_models_swap_less_than_under_lru() {
    let (mut ours, mut lru, mut fewer) = (0, 0, 0);
    for seed in 0..1000 {
        let steps = tasks(seed, 60, 0);
        let outcome = SwapSimulation::new(steps.clone(), 8).run();
        assert_eq!(outcome.done, 60, "seed {seed}");
        assert!(outcome.longest_wait <= MAX_WAIT_SECS + MAX_STEP_SECS + 2 * LOAD_SECS, "seed {seed}: {outcome:?}");
        let theirs = swaps_under_lru(&steps);
        fewer += usize::from(outcome.swaps < theirs);
        ours += outcome.swaps;
        lru += theirs;
    }
    println!("swaps in 1,000 runs: {ours}, under LRU {lru}; fewer in {fewer}");
    assert!(ours * 10 < lru * 7, "{ours} swaps, {lru} under LRU");
    assert!(fewer >= 980, "fewer in {fewer} of 1,000");
}

#[test]
fn nothing_starves_beside_two_models_that_are_never_idle() {
    for seed in 0..100 {
        // More arrives than ends, for all three, all the time.
        let outcome = SwapSimulation::new(tasks(seed, 600, 1), usize::MAX).run();
        assert_eq!(outcome.done, 600, "seed {seed}");
        assert!(outcome.longest_wait <= MAX_WAIT_SECS + MAX_STEP_SECS + 2 * LOAD_SECS, "seed {seed}: {outcome:?}");
        assert!(outcome.swaps >= 3, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_model_without_waiting_steps_is_swapped_at_once_and_one_with_them_is_not() {
    let simulation = SwapSimulation::new(Vec::new(), 8);
    let (footprints, devices) = (&simulation.footprints, &simulation.devices);
    let engine = |at: usize, waiting| ResidentModel {
        model: MODELS[at].to_owned(),
        bytes: place(&footprints[at], devices).unwrap().bytes(),
        is_busy: false,
        is_draining: false,
        waiting_steps: waiting,
        steps_until_use: None,
        idle: Duration::from_secs(1),
        load_time: Duration::from_secs(LOAD_SECS),
    };
    let queue = |seconds| {
        [ModelQueue {
            footprint: &footprints[2],
            oldest_wait: Duration::from_secs(seconds),
            load_time: Duration::from_secs(LOAD_SECS),
        }]
    };
    let victims = |decision: SwapDecision| match decision {
        SwapDecision::Swap { victims, .. } => victims,
        SwapDecision::Keep => vec!["none".to_owned()],
        other => panic!("{other:?}"),
    };
    assert_eq!(victims(decide_swap(&queue(0), devices, &[engine(0, 1), engine(1, 0)])), ["b"]);
    assert_eq!(victims(decide_swap(&queue(MAX_WAIT_SECS - 1), devices, &[engine(0, 1), engine(1, 1)])), ["none"]);
    assert_eq!(victims(decide_swap(&queue(MAX_WAIT_SECS), devices, &[engine(0, 1), engine(1, 1)])), ["a"]);
    assert!(victims(decide_swap(&queue(0), devices, &[engine(0, 1)])).is_empty(), "it fits");
    let busy = [ResidentModel { is_busy: true, ..engine(0, 0) }, ResidentModel { is_busy: true, ..engine(1, 0) }];
    assert_eq!(decide_swap(&queue(0), devices, &busy), SwapDecision::Keep);
    let SwapDecision::Drain { victims, reason, .. } = decide_swap(&queue(MAX_WAIT_SECS + 1), devices, &busy) else {
        panic!()
    };
    assert_eq!(victims, ["a"]);
    let drained = [ResidentModel { is_draining: true, waiting_steps: 5, ..busy[0].clone() }, busy[1].clone()];
    let again = decide_swap(&queue(MAX_WAIT_SECS + 2), devices, &drained);
    assert!(matches!(again, SwapDecision::Drain { victims, .. } if victims == ["a"]), "the victim stays the same");
    assert!(reason.contains("its oldest step has waited 31 s, the limit is 30 s"), "{reason}");
}
