//! The swap policy: when to swap models for waiting steps.

use std::time::Duration;

use crate::device::Device;
use crate::evict::{EvictionPlan, ResidentModel, plan_eviction};
use crate::footprint::ModelFootprint;
use crate::placement::Placement;

/// How long the oldest step of a model may wait before the model is loaded at the expense of others.
const MIN_STARVATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The same as a multiple of the model's load time, if that is longer: with less, most of the time would be spent on loading.
const STARVATION_LOAD_FACTOR: u32 = 10;

/// A model that is not loaded and has waiting steps.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelQueue<'a> {
    /// Its memory.
    pub footprint: &'a ModelFootprint,
    /// How long its oldest step has waited.
    pub oldest_wait: Duration,
    /// The time that loading it takes.
    pub load_time: Duration,
}

/// The next action.
#[derive(Debug, Clone, PartialEq)]
pub enum SwapDecision {
    /// Keep the resident models.
    Keep,
    /// Load this model after unloading the victims, none of which is busy.
    Swap {
        /// The model to load.
        model: String,
        /// The models to unload first; may be empty.
        victims: Vec<String>,
        /// The model's placement.
        placement: Placement,
        /// Why, in words and figures.
        reason: String,
    },
    /// A model has waited too long: from now on the victims are draining ([`ResidentModel::is_draining`]); they accept no new
    /// steps and are evicted when idle. Models that drained before and are not named are no longer draining.
    Drain {
        /// The model that has waited.
        model: String,
        /// The models that accept no new steps.
        victims: Vec<String>,
        /// Why, in words and figures.
        reason: String,
    },
}

impl ModelQueue<'_> {
    /// How long its steps may wait.
    pub fn max_wait(&self) -> Duration {
        MIN_STARVATION_TIMEOUT.max(self.load_time.saturating_mul(STARVATION_LOAD_FACTOR))
    }

    fn is_overdue(&self) -> bool {
        // Equal counts: a timer that ends at the limit must find the model due.
        self.oldest_wait >= self.max_wait()
    }
}

/// Decides whether to keep the resident models or to swap for one of the models in `queues`.
///
/// It returns one action at a time: the caller performs it and then calls again. A model that would not fit on empty devices is
/// skipped; [`plan_eviction`] reports that.
///
/// All steps that wait for a resident model are served before it is evicted, which keeps swaps few; but a model whose oldest
/// step has waited for [`ModelQueue::max_wait`] is loaded, the most overdue first, so that no model starves. Call it
/// whenever a step arrives or ends, a model is loaded, or the next such limit is reached, and each time after the steps that
/// can start on the resident models have started; otherwise a model that has just been loaded might be evicted before it has
/// served a step.
pub fn decide_swap(queues: &[ModelQueue<'_>], devices: &[Device], resident: &[ResidentModel]) -> SwapDecision {
    let lateness = |queue: &ModelQueue<'_>| queue.oldest_wait.as_secs_f64() / queue.max_wait().as_secs_f64();
    let mut order: Vec<&ModelQueue<'_>> = queues.iter().collect();
    order.sort_by(|a, b| b.is_overdue().cmp(&a.is_overdue()).then(lateness(b).total_cmp(&lateness(a))));
    for queue in order {
        let model = queue.footprint.model.clone();
        let waited = format!("its oldest step has waited {} s", queue.oldest_wait.as_secs());
        match plan_eviction(queue.footprint, devices, resident) {
            EvictionPlan::Fits(placement) => {
                let reason = format!("steps wait for {model}, and it fits: {}", placement.reason);
                return SwapDecision::Swap { model, victims: Vec::new(), placement, reason };
            }
            EvictionPlan::Evict { victims, placement, reason }
                if queue.is_overdue() || have_no_waiting_steps(&victims, resident) =>
            {
                return SwapDecision::Swap { reason: format!("{reason}; {waited}"), model, victims, placement };
            }
            EvictionPlan::Wait { drain, reason } if queue.is_overdue() => {
                let limit = queue.max_wait().as_secs();
                let reason = format!("{reason}; {waited}, the limit is {limit} s, so these accept no new steps");
                return SwapDecision::Drain { model, victims: drain, reason };
            }
            _ => {}
        }
    }
    SwapDecision::Keep
}

fn have_no_waiting_steps(victims: &[String], resident: &[ResidentModel]) -> bool {
    resident.iter().filter(|engine| victims.contains(&engine.model)).all(|engine| engine.waiting_steps == 0)
}
