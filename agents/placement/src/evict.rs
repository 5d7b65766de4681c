//! Eviction: which resident models to unload so that another one fits.

use std::cmp::Reverse;
use std::time::Duration;

use artel_model::format_bytes;

use crate::device::{Device, DeviceBytes, allocated};
use crate::error::PlacementError;
use crate::fit::fit;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::limits::FitLimits;
use crate::phrase::list;
use crate::place::place;
use crate::placement::Placement;

/// Sets of engines that are tried in the search for a smallest one, before a merely minimal one is accepted: with ten engines,
/// every set.
const MAX_CANDIDATE_SETS: usize = 2000;
/// How long an engine must have been idle to be evicted although the model fits on a slower device: models that are used
/// alternately must not evict each other from a GPU.
const UPGRADE_IDLE_AGE: Duration = Duration::from_secs(60);

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidentModel {
    /// Its name, unique among the engines.
    pub model: String,
    /// The bytes that it takes by device, the machine's memory included.
    pub bytes: DeviceBytes,
    /// Whether steps run on it or it is being loaded: then it cannot be evicted.
    pub is_busy: bool,
    /// Whether it accepts no new steps and is to be evicted: it remains the first choice although steps begin to wait for it.
    pub is_draining: bool,
    /// Steps that wait for it, or will in a moment.
    pub waiting_steps: u32,
    /// The number of steps of a task before it is needed next, as far as is known. None if no task is known to need it.
    pub steps_until_use: Option<u32>,
    /// The time since its last use.
    pub idle: Duration,
    /// The time that loading it again would take.
    pub load_time: Duration,
}

/// The actions required to load a model.
#[derive(Debug, Clone, PartialEq)]
pub enum EvictionPlan {
    /// None: it fits.
    Fits(Placement),
    /// Evict these, none of which is busy; then it fits.
    Evict {
        /// The models to evict, the least needed first.
        victims: Vec<String>,
        /// The model's placement afterwards.
        placement: Placement,
        /// Why these, in words and figures.
        reason: String,
    },
    /// Wait for busy engines.
    Wait {
        /// The engines to evict, busy ones among them: if they accept no new steps, the model will fit.
        drain: Vec<String>,
        /// The engines that prevent the load, in words.
        reason: String,
    },
    /// It does not fit even if nothing else is loaded.
    Impossible(PlacementError),
}

/// Plans the evictions that a model needs to fit beside the resident ones.
///
/// Victims are never busy. They are a smallest set that frees enough memory, taken from engines for which no step waits if
/// these suffice. Among sets of one size, it is the one whose most needed engine is needed latest (Belady's rule, applied to the
/// known waits), then has been idle longest, then is cheapest to load again. If the model fits on the CPU only, or partly on it,
/// engines that no task has needed for `UPGRADE_IDLE_AGE` are evicted if that leaves less of it to the CPU. An engine of the same
/// model counts as evicted.
///
/// Beside others, the model has as long a context as it would have alone, and as many sequences unless it has fewer alone too:
/// then engines are evicted.
pub fn plan_eviction(footprint: &ModelFootprint, devices: &[Device], resident: &[ResidentModel]) -> EvictionPlan {
    let others: Vec<&ResidentModel> = resident.iter().filter(|engine| engine.model != footprint.model).collect();
    let mut ranked = others.clone();
    ranked.sort_by_key(|engine| eviction_rank(engine));
    let alone = match place(footprint, devices) {
        Ok(alone) => alone,
        Err(error) => return EvictionPlan::Impossible(error),
    };
    let limits = FitLimits::beside_others(footprint, &alone);
    let search = EvictionSearch { footprint, devices, limits, others: &others, max_cpu_rank: u8::MAX };
    if let Some(placement) = search.placement_without(&[]) {
        return search.upgrade(&ranked, &placement).unwrap_or(EvictionPlan::Fits(placement));
    }
    let idle: Vec<&ResidentModel> = ranked.iter().copied().filter(|engine| !engine.is_busy).collect();
    let unneeded: Vec<&ResidentModel> = idle.iter().copied().filter(|engine| engine.waiting_steps == 0).collect();
    if let Some((victims, placement)) = search.smallest_set(&unneeded).or_else(|| search.smallest_set(&idle)) {
        return search.evict(&victims, placement);
    }
    // Idle engines come first here too: the fewer busy ones, the shorter the wait.
    ranked.sort_by_key(|engine| engine.is_busy);
    let drained = search.smallest_set(&ranked).map(|(engines, _)| engines).unwrap_or(ranked);
    EvictionPlan::Wait { reason: search.wait_reason(&drained), drain: names(&drained) }
}

/// The sort key that puts the least needed engines first.
fn eviction_rank(engine: &ResidentModel) -> (bool, bool, Reverse<u32>, Reverse<Duration>, Duration) {
    let next_use = engine.steps_until_use.unwrap_or(u32::MAX);
    (!engine.is_draining, engine.waiting_steps > 0, Reverse(next_use), Reverse(engine.idle), engine.load_time)
}

fn names(engines: &[&ResidentModel]) -> Vec<String> {
    engines.iter().map(|engine| engine.model.clone()).collect()
}

#[derive(Clone, Copy)]
struct EvictionSearch<'a> {
    footprint: &'a ModelFootprint,
    devices: &'a [Device],
    limits: FitLimits,
    others: &'a [&'a ResidentModel],
    /// How much of the model the CPU may compute.
    max_cpu_rank: u8,
}

impl<'a> EvictionSearch<'a> {
    /// The model's placement if these were evicted.
    fn placement_without(&self, evicted: &[&ResidentModel]) -> Option<Placement> {
        let mut taken = DeviceBytes::new();
        let stay = self.others.iter().filter(|engine| evicted.iter().all(|evicted| evicted.model != engine.model));
        for (device, bytes) in stay.flat_map(|engine| &engine.bytes) {
            let sum = taken.entry(device.clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let placement = fit(self.footprint, &allocated(self.devices, &taken), self.limits).ok()?;
        (placement.cpu_rank() <= self.max_cpu_rank).then_some(placement)
    }

    /// An eviction that leaves less of the model to the CPU, if only long-idle engines prevent that.
    fn upgrade(&self, ranked: &[&'a ResidentModel], present: &Placement) -> Option<EvictionPlan> {
        if self.footprint.devices != DeviceChoice::Auto {
            return None;
        }
        let is_evictable = |engine: &&&ResidentModel| {
            !engine.is_busy
                && engine.waiting_steps == 0
                && engine.steps_until_use.is_none()
                && engine.idle >= UPGRADE_IDLE_AGE
        };
        let evictable: Vec<&ResidentModel> = ranked.iter().filter(is_evictable).copied().collect();
        (0..present.cpu_rank()).find_map(|max_cpu_rank| {
            let (victims, placement) = EvictionSearch { max_cpu_rank, ..*self }.smallest_set(&evictable)?;
            Some(self.evict(&victims, placement))
        })
    }

    fn evict(&self, victims: &[&ResidentModel], placement: Placement) -> EvictionPlan {
        EvictionPlan::Evict { victims: names(victims), placement, reason: self.eviction_reason(victims) }
    }

    /// The smallest set of `ranked` whose eviction frees enough memory, and the model's placement then.
    fn smallest_set(&self, ranked: &[&'a ResidentModel]) -> Option<(Vec<&'a ResidentModel>, Placement)> {
        // If all of them are not enough, no set is.
        self.placement_without(ranked)?;
        let mut tries = 0;
        for size in 1..=ranked.len() {
            let mut set: Vec<usize> = (0..size).collect();
            loop {
                let engines: Vec<&ResidentModel> = set.iter().map(|index| ranked[*index]).collect();
                if let Some(placement) = self.placement_without(&engines) {
                    return Some((engines, placement));
                }
                tries += 1;
                if tries == MAX_CANDIDATE_SETS {
                    return self.minimal_set(ranked);
                }
                if !next_combination(&mut set, ranked.len()) {
                    break;
                }
            }
        }
        None
    }

    /// A set from which no engine can be removed, found by removing engines while the rest suffice, the most needed first.
    fn minimal_set(&self, ranked: &[&'a ResidentModel]) -> Option<(Vec<&'a ResidentModel>, Placement)> {
        let mut evicted = ranked.to_vec();
        for index in (0..ranked.len()).rev() {
            let engine = evicted.remove(index);
            if self.placement_without(&evicted).is_none() {
                evicted.insert(index, engine);
            }
        }
        let placement = self.placement_without(&evicted)?;
        Some((evicted, placement))
    }

    fn eviction_reason(&self, victims: &[&ResidentModel]) -> String {
        let each = victims.iter().map(|engine| {
            let next_use = match (engine.waiting_steps, engine.steps_until_use) {
                (0, None) => "no task needs it".to_owned(),
                (0, Some(0)) => "a task needs it now".to_owned(),
                (0, Some(steps)) => format!("a task needs it after {steps} more steps"),
                (1, _) => "1 step waits for it".to_owned(),
                (n, _) => format!("{n} steps wait for it"),
            };
            let freed = format_bytes(engine.bytes.values().copied().fold(0, u64::saturating_add));
            format!("{} ({freed}, idle for {} s, {next_use})", engine.model, engine.idle.as_secs())
        });
        format!("frees memory for {}: {}", self.footprint.model, each.collect::<Vec<_>>().join(", "))
    }

    fn wait_reason(&self, engines: &[&ResidentModel]) -> String {
        let busy = engines.iter().filter(|engine| engine.is_busy);
        let busy: Vec<&str> = busy.map(|engine| engine.model.as_str()).collect();
        let verb = if busy.len() == 1 { "is" } else { "are" };
        format!("{} waits for memory: {} {verb} busy", self.footprint.model, list(&busy))
    }
}

/// Advances to the next set of the same size. In this order the greatest index grows last, so that the first sufficient set is
/// the one whose most needed engine is needed least.
fn next_combination(set: &mut [usize], length: usize) -> bool {
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
