//! Tells a task's events as they come.

use std::io;

use artel_proto::v1::event::Kind;
use artel_proto::v1::{Event, TaskState};

use super::error::Exit;
use super::feed::Heard;
use super::json;
use super::output::{Output, complain};
use super::render::page::one_line;
use super::render::progress::Running;
use super::render::transcript::Transcript;
use crate::args::Color;

/// Tells a task's events as they come: to people as a text that grows, to programs as an object each.
#[derive(Debug)]
pub(crate) struct Teller<'a> {
    output: &'a mut Output,
    transcript: Transcript,
    running: Running,
    end: Option<TaskState>,
}

impl<'a> Teller<'a> {
    /// With the live line, where a person watches.
    pub(crate) fn new(output: &'a mut Output) -> Self {
        output.go_live();
        let transcript = Transcript::new(output.color(), output.wrap());
        Self { output, transcript, running: Running::default(), end: None }
    }

    /// Tells what a feed brought.
    pub(crate) fn tell(&mut self, heard: &Heard) -> io::Result<()> {
        match heard {
            Heard::Event(event) => self.event(event),
            Heard::Lost(why) => self.note(&format!("the daemon is gone ({why}); waiting for it to come back")),
            Heard::Back => self.note("the daemon is back"),
        }
    }

    /// Says something that is no event; never among a program's objects.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.output.is_json() {
            complain(Color::Never, |page| {
                page.put(one_line(text)).end();
            });
            return Ok(());
        }
        let text = self.transcript.note(text);
        self.output.print(&text)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.end = match &event.kind {
            Some(Kind::Completed(_)) => Some(TaskState::Completed),
            Some(Kind::Failed(_)) => Some(TaskState::Failed),
            Some(Kind::Cancelled(_)) => Some(TaskState::Cancelled),
            _ => self.end,
        };
        if self.output.is_json() {
            return json::event::event(event).map_or(Ok(()), |object| self.output.object(&object));
        }
        if self.running.hear(event) {
            self.output.status(self.running.line());
        }
        let text = self.transcript.hear(event);
        self.output.print(&text)
    }

    /// What the task's end means for the exit code.
    pub(crate) fn exit(&self) -> Exit {
        if self.end == Some(TaskState::Completed) { Exit::Done } else { Exit::Failed }
    }
}
