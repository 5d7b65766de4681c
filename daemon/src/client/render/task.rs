//! Tasks as they stand, and the run of one.

use std::collections::HashMap;

use anstyle::Style;
use artel_proto::v1::{Step, StepState, Task, TaskState};

use super::page::{BAD, BOLD, DIM, GOOD, Page, WARN, brief, one_line};
use super::step::{self, tokens, who};
use super::table::{Table, cell};
use super::time::{between, span};
use crate::client::json::Word;

/// How much of a text a line shows, in characters.
const BRIEF: usize = 100;
/// Steps of one node that are shown of a `for_each`; of the others only those that did not go smoothly.
const ITEMS: usize = 12;
/// Below the time of a step.
const INDENT: &str = "          ";

/// The colour of a state.
fn style(state: TaskState) -> Style {
    match state {
        TaskState::Completed => GOOD,
        TaskState::Failed => BAD,
        TaskState::Waiting | TaskState::Cancelled => WARN,
        _ => BOLD,
    }
}

/// A list of tasks.
pub(crate) fn list(tasks: &[Task], page: &mut Page) {
    let mut table = Table::new(&["ID", "STATE", "RUNS", "CREATED", "TIME", "LABELS"]);
    for task in tasks {
        let time = between(task.create_time.as_ref(), task.end_time.as_ref()).map_or_else(String::new, span);
        table.row(vec![
            cell(&task.id),
            (style(task.state()), task.state().word()),
            cell(runs(task)),
            cell(task.create_time.as_ref().map_or_else(String::new, ToString::to_string)),
            cell(time),
            (DIM, labels(&task.labels)),
        ]);
    }
    table.render(page);
}

fn runs(task: &Task) -> String {
    if task.role.is_empty() { task.graph.clone() } else { format!("role {}", task.role) }
}

fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(" ")
}

/// How a task stands, with its result.
pub(crate) fn get(task: &Task, page: &mut Page) {
    head(task, page);
    if let Some(result) = &task.result {
        page.end().put(result.text.trim_end()).end();
    }
}

/// A task with all its steps, in the order in which they began.
pub(crate) fn show(task: &Task, page: &mut Page) {
    head(task, page);
    let mut shown: HashMap<&str, usize> = HashMap::new();
    for step in &task.steps {
        let alike = shown.entry(&step.node).or_default();
        *alike += 1;
        // Of many items, those say the most that are not like the others.
        if step.item.is_none() || *alike <= ITEMS || step.state() != StepState::Finished || step.attempt > 1 {
            self::step(task, step, page);
        } else if *alike == ITEMS + 1 {
            let all = task.steps.iter().filter(|other| other.node == step.node).count();
            page.end().paint(DIM, format_args!("{INDENT}{}: {all} steps in all", one_line(&step.node))).end();
        }
    }
    if let Some(result) = &task.result {
        let last = task.steps.iter().rev().find_map(|step| step.output.as_ref());
        page.end().paint(BOLD, "result");
        if last.is_some_and(|last| last.text == result.text) {
            page.put(": what was said last").end();
        } else {
            page.put(":").end().put(result.text.trim_end()).end();
        }
    }
}

fn head(task: &Task, page: &mut Page) {
    let state = task.state();
    page.paint(BOLD, "task ").put(&task.id).put(": ").paint(style(state), state.word());
    if let Some(time) = between(task.create_time.as_ref(), task.end_time.as_ref()) {
        page.put(format_args!(" after {}", span(time)));
    }
    page.end();
    let usage = task.usage.unwrap_or_default();
    let used = format!(
        "{} read, {} shared of them, {} written",
        tokens(usage.prompt_tokens),
        usage.shared_tokens,
        tokens(usage.output_tokens)
    );
    let forked = match task.forked_from_step_id.as_str() {
        "" => task.forked_from_task_id.clone(),
        step => format!("{} at step {step}", task.forked_from_task_id),
    };
    let fields = [
        ("runs", runs(task)),
        ("class", task.task_class().word()),
        ("created", task.create_time.as_ref().map_or_else(String::new, ToString::to_string)),
        ("labels", labels(&task.labels)),
        ("request", task.request_id.clone()),
        ("forked", forked),
        ("input", brief(&task.input, BRIEF)),
        ("tokens", used),
        ("failure", task.failure.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.code().word(), f.message))),
        ("reason", task.cancel_reason.clone()),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        page.paint(DIM, format_args!("  {name:<9}")).put(one_line(value)).end();
    }
}

fn step(task: &Task, step: &Step, page: &mut Page) {
    let begun = between(task.create_time.as_ref(), step.start_time.as_ref()).unwrap_or_default();
    page.end().paint(DIM, format_args!("+{:<9}", span(begun)));
    page.paint(BOLD, one_line(&who(&step.node, &step.role))).put(" ");
    let numbers = step::numbers(step.visit, step.attempt, step.item);
    if !numbers.is_empty() {
        page.put(numbers).put(" ");
    }
    page.paint(DIM, format_args!("step {}", one_line(&step.id))).end();
    if let Some(decision) = &step.decision {
        step::decision(decision, indent(page));
        page.end();
    }
    outcome(task, step, page);
    if let Some(output) =
        step.output.as_ref().filter(|output| !output.text.trim().is_empty() && step.decision.is_none())
    {
        for line in output.text.trim_end().lines() {
            indent(page).paint(DIM, "│ ").put(line).end();
        }
    }
}

fn outcome(task: &Task, step: &Step, page: &mut Page) {
    let time = between(step.start_time.as_ref(), step.end_time.as_ref());
    let spent = |words: &str| time.map_or_else(String::new, |time| format!("{words} {}", span(time)));
    let ways = step::ways(&step.next);
    match step.state() {
        // The decision has said it.
        StepState::Finished if step.decision.is_some() => return,
        StepState::Finished => {
            let took = step::took(step.source(), step.usage.as_ref(), step.timings.as_ref());
            indent(page).paint(GOOD, "finished").put(format_args!("{}{took}{ways}", spent(" in")));
        }
        StepState::Failed => {
            step::failure(step.failure.as_ref(), indent(page));
            page.put(spent("; it took"));
            if let Some(retry) = &step.retry_time {
                page.put(format_args!("; tried again at {retry}"));
            }
            page.put(ways);
        }
        StepState::Waiting => {
            return step::waiting(&task.id, &step.waiting.clone().unwrap_or_default(), INDENT, indent(page));
        }
        state => {
            indent(page).paint(WARN, state.word()).put(spent(" after"));
        }
    }
    page.end();
}

fn indent(page: &mut Page) -> &mut Page {
    page.put(INDENT)
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{Class, FailureCode, Output, Waiting, WaitingReason};
    use prost_types::Timestamp;

    use super::*;
    use crate::client::render::sample;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds: 1_767_225_600 + seconds, nanos: 0 })
    }

    fn task() -> Task {
        let said = |text: &str| Some(Output { text: text.into(), json: None, role: "lora".into() });
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
            state: TaskState::Waiting.into(),
            task_class: Class::Batch.into(),
            input: "Which rank?".into(),
            create_time: at(0),
            usage: Some(sample::usage()),
            labels: HashMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
            result: said("Rank 8.\nOr 16."),
            steps: vec![
                Step { decision: Some(sample::decision(true)), next: vec!["answer".into()], ..decided },
                Step { failure: Some(sample::failure(FailureCode::Timeout)), retry_time: at(3), ..failed },
                Step {
                    attempt: 2,
                    output: said("Rank 8.\nOr 16."),
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
        let mut page = Page::new(false);
        show(&task(), &mut page);
        insta::assert_snapshot!(page.take());
    }

    #[test]
    fn tasks_are_listed_in_columns() {
        let mut page = Page::new(false);
        let done = Task { state: TaskState::Completed.into(), end_time: at(75), role: "lora".into(), ..task() };
        list(&[task(), done], &mut page);
        insta::assert_snapshot!(page.take());
    }
}
