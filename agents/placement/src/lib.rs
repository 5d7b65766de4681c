//! Which model belongs on which devices, who goes to make room for it, and whose turn it is.
//!
//! A [`Need`] says what one model takes, layer by layer; [`Device`]s say what there is. [`place`] finds a [`Place`] for one
//! model or a [`Refusal`] that says what is missing where and what would help; [`plan`] does so for a whole catalog.
//! [`room`] makes room beside engines that are [`Loaded`], and [`turn`] decides when to swap for the steps that wait.
//!
//! Everything here is a function of its arguments: no IO, no clock, no async. It has never heard of llama.cpp, files,
//! roles or tasks; sizes are bytes, and models and devices are names.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod device;
mod layout;
mod need;
mod place;
mod plan;
mod refusal;
mod remedy;
mod room;
mod size;
mod turn;

pub use device::{Bytes, Device, Kind};
pub use need::{Cache, Devices, Layer, Need, Split};
pub use place::{Part, Place, place};
pub use plan::{Plan, Unplaced, plan};
pub use refusal::{Refusal, Shortage};
pub use remedy::{Change, Remedy};
pub use room::{Decision, Loaded, room};
pub use size::bytes;
pub use turn::{Queue, Turn, turn};

#[cfg(test)]
mod tests;
