//! Turns: a simulation of steps that arrive, and models that come and go for them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{GB, device, model, pinned};
use crate::{Device, Kind, Loaded, Need, Queue, Turn, place, turn};

const MODELS: [&str; 3] = ["a", "b", "c"];
const LONGEST_STEP: u64 = 8;
const LOAD: u64 = 3;
const BOUND: u64 = 30;

/// A step: when it arrives, for which model, and how long it runs, in seconds.
#[derive(Debug, Clone, Copy)]
struct Step {
    arrival: u64,
    model: usize,
    length: u64,
}

#[derive(Debug, Default)]
struct Outcome {
    done: usize,
    /// Loads that made another model go.
    swaps: usize,
    longest_wait: u64,
}

/// An engine in the simulation: when it serves, the ends of the steps that it runs, and when it was used last.
#[derive(Debug)]
struct Engine {
    ready: u64,
    ends: Vec<u64>,
    used: u64,
}

struct Simulation {
    needs: Vec<Need>,
    devices: Vec<Device>,
    now: u64,
    coming: Vec<Step>,
    waiting: Vec<Step>,
    at_once: usize,
    engines: BTreeMap<usize, Engine>,
    drained: Vec<String>,
    outcome: Outcome,
}

impl Simulation {
    /// A GPU with room for two of the three.
    fn new(mut steps: Vec<Step>, at_once: usize) -> Self {
        let devices = vec![device("CUDA0", Kind::Gpu, 8 * GB), device("CPU", Kind::Cpu, 16 * GB)];
        let needs = MODELS.iter().map(|name| pinned(model(name, 3 * GB), &["CUDA0"])).collect();
        steps.reverse();
        Self {
            needs,
            devices,
            now: 0,
            coming: steps,
            waiting: Vec::new(),
            at_once,
            engines: BTreeMap::new(),
            drained: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    fn run(mut self) -> Outcome {
        while !self.coming.is_empty() || !self.waiting.is_empty() || self.running() > 0 {
            self.finish();
            self.admit();
            self.begin();
            self.decide();
            self.now += 1;
            assert!(self.now < 100_000, "it goes on: {:?}", self.outcome);
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
            self.waiting.push(Step { arrival: self.now, ..step });
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

    fn loaded(&self) -> Vec<Loaded> {
        let loaded = |(model, engine): (&usize, &Engine)| Loaded {
            model: MODELS[*model].to_owned(),
            bytes: place(&self.needs[*model], &self.devices).unwrap().bytes(),
            busy: !engine.ends.is_empty() || engine.ready > self.now,
            draining: self.drained.iter().any(|name| name == MODELS[*model]),
            waiting: self.waiting.iter().filter(|step| step.model == *model).count() as u32,
            next_need: None,
            idle: Duration::from_secs(self.now - engine.used.min(self.now)),
            load_cost: Duration::from_secs(LOAD),
        };
        self.engines.iter().map(loaded).collect()
    }

    fn decide(&mut self) {
        let oldest =
            |model: usize| self.waiting.iter().filter(|step| step.model == model).map(|step| step.arrival).min();
        let queues: Vec<Queue<'_>> = (0..MODELS.len())
            .filter(|model| !self.engines.contains_key(model))
            .filter_map(|model| {
                let oldest = Duration::from_secs(self.now - oldest(model)?);
                Some(Queue { need: &self.needs[model], oldest, load_cost: Duration::from_secs(LOAD) })
            })
            .collect();
        let turn = turn(&queues, &self.devices, &self.loaded());
        self.drained.clear();
        match turn {
            Turn::Serve => {}
            Turn::Drain { victims, .. } => self.drained = victims,
            Turn::Swap { model, victims, .. } => {
                let at = |name: &String| MODELS.iter().position(|model| model == name).unwrap();
                for victim in &victims {
                    let gone = self.engines.remove(&at(victim)).unwrap();
                    assert!(gone.ends.is_empty() && gone.ready <= self.now, "{victim} was busy");
                    self.outcome.swaps += 1;
                }
                let ready = self.now + LOAD;
                self.engines.insert(at(&model), Engine { ready, ends: Vec::new(), used: ready });
                assert!(self.engines.len() <= 2, "there is room for two");
            }
        }
    }
}

fn tasks(seed: u64, count: usize, gap: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrival = 0;
    let mut step = || {
        arrival += random.random_range(0..=gap);
        Step { arrival, model: random.random_range(0..3), length: random.random_range(1..=LONGEST_STEP) }
    };
    (0..count).map(|_| step()).collect()
}

/// Swaps of a server that serves in the order of arrival and lets the least recently used of two go.
fn swaps_under_lru(steps: &[Step]) -> usize {
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
        let outcome = Simulation::new(steps.clone(), 8).run();
        assert_eq!(outcome.done, 60, "seed {seed}");
        assert!(outcome.longest_wait <= BOUND + LONGEST_STEP + 2 * LOAD, "seed {seed}: {outcome:?}");
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
        let outcome = Simulation::new(tasks(seed, 600, 1), usize::MAX).run();
        assert_eq!(outcome.done, 600, "seed {seed}");
        assert!(outcome.longest_wait <= BOUND + LONGEST_STEP + 2 * LOAD, "seed {seed}: {outcome:?}");
        assert!(outcome.swaps >= 3, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_model_that_nobody_needs_goes_at_once_and_one_that_is_needed_does_not() {
    let simulation = Simulation::new(Vec::new(), 8);
    let (needs, devices) = (&simulation.needs, &simulation.devices);
    let engine = |at: usize, waiting| Loaded {
        model: MODELS[at].to_owned(),
        bytes: place(&needs[at], devices).unwrap().bytes(),
        busy: false,
        draining: false,
        waiting,
        next_need: None,
        idle: Duration::from_secs(1),
        load_cost: Duration::from_secs(LOAD),
    };
    let queue = |seconds| {
        [Queue { need: &needs[2], oldest: Duration::from_secs(seconds), load_cost: Duration::from_secs(LOAD) }]
    };
    let victims = |turn: Turn| match turn {
        Turn::Swap { victims, .. } => victims,
        Turn::Serve => vec!["nobody".to_owned()],
        other => panic!("{other:?}"),
    };
    assert_eq!(victims(turn(&queue(0), devices, &[engine(0, 1), engine(1, 0)])), ["b"]);
    assert_eq!(victims(turn(&queue(BOUND), devices, &[engine(0, 1), engine(1, 1)])), ["nobody"]);
    assert_eq!(victims(turn(&queue(BOUND + 1), devices, &[engine(0, 1), engine(1, 1)])), ["a"]);
    assert!(victims(turn(&queue(0), devices, &[engine(0, 1)])).is_empty(), "there is room");
    let busy = [Loaded { busy: true, ..engine(0, 0) }, Loaded { busy: true, ..engine(1, 0) }];
    assert_eq!(turn(&queue(0), devices, &busy), Turn::Serve);
    let Turn::Drain { victims, reason, .. } = turn(&queue(BOUND + 1), devices, &busy) else { panic!() };
    assert_eq!(victims, ["a"]);
    let drained = [Loaded { draining: true, waiting: 5, ..busy[0].clone() }, busy[1].clone()];
    let again = turn(&queue(BOUND + 2), devices, &drained);
    assert!(matches!(again, Turn::Drain { victims, .. } if victims == ["a"]), "it stays the one to go");
    assert!(reason.contains("its oldest step has waited 31 s, 30 s are the most"), "{reason}");
}
