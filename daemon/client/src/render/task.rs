//! Tasks and their steps.

use std::collections::HashMap;

use anstyle::Style;
use artel_proto::v1::{Step, StepState, Task, TaskState, Waiting};
use artel_terminal::{BAD, BOLD, DIM, GOOD, StyledText, TextTable, WARN, brief, cell, one_line, span};

use crate::json::EnumName;
use crate::render::knowledge::citations;
use crate::render::step::{self, node_label};
use crate::render::time::between;

/// Characters of a text that a line shows.
const BRIEF_CHARS: usize = 100;
/// Steps of a `for_each` that are shown for one node; beyond these only steps that failed or were retried.
const MAX_ITEM_STEPS: usize = 12;
/// Questions that are shown with the state of a task.
const MAX_QUESTIONS: usize = 12;
/// The indent of lines below the time of a step.
const INDENT: &str = "          ";

/// The colour of a state.
fn style(state: TaskState) -> Style {
    match state {
        TaskState::Completed => GOOD,
        TaskState::Failed => BAD,
        TaskState::Waiting | TaskState::Cancelled | TaskState::SetAside => WARN,
        _ => BOLD,
    }
}

/// A list of tasks.
pub(crate) fn list(tasks: &[Task], out: &mut StyledText) {
    let mut table = TextTable::new(&["ID", "STATE", "OWNER", "RUNS", "CREATED", "TIME", "LABELS"]);
    for task in tasks {
        let time = between(task.create_time.as_ref(), task.end_time.as_ref()).map_or_else(String::new, span);
        table.row(vec![
            cell(&task.id),
            (style(task.state()), task.state().enum_name()),
            cell(&task.owner),
            cell(runs(task)),
            cell(task.create_time.as_ref().map_or_else(String::new, ToString::to_string)),
            cell(time),
            (DIM, labels(&task.labels)),
        ]);
    }
    table.render(out);
    for task in tasks.iter().filter(|task| !task.set_aside_reason.is_empty()) {
        out.newline().push(&task.id).push(" is ").push_styled(WARN, "set aside").push(": ");
        out.push(one_line(&task.set_aside_reason)).newline();
        push_resume_help(task, out);
    }
}

fn push_resume_help(task: &Task, out: &mut StyledText) {
    out.push_styled(DIM, format_args!("  help: `artel task resume {0}`, or `artel task cancel {0}`", task.id))
        .newline();
}

fn runs(task: &Task) -> String {
    if task.role.is_empty() { task.graph.clone() } else { format!("role {}", task.role) }
}

fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(" ")
}

/// The state of a task, with its open questions and its result.
pub(crate) fn get(task: &Task, out: &mut StyledText) {
    head(task, out);
    let questions: Vec<&Waiting> = task.steps.iter().filter_map(|step| step.waiting.as_ref()).collect();
    for question in questions.iter().take(MAX_QUESTIONS) {
        out.newline().push_styled(BOLD, one_line(&question.node)).push(" ");
        step::waiting(&task.id, question, "  ", out);
    }
    if let Some(more @ 1..) = questions.len().checked_sub(MAX_QUESTIONS) {
        out.newline().push_styled(DIM, format_args!("{more} more steps wait")).newline();
    }
    if let Some(result) = &task.result {
        out.newline().push(result.text.trim_end()).newline();
        for (number, alternative) in (2..).zip(&result.alternatives) {
            out.newline().push_styled(BOLD, format_args!("answer {number}")).push(":").newline();
            out.push(alternative.text.trim_end()).newline();
        }
        citations(&result.citations, out);
    }
}

/// A task with its steps, in the order of their start.
pub(crate) fn show(task: &Task, out: &mut StyledText) {
    head(task, out);
    let mut shown: HashMap<&str, usize> = HashMap::new();
    for step in &task.steps {
        let shown_of_node = shown.entry(&step.node).or_default();
        *shown_of_node += 1;
        // Of many items, the unusual ones are the most informative.
        if step.item.is_none()
            || *shown_of_node <= MAX_ITEM_STEPS
            || step.state() != StepState::Finished
            || step.attempt > 1
        {
            self::step(task, step, out);
        } else if *shown_of_node == MAX_ITEM_STEPS + 1 {
            let all = task.steps.iter().filter(|other| other.node == step.node).count();
            out.newline()
                .push_styled(DIM, format_args!("{INDENT}{}: {all} steps in total", one_line(&step.node)))
                .newline();
        }
    }
    if let Some(result) = &task.result {
        let last = task.steps.iter().rev().find_map(|step| step.output.as_ref());
        out.newline().push_styled(BOLD, "result");
        if last.is_some_and(|last| last.text == result.text) {
            out.push(": the last output above").newline();
        } else {
            out.push(":").newline().push(result.text.trim_end()).newline();
        }
        citations(&result.citations, out);
    }
}

fn head(task: &Task, out: &mut StyledText) {
    let state = task.state();
    out.push_styled(BOLD, "task ").push(&task.id).push(": ").push_styled(style(state), state.enum_name());
    if let Some(time) = between(task.create_time.as_ref(), task.end_time.as_ref()) {
        out.push(format_args!(" after {}", span(time)));
    }
    out.newline();
    let usage = task.usage.unwrap_or_default();
    let used =
        format!("{} prompt ({} cached), {} output", usage.prompt_tokens, usage.cached_tokens, usage.output_tokens);
    let forked = match task.forked_from_step_id.as_str() {
        "" => task.forked_from_task_id.clone(),
        step => format!("{} at step {step}", task.forked_from_task_id),
    };
    let fields = [
        ("owner", task.owner.clone()),
        ("runs", runs(task)),
        ("priority", task.priority().enum_name()),
        ("created", task.create_time.as_ref().map_or_else(String::new, ToString::to_string)),
        ("labels", labels(&task.labels)),
        ("request", task.request_id.clone()),
        ("forked", forked),
        ("erased", task.erase_time.as_ref().map_or_else(String::new, ToString::to_string)),
        ("input", brief(&task.input, BRIEF_CHARS)),
        ("tokens", used),
        (
            "failure",
            task.failure.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.code().enum_name(), f.message)),
        ),
        ("reason", format!("{}{}", task.cancel_reason, task.set_aside_reason)),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_styled(DIM, format_args!("  {name:<9}")).push(one_line(value)).newline();
    }
    if task.state() == TaskState::SetAside {
        push_resume_help(task, out);
    }
}

fn step(task: &Task, step: &Step, out: &mut StyledText) {
    let started_after = between(task.create_time.as_ref(), step.start_time.as_ref()).unwrap_or_default();
    out.newline().push_styled(DIM, format_args!("+{:<9}", span(started_after)));
    out.push_styled(BOLD, one_line(&node_label(&step.node, &step.role))).push(" ");
    let attempt = step::attempt_label(step.visit, step.attempt, step.item);
    if !attempt.is_empty() {
        out.push(attempt).push(" ");
    }
    out.push_styled(DIM, format_args!("step {}", one_line(&step.id))).newline();
    if let Some(decision) = &step.decision {
        step::decision(decision, indent(out));
        out.newline();
    }
    outcome(task, step, out);
    if let Some(output) =
        step.output.as_ref().filter(|output| !output.text.trim().is_empty() && step.decision.is_none())
    {
        for line in output.text.trim_end().lines() {
            indent(out).push_styled(DIM, "│ ").push(line).newline();
        }
    }
    step::calls(step.output.as_ref(), INDENT, out);
}

fn outcome(task: &Task, step: &Step, out: &mut StyledText) {
    let time = between(step.start_time.as_ref(), step.end_time.as_ref());
    let elapsed = |preposition: &str| time.map_or_else(String::new, |time| format!("{preposition} {}", span(time)));
    let transitions = step::transitions(&step.next);
    match step.state() {
        // The decision was rendered already.
        StepState::Finished if step.decision.is_some() => return,
        StepState::Finished => {
            let summary = step::result_summary(step.source(), step.usage.as_ref(), step.timings.as_ref());
            indent(out).push_styled(GOOD, "finished").push(format_args!(
                "{}{summary}{}{transitions}",
                elapsed(" in"),
                step::cut(step.output.as_ref())
            ));
        }
        StepState::Failed => {
            step::failure(step.failure.as_ref(), indent(out));
            out.push(elapsed("; ran for"));
            if let Some(retry) = &step.retry_time {
                out.push(format_args!("; retry at {retry}"));
            }
            out.push(transitions);
        }
        StepState::Waiting => {
            return step::waiting(&task.id, &step.waiting.clone().unwrap_or_default(), INDENT, indent(out));
        }
        state => {
            indent(out).push_styled(WARN, state.enum_name()).push(elapsed(" after"));
        }
    }
    out.newline();
}

fn indent(out: &mut StyledText) -> &mut StyledText {
    out.push(INDENT)
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{FailureCode, Output, Priority, WaitingReason};
    use prost_types::Timestamp;

    use super::*;
    use crate::render::sample;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds: 1_767_225_600 + seconds, nanos: 0 })
    }

    fn task() -> Task {
        let output =
            |text: &str| Some(Output { text: text.into(), json: None, role: "lora".into(), ..Default::default() });
        let base = Step { visit: 1, attempt: 1, start_time: at(1), end_time: at(2), ..Default::default() };
        let named = |id: &str, node: &str, role: &str, state: StepState| Step {
            id: id.into(),
            node: node.into(),
            role: role.into(),
            state: state.into(),
            ..base.clone()
        };
        let decided = named("s1", "pick", "", StepState::Finished);
        let failed = named("s2", "answer", "lora", StepState::Failed);
        let finished = named("s3", "answer", "lora", StepState::Finished);
        let waits = named("s4", "approve", "", StepState::Waiting);
        let question = Waiting {
            step_id: "s4".into(),
            node: "approve".into(),
            reason: WaitingReason::Person.into(),
            message: "Ship it?".into(),
            ..Default::default()
        };
        Task {
            id: sample::TASK.into(),
            graph: "mentor".into(),
            owner: "owner".into(),
            state: TaskState::Waiting.into(),
            priority: Priority::Batch.into(),
            input: "Which rank?".into(),
            create_time: at(0),
            usage: Some(sample::usage()),
            labels: HashMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
            result: output("Rank 8.\nOr 16."),
            steps: vec![
                Step { decision: Some(sample::decision(true)), next: vec!["answer".into()], ..decided },
                Step { failure: Some(sample::failure(FailureCode::Timeout)), retry_time: at(3), ..failed },
                Step {
                    attempt: 2,
                    output: output("Rank 8.\nOr 16."),
                    usage: Some(sample::usage()),
                    timings: Some(sample::timings()),
                    next: vec!["approve".into()],
                    ..finished
                },
                Step { waiting: Some(question), end_time: None, ..waits },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn a_task_is_shown_with_its_steps() {
        let mut out = StyledText::new(false);
        show(&task(), &mut out);
        insta::assert_snapshot!(out.take());
    }

    #[test]
    fn a_task_that_waits_is_shown_with_its_question() {
        let mut out = StyledText::new(false);
        get(&Task { result: None, ..task() }, &mut out);
        let text = out.take();
        let question = "\napprove waits for a person: Ship it?\n  answer with: artel task answer ";
        assert!(text.contains(question) && text.ends_with("--step s4 TEXT\n"), "{text}");
    }

    #[test]
    fn a_task_that_is_set_aside_is_shown_with_its_reason_and_what_to_do() {
        let task = Task { state: TaskState::SetAside.into(), set_aside_reason: "it stalls".into(), ..task() };
        let help = format!("  help: `artel task resume {0}`, or `artel task cancel {0}`\n", task.id);
        let (mut listed, mut shown) = (StyledText::new(false), StyledText::new(false));
        list(std::slice::from_ref(&task), &mut listed);
        get(&task, &mut shown);
        let (listed, shown) = (listed.take(), shown.take());
        assert!(listed.ends_with(&format!("\n{} is set aside: it stalls\n{help}", task.id)), "{listed}");
        assert!(shown.contains(&format!("  reason   it stalls\n{help}")), "{shown}");
    }

    #[test]
    fn tasks_are_listed_in_columns() {
        let mut out = StyledText::new(false);
        let done = Task { state: TaskState::Completed.into(), end_time: at(75), role: "lora".into(), ..task() };
        list(&[task(), done], &mut out);
        insta::assert_snapshot!(out.take());
    }
}
