//! The status line: the progress of running attempts.

use std::collections::BTreeMap;

use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::{Decode, Loading, Prefill, Queued, Stage};
use artel_proto::v1::{Event, Progress};
use artel_terminal::{StyledText, brief};

/// The most attempts that the line shows.
const MAX_ATTEMPTS: usize = 3;

/// The progress of each running attempt, by step id.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningSteps(BTreeMap<String, String>);

impl RunningSteps {
    /// Applies an event; true if the line may have changed.
    pub(crate) fn update(&mut self, event: &Event) -> bool {
        match event.kind.as_ref() {
            Some(Kind::StepStarted(started)) => {
                let name = name(&started.role, &started.node);
                self.0.insert(started.step_id.clone(), format!("{name}: starting"));
            }
            Some(Kind::Progress(progress)) => {
                if let Some(stage) = &progress.stage {
                    self.0.insert(progress.step_id.clone(), describe(progress, stage));
                }
            }
            Some(Kind::StepFinished(finished)) => drop(self.0.remove(&finished.step_id)),
            Some(Kind::StepFailed(failed)) => drop(self.0.remove(&failed.step_id)),
            Some(Kind::Resumed(_) | Kind::SetAside(_) | Kind::Completed(_) | Kind::Failed(_) | Kind::Cancelled(_)) => {
                self.0.clear();
            }
            _ => return false,
        }
        true
    }

    /// The line, without a line break.
    pub(crate) fn line(&self) -> String {
        let mut shown: Vec<String> = self.0.values().take(MAX_ATTEMPTS).cloned().collect();
        if let Some(more @ 1..) = self.0.len().checked_sub(MAX_ATTEMPTS) {
            shown.push(format!("{more} more"));
        }
        // Names may contain control characters, which `StyledText` removes.
        StyledText::new(false).push(shown.join(" · ")).take()
    }
}

fn name(role: &str, node: &str) -> String {
    brief(if role.is_empty() { node } else { role }, 40)
}

fn describe(progress: &Progress, stage: &Stage) -> String {
    let name = name(&progress.role, &progress.node);
    match stage {
        Stage::Queued(Queued { position }) => format!("{name}: queued, position {position}"),
        Stage::Loading(Loading { model, fraction }) => {
            format!("{name}: loading {} {:.0} %", brief(model, 40), fraction * 100.0)
        }
        Stage::Prefill(Prefill { done_tokens, total_tokens }) => {
            let percent = f64::from(*done_tokens) / f64::from((*total_tokens).max(1)) * 100.0;
            format!("{name}: prefill {done_tokens}/{total_tokens} tokens ({percent:.0} %)")
        }
        Stage::Decode(Decode { output_tokens, tokens_per_second }) => {
            format!("{name}: decode {output_tokens} tokens, {tokens_per_second:.1} t/s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn running_steps_are_shown_until_they_end() {
        let mut running = RunningSteps::default();
        let mut lines = Vec::new();
        for event in sample::council() {
            if running.update(&event) {
                lines.push(running.line());
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
