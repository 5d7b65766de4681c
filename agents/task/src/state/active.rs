//! Active visits: those that have not ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::run::{ActiveVisit, MapRun, NestedRun, Scope, VisitStatus};
use crate::event::{FailureCode, Nested, Output, Timestamp};
use crate::id::{NodeName, PathSegment, RoleName, StepId, TaskId, Visit};

impl NestedRun {
    pub(super) fn begin(task: TaskId, nested: &Nested, age: Duration) -> Self {
        match nested {
            Nested::Items(list) => Self::Items(Box::new(MapRun {
                list: list.clone(),
                active: BTreeMap::new(),
                next_item: 0,
                outputs: vec![None; list.len()],
                output_bytes: 0,
                remaining: list.len(),
                fatal: None,
            })),
            Nested::Graph { graph, start, input } => {
                Self::Graph(Box::new(Scope::begin(task, graph, start, input, age)))
            }
        }
    }
}

impl ActiveVisit {
    pub(super) fn new(attempt: u32, sources: Vec<NodeName>, started_age: Duration, nested: Option<NestedRun>) -> Self {
        Self {
            attempt,
            failures: 0,
            interruptions: 0,
            invalid_outputs: 0,
            sources,
            started_age,
            status: VisitStatus::Running,
            nested,
        }
    }

    /// The run over its items.
    pub fn items(&self) -> Option<&MapRun> {
        match &self.nested {
            Some(NestedRun::Items(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn items_mut(&mut self) -> Option<&mut MapRun> {
        match &mut self.nested {
            Some(NestedRun::Items(items)) => Some(items),
            _ => None,
        }
    }

    /// The run of its sub-graph.
    pub fn scope(&self) -> Option<&Scope> {
        match &self.nested {
            Some(NestedRun::Graph(scope)) => Some(scope),
            _ => None,
        }
    }

    pub(super) fn scope_mut(&mut self) -> Option<&mut Scope> {
        match &mut self.nested {
            Some(NestedRun::Graph(scope)) => Some(scope),
            _ => None,
        }
    }

    /// Whether this attempt is running or waits for a human answer.
    pub(super) fn is_running(&self, step: &StepId) -> bool {
        self.attempt == step.attempt && matches!(self.status, VisitStatus::Running | VisitStatus::AwaitingAnswer { .. })
    }

    pub(super) fn restart(&mut self, attempt: u32, age: Duration, nested: Option<NestedRun>) {
        (self.attempt, self.started_age, self.status, self.nested) = (attempt, age, VisitStatus::Running, nested);
    }

    pub(super) fn retry(&mut self, failed_at: Timestamp, delay: Duration, code: FailureCode) {
        self.failures += 1;
        self.interruptions = if code == FailureCode::Interrupted { self.interruptions + 1 } else { 0 };
        self.invalid_outputs += u32::from(code == FailureCode::OutputInvalid);
        (self.status, self.nested) = (VisitStatus::Retrying { failed_at, delay }, None);
    }

    /// Marks attempts that ran when the daemon stopped as interrupted. A visit with nested work is not interrupted itself, and an
    /// open question stays open.
    pub(super) fn resume(&mut self) {
        match &mut self.nested {
            Some(NestedRun::Items(items)) => items.active.values_mut().for_each(Self::resume),
            Some(NestedRun::Graph(scope)) => scope.resume(),
            None if self.status == VisitStatus::Running => self.status = VisitStatus::Interrupted,
            None => {}
        }
    }

    /// Counts the failures of what is retried anew.
    pub(super) fn forget_failures(&mut self) {
        (self.failures, self.interruptions, self.invalid_outputs) = (0, 0, 0);
        match &mut self.nested {
            Some(NestedRun::Items(items)) => items.active.values_mut().for_each(Self::forget_failures),
            Some(NestedRun::Graph(scope)) => scope.forget_failures(),
            None => {}
        }
    }

    /// Whether it has something to do at this time: it waits neither for a human answer nor for a retry that is due later.
    pub(super) fn can_act(&self, at: Timestamp) -> bool {
        match (&self.nested, self.status) {
            (Some(NestedRun::Items(items)), _) => {
                items.active.is_empty() || items.active.values().any(|active| active.can_act(at))
            }
            (Some(NestedRun::Graph(scope)), _) => scope.can_act(at),
            (None, VisitStatus::Running | VisitStatus::Interrupted) => true,
            (None, VisitStatus::Retrying { failed_at, delay }) => {
                u128::from(failed_at.0) + delay.as_millis() <= u128::from(at.0)
            }
            (None, VisitStatus::AwaitingAnswer { deadline }) => deadline.is_some_and(|deadline| deadline <= at),
        }
    }

    /// Whether it waits for anything but human answers.
    pub(super) fn is_awake(&self) -> bool {
        match &self.nested {
            Some(NestedRun::Items(items)) => items.active.is_empty() || items.active.values().any(Self::is_awake),
            Some(NestedRun::Graph(scope)) => scope.is_awake(),
            None => !matches!(self.status, VisitStatus::AwaitingAnswer { .. }),
        }
    }

    /// Collects the visits without nested work that have such a status.
    pub(super) fn collect_steps(
        &self,
        parents: &mut Vec<PathSegment>,
        segment: &PathSegment,
        is_wanted: fn(VisitStatus) -> bool,
        found: &mut Vec<StepId>,
    ) {
        match &self.nested {
            Some(NestedRun::Items(items)) => {
                for (item, active) in &items.active {
                    let segment = PathSegment { item: Some(*item), ..segment.clone() };
                    active.collect_steps(parents, &segment, is_wanted, found);
                }
            }
            Some(NestedRun::Graph(scope)) => {
                parents.push(segment.clone());
                scope.collect_steps(parents, is_wanted, found);
                parents.pop();
            }
            None if is_wanted(self.status) => {
                found.push(StepId { visit: Visit::new(parents, segment.clone()), attempt: self.attempt });
            }
            None => {}
        }
    }
}

impl MapRun {
    /// Records the output of an item.
    pub(super) fn finish_item(&mut self, item: u32, output: Output) {
        if let Some(slot) = self.outputs.get_mut(item as usize) {
            self.output_bytes = self.output_bytes.saturating_add(output.max_encoded_len());
            *slot = Some(output);
            self.remaining -= 1;
        }
    }

    /// The outputs of all items in order: the texts separated by blank lines, the outputs as a list, and the roles.
    pub fn collected(&self) -> (Output, Vec<Option<RoleName>>) {
        let outputs = || self.outputs.iter().flatten();
        let texts: Vec<&str> = outputs().map(|output| output.text.as_str()).collect();
        let list = outputs().map(|output| output.json.clone().unwrap_or_else(|| output.text.clone().into())).collect();
        let roles: Vec<Option<RoleName>> = outputs().map(|output| output.role.clone()).collect();
        (Output { text: texts.join("\n\n"), ..Output::json(Value::Array(list)) }, roles)
    }
}
