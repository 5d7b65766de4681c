//! The line that says what is going on right now.

use std::collections::BTreeMap;

use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::{Decode, Loading, Prefill, Queued, Stage};
use artel_proto::v1::{Event, Progress};

use super::page::{Page, brief};

/// The most attempts that the line has room for.
const SHOWN: usize = 3;

/// How far each running attempt is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(BTreeMap<String, String>);

impl Running {
    /// Takes an event; true if the line may have changed.
    pub(crate) fn hear(&mut self, event: &Event) -> bool {
        match event.kind.as_ref() {
            Some(Kind::StepStarted(started)) => {
                let name = name(&started.role, &started.node);
                self.0.insert(started.step_id.clone(), format!("{name}: begins"));
            }
            Some(Kind::Progress(progress)) => {
                if let Some(stage) = &progress.stage {
                    self.0.insert(progress.step_id.clone(), describe(progress, stage));
                }
            }
            Some(Kind::StepFinished(finished)) => drop(self.0.remove(&finished.step_id)),
            Some(Kind::StepFailed(failed)) => drop(self.0.remove(&failed.step_id)),
            Some(Kind::Resumed(_) | Kind::Completed(_) | Kind::Failed(_) | Kind::Cancelled(_)) => self.0.clear(),
            _ => return false,
        }
        true
    }

    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        let mut shown: Vec<String> = self.0.values().take(SHOWN).cloned().collect();
        if let Some(more @ 1..) = self.0.len().checked_sub(SHOWN) {
            shown.push(format!("{more} more"));
        }
        // A name may hold what steers a terminal; a page leaves it out.
        Page::new(false).put(shown.join(" · ")).take()
    }
}

fn name(role: &str, node: &str) -> String {
    brief(if role.is_empty() { node } else { role }, 40)
}

fn describe(progress: &Progress, stage: &Stage) -> String {
    let name = name(&progress.role, &progress.node);
    match stage {
        Stage::Queued(Queued { position }) => format!("{name}: place {position} in the queue"),
        Stage::Loading(Loading { model, fraction }) => {
            format!("{name}: loads {} {:.0} %", brief(model, 40), fraction * 100.0)
        }
        Stage::Prefill(Prefill { done_tokens, total_tokens }) => {
            let share = f64::from(*done_tokens) / f64::from((*total_tokens).max(1)) * 100.0;
            format!("{name}: reads {done_tokens}/{total_tokens} tokens ({share:.0} %)")
        }
        Stage::Decode(Decode { output_tokens, tokens_per_second }) => {
            format!("{name}: wrote {output_tokens} tokens, {tokens_per_second:.1} t/s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::render::sample;

    #[test]
    fn it_says_what_runs_and_forgets_what_ended() {
        let mut running = Running::default();
        let mut lines = Vec::new();
        for event in sample::council() {
            if running.hear(&event) {
                lines.push(running.line());
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
