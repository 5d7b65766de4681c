//! Why an engine cannot be had.

use std::time::Duration;

use artel_engine::LoadError;
use artel_placement::{KeptOut, PlacementError};

/// Why an engine cannot be had. Each text says what failed and, where it is known, what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineUnavailable {
    /// There is no place for the model, even if nothing else were loaded.
    #[error("{}", describe_refusal(.0))]
    Unplaceable(PlacementError),
    /// There is no place for the model beside models that are kept for ever.
    #[error("{}", describe_kept(.0))]
    KeptOut(Box<KeptOut>),
    /// It could not be loaded, or its memory not be estimated.
    #[error("{0}")]
    Load(LoadError),
    /// Its engine exited unexpectedly.
    #[error("{0}")]
    Exited(String),
    /// It failed in a way that repeats, and is not asked for again before a pause is over.
    #[error("{reason}; it is tried again in {}s, at once with `artel load {model}`", whole_seconds(*.retry_after))]
    Paused {
        /// Why it failed last.
        reason: Box<Self>,
        /// The id of the engine.
        model: String,
        /// How much of the pause is left.
        retry_after: Duration,
    },
    /// It failed too often.
    #[error("{reason}; given up after {failures} failures: `artel load` tries again")]
    GivenUp {
        /// Why it failed last.
        reason: Box<Self>,
        /// The failures in a row.
        failures: u32,
    },
}

impl EngineUnavailable {
    /// Whether the model would not fit even if nothing else were loaded.
    pub fn is_memory_shortage(&self) -> bool {
        // A device that is missing is no shortage of memory.
        match self {
            Self::Unplaceable(refusal) => refusal.shortage().is_some(),
            Self::KeptOut(kept_out) => kept_out.refusal.shortage().is_some(),
            _ => false,
        }
    }

    /// What a request is told that fails for this reason, with so much of the pause left before the engine is asked for again.
    pub(super) fn during_pause(&self, engine: &str, pause: Duration) -> Self {
        if self.is_transient() {
            return self.clone();
        }
        Self::Paused { reason: Box::new(self.clone()), model: engine.to_owned(), retry_after: pause }
    }

    /// Whether it may pass by itself, so that it is worth asking again soon.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Load(error) => error.is_transient(),
            // Memory or a device may become available at any time.
            Self::Unplaceable(_) | Self::KeptOut(_) | Self::Exited(_) => true,
            Self::Paused { reason, .. } | Self::GivenUp { reason, .. } => reason.is_transient(),
        }
    }
}

/// The text of a refusal with its remedies.
fn describe_refusal(refusal: &PlacementError) -> String {
    let remedies: Vec<String> = refusal.remedies().iter().map(ToString::to_string).collect();
    match remedies.is_empty() {
        true => refusal.to_string(),
        false => format!("{refusal}; what would help: {}", remedies.join("; or ")),
    }
}

/// The text of a refusal with the models that hold the memory, and what frees enough of it.
fn describe_kept(kept_out: &KeptOut) -> String {
    let unload: Vec<String> = kept_out.unload.iter().map(|model| format!("`artel unload {model}`")).collect();
    let frees = if unload.len() == 1 { "frees" } else { "free" };
    format!(
        "{}; {} `keep: forever`: {} {frees} memory, and with a duration in place of `forever` a model gives it back",
        describe_refusal(&kept_out.refusal),
        kept_out.holders_have(),
        unload.join(" and ")
    )
}

/// Rounded up, so that a request after this time is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_says_what_failed_how_long_it_lasts_and_what_ends_it() {
        let error = LoadError::permanent("talk.gguf: no such file").with_advice("fetch it");
        let paused = EngineUnavailable::Paused {
            reason: Box::new(EngineUnavailable::Load(error)),
            model: "talk".to_owned(),
            retry_after: Duration::from_millis(31_001),
        };
        let text = "talk.gguf: no such file; fetch it; it is tried again in 32s, at once with `artel load talk`";
        assert_eq!((paused.to_string().as_str(), paused.is_transient()), (text, false));
    }
}
