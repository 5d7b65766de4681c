//! A crew with scripted engines and a real journal: tasks run, are cancelled, resumed, and survive panics.

mod beginning;
mod crew;
mod fleet;
mod language;
mod panics;
mod routing;
pub(crate) mod stage;
