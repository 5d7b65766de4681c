//! Tests that reach into the runtime: its actors panic, or are asked directly. Those from outside are in `tests/all`.

#[path = "../tests/all/fixtures.rs"]
pub(crate) mod fixtures;
mod panics;
