//! The events of a task as a growing text: outputs, decisions and costs of steps.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use artel_proto::v1::event::Kind;
use artel_proto::v1::{Accepted, Completed, Event, Output, Reasoning, StepFailed, StepFinished, StepStarted, Token};
use artel_terminal::{BOLD, DIM, GOOD, StyledText, WARN, one_line, span};
use prost_types::Timestamp;

use crate::render::interleave::{Interleaver, StepText};
use crate::render::knowledge::citations;
use crate::render::step::{self, node_label};
use crate::render::time::{between, from_proto};

/// The colours of the roles, in the order in which they appear.
const COLORS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Magenta, AnsiColor::Green, AnsiColor::Yellow, AnsiColor::Blue, AnsiColor::BrightRed];

/// The events of a task as a growing text.
///
/// Concurrent steps take turns of about a line, so that each stays readable; the output of the others is held back meanwhile.
#[derive(Debug)]
pub(crate) struct Transcript {
    out: StyledText,
    interleaver: Interleaver,
    /// Running attempts by step id, in the order of their start.
    texts: Vec<(String, StepText)>,
    colors: BTreeMap<String, Style>,
    /// Steps of routers, whose decision was printed already.
    routed: HashSet<String>,
    started_at: Option<Timestamp>,
    /// The last output that was printed.
    last_output: Option<String>,
    finished_steps: usize,
    output_tokens: u64,
    copies: Option<CopiedEvents>,
}

/// The events that a fork copied, which have the time of its acceptance.
#[derive(Debug)]
struct CopiedEvents {
    accepted_at: Option<Timestamp>,
    /// Whether there are any.
    exist: bool,
}

impl Transcript {
    /// An empty transcript. With a width in columns, lines are wrapped between words.
    pub(crate) fn new(color: bool, wrap: Option<usize>) -> Self {
        Self {
            out: StyledText::new(color),
            interleaver: Interleaver::new(wrap),
            texts: Vec::new(),
            colors: BTreeMap::new(),
            routed: HashSet::new(),
            started_at: None,
            last_output: None,
            finished_steps: 0,
            output_tokens: 0,
            copies: None,
        }
    }

    /// Adds an event; returns the new text, which need not end with a line break.
    pub(crate) fn push_event(&mut self, event: &Event) -> String {
        let is_fork_start = self.ends_copies(event);
        match event.kind.as_ref() {
            Some(Kind::Accepted(accepted)) => self.accepted(event, accepted),
            Some(Kind::Routed(routed)) => {
                self.routed.insert(routed.step_id.clone());
                let out = self.start_node_line(&routed.node);
                step::decision(&routed.decision.clone().unwrap_or_default(), out);
                out.newline();
            }
            Some(Kind::StepStarted(started)) => self.started(started),
            Some(Kind::Token(token)) => self.token(token),
            Some(Kind::Reasoning(reasoning)) => self.reasoning(reasoning),
            Some(Kind::StepFinished(finished)) => self.finished(finished),
            Some(Kind::StepFailed(failed)) => self.failed(failed),
            Some(Kind::Waiting(waiting)) => {
                step::waiting(&event.task_id, waiting, "    ", self.start_node_line(&waiting.node));
            }
            Some(Kind::Resumed(_)) => {
                self.texts.clear();
                self.interleaver.current = None;
                self.push_notice(match is_fork_start {
                    true => "the fork starts here: what is above was copied from the other task",
                    false => "the daemon resumed the task; interrupted steps start again",
                });
            }
            Some(Kind::Completed(completed)) => self.completed(event, completed),
            Some(Kind::Failed(failed)) => {
                let out = self.start_line();
                out.push_styled(BOLD, "task ");
                step::failure(failed.failure.as_ref(), out);
                self.total(event);
            }
            Some(Kind::Cancelled(cancelled)) => {
                let out = self.start_line();
                out.push_styled(BOLD, "task ").push_styled(WARN, "cancelled");
                if !cancelled.reason.is_empty() {
                    out.push(": ").push(one_line(&cancelled.reason));
                }
                self.total(event);
            }
            Some(Kind::SetAside(set_aside)) => {
                self.texts.clear();
                let out = self.start_line();
                out.push_styled(BOLD, "task ").push_styled(WARN, "set aside").push(": ");
                out.push(one_line(&set_aside.reason)).newline();
                self.interleaver.current = None;
            }
            // The calls are shown when the step has finished.
            Some(Kind::ToolCallDelta(_) | Kind::Progress(_)) | None => {}
        }
        self.out.take()
    }

    /// Adds a line that is not an event of the task.
    pub(crate) fn note(&mut self, text: &str) -> String {
        self.push_notice(text);
        self.out.take()
    }

    fn push_notice(&mut self, text: &str) {
        self.interleaver.start_line(&mut self.out);
        self.out.push_styled(WARN, format_args!("  {}", one_line(text))).newline();
    }

    /// Starts a line about a node.
    fn start_node_line(&mut self, node: &str) -> &mut StyledText {
        self.interleaver.start_line(&mut self.out);
        self.out.push("  ").push_styled(DIM, one_line(node)).push(" ")
    }

    fn accepted(&mut self, event: &Event, accepted: &Accepted) {
        self.started_at = event.time;
        let (kind, name) = if accepted.role.is_empty() { ("graph", &accepted.graph) } else { ("role", &accepted.role) };
        self.interleaver.start_line(&mut self.out);
        self.out.push_styled(BOLD, "task ").push(&event.task_id);
        if !name.is_empty() {
            self.out.push(format_args!(", {kind} {}", one_line(name)));
        }
        if !accepted.forked_from_task_id.is_empty() {
            self.out.push(format_args!(", forked from {}", one_line(&accepted.forked_from_task_id)));
            self.copies = Some(CopiedEvents { accepted_at: event.time, exist: false });
        }
        if !accepted.forked_from_step_id.is_empty() {
            self.out.push(format_args!(" at step {}", one_line(&accepted.forked_from_step_id)));
        }
        if let Some(decision) = &accepted.decision {
            self.out.push(" ");
            step::decision(decision, &mut self.out);
        }
        self.out.newline();
    }

    /// Whether this is the first event after those that a fork copied.
    fn ends_copies(&mut self, event: &Event) -> bool {
        match self.copies.take() {
            Some(copies) if copies.accepted_at == event.time => {
                self.copies = Some(CopiedEvents { exist: true, ..copies });
                false
            }
            copies => copies.is_some_and(|copies| copies.exist),
        }
    }

    fn started(&mut self, started: &StepStarted) {
        let attempt = step::attempt_label(started.visit, started.attempt, started.item);
        if !attempt.is_empty() {
            self.start_node_line(&node_label(&started.node, &started.role)).push(attempt).newline();
        }
        if !started.role.is_empty() {
            self.text_index(&started.step_id, &started.node, &started.role);
        }
    }

    /// The index of the text of a step; a new one gets a unique name.
    fn text_index(&mut self, step: &str, node: &str, role: &str) -> usize {
        if let Some(at) = self.texts.iter().position(|(id, _)| id == step) {
            return at;
        }
        let role = one_line(if role.is_empty() { node } else { role });
        let style = self.color(&role);
        let is_taken = |name: &str| self.texts.iter().any(|(_, text)| text.name == name);
        let names = [role.clone(), format!("{role} ({})", one_line(node))].into_iter();
        let mut names = names.chain((2..).map(|number| format!("{role} {number}")));
        let name = names.find(|name| !is_taken(name)).expect("the numbers do not end");
        self.texts.push((step.to_owned(), StepText::new(name, style)));
        self.texts.len() - 1
    }

    fn color(&mut self, role: &str) -> Style {
        let next = COLORS[self.colors.len() % COLORS.len()].on_default().bold();
        *self.colors.entry(role.to_owned()).or_insert(next)
    }

    /// Prints more of a reasoning, before the text of its step and under a name of its own.
    fn reasoning(&mut self, reasoning: &Reasoning) {
        let id = reasoning_id(&reasoning.step_id);
        let at = match self.texts.iter().position(|(other, _)| *other == id) {
            Some(at) => at,
            None => {
                let of_step = self.text_index(&reasoning.step_id, &reasoning.node, &reasoning.role);
                let name = format!("{} reasons", self.texts[of_step].1.name);
                self.texts.insert(of_step, (id.clone(), StepText::new(name, DIM)));
                of_step
            }
        };
        self.texts[at].1.push(reasoning.offset, &reasoning.text);
        if self.interleaver.current.is_none() {
            self.interleaver.switch_to(&id, &mut self.out);
        }
        if self.interleaver.current.as_ref() == Some(&id) {
            self.interleaver.print(&mut self.texts[at].1, false, &mut self.out);
        }
        self.switch_turns();
    }

    /// Prints the rest of the reasoning of a step, whose text is next.
    fn end_reasoning(&mut self, step: &str) {
        let id = reasoning_id(step);
        let Some(at) = self.texts.iter().position(|(other, _)| *other == id) else { return };
        if self.interleaver.current.as_ref() != Some(&id) {
            self.interleaver.switch_to(&id, &mut self.out);
        }
        self.interleaver.print(&mut self.texts[at].1, true, &mut self.out);
        self.texts.remove(at);
        self.interleaver.start_line(&mut self.out);
        self.interleaver.current = None;
    }

    fn token(&mut self, token: &Token) {
        self.end_reasoning(&token.step_id);
        let at = self.text_index(&token.step_id, &token.node, &token.role);
        self.texts[at].1.push(token.offset, &token.text);
        if self.interleaver.current.is_none() {
            self.interleaver.switch_to(&token.step_id, &mut self.out);
        }
        if self.interleaver.current.as_deref() == Some(&token.step_id) {
            self.interleaver.print(&mut self.texts[at].1, false, &mut self.out);
        }
        self.switch_turns();
    }

    /// Prints pending output of other steps as far as it is their turn.
    fn switch_turns(&mut self) {
        while let Some(at) = self.next_text() {
            let (step, text) = &mut self.texts[at];
            self.interleaver.switch_to(step, &mut self.out);
            self.interleaver.print(text, false, &mut self.out);
        }
    }

    /// The text with the next turn: the first one after the current one that is ready.
    fn next_text(&self) -> Option<usize> {
        let current = self.texts.iter().position(|(step, _)| Some(step) == self.interleaver.current.as_ref());
        let after = current.map_or(0, |at| at + 1);
        let others = (after..self.texts.len()).chain(0..after).filter(|at| Some(*at) != current);
        let can_switch = self.interleaver.can_switch();
        let is_ready = |text: &StepText| text.is_overdue() || (can_switch && text.has_output(self.interleaver.wraps()));
        others.into_iter().find(|at| is_ready(&self.texts[*at].1))
    }

    fn finished(&mut self, finished: &StepFinished) {
        self.finished_steps += 1;
        self.end_reasoning(&finished.step_id);
        self.output_tokens += finished.usage.map_or(0, |usage| usage.output_tokens);
        let is_router = self.routed.remove(&finished.step_id);
        let text = finished.output.as_ref().map_or("", |output| &output.text);
        if is_router || (finished.role.is_empty() && text.is_empty()) {
            return self.end_step(&finished.step_id);
        }
        self.finish_text(finished, text);
        self.last_output = Some(text.to_owned());
        let summary = step::result_summary(finished.source(), finished.usage.as_ref(), finished.timings.as_ref());
        if finished.output.as_ref().is_some_and(|output| !output.calls.is_empty()) {
            step::calls(finished.output.as_ref(), "    ", self.start_line());
        }
        let out = self.start_node_line(&node_label(&finished.node, &finished.role));
        out.push_styled(
            DIM,
            format_args!("done{summary}{}{}", step::cut(finished.output.as_ref()), step::transitions(&finished.next)),
        )
        .newline();
        self.end_step(&finished.step_id);
    }

    /// Prints the rest of a step's output.
    fn finish_text(&mut self, finished: &StepFinished, text: &str) {
        let at = self.text_index(&finished.step_id, &finished.node, &finished.role);
        let repeats = self.texts[at].1.finish(text);
        if self.interleaver.current.as_deref() != Some(&finished.step_id) || repeats {
            self.interleaver.switch_to(&finished.step_id, &mut self.out);
        }
        if repeats {
            self.start_node_line(&node_label(&finished.node, &finished.role))
                .push("missed a part of the output; repeating all of it")
                .newline();
        }
        self.interleaver.print(&mut self.texts[at].1, true, &mut self.out);
    }

    fn failed(&mut self, failed: &StepFailed) {
        self.end_reasoning(&failed.step_id);
        if let Some(at) = self.texts.iter().position(|(step, _)| *step == failed.step_id) {
            // The rest of its output is of interest only if its beginning is on the screen.
            if self.interleaver.current.as_deref() == Some(&failed.step_id) {
                self.interleaver.print(&mut self.texts[at].1, true, &mut self.out);
            }
        }
        let retry = from_proto(failed.retry_after.as_ref());
        let out = self.start_node_line(&node_label(&failed.node, &failed.role));
        step::failure(failed.failure.as_ref(), out);
        if failed.will_retry {
            out.push(format_args!("; retry in {}", span(retry)));
        }
        out.push(step::transitions(&failed.next)).newline();
        self.end_step(&failed.step_id);
    }

    /// Removes a step that has ended, and switches to others.
    fn end_step(&mut self, step: &str) {
        self.texts.retain(|(id, _)| id != step);
        if self.interleaver.current.as_deref() == Some(step) {
            self.interleaver.start_line(&mut self.out);
            self.interleaver.current = None;
        }
        self.switch_turns();
    }

    fn completed(&mut self, event: &Event, completed: &Completed) {
        let result = completed.output.clone().unwrap_or_default();
        if self.last_output.as_deref() != Some(&result.text) {
            self.result(&result);
        }
        for (number, alternative) in (2..).zip(&result.alternatives) {
            let out = self.start_line();
            out.push_styled(BOLD, format_args!("answer {number}")).push(":").newline();
            out.push(alternative.text.trim_end()).newline();
        }
        citations(&result.citations, self.start_line());
        self.start_line().push_styled(BOLD, "task ").push_styled(GOOD, "completed");
        self.total(event);
    }

    fn result(&mut self, result: &Output) {
        let out = self.start_line();
        out.push_styled(BOLD, "result");
        if !result.role.is_empty() {
            out.push(format_args!(" ({})", one_line(&result.role)));
        }
        out.push(":").newline().push(result.text.trim_end()).newline();
    }

    fn start_line(&mut self) -> &mut StyledText {
        self.interleaver.start_line(&mut self.out);
        &mut self.out
    }

    fn total(&mut self, event: &Event) {
        let time: Option<Duration> = between(self.started_at.as_ref(), event.time.as_ref());
        let time = time.map_or_else(String::new, |time| format!("{}, ", span(time)));
        let (steps, tokens) = (step::steps(self.finished_steps), step::tokens(self.output_tokens));
        self.out.push_styled(DIM, format_args!(" ({time}{steps} done, {tokens} generated)")).newline();
    }
}

/// The key of the reasoning of a step among the texts.
fn reasoning_id(step: &str) -> String {
    format!("{step} reasoning")
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{Resumed, SetAside};

    use super::*;
    use crate::render::sample;

    #[test]
    fn further_answers_follow_the_first_one() {
        let answer = |text: &str| Output { text: text.to_owned(), ..Output::default() };
        let output = Output { alternatives: vec![answer("two"), answer("three")], ..answer("one") };
        let completed = Completed { output: Some(output), ..Completed::default() };
        let event = Event { kind: Some(Kind::Completed(completed)), ..Event::default() };
        let text = rendered(&[event], None);
        assert!(text.starts_with("result:\none\nanswer 2:\ntwo\nanswer 3:\nthree\ntask completed"), "{text}");
    }

    fn rendered(events: &[Event], wrap: Option<usize>) -> String {
        let mut transcript = Transcript::new(false, wrap);
        events.iter().map(|event| transcript.push_event(event)).collect()
    }

    #[test]
    fn a_reasoning_stands_before_its_answer() {
        let event = |kind| Event { kind: Some(kind), ..Event::default() };
        let (step_id, role) = ("think".to_owned(), "thinker".to_owned());
        let ids = || (step_id.clone(), role.clone());
        let reasoning = |offset, text: &str| {
            let (step_id, role) = ids();
            event(Kind::Reasoning(Reasoning { step_id, role, text: text.to_owned(), offset, ..Default::default() }))
        };
        let (id, name) = ids();
        let token = Token { step_id: id, role: name, text: "Yes.".to_owned(), ..Default::default() };
        let events = [reasoning(0, "Is it "), reasoning(6, "so?"), event(Kind::Token(token))];
        assert_eq!(rendered(&events, None), "thinker reasons │ Is it so?\nthinker │ Yes.");
    }

    #[test]
    fn a_run_with_a_router_a_retry_and_a_critic() {
        insta::assert_snapshot!(rendered(&sample::mentor(), None));
    }

    #[test]
    fn steps_that_run_at_once_take_turns() {
        insta::assert_snapshot!(rendered(&sample::council(), None));
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = rendered(&sample::council(), Some(60));
        assert!(text.lines().filter(|line| line.contains('│')).all(|line| line.chars().count() <= 60), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn turns_lose_and_repeat_nothing() {
        let events = sample::council();
        for wrap in [None, Some(40), Some(80)] {
            let text = rendered(&events, wrap);
            for (role, whole) in sample::council_texts() {
                let prefix = format!("{role} │ ");
                let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join("");
                assert_eq!(words(&lines.join(" ")), words(&whole), "{role} at {wrap:?}");
            }
        }
    }

    #[test]
    fn a_late_subscriber_gets_the_whole_text_at_the_end() {
        let mut events = sample::mentor();
        events.retain(|event| !matches!(&event.kind, Some(Kind::Token(token)) if token.offset == 0));
        insta::assert_snapshot!(rendered(&events, None));
    }

    #[test]
    fn without_tokens_the_outputs_are_printed() {
        let mut events = sample::mentor();
        events.retain(|event| event.seq > 0);
        let text = rendered(&events, None);
        assert!(text.contains("lora │ Rank 8 is enough."), "{text}");
    }

    #[test]
    fn the_transcript_is_coloured_and_safe() {
        let mut transcript = Transcript::new(true, None);
        let mut text = String::new();
        for mut event in sample::mentor() {
            if let Some(Kind::Token(token)) = &mut event.kind {
                token.text = format!("\x1b[2J{}", token.text);
            }
            text += &transcript.push_event(&event);
        }
        assert!(!text.contains("\x1b[2J") && text.contains("[2J"), "{text:?}");
        assert!(text.contains("\x1b[36m"), "{text:?}");
    }

    #[test]
    fn a_fork_is_no_restart() {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let event =
            |seq, seconds, kind| Event { task_id: sample::TASK.into(), seq, time: time(seconds), kind: Some(kind) };
        let accepted = Accepted {
            graph: "mentor".into(),
            forked_from_task_id: "0198c0de".into(),
            forked_from_step_id: "answer#2".into(),
            ..Default::default()
        };
        let copy =
            StepStarted { step_id: "pick".into(), node: "pick".into(), visit: 1, attempt: 1, ..Default::default() };
        let text = rendered(
            &[
                event(1, 5, Kind::Accepted(accepted)),
                event(2, 5, Kind::StepStarted(copy)),
                event(3, 6, Kind::Resumed(Resumed {})),
                event(4, 9, Kind::Resumed(Resumed {})),
            ],
            None,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(", graph mentor, forked from 0198c0de at step answer#2"), "{text}");
        assert!(
            lines[1].contains("the fork starts here") && lines[2].contains("the daemon resumed the task"),
            "{text}"
        );
    }

    #[test]
    fn a_task_that_is_set_aside_is_no_longer_written_to() {
        let mut events = sample::mentor();
        events.truncate(6);
        let set_aside = SetAside { reason: "it stalls\nfor ever".to_owned() };
        events.push(Event { seq: 99, kind: Some(Kind::SetAside(set_aside)), ..events[0].clone() });
        let text = rendered(&events, None);
        assert!(text.ends_with("task set aside: it stalls for ever\n"), "{text}");
    }

    #[test]
    fn a_restart_a_failure_and_a_cancellation_are_printed() {
        insta::assert_snapshot!(rendered(&sample::troubled(), None));
    }
}
