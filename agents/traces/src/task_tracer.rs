//! The spans of a task and its steps, from the events of the task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::{FailureCode, ResultSource, TaskPriority, TaskSpec, Timestamp};
use artel_task::{Event, EventKind, Graph, StepId, TaskId, Visit};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::attributes::SpanAttributes;
use crate::request_span::failure_name;
use crate::span::{SpanDraft, SpanParent};
use crate::span_ids::{random_span, step_span, task_span};
use crate::step_work::{StepWork, decision_attributes};
use crate::trace_scope::TraceScope;
use crate::tracer::Tracer;

/// Tells the spans of one task whose trace is recorded: of each step when it ends, and of the task when it does.
///
/// Whatever runs the task gives it each event once, after the commit and before anyone hears of it.
#[derive(Debug)]
pub struct TaskTracer {
    /// The span of the task.
    scope: TraceScope,
    parent: SpanParent,
    task: TaskId,
    /// The graph that it runs, if it is known; a task that is set aside may have lost it.
    graph: Option<Arc<Graph>>,
    name: String,
    start: SystemTime,
    attributes: SpanAttributes,
    /// The steps that have started and not ended; of a visit, one attempt at a time.
    open: HashMap<Visit, OpenStep>,
    steps: u32,
    resumes: u32,
}

#[derive(Debug)]
struct OpenStep {
    step: StepId,
    work: StepWork,
    start: SystemTime,
    attributes: SpanAttributes,
}

impl TaskTracer {
    /// The tracer of a task that was accepted just now with this event; `None` if its trace is not recorded.
    pub fn begin(tracer: &Tracer, accepted: &Event, graph: Option<&Arc<Graph>>) -> Option<Self> {
        let this = Self::new(tracer, accepted, graph)?;
        let EventKind::Accepted(TaskSpec { decision: Some(decision), .. }) = &accepted.kind else { return Some(this) };
        // The router chose the graph before the task was accepted.
        let draft = SpanDraft {
            name: "route".to_owned(),
            kind: SpanKind::Internal,
            start: this.start,
            end: this.start + decision.elapsed,
            attributes: decision_attributes(decision),
            error: None,
        };
        this.scope.record(random_span(), draft);
        Some(this)
    }

    /// The tracer of a task that goes on after these events, which another process has told, as far as they have ended; `None` if
    /// its trace is not recorded.
    pub fn resume(tracer: &Tracer, events: &[Event], graph: Option<&Arc<Graph>>) -> Option<Self> {
        let (accepted, rest) = events.split_first()?;
        let mut this = Self::new(tracer, accepted, graph)?;
        rest.iter().for_each(|event| this.apply(event, None));
        Some(this)
    }

    fn new(tracer: &Tracer, accepted: &Event, graph: Option<&Arc<Graph>>) -> Option<Self> {
        let EventKind::Accepted(spec) = &accepted.kind else { return None };
        let place = spec.trace.clone()?;
        let parent = SpanParent { id: place.span, is_remote: false };
        let scope = TraceScope { queue: tracer.queue().clone(), place }.of_span(task_span(accepted.task));
        let routing = spec.decision.as_ref().map_or(Duration::ZERO, |decision| decision.elapsed);
        let start = system_time(accepted.at);
        Some(Self {
            scope,
            parent,
            task: accepted.task,
            graph: graph.cloned(),
            name: format!("invoke_workflow {}", spec.graph),
            start: start.checked_sub(routing).unwrap_or(start),
            attributes: task_attributes(accepted.task, spec),
            open: HashMap::new(),
            steps: 0,
            resumes: 0,
        })
    }

    /// The span of a step, for what it does at engines.
    pub fn step(&self, step: &StepId) -> TraceScope {
        self.scope.of_span(step_span(self.task, step))
    }

    /// An event was committed.
    pub fn committed(&mut self, event: &Event) {
        self.apply(event, Some(SystemTime::now().max(system_time(event.at))));
    }

    /// Follows an event; spans that end with it are told if they end at a time.
    fn apply(&mut self, event: &Event, end: Option<SystemTime>) {
        match &event.kind {
            EventKind::StepStarted { step, role, nested, .. } => {
                self.steps += 1;
                let node = self.graph.as_ref().and_then(|graph| graph.node_at(&step.visit));
                let work = StepWork::of(role.as_ref(), nested.as_ref(), node);
                let (start, attributes) = (system_time(event.at), work.attributes(step));
                self.open.insert(step.visit.clone(), OpenStep { step: step.clone(), work, start, attributes });
            }
            EventKind::Routed { step, decision } => self.add(step, decision_attributes(decision)),
            EventKind::StepFinished { step, source, .. } => {
                if let Some(source) = source_name(*source) {
                    self.add(step, SpanAttributes::default().text("artel.step.source", source));
                }
                self.end_step(&step.visit, None, end);
            }
            EventKind::StepFailed { step, failure, retry_after, .. } => {
                if let Some(delay) = retry_after {
                    self.add(step, SpanAttributes::default().number("artel.step.retry_after", delay.as_secs_f64()));
                }
                self.end_step(&step.visit, Some(failure_name(failure.code)), end);
            }
            EventKind::Resumed => self.resumes += 1,
            EventKind::Completed { instead_of, .. } => {
                self.end_task("completed", instead_of.as_ref().map(|failure| failure.code), None, end);
            }
            EventKind::Failed { failure } => self.end_task("failed", None, Some(failure.code), end),
            EventKind::Cancelled { .. } => self.end_task("cancelled", None, None, end),
            EventKind::Accepted(_) | EventKind::Waiting { .. } | EventKind::SetAside { .. } => {}
        }
    }

    fn add(&mut self, step: &StepId, more: SpanAttributes) {
        if let Some(open) = self.open.get_mut(&step.visit) {
            open.attributes = std::mem::take(&mut open.attributes).and(more);
        }
    }

    fn end_step(&mut self, visit: &Visit, error: Option<String>, end: Option<SystemTime>) {
        if self.open.get(visit).is_some_and(|open| open.work.has_inner_steps()) {
            self.end_all(|inner| inner.is_inside(visit), end);
        }
        self.close(visit, error, end);
    }

    /// The open steps of these visits are dropped: they end with what is around them, and have no end of their own.
    fn end_all(&mut self, ends: impl Fn(&Visit) -> bool, end: Option<SystemTime>) {
        let mut visits: Vec<Visit> = self.open.keys().filter(|visit| ends(visit)).cloned().collect();
        // The inner ones first, whose parents must still be known.
        visits.sort_by_key(|visit| std::cmp::Reverse((visit.parents.len(), visit.item.is_some())));
        for visit in &visits {
            if let Some(open) = self.open.get_mut(visit) {
                open.attributes = std::mem::take(&mut open.attributes).boolean("artel.step.dropped", true);
            }
            self.close(visit, None, end);
        }
    }

    fn close(&mut self, visit: &Visit, error: Option<String>, end: Option<SystemTime>) {
        let Some(OpenStep { step, work, start, attributes }) = self.open.remove(visit) else { return };
        let Some(end) = end else { return };
        let name = work.span_name(&step);
        let draft = SpanDraft { name, kind: SpanKind::Internal, start, end, attributes, error };
        let around = outer(visit).and_then(|outer| self.open.get(&outer));
        let around = around.map_or_else(|| self.scope.clone(), |open| self.step(&open.step));
        around.record(step_span(self.task, &step), draft);
    }

    fn end_task(
        &mut self,
        outcome: &str,
        fallback_cause: Option<FailureCode>,
        error: Option<FailureCode>,
        end: Option<SystemTime>,
    ) {
        self.end_all(|_| true, end);
        let Some(end) = end else { return };
        let mut attributes = std::mem::take(&mut self.attributes)
            .text("artel.task.outcome", outcome)
            .integer("artel.task.steps", self.steps)
            .integer("artel.task.resumes", self.resumes);
        if let Some(code) = fallback_cause {
            attributes = attributes.text("artel.task.fallback_cause", failure_name(code));
        }
        let draft = SpanDraft {
            name: std::mem::take(&mut self.name),
            kind: SpanKind::Internal,
            start: self.start,
            end,
            attributes,
            error: error.map(failure_name),
        };
        self.scope.queue.push(draft.at(&self.scope.place, Some(self.parent)));
    }
}

fn task_attributes(task: TaskId, spec: &TaskSpec) -> SpanAttributes {
    let priority = match spec.priority {
        TaskPriority::Interactive => "interactive",
        TaskPriority::Batch => "batch",
    };
    let attributes = SpanAttributes::of_operation("invoke_workflow")
        .text("gen_ai.workflow.name", spec.graph.as_str())
        .text("artel.task.id", task.to_string())
        .text("artel.task.priority", priority)
        .text("artel.catalog.version", spec.catalog.as_str());
    match &spec.forked_from {
        Some(origin) => attributes.text("artel.task.forked_from", origin.task.to_string()),
        None => attributes,
    }
}

/// Where an output comes from, if the step was not run for it.
fn source_name(source: ResultSource) -> Option<&'static str> {
    match source {
        ResultSource::Run => None,
        ResultSource::Person => Some("person"),
        ResultSource::Otherwise => Some("otherwise"),
        ResultSource::Cache => Some("cache"),
        ResultSource::Fallback => Some("fallback"),
    }
}

/// The visit that a visit is directly inside of: that of all items, or that of the sub-graph.
fn outer(visit: &Visit) -> Option<Visit> {
    if visit.item.is_some() {
        return Some(visit.without_item());
    }
    let (last, around) = visit.parents.split_last()?;
    Some(Visit::new(around, last.clone()))
}

fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

#[cfg(test)]
mod tests;
