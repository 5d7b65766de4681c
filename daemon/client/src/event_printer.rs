//! Prints the events of a task as they arrive.

use std::io;

use artel_args::ColorMode;
use artel_proto::v1::event::Kind;
use artel_proto::v1::{Event, TaskState};
use artel_terminal::{CommandOutcome, CommandOutput, one_line, print_to_stderr};

use crate::event_stream::StreamUpdate;
use crate::json;
use crate::render::progress::RunningSteps;
use crate::render::transcript::Transcript;

/// Prints the events of a task as they arrive: as a transcript, or as one JSON object each.
#[derive(Debug)]
pub(crate) struct EventPrinter<'a> {
    output: &'a mut CommandOutput,
    transcript: Transcript,
    running: RunningSteps,
    final_state: Option<TaskState>,
    /// The task, if its last event sets it aside.
    set_aside: Option<String>,
}

impl<'a> EventPrinter<'a> {
    /// A printer; with a status line if standard error is a terminal.
    pub(crate) fn new(output: &'a mut CommandOutput) -> Self {
        output.start_status_line();
        let transcript = Transcript::new(output.color(), output.wrap());
        Self { output, transcript, running: RunningSteps::default(), final_state: None, set_aside: None }
    }

    /// Prints an update of an event stream.
    pub(crate) fn print(&mut self, update: &StreamUpdate) -> io::Result<()> {
        match update {
            StreamUpdate::Event(event) => self.event(event),
            StreamUpdate::Disconnected(reason) => {
                self.note(&format!("lost the connection to the daemon ({reason}); reconnecting"))
            }
            StreamUpdate::Reconnected => self.note("reconnected to the daemon"),
        }
    }

    /// Prints a note that is not an event; with `--json` to standard error.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.output.is_json() {
            print_to_stderr(ColorMode::Never, |out| {
                out.push(one_line(text)).newline();
            });
            return Ok(());
        }
        let text = self.transcript.note(text);
        self.output.print(&text)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.final_state = match &event.kind {
            Some(Kind::Completed(_)) => Some(TaskState::Completed),
            Some(Kind::Failed(_)) => Some(TaskState::Failed),
            Some(Kind::Cancelled(_)) => Some(TaskState::Cancelled),
            _ => self.final_state,
        };
        if event.seq > 0 {
            self.set_aside = matches!(event.kind, Some(Kind::SetAside(_))).then(|| event.task_id.clone());
        }
        if self.output.is_json() {
            return json::event(event).map_or(Ok(()), |object| self.output.object(&object));
        }
        if self.running.update(event) {
            self.output.set_status(self.running.line());
        }
        let text = self.transcript.push_event(event);
        self.output.print(&text)
    }

    /// The outcome of the command by the final state of the task. For a task that is set aside it says what to do.
    pub(crate) fn finish(&mut self) -> io::Result<CommandOutcome> {
        if let Some(task) = self.set_aside.take() {
            self.note(&format!("`artel task resume {task}` takes it up again, `artel task cancel {task}` ends it"))?;
        }
        let is_done = self.final_state == Some(TaskState::Completed);
        Ok(if is_done { CommandOutcome::Done } else { CommandOutcome::Failed })
    }
}
