//! A task's events as a text that grows: who says what, who decided, what each step took.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use artel_proto::v1::event::Kind;
use artel_proto::v1::{Accepted, Completed, Event, Output, StepFailed, StepFinished, StepStarted, Token};
use prost_types::Timestamp;

use super::page::{BOLD, DIM, GOOD, Page, WARN, one_line};
use super::step::{self, who};
use super::time::{between, sent, span};
use super::voice::{Floor, Voice};

/// The colours of the roles, in the order in which they appear.
const COLORS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Magenta, AnsiColor::Green, AnsiColor::Yellow, AnsiColor::Blue, AnsiColor::BrightRed];

/// A task's events as a text that grows.
///
/// Steps that run at once take turns of about a line, so that each can be read; the others hold their
/// text back meanwhile.
#[derive(Debug)]
pub(crate) struct Transcript {
    page: Page,
    floor: Floor,
    /// Attempts that may still speak, in the order in which they were heard of.
    voices: Vec<(String, Voice)>,
    colors: BTreeMap<String, Style>,
    /// Routers' attempts, which have told what they did when they decided.
    routed: HashSet<String>,
    began: Option<Timestamp>,
    /// The text that was shown last.
    last_said: Option<String>,
    finished: usize,
    tokens: u64,
}

impl Transcript {
    /// Nothing has happened yet. With a width in columns, lines are broken between words.
    pub(crate) fn new(color: bool, wrap: Option<usize>) -> Self {
        Self {
            page: Page::new(color),
            floor: Floor::new(wrap),
            voices: Vec::new(),
            colors: BTreeMap::new(),
            routed: HashSet::new(),
            began: None,
            last_said: None,
            finished: 0,
            tokens: 0,
        }
    }

    /// What an event adds to the text; it need not end with a whole line.
    pub(crate) fn hear(&mut self, event: &Event) -> String {
        match event.kind.as_ref() {
            Some(Kind::Accepted(accepted)) => self.accepted(event, accepted),
            Some(Kind::Routed(routed)) => {
                self.routed.insert(routed.step_id.clone());
                let page = self.aside(&routed.node);
                step::decision(&routed.decision.clone().unwrap_or_default(), page);
                page.end();
            }
            Some(Kind::StepStarted(started)) => self.started(started),
            Some(Kind::Token(token)) => self.token(token),
            Some(Kind::StepFinished(finished)) => self.finished(finished),
            Some(Kind::StepFailed(failed)) => self.failed(failed),
            Some(Kind::Waiting(waiting)) => step::waiting(&event.task_id, waiting, "    ", self.aside(&waiting.node)),
            Some(Kind::Resumed(_)) => {
                self.voices.clear();
                self.floor.holder = None;
                self.say("the daemon took the task up again; what was running begins anew");
            }
            Some(Kind::Completed(completed)) => self.completed(event, completed),
            Some(Kind::Failed(failed)) => {
                let page = self.last_words();
                page.paint(BOLD, "task ");
                step::failure(failed.failure.as_ref(), page);
                self.total(event);
            }
            Some(Kind::Cancelled(cancelled)) => {
                let page = self.last_words();
                page.paint(BOLD, "task ").paint(WARN, "cancelled");
                if !cancelled.reason.is_empty() {
                    page.put(": ").put(one_line(&cancelled.reason));
                }
                self.total(event);
            }
            Some(Kind::Progress(_)) | None => {}
        }
        self.page.take()
    }

    /// A line that does not come from the task.
    pub(crate) fn note(&mut self, text: &str) -> String {
        self.say(text);
        self.page.take()
    }

    fn say(&mut self, text: &str) {
        self.floor.fresh_line(&mut self.page);
        self.page.paint(WARN, format_args!("  {}", one_line(text))).end();
    }

    /// A line about a node, up to the colon.
    fn aside(&mut self, node: &str) -> &mut Page {
        self.floor.fresh_line(&mut self.page);
        self.page.put("  ").paint(DIM, one_line(node)).put(" ")
    }

    fn accepted(&mut self, event: &Event, accepted: &Accepted) {
        self.began = event.time;
        let what = if accepted.role.is_empty() { ("graph", &accepted.graph) } else { ("role", &accepted.role) };
        self.floor.fresh_line(&mut self.page);
        self.page.paint(BOLD, "task ").put(&event.task_id);
        if !what.1.is_empty() {
            self.page.put(format_args!(", {} {}", what.0, one_line(what.1)));
        }
        if let Some(decision) = &accepted.decision {
            self.page.put(" ");
            step::decision(decision, &mut self.page);
        }
        self.page.end();
    }

    fn started(&mut self, started: &StepStarted) {
        let numbers = step::numbers(started.visit, started.attempt, started.item);
        if !numbers.is_empty() {
            self.aside(&who(&started.node, &started.role)).put(numbers).end();
        }
        if !started.role.is_empty() {
            self.voice(&started.step_id, &started.node, &started.role);
        }
    }

    /// The place of a step among those that may speak; it gets a name that no other has.
    fn voice(&mut self, step: &str, node: &str, role: &str) -> usize {
        if let Some(at) = self.voices.iter().position(|(id, _)| id == step) {
            return at;
        }
        let role = one_line(if role.is_empty() { node } else { role });
        let style = self.color(&role);
        let taken = |name: &str| self.voices.iter().any(|(_, voice)| voice.name == name);
        let names = [role.clone(), format!("{role} ({})", one_line(node))].into_iter();
        let mut names = names.chain((2..).map(|number| format!("{role} {number}")));
        let name = names.find(|name| !taken(name)).expect("the numbers do not end");
        self.voices.push((step.to_owned(), Voice::new(name, style)));
        self.voices.len() - 1
    }

    fn color(&mut self, role: &str) -> Style {
        let next = COLORS[self.colors.len() % COLORS.len()].on_default().bold();
        *self.colors.entry(role.to_owned()).or_insert(next)
    }

    fn token(&mut self, token: &Token) {
        let at = self.voice(&token.step_id, &token.node, &token.role);
        self.voices[at].1.hear(token.offset, &token.text);
        if self.floor.holder.is_none() {
            self.floor.give(&token.step_id, &mut self.page);
        }
        if self.floor.holder.as_deref() == Some(&token.step_id) {
            self.floor.speak(&mut self.voices[at].1, false, &mut self.page);
        }
        self.pass_on();
    }

    /// Lets those speak who wait, as far as it is their turn.
    fn pass_on(&mut self) {
        while let Some(at) = self.next_speaker() {
            let (step, voice) = &mut self.voices[at];
            self.floor.give(step, &mut self.page);
            self.floor.speak(voice, false, &mut self.page);
        }
    }

    /// Who has the next turn: the first after the one who speaks now.
    fn next_speaker(&self) -> Option<usize> {
        let holder = self.voices.iter().position(|(step, _)| Some(step) == self.floor.holder.as_ref());
        let after = holder.map_or(0, |at| at + 1);
        let others = (after..self.voices.len()).chain(0..after).filter(|at| Some(*at) != holder);
        let over = self.floor.turn_is_over();
        let ready = |voice: &Voice| voice.breaks_in() || (over && voice.waits(self.floor.wraps()));
        others.into_iter().find(|at| ready(&self.voices[*at].1))
    }

    fn finished(&mut self, finished: &StepFinished) {
        self.finished += 1;
        self.tokens += finished.usage.map_or(0, |usage| usage.output_tokens);
        let router = self.routed.remove(&finished.step_id);
        let text = finished.output.as_ref().map_or("", |output| &output.text);
        if router || (finished.role.is_empty() && text.is_empty()) {
            return self.leave(&finished.step_id);
        }
        self.whole(finished, text);
        self.last_said = Some(text.to_owned());
        let took = step::took(finished.source(), finished.usage.as_ref(), finished.timings.as_ref());
        let page = self.aside(&who(&finished.node, &finished.role));
        page.paint(DIM, format_args!("done{took}{}", step::ways(&finished.next))).end();
        self.leave(&finished.step_id);
    }

    /// Says what is left of a step's text.
    fn whole(&mut self, finished: &StepFinished, text: &str) {
        let at = self.voice(&finished.step_id, &finished.node, &finished.role);
        let again = self.voices[at].1.complete(text);
        if self.floor.holder.as_deref() != Some(&finished.step_id) || again {
            self.floor.give(&finished.step_id, &mut self.page);
        }
        if again {
            self.aside(&who(&finished.node, &finished.role)).put("some of it was missed; all of it is").end();
        }
        self.floor.speak(&mut self.voices[at].1, true, &mut self.page);
    }

    fn failed(&mut self, failed: &StepFailed) {
        if let Some(at) = self.voices.iter().position(|(step, _)| *step == failed.step_id) {
            // What it said before it failed is of interest, but only where somebody is reading it already.
            if self.floor.holder.as_deref() == Some(&failed.step_id) {
                self.floor.speak(&mut self.voices[at].1, true, &mut self.page);
            }
        }
        let retry = sent(failed.retry_after.as_ref());
        let page = self.aside(&who(&failed.node, &failed.role));
        step::failure(failed.failure.as_ref(), page);
        if failed.will_retry {
            page.put(format_args!("; tried again in {}", span(retry)));
        }
        page.put(step::ways(&failed.next)).end();
        self.leave(&failed.step_id);
    }

    /// A step has ended: others may speak.
    fn leave(&mut self, step: &str) {
        self.voices.retain(|(id, _)| id != step);
        if self.floor.holder.as_deref() == Some(step) {
            self.floor.fresh_line(&mut self.page);
            self.floor.holder = None;
        }
        self.pass_on();
    }

    fn completed(&mut self, event: &Event, completed: &Completed) {
        let result = completed.output.clone().unwrap_or_default();
        if self.last_said.as_deref() != Some(&result.text) {
            self.result(&result);
        }
        self.last_words().paint(BOLD, "task ").paint(GOOD, "completed");
        self.total(event);
    }

    fn result(&mut self, result: &Output) {
        let page = self.last_words();
        page.paint(BOLD, "result");
        if !result.role.is_empty() {
            page.put(format_args!(" ({})", one_line(&result.role)));
        }
        page.put(":").end().put(result.text.trim_end()).end();
    }

    fn last_words(&mut self) -> &mut Page {
        self.floor.fresh_line(&mut self.page);
        &mut self.page
    }

    fn total(&mut self, event: &Event) {
        let time: Option<Duration> = between(self.began.as_ref(), event.time.as_ref());
        let time = time.map_or_else(String::new, |time| format!("{}, ", span(time)));
        let (steps, tokens) = (step::steps(self.finished), step::tokens(self.tokens));
        self.page.paint(DIM, format_args!(" ({time}{steps} done, {tokens} written)")).end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::render::sample;

    fn told(events: &[Event], wrap: Option<usize>) -> String {
        let mut transcript = Transcript::new(false, wrap);
        events.iter().map(|event| transcript.hear(event)).collect()
    }

    #[test]
    fn a_run_with_a_router_a_retry_and_a_critic() {
        insta::assert_snapshot!(told(&sample::mentor(), None));
    }

    #[test]
    fn steps_that_run_at_once_take_turns() {
        insta::assert_snapshot!(told(&sample::council(), None));
    }

    #[test]
    fn lines_are_broken_between_words() {
        let text = told(&sample::council(), Some(60));
        assert!(text.lines().filter(|line| line.contains('│')).all(|line| line.chars().count() <= 60), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn turns_lose_and_repeat_nothing() {
        let events = sample::council();
        for wrap in [None, Some(40), Some(80)] {
            let text = told(&events, wrap);
            for (role, whole) in sample::council_texts() {
                let prefix = format!("{role} │ ");
                let said: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join("");
                assert_eq!(words(&said.join(" ")), words(&whole), "{role} at {wrap:?}");
            }
        }
    }

    #[test]
    fn who_comes_late_gets_the_whole_text_at_the_end() {
        let mut events = sample::mentor();
        events.retain(|event| !matches!(&event.kind, Some(Kind::Token(token)) if token.offset == 0));
        insta::assert_snapshot!(told(&events, None));
    }

    #[test]
    fn without_tokens_the_results_are_told() {
        let mut events = sample::mentor();
        events.retain(|event| event.seq > 0);
        let text = told(&events, None);
        assert!(text.contains("lora │ Rank 8 is enough."), "{text}");
    }

    #[test]
    fn it_is_coloured_and_safe() {
        let mut transcript = Transcript::new(true, None);
        let mut said = String::new();
        for mut event in sample::mentor() {
            if let Some(Kind::Token(token)) = &mut event.kind {
                token.text = format!("\x1b[2J{}", token.text);
            }
            said += &transcript.hear(&event);
        }
        assert!(!said.contains("\x1b[2J") && said.contains("[2J"), "{said:?}");
        assert!(said.contains("\x1b[36m"), "{said:?}");
    }

    #[test]
    fn a_restart_a_failure_and_a_cancellation_are_told() {
        insta::assert_snapshot!(told(&sample::troubled(), None));
    }
}
