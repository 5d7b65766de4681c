//! Whose turn it is: when to swap models for the steps that wait.

use std::time::Duration;

use crate::device::Device;
use crate::need::Need;
use crate::place::Place;
use crate::room::{Decision, Loaded, room};

/// How long the oldest step of a model may wait before the model gets its turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// Or so many times what loading the model costs, if that is longer: less, and most of the time would go into loading.
const LOADS: u32 = 10;

/// A model that is not loaded, and for which steps wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue<'a> {
    /// What it takes.
    pub need: &'a Need,
    /// How long its oldest step has waited.
    pub oldest: Duration,
    /// What loading it costs.
    pub load_cost: Duration,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Nothing: go on with what is loaded.
    Serve,
    /// Load this model, once those are unloaded; none of them is busy.
    Swap {
        /// Which to load.
        model: String,
        /// Which to unload first; perhaps none.
        victims: Vec<String>,
        /// Where it goes.
        place: Place,
        /// Why, in words and figures.
        reason: String,
    },
    /// A model has waited too long: these are [`Loaded::draining`] from now on, take no new steps, and go when they are idle.
    /// Whoever drained before and is not named may go on.
    Drain {
        /// Which has waited.
        model: String,
        /// Which take no new steps.
        victims: Vec<String>,
        /// Why, in words and figures.
        reason: String,
    },
}

impl Queue<'_> {
    /// How long its steps may wait.
    pub fn bound(&self) -> Duration {
        PATIENCE.max(self.load_cost.saturating_mul(LOADS))
    }

    fn is_overdue(&self) -> bool {
        self.oldest > self.bound()
    }
}

/// Decides whether to go on with what is loaded or to swap for one of the models in `queues`.
///
/// One thing at a time: whatever is to be done is done first, and then this is asked again. A model that would not fit on
/// empty devices is passed over; [`room`] says so of it.
///
/// All that waits for a loaded model is served before that model goes, which keeps swaps few; but a model whose oldest step
/// has waited beyond its bound gets its turn, the most overdue first, so that nothing starves. To be asked whenever a step
/// arrives or ends, a model is loaded, or the next bound is reached; each time after the steps have begun that can begin on
/// what is loaded, or else a model that has just been loaded might go before it has served anybody.
pub fn turn(queues: &[Queue<'_>], devices: &[Device], loaded: &[Loaded]) -> Turn {
    let late = |queue: &Queue<'_>| queue.oldest.as_secs_f64() / queue.bound().as_secs_f64();
    let mut order: Vec<&Queue<'_>> = queues.iter().collect();
    order.sort_by(|a, b| b.is_overdue().cmp(&a.is_overdue()).then(late(b).total_cmp(&late(a))));
    for queue in order {
        let model = queue.need.model.clone();
        let waited = format!("its oldest step has waited {} s", queue.oldest.as_secs());
        match room(queue.need, devices, loaded) {
            Decision::Fits(place) => {
                let reason = format!("steps wait for {model}, and there is room: {}", place.reason);
                return Turn::Swap { model, victims: Vec::new(), place, reason };
            }
            Decision::Unload { victims, place, reason } if queue.is_overdue() || nobody_waits(&victims, loaded) => {
                return Turn::Swap { reason: format!("{reason}; {waited}"), model, victims, place };
            }
            Decision::Wait { drain, reason } if queue.is_overdue() => {
                let bound = queue.bound().as_secs();
                let reason = format!("{reason}; {waited}, {bound} s are the most, so these take no new steps");
                return Turn::Drain { model, victims: drain, reason };
            }
            _ => {}
        }
    }
    Turn::Serve
}

fn nobody_waits(victims: &[String], loaded: &[Loaded]) -> bool {
    loaded.iter().filter(|engine| victims.contains(&engine.model)).all(|engine| engine.waiting == 0)
}
