//! One run of one graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::ReplayError;
use super::run::{ActiveVisit, NestedRun, NodeState, ResourceUsage, Scope, VisitStatus};
use crate::event::{Failure, FailureCode, FinishReason, Output, TakenEdge, Timestamp, ToolCall, Trigger, ValueWrite};
use crate::graph::Reducer;
use crate::id::{GraphName, NodeName, PathSegment, RoleName, StepId, TaskId, ValueName};
use crate::value_size::value_len;

impl Scope {
    pub(super) fn begin(task: TaskId, graph: &GraphName, start: &NodeName, input: &str, started_age: Duration) -> Self {
        let first = NodeState { direct: VecDeque::from([None]), ..NodeState::default() };
        Self {
            task: Arc::new(json!({"id": task.to_string(), "graph": graph.as_str(), "input": input})),
            started_age,
            usage: ResourceUsage::default(),
            nodes: BTreeMap::from([(start.clone(), first)]),
            ready: BTreeSet::from([start.clone()]),
            outputs: Arc::default(),
            values: Arc::default(),
            value_bytes: BTreeMap::new(),
            active: BTreeMap::new(),
            edge_counts: BTreeMap::new(),
            done: None,
            fatal: None,
            cancelled: None,
        }
    }

    /// The input of the graph.
    pub fn input(&self) -> &str {
        self.task["input"].as_str().unwrap_or_default()
    }

    /// A visit that has not ended.
    pub fn active_visit(&self, segment: &PathSegment) -> Option<&ActiveVisit> {
        match segment.item {
            None => self.active.get(segment),
            Some(item) => self.active.get(&without_item(segment))?.items()?.active.get(&item),
        }
    }

    pub(super) fn active_visit_mut(&mut self, segment: &PathSegment) -> Option<&mut ActiveVisit> {
        match segment.item {
            None => self.active.get_mut(segment),
            Some(item) => self.active.get_mut(&without_item(segment))?.items_mut()?.active.get_mut(&item),
        }
    }

    pub(super) fn running(&mut self, step: &StepId) -> Result<&mut ActiveVisit, ReplayError> {
        let active = self.active_visit_mut(&step.visit.segment()).filter(|active| active.is_running(step));
        active.ok_or_else(|| ReplayError::NotRunning(step.clone()))
    }

    pub(super) fn started(
        &mut self,
        step: &StepId,
        trigger: Option<Trigger>,
        nested: Option<NestedRun>,
        age: Duration,
    ) -> Result<(), ReplayError> {
        let (segment, attempt) = (step.visit.segment(), step.attempt);
        if let Some(active) = self.active_visit_mut(&segment) {
            active.restart(attempt, age, nested);
            return Ok(());
        }
        let not_running = || ReplayError::NotRunning(step.clone());
        match (segment.item, trigger) {
            (Some(item), _) => {
                let items = self
                    .active
                    .get_mut(&without_item(&segment))
                    .and_then(ActiveVisit::items_mut)
                    .ok_or_else(not_running)?;
                if item != items.next_item || item as usize >= items.list.len() {
                    return Err(not_running());
                }
                items.next_item += 1;
                items.active.insert(item, ActiveVisit::new(attempt, Vec::new(), age, nested));
            }
            (None, Some(trigger)) => {
                let sources = self.consume(&segment, trigger);
                self.active.insert(segment, ActiveVisit::new(attempt, sources, age, nested));
            }
            (None, None) => return Err(not_running()),
        }
        Ok(())
    }

    /// Consumes the arrivals that made a node ready, and returns the nodes that they came from.
    fn consume(&mut self, segment: &PathSegment, trigger: Trigger) -> Vec<NodeName> {
        let node = self.nodes.entry(segment.node.clone()).or_default();
        node.visits = segment.number;
        let sources = node.sources(trigger);
        match trigger {
            Trigger::Direct => drop(node.direct.pop_front()),
            Trigger::Round => {
                node.rounds += 1;
                node.arrived_count = node.arrivals.values().filter(|n| **n > node.rounds).count();
            }
        }
        if node.direct.is_empty() && node.arrived_count == 0 {
            self.ready.remove(&segment.node);
        }
        sources
    }

    pub(super) fn finished(
        &mut self,
        step: &StepId,
        output: &Output,
        taken: &[TakenEdge],
        write: Option<&ValueWrite>,
    ) -> Result<(), ReplayError> {
        self.running(step)?;
        let segment = step.visit.segment();
        if let Some(item) = segment.item {
            let items = self.active.get_mut(&without_item(&segment)).and_then(ActiveVisit::items_mut);
            let items = items.ok_or_else(|| ReplayError::NotRunning(step.clone()))?;
            items.active.remove(&item);
            items.finish_item(item, output.clone());
            return Ok(());
        }
        let active = self.active.remove(&segment);
        let (output, roles) = match active.as_ref().and_then(ActiveVisit::items) {
            Some(items) => items.collected(),
            None => (output.clone(), Vec::new()),
        };
        let value = output_value(&output, &roles);
        if let Some(write) = write {
            self.write(write, &value["output"]);
        }
        Arc::make_mut(&mut self.outputs).insert(segment.node.clone(), Arc::new(value));
        let node = self.nodes.entry(segment.node.clone()).or_default();
        (node.output, node.roles) = (Some(Arc::new(output)), roles);
        self.follow(&segment.node, taken);
        Ok(())
    }

    fn write(&mut self, ValueWrite { value: name, reducer }: &ValueWrite, written: &Value) {
        self.value_bytes.insert(name.clone(), self.value_bytes_after(name, *reducer, written));
        let values = Arc::make_mut(&mut self.values);
        let old = values.entry(name.clone()).or_insert_with(|| Arc::new(reducer.initial()));
        reducer.apply(Arc::make_mut(old), written.clone());
    }

    /// What a value would take in messages after a write, in bytes.
    pub(crate) fn value_bytes_after(&self, name: &ValueName, reducer: Reducer, written: &Value) -> usize {
        match (self.values.get(name), self.value_bytes.get(name)) {
            (Some(value), Some(bytes)) => reducer.bytes_after(*bytes, value, written),
            _ => reducer.bytes_after(value_len(&reducer.initial()), &reducer.initial(), written),
        }
    }

    /// A step failed and has no retry.
    pub(super) fn failed(
        &mut self,
        step: &StepId,
        failure: &Failure,
        taken: &[TakenEdge],
        partial: Option<&Output>,
    ) -> Result<(), ReplayError> {
        let segment = step.visit.segment();
        // It may have been interrupted, or wait for a retry.
        if self.active_visit(&segment).is_none_or(|active| active.attempt != step.attempt) {
            return Err(ReplayError::NotRunning(step.clone()));
        }
        let cancelled = failure.code == FailureCode::Cancelled;
        if let Some(item) = segment.item {
            let items = self.active.get_mut(&without_item(&segment)).and_then(ActiveVisit::items_mut);
            let items = items.ok_or_else(|| ReplayError::NotRunning(step.clone()))?;
            items.active.remove(&item);
            if cancelled {
                items.finish_item(item, Output { json: Some(Value::Null), ..Output::text("") });
            } else {
                items.fatal.get_or_insert_with(|| failure.clone());
            }
            return Ok(());
        }
        self.active.remove(&segment);
        let mut failed = json!({"text": "", "output": null, "role": null,
            "failure": {"code": failure.code, "message": failure.message}});
        if let Some(partial) = partial {
            failed["text"] = partial.text.as_str().into();
            failed["finish"] = partial.finish.map(FinishReason::as_str).into();
        }
        Arc::make_mut(&mut self.outputs).insert(segment.node.clone(), Arc::new(failed));
        if !taken.is_empty() {
            self.follow(&segment.node, taken);
        } else if cancelled {
            self.cancelled = Some(failure.clone());
        } else {
            self.fatal.get_or_insert_with(|| failure.clone());
        }
        Ok(())
    }

    fn follow(&mut self, from: &NodeName, taken: &[TakenEdge]) {
        for edge in taken {
            *self.edge_counts.entry((from.clone(), edge.edge)).or_default() += 1;
            let Some(to) = &edge.to else {
                self.done = Some(from.clone());
                continue;
            };
            self.ready.insert(to.clone());
            let node = self.nodes.entry(to.clone()).or_default();
            if edge.direct {
                node.direct.push_back(Some(from.clone()));
            } else {
                let arrivals = node.arrivals.entry(from.clone()).or_default();
                *arrivals += 1;
                node.arrived_count += usize::from(*arrivals == node.rounds + 1);
            }
        }
    }

    pub(super) fn resume(&mut self) {
        self.active.values_mut().for_each(ActiveVisit::resume);
    }

    pub(super) fn forget_failures(&mut self) {
        self.active.values_mut().for_each(ActiveVisit::forget_failures);
    }

    /// Whether it has something to do at this time. A run without active visits has its next step before it.
    pub(super) fn can_act(&self, at: Timestamp) -> bool {
        self.active.is_empty() || self.active.values().any(|active| active.can_act(at))
    }

    /// Whether it waits for anything but human answers. A run without active visits has its next step before it, so it does.
    pub(crate) fn is_awake(&self) -> bool {
        self.active.is_empty() || self.active.values().any(ActiveVisit::is_awake)
    }

    pub(super) fn collect_steps(
        &self,
        parents: &mut Vec<PathSegment>,
        is_wanted: fn(VisitStatus) -> bool,
        found: &mut Vec<StepId>,
    ) {
        self.active.iter().for_each(|(segment, active)| active.collect_steps(parents, segment, is_wanted, found));
    }
}

impl NodeState {
    /// The nodes whose arrivals make it ready.
    pub(super) fn sources(&self, trigger: Trigger) -> Vec<NodeName> {
        match trigger {
            Trigger::Direct => self.direct.front().cloned().flatten().into_iter().collect(),
            Trigger::Round => self.arrived().cloned().collect(),
        }
    }

    /// The sources that have arrived for the next round of its join.
    pub fn arrived(&self) -> impl Iterator<Item = &NodeName> {
        self.arrivals.iter().filter(|(_, n)| **n > self.rounds).map(|(name, _)| name)
    }
}

fn without_item(segment: &PathSegment) -> PathSegment {
    PathSegment { item: None, ..segment.clone() }
}

/// A node's entry in the variable `nodes` of CEL and Jinja.
pub fn output_value(output: &Output, roles: &[Option<RoleName>]) -> Value {
    let mut value = json!({
        "text": output.text,
        "output": output.json.clone().unwrap_or_else(|| output.text.clone().into()),
        "role": output.role.as_ref().map(RoleName::as_str),
        "finish": output.finish.map(FinishReason::as_str),
        "calls": output.calls.iter().map(call_value).collect::<Value>(),
        "reasoning": output.reasoning,
        "citations": output.citations,
    });
    if !roles.is_empty() {
        value["roles"] = roles.iter().map(|role| role.as_ref().map(RoleName::as_str)).collect();
    }
    value
}

/// A call in CEL and Jinja: its arguments are an object there.
fn call_value(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    json!({"id": call.id, "name": call.name, "arguments": arguments})
}
