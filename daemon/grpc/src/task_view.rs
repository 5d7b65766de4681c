//! The current state of a task: a message computed from its events.

use std::collections::{HashMap, HashSet};

use artel_proto::v1;
use artel_task::event::{PartialOutput, ResultSource, TaskSpec, Timestamp};
use artel_task::{Event, EventKind, StepId, Visit};

use crate::convert::{self, step_id};
use crate::field_error::FieldError;
use crate::server_paths::ServerPaths;
use crate::value::timestamp;

/// The message of a task with these events. The first event is `accepted`.
pub(crate) fn task(events: &[Event], paths: &ServerPaths) -> v1::Task {
    let mut view = TaskView {
        task: v1::Task::default(),
        steps: HashMap::new(),
        open: HashMap::new(),
        retrying: HashSet::new(),
        paths,
    };
    events.iter().for_each(|event| view.apply(event));
    view.task
}

/// A task message while events are applied to it.
struct TaskView<'p> {
    task: v1::Task,
    /// The index of each step in the list.
    steps: HashMap<StepId, usize>,
    /// The steps that have not ended, and whether each waits for a person.
    open: HashMap<StepId, bool>,
    /// The visits that wait for their next attempt.
    retrying: HashSet<Visit>,
    paths: &'p ServerPaths,
}

impl TaskView<'_> {
    fn apply(&mut self, event: &Event) {
        self.task.last_seq = event.seq.0;
        if let EventKind::StepStarted { step, .. } = &event.kind {
            self.retrying.remove(&step.visit);
        }
        self.task.set_aside_reason.clear();
        self.apply_kind(event);
        match &event.kind {
            EventKind::SetAside { reason } => {
                self.task.set_aside_reason = self.paths.hide(reason);
                self.task.set_state(v1::TaskState::SetAside);
            }
            kind if kind.is_last() => {}
            _ => self.task.set_state(self.open_state()),
        }
    }

    /// The state of a task that runs: `Waiting` if every open step waits for a person and no retry is due.
    fn open_state(&self) -> v1::TaskState {
        if self.task.steps.is_empty() {
            return v1::TaskState::Queued;
        }
        // A step that contains others counts as waiting if they do.
        let contains = |step: &StepId| self.open.keys().any(|other| other.visit.is_inside(&step.visit));
        let runs = |(step, asked): (&StepId, &bool)| !asked && !contains(step);
        let waits = self.retrying.is_empty() && self.open.values().any(|asked| *asked) && !self.open.iter().any(runs);
        if waits { v1::TaskState::Waiting } else { v1::TaskState::Running }
    }

    fn apply_kind(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Accepted(accepted) => self.accepted(event, accepted),
            EventKind::StepStarted { step, role, .. } => {
                self.open.insert(step.clone(), false);
                self.steps.insert(step.clone(), self.task.steps.len());
                self.task.steps.push(v1::Step {
                    id: step_id(step),
                    node: step.visit.node_path(),
                    visit: step.visit.number,
                    attempt: step.attempt,
                    role: role.as_ref().map(ToString::to_string).unwrap_or_default(),
                    state: v1::StepState::Running.into(),
                    start_time: Some(timestamp(event.at)),
                    item: step.visit.innermost_item(),
                    ..v1::Step::default()
                });
            }
            EventKind::Routed { step, decision } => {
                self.step(step, |at| at.decision = Some(convert::decision(decision)));
            }
            EventKind::Waiting { step, .. } => {
                self.open.insert(step.clone(), true);
                self.step(step, |at| {
                    at.set_state(v1::StepState::Waiting);
                    at.waiting = convert::waiting(&event.kind);
                });
            }
            EventKind::StepFinished { step, output, usage, timings, taken: took, source, write: _ } => {
                *self.task.usage.get_or_insert_default() += &convert::usage(*usage);
                self.end_step(step, event.at, v1::StepState::Finished, |at| {
                    at.output = Some(convert::output(output));
                    at.usage = Some(convert::usage(*usage));
                    at.timings = Some(convert::timings(*timings, *usage));
                    at.next = convert::next(took);
                    at.cached = *source == ResultSource::Cache;
                    at.set_source(convert::source(*source));
                });
            }
            EventKind::StepFailed { step, failure, retry_after, taken: took, partial } => {
                let failed = convert::failure(failure, self.paths);
                self.end_step(step, event.at, v1::StepState::Failed, |at| {
                    at.failure = Some(failed);
                    at.output = partial.as_deref().map(convert::output);
                    let due = retry_after.map(|after| Timestamp(event.at.0 + after.as_millis() as u64));
                    at.retry_time = due.map(timestamp);
                    at.next = convert::next(took);
                });
                if retry_after.is_some() {
                    self.retrying.insert(step.visit.clone());
                }
            }
            EventKind::Resumed | EventKind::SetAside { .. } => self.interrupt(event.at, false),
            EventKind::Completed { output, .. } => {
                self.task.result = Some(convert::output(output));
                self.end(event, v1::TaskState::Completed);
            }
            EventKind::Failed { failure } => {
                self.task.failure = Some(convert::failure(failure, self.paths));
                self.end(event, v1::TaskState::Failed);
            }
            EventKind::Cancelled { reason, partial } => {
                self.task.cancel_reason = reason.clone();
                for PartialOutput { step, output } in partial {
                    self.step(step, |at| at.output = Some(convert::output(output)));
                }
                self.end(event, v1::TaskState::Cancelled);
            }
        }
    }

    fn accepted(&mut self, event: &Event, accepted: &TaskSpec) {
        let role = accepted.role.as_ref().map(ToString::to_string).unwrap_or_default();
        self.task = v1::Task {
            id: event.task.to_string(),
            graph: if role.is_empty() { accepted.graph.to_string() } else { String::new() },
            role,
            state: v1::TaskState::Queued.into(),
            input: accepted.input.clone(),
            create_time: Some(timestamp(event.at)),
            last_seq: event.seq.0,
            catalog_version: accepted.catalog.as_str().to_owned(),
            priority: convert::priority(accepted.priority).into(),
            labels: accepted.labels.clone().into_iter().collect(),
            request_id: accepted.request.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            forked_from_task_id: convert::forked_task(accepted),
            forked_from_step_id: convert::forked_step(accepted),
            owner: accepted.owner.to_string(),
            erase_time: accepted.erased.map(timestamp),
            ..v1::Task::default()
        };
    }

    fn step(&mut self, step: &StepId, change: impl FnOnce(&mut v1::Step)) {
        if let Some(at) = self.steps.get(step).and_then(|at| self.task.steps.get_mut(*at)) {
            change(at);
        }
    }

    fn end_step(&mut self, step: &StepId, at: Timestamp, state: v1::StepState, change: impl FnOnce(&mut v1::Step)) {
        self.open.remove(step);
        let inner: Vec<StepId> = self.open.keys().filter(|other| other.visit.is_inside(&step.visit)).cloned().collect();
        inner.iter().for_each(|inner| self.interrupt_step(inner, at));
        let inside = |other: &Visit| other.is_inside(&step.visit);
        self.retrying.retain(|visit| !inside(visit));
        self.step(step, |step| {
            step.set_state(state);
            step.end_time = Some(timestamp(at));
            step.waiting = None;
            change(step);
        });
    }

    /// Marks running steps as interrupted. Unless `all`, steps that wait for a person and the steps around them stay open.
    fn interrupt(&mut self, at: Timestamp, all: bool) {
        let is_interrupted = |(step, asked): &(&StepId, &bool)| all || !(**asked || self.contains_steps(step));
        let interrupted: Vec<StepId> = self.open.iter().filter(is_interrupted).map(|(step, _)| step.clone()).collect();
        interrupted.iter().for_each(|step| self.interrupt_step(step, at));
    }

    fn interrupt_step(&mut self, step: &StepId, at: Timestamp) {
        self.open.remove(step);
        self.step(step, |step| {
            step.set_state(v1::StepState::Interrupted);
            step.end_time = Some(timestamp(at));
            step.waiting = None;
        });
    }

    /// Whether a step contains other steps.
    fn contains_steps(&self, step: &StepId) -> bool {
        self.steps.keys().any(|other| other.visit.is_inside(&step.visit))
    }

    fn end(&mut self, event: &Event, state: v1::TaskState) {
        self.interrupt(event.at, true);
        self.task.set_state(state);
        self.task.end_time = Some(timestamp(event.at));
    }
}

/// The top-level fields of `Task` that a mask keeps.
#[derive(Debug)]
pub(crate) struct TaskFieldMask(Option<Vec<String>>);

/// All fields of `Task`, by the names in its proto.
const TASK_FIELDS: [&str; 22] = [
    "id",
    "graph",
    "role",
    "state",
    "input",
    "result",
    "failure",
    "create_time",
    "end_time",
    "usage",
    "last_seq",
    "catalog_version",
    "steps",
    "priority",
    "labels",
    "request_id",
    "cancel_reason",
    "forked_from_task_id",
    "forked_from_step_id",
    "set_aside_reason",
    "owner",
    "erase_time",
];

impl TaskFieldMask {
    /// Parses a mask. One without paths keeps all fields except `without`.
    pub(crate) fn parse(mask: Option<&prost_types::FieldMask>, without: &[&str]) -> Result<Self, FieldError> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if let Some(unknown) = paths.iter().find(|path| !TASK_FIELDS.contains(&path.as_str())) {
            return Err(FieldError::UnknownTaskField(unknown.clone()));
        }
        let kept = TASK_FIELDS.iter().filter(|field| !without.contains(field)).map(|field| (*field).to_owned());
        Ok(Self(match (paths, without) {
            ([], []) => None,
            ([], _) => Some(kept.collect()),
            (paths, _) => Some(paths.to_vec()),
        }))
    }

    pub(crate) fn apply(&self, task: v1::Task) -> v1::Task {
        let Some(paths) = &self.0 else { return task };
        let t = task;
        let keep = |field: &str| paths.iter().any(|path| path == field);
        v1::Task {
            id: t.id,
            graph: if keep("graph") { t.graph } else { String::new() },
            role: if keep("role") { t.role } else { String::new() },
            state: if keep("state") { t.state } else { 0 },
            input: if keep("input") { t.input } else { String::new() },
            result: t.result.filter(|_| keep("result")),
            failure: t.failure.filter(|_| keep("failure")),
            create_time: t.create_time.filter(|_| keep("create_time")),
            end_time: t.end_time.filter(|_| keep("end_time")),
            usage: t.usage.filter(|_| keep("usage")),
            last_seq: if keep("last_seq") { t.last_seq } else { 0 },
            catalog_version: if keep("catalog_version") { t.catalog_version } else { String::new() },
            steps: if keep("steps") { t.steps } else { Vec::new() },
            priority: if keep("priority") { t.priority } else { 0 },
            labels: if keep("labels") { t.labels } else { Default::default() },
            request_id: if keep("request_id") { t.request_id } else { String::new() },
            cancel_reason: if keep("cancel_reason") { t.cancel_reason } else { String::new() },
            forked_from_task_id: if keep("forked_from_task_id") { t.forked_from_task_id } else { String::new() },
            forked_from_step_id: if keep("forked_from_step_id") { t.forked_from_step_id } else { String::new() },
            set_aside_reason: if keep("set_aside_reason") { t.set_aside_reason } else { String::new() },
            owner: if keep("owner") { t.owner } else { String::new() },
            erase_time: t.erase_time.filter(|_| keep("erase_time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use artel_task::event::TaskPriority;
    use artel_task::{CatalogVersion, GraphName, Seq, TaskId};

    use super::*;

    #[test]
    fn a_task_that_is_set_aside_is_so_until_its_next_event() {
        let spec = TaskSpec {
            graph: GraphName::parse("mentor").unwrap(),
            role: None,
            input: "Hello".to_owned(),
            catalog: CatalogVersion::new("c"),
            request: None,
            priority: TaskPriority::Interactive,
            labels: BTreeMap::new(),
            forked_from: None,
            decision: None,
            owner: artel_task::CallerName::owner(),
            erased: None,
            trace: None,
            sampling: None,
            response: None,
            tools: None,
            reasoning: None,
            conversation: None,
        };
        let step = StepId::parse("answer").unwrap();
        let set_aside = || EventKind::SetAside { reason: "/models/a.gguf is gone".to_owned() };
        let kinds = [
            EventKind::Accepted(spec),
            set_aside(),
            EventKind::Resumed,
            EventKind::StepStarted { step, trigger: None, role: None, nested: None },
            set_aside(),
            EventKind::Cancelled { reason: "enough".to_owned(), partial: Vec::new() },
        ];
        let task_id = TaskId::from_bytes([1; 16]);
        let event = |(seq, kind)| Event { task: task_id, seq: Seq(seq), at: Timestamp(seq), kind };
        let events: Vec<Event> = (1..).zip(kinds).map(event).collect();
        let paths = ServerPaths::new(Path::new("/models"), None, Path::new("/data"));
        let after = |count: usize| {
            let task = task(&events[..count], &paths);
            let step = task.steps.first().map(v1::Step::state);
            (task.state(), task.set_aside_reason, step)
        };
        let reason = "<models>/a.gguf is gone".to_owned();
        assert_eq!(after(2), (v1::TaskState::SetAside, reason.clone(), None));
        assert_eq!(after(3), (v1::TaskState::Queued, String::new(), None));
        assert_eq!(after(4), (v1::TaskState::Running, String::new(), Some(v1::StepState::Running)));
        assert_eq!(after(5), (v1::TaskState::SetAside, reason, Some(v1::StepState::Interrupted)));
        assert_eq!(after(6), (v1::TaskState::Cancelled, String::new(), Some(v1::StepState::Interrupted)));
    }
}
