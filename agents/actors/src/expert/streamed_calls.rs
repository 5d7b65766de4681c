//! The calls of tools that an attempt has streamed so far, and their publication to the task's subscribers.

use artel_engine::CallDelta;
use artel_stream::{StreamItem, ToolCallPart};
use artel_task::event::ToolCall;
use rand::RngExt as _;
use rand::distr::Alphanumeric;

use super::step_job::StepJob;

/// The length of an id: the templates of Mistral refuse others.
const ID_CHARS: usize = 9;

/// The calls of one attempt.
#[derive(Default)]
pub(super) struct StreamedCalls {
    /// Those that are complete.
    complete: Vec<ToolCall>,
    /// The one that is written.
    open: Option<ToolCall>,
}

impl StreamedCalls {
    /// Takes parts of calls, and publishes them if subscribers read this answer.
    pub(super) fn push(&mut self, job: &StepJob, deltas: Vec<CallDelta>, is_published: bool) {
        for delta in deltas {
            let Some((index, part)) = self.take(delta).filter(|_| is_published) else { continue };
            let (step, role) = (job.step.clone(), job.role.name.clone());
            job.channel.send(StreamItem::ToolCall {
                step,
                role,
                index: u32::try_from(index).unwrap_or(u32::MAX),
                part,
            });
        }
    }

    /// The calls that are complete; one that is cut is none.
    pub(super) fn into_complete(self) -> Vec<ToolCall> {
        self.complete
    }

    fn take(&mut self, delta: CallDelta) -> Option<(usize, ToolCallPart)> {
        match delta {
            // The engine sends text as text.
            CallDelta::Text(_) => None,
            CallDelta::Begin { index, name } => {
                let id: String = rand::rng().sample_iter(Alphanumeric).take(ID_CHARS).map(char::from).collect();
                let part = ToolCallPart::Begin { id: id.as_str().into(), name: name.as_str().into() };
                self.open = Some(ToolCall { id, name, arguments: String::new() });
                Some((index, part))
            }
            CallDelta::Arguments { index, text } => {
                self.open.as_mut()?.arguments.push_str(&text);
                Some((index, ToolCallPart::Arguments(text.into())))
            }
            CallDelta::End { index } => {
                self.complete.push(self.open.take()?);
                Some((index, ToolCallPart::End))
            }
            CallDelta::Withdrawn { index } => {
                self.open = None;
                Some((index, ToolCallPart::Withdrawn))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_call_are_one_call_and_one_that_is_none_is_left_out() {
        let mut calls = StreamedCalls::default();
        let begin = |index| CallDelta::Begin { index, name: "get".to_owned() };
        let arguments = |index, text: &str| CallDelta::Arguments { index, text: text.to_owned() };
        for delta in [
            begin(0),
            arguments(0, "{\"a\""),
            arguments(0, ": 1}"),
            CallDelta::End { index: 0 },
            begin(1),
            arguments(1, "{"),
            CallDelta::Withdrawn { index: 1 },
            begin(1),
            arguments(1, "{}"),
            CallDelta::End { index: 1 },
            begin(2),
            arguments(2, "{"),
        ] {
            calls.take(delta);
        }
        let complete = calls.into_complete();
        let told: Vec<&str> = complete.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(told, ["{\"a\": 1}", "{}"]);
        assert!(complete.iter().all(|call| call.id.len() == ID_CHARS) && complete[0].id != complete[1].id);
    }
}
