//! Room for a model beside others that are loaded.

use std::cmp::Reverse;
use std::time::Duration;

use crate::device::{Bytes, Device, less};
use crate::need::{Devices, Need};
use crate::place::{Place, fit, place};
use crate::refusal::Refusal;
use crate::size::{bytes, list};

/// Sets of engines that are tried for the smallest one before a small one has to do: with ten engines, every set.
const SETS: usize = 2000;
/// How long an engine must have been idle to be unloaded although there is room, if only for a slower device: models that are
/// used in turn shall not push each other off a GPU.
const REST: Duration = Duration::from_secs(60);

/// An engine that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its model; every engine has another name.
    pub model: String,
    /// What it takes, by device, the machine's memory included.
    pub bytes: Bytes,
    /// Whether steps run on it or it is being loaded: then it cannot go.
    pub busy: bool,
    /// Whether it takes no new steps any more, to be unloaded: it stays the one to go, though steps begin to wait for it.
    pub draining: bool,
    /// How many steps wait for it, or will in a moment.
    pub waiting: u32,
    /// After how many more steps of its task it is needed next, as far as is known. None if nobody is known to need it.
    pub next_need: Option<u32>,
    /// How long ago it was used last.
    pub idle: Duration,
    /// What loading it again would cost.
    pub load_cost: Duration,
}

/// What to do to load a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// There is room.
    Fits(Place),
    /// There is room once these are unloaded; none of them is busy.
    Unload {
        /// Which, the one that can be missed best first.
        victims: Vec<String>,
        /// Where the model goes then.
        place: Place,
        /// Why these, in words and figures.
        reason: String,
    },
    /// What is in the way is busy.
    Wait {
        /// Those that would have to go, busy ones among them: if they take no new steps, there will be room.
        drain: Vec<String>,
        /// What is in the way, in words and figures.
        reason: String,
    },
    /// It would not fit if nothing else were loaded.
    Never(Refusal),
}

/// Finds room for a model beside those that are loaded.
///
/// Who goes is never busy. It is the smallest set that makes room, of engines that nobody waits for if they are enough; among
/// sets of one size, the one whose most needed engine is needed latest (Belady's rule over what is known to wait), then
/// has been idle longest, then is cheapest to load again. Where there is room on the CPU alone, engines that nobody has needed
/// for a minute go if that brings the model to a better device. An engine of the same model counts as gone.
pub fn room(need: &Need, devices: &[Device], loaded: &[Loaded]) -> Decision {
    let others: Vec<&Loaded> = loaded.iter().filter(|engine| engine.model != need.model).collect();
    let mut ranked = others.clone();
    ranked.sort_by_key(|engine| rank(engine));
    let house = House { need, devices, others: &others, but_cpu: false };
    if let Some(place) = house.without(&[]) {
        return house.better(&ranked).unwrap_or(Decision::Fits(place));
    }
    if let Err(refusal) = place(need, devices) {
        return Decision::Never(refusal);
    }
    let missed: Vec<&Loaded> = ranked.iter().copied().filter(|engine| !engine.busy && engine.waiting == 0).collect();
    let idle: Vec<&Loaded> = ranked.iter().copied().filter(|engine| !engine.busy).collect();
    if let Some((victims, place)) = house.smallest(&missed).or_else(|| house.smallest(&idle)) {
        return house.unload(&victims, place);
    }
    // Whoever is idle goes first here too: the fewer must be waited for, the better.
    ranked.sort_by_key(|engine| engine.busy);
    let drained = house.smallest(&ranked).map(|(engines, _)| engines).unwrap_or(ranked);
    Decision::Wait { reason: house.in_the_way(&drained), drain: names(&drained) }
}

/// Sorts those who can be missed best first.
fn rank(engine: &Loaded) -> (bool, bool, Reverse<u32>, Reverse<Duration>, Duration) {
    let needed = engine.next_need.unwrap_or(u32::MAX);
    (!engine.draining, engine.waiting > 0, Reverse(needed), Reverse(engine.idle), engine.load_cost)
}

fn names(engines: &[&Loaded]) -> Vec<String> {
    engines.iter().map(|engine| engine.model.clone()).collect()
}

#[derive(Clone, Copy)]
struct House<'a> {
    need: &'a Need,
    devices: &'a [Device],
    others: &'a [&'a Loaded],
    /// Whether a place on the CPU does not count.
    but_cpu: bool,
}

impl<'a> House<'a> {
    /// Where the model would go if these were unloaded.
    fn without(&self, gone: &[&Loaded]) -> Option<Place> {
        let mut taken = Bytes::new();
        let stay = self.others.iter().filter(|engine| gone.iter().all(|gone| gone.model != engine.model));
        for (device, bytes) in stay.flat_map(|engine| &engine.bytes) {
            let sum = taken.entry(device.clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let place = fit(self.need, &less(self.devices, &taken)).ok()?;
        // Where a part has the process, the CPU computes.
        let counts = !self.but_cpu || place.host.is_some();
        counts.then_some(place)
    }

    /// A better place than the CPU, if only engines at rest are in its way.
    fn better(&self, ranked: &[&'a Loaded]) -> Option<Decision> {
        let house = House { but_cpu: true, ..*self };
        if self.need.devices != Devices::Auto || house.without(&[]).is_some() {
            return None;
        }
        let rests = |engine: &&&Loaded| {
            !engine.busy && engine.waiting == 0 && engine.next_need.is_none() && engine.idle >= REST
        };
        let resting: Vec<&Loaded> = ranked.iter().filter(rests).copied().collect();
        let (victims, place) = house.smallest(&resting)?;
        Some(house.unload(&victims, place))
    }

    fn unload(&self, victims: &[&Loaded], place: Place) -> Decision {
        Decision::Unload { victims: names(victims), place, reason: self.why(victims) }
    }

    /// The smallest set of `ranked` whose going makes room, and where the model goes then.
    fn smallest(&self, ranked: &[&'a Loaded]) -> Option<(Vec<&'a Loaded>, Place)> {
        // If not even all of them are enough, no set is.
        self.without(ranked)?;
        let mut tries = 0;
        for size in 1..=ranked.len() {
            let mut set: Vec<usize> = (0..size).collect();
            loop {
                let engines: Vec<&Loaded> = set.iter().map(|at| ranked[*at]).collect();
                if let Some(place) = self.without(&engines) {
                    return Some((engines, place));
                }
                tries += 1;
                if tries == SETS {
                    return self.small(ranked);
                }
                if !advance(&mut set, ranked.len()) {
                    break;
                }
            }
        }
        None
    }

    /// A set from which nobody can be left out, found by letting stay whom it can, the most needed first.
    fn small(&self, ranked: &[&'a Loaded]) -> Option<(Vec<&'a Loaded>, Place)> {
        let mut gone = ranked.to_vec();
        for at in (0..ranked.len()).rev() {
            let engine = gone.remove(at);
            if self.without(&gone).is_none() {
                gone.insert(at, engine);
            }
        }
        let place = self.without(&gone)?;
        Some((gone, place))
    }

    fn why(&self, victims: &[&Loaded]) -> String {
        let each = victims.iter().map(|engine| {
            let needed = match (engine.waiting, engine.next_need) {
                (0, None) => "nobody waits for it".to_owned(),
                (0, Some(0)) => "a task needs it now".to_owned(),
                (0, Some(steps)) => format!("a task needs it after {steps} more steps"),
                (1, _) => "1 step waits for it".to_owned(),
                (n, _) => format!("{n} steps wait for it"),
            };
            let freed = bytes(engine.bytes.values().copied().fold(0, u64::saturating_add));
            format!("{} ({freed}, idle for {} s, {needed})", engine.model, engine.idle.as_secs())
        });
        format!("to make room for {}: {}", self.need.model, each.collect::<Vec<_>>().join(", "))
    }

    fn in_the_way(&self, engines: &[&Loaded]) -> String {
        let busy: Vec<&str> = engines.iter().filter(|engine| engine.busy).map(|engine| engine.model.as_str()).collect();
        let verb = if busy.len() == 1 { "is" } else { "are" };
        format!("{} waits for room: {} {verb} in the way and busy", self.need.model, list(&busy))
    }
}

/// The next set of the same size. In this order the greatest index grows last, so that the first set that makes room is the
/// one whose most needed engine is missed least.
fn advance(set: &mut [usize], length: usize) -> bool {
    for at in 0..set.len() {
        let limit = set.get(at + 1).copied().unwrap_or(length);
        if set[at] + 1 < limit {
            set[at] += 1;
            (0..at).for_each(|before| set[before] = before);
            return true;
        }
    }
    false
}
