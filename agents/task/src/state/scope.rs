//! One run of one graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Broken, Live, Running};
use crate::condition::{Outputs, Values};
use crate::event::{Code, Failure, Output, Taken, Trigger, Written};
use crate::id::{GraphName, NodeName, Place, RoleName, StepId, TaskId};

/// What a run has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Attempts begun.
    pub steps: u32,
    /// Prompt and output tokens.
    pub tokens: u64,
}

/// What a run knows of one node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Visits begun.
    pub visits: u32,
    /// What its last finished visit gave.
    pub output: Option<Arc<Output>>,
    /// The roles that did so, item by item; empty without items.
    pub roles: Vec<Option<RoleName>>,
    /// Arrivals that each trigger it alone, oldest first, with the node they come from (`None`: the start).
    pub direct: VecDeque<Option<NodeName>>,
    /// Arrivals that its join counts, per source.
    pub arrivals: BTreeMap<NodeName, u32>,
    /// Rounds of its join that fired.
    pub rounds: u32,
    /// Sources that have arrived for the next round.
    pub came: usize,
}

/// One run of one graph: a task's own, or one inside of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// What CEL and Jinja call `task`: `{id, graph, input}`.
    pub task: Arc<Value>,
    /// The task's age when the run began.
    pub began: Duration,
    /// What it has used, with all inside of it.
    pub spent: Spent,
    /// What it knows of its nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The nodes at which something has arrived that has not begun.
    pub due: BTreeSet<NodeName>,
    /// What CEL and Jinja call `nodes`.
    pub outputs: Arc<Outputs>,
    /// What CEL and Jinja call `values`, as far as something was written.
    pub values: Arc<Values>,
    /// Visits that are not over, those of items aside.
    pub live: BTreeMap<Place, Live>,
    /// How often each edge was taken, by node and place in `next`.
    pub taken: BTreeMap<(NodeName, u32), u32>,
    /// The node that went to `done` last.
    pub done: Option<NodeName>,
    /// The failure that ends the run.
    pub fatal: Option<Failure>,
    /// The last step that was cancelled by itself: why there may be no result.
    pub cancelled: Option<Failure>,
}

impl Scope {
    pub(super) fn begin(task: TaskId, graph: &GraphName, start: &NodeName, input: &str, began: Duration) -> Self {
        let first = Node { direct: VecDeque::from([None]), ..Node::default() };
        Self {
            task: Arc::new(json!({"id": task.to_string(), "graph": graph.as_str(), "input": input})),
            began,
            spent: Spent::default(),
            nodes: BTreeMap::from([(start.clone(), first)]),
            due: BTreeSet::from([start.clone()]),
            outputs: Arc::default(),
            values: Arc::default(),
            live: BTreeMap::new(),
            taken: BTreeMap::new(),
            done: None,
            fatal: None,
            cancelled: None,
        }
    }

    /// What the graph was asked.
    pub fn input(&self) -> &str {
        self.task["input"].as_str().unwrap_or_default()
    }

    /// A visit that is not over.
    pub fn live(&self, place: &Place) -> Option<&Live> {
        match place.item {
            None => self.live.get(place),
            Some(item) => self.live.get(&whole(place))?.items()?.live.get(&item),
        }
    }

    pub(super) fn live_mut(&mut self, place: &Place) -> Option<&mut Live> {
        match place.item {
            None => self.live.get_mut(place),
            Some(item) => self.live.get_mut(&whole(place))?.items_mut()?.live.get_mut(&item),
        }
    }

    pub(super) fn running(&mut self, step: &StepId) -> Result<&mut Live, Broken> {
        let live = self.live_mut(&step.visit.place()).filter(|live| live.runs(step));
        live.ok_or_else(|| Broken::NotRunning(step.clone()))
    }

    pub(super) fn started(
        &mut self,
        step: &StepId,
        trigger: Option<Trigger>,
        inner: Option<Running>,
        age: Duration,
    ) -> Result<(), Broken> {
        let (place, attempt) = (step.visit.place(), step.attempt);
        if let Some(live) = self.live_mut(&place) {
            live.again(attempt, age, inner);
            return Ok(());
        }
        let broken = || Broken::NotRunning(step.clone());
        match (place.item, trigger) {
            (Some(item), _) => {
                let items = self.live.get_mut(&whole(&place)).and_then(Live::items_mut).ok_or_else(broken)?;
                if item != items.next || item as usize >= items.list.len() {
                    return Err(broken());
                }
                items.next += 1;
                items.live.insert(item, Live::new(attempt, Vec::new(), age, inner));
            }
            (None, Some(trigger)) => {
                let from = self.trigger(&place, trigger);
                self.live.insert(place, Live::new(attempt, from, age, inner));
            }
            (None, None) => return Err(broken()),
        }
        Ok(())
    }

    /// Uses up what made a node ready, and says which nodes that came from.
    fn trigger(&mut self, place: &Place, trigger: Trigger) -> Vec<NodeName> {
        let node = self.nodes.entry(place.node.clone()).or_default();
        node.visits = place.number;
        let from = node.sources(trigger);
        match trigger {
            Trigger::Direct => drop(node.direct.pop_front()),
            Trigger::Round => {
                node.rounds += 1;
                node.came = node.arrivals.values().filter(|n| **n > node.rounds).count();
            }
        }
        if node.direct.is_empty() && node.came == 0 {
            self.due.remove(&place.node);
        }
        from
    }

    pub(super) fn finished(
        &mut self,
        step: &StepId,
        output: &Output,
        took: &[Taken],
        wrote: Option<&Written>,
    ) -> Result<(), Broken> {
        self.running(step)?;
        let place = step.visit.place();
        if let Some(item) = place.item {
            let items = self.live.get_mut(&whole(&place)).and_then(Live::items_mut);
            let items = items.ok_or_else(|| Broken::NotRunning(step.clone()))?;
            items.live.remove(&item);
            items.give(item, output.clone());
            return Ok(());
        }
        let live = self.live.remove(&place);
        let (output, roles) = match live.as_ref().and_then(Live::items) {
            Some(items) => items.gathered(),
            None => (output.clone(), Vec::new()),
        };
        let value = output_value(&output, &roles);
        if let Some(Written { value: name, how }) = wrote {
            let values = Arc::make_mut(&mut self.values);
            let old = values.entry(name.clone()).or_insert_with(|| Arc::new(how.empty()));
            how.write(Arc::make_mut(old), value["output"].clone());
        }
        Arc::make_mut(&mut self.outputs).insert(place.node.clone(), Arc::new(value));
        let node = self.nodes.entry(place.node.clone()).or_default();
        (node.output, node.roles) = (Some(Arc::new(output)), roles);
        self.go(&place.node, took);
        Ok(())
    }

    /// A step failed for good.
    pub(super) fn failed(&mut self, step: &StepId, failure: &Failure, took: &[Taken]) -> Result<(), Broken> {
        let place = step.visit.place();
        // It may have been cut off, or wait for its next attempt.
        if self.live(&place).is_none_or(|live| live.attempt != step.attempt) {
            return Err(Broken::NotRunning(step.clone()));
        }
        let cancelled = failure.code == Code::Cancelled;
        if let Some(item) = place.item {
            let items = self.live.get_mut(&whole(&place)).and_then(Live::items_mut);
            let items = items.ok_or_else(|| Broken::NotRunning(step.clone()))?;
            items.live.remove(&item);
            if cancelled {
                items.give(item, Output { text: String::new(), json: Some(Value::Null), role: None });
            } else {
                items.fatal.get_or_insert_with(|| failure.clone());
            }
            return Ok(());
        }
        self.live.remove(&place);
        let failed = json!({"text": "", "output": null, "role": null,
            "failure": {"code": failure.code, "message": failure.message}});
        Arc::make_mut(&mut self.outputs).insert(place.node.clone(), Arc::new(failed));
        if !took.is_empty() {
            self.go(&place.node, took);
        } else if cancelled {
            self.cancelled = Some(failure.clone());
        } else {
            self.fatal.get_or_insert_with(|| failure.clone());
        }
        Ok(())
    }

    fn go(&mut self, from: &NodeName, took: &[Taken]) {
        for taken in took {
            *self.taken.entry((from.clone(), taken.edge)).or_default() += 1;
            let Some(to) = &taken.to else {
                self.done = Some(from.clone());
                continue;
            };
            self.due.insert(to.clone());
            let node = self.nodes.entry(to.clone()).or_default();
            if taken.direct {
                node.direct.push_back(Some(from.clone()));
            } else {
                let arrivals = node.arrivals.entry(from.clone()).or_default();
                *arrivals += 1;
                node.came += usize::from(*arrivals == node.rounds + 1);
            }
        }
    }

    pub(super) fn resumed(&mut self) {
        self.live.values_mut().for_each(Live::resumed);
    }

    /// Whether anything but people is waited for; a run in which nothing runs has its next step before it.
    pub(crate) fn is_awake(&self) -> bool {
        self.live.is_empty() || self.live.values().any(Live::is_awake)
    }

    pub(super) fn asked(&self, within: &mut Vec<Place>, found: &mut Vec<StepId>) {
        self.live.iter().for_each(|(place, live)| live.asked(within, place, found));
    }
}

impl Node {
    /// Where that comes from which makes it ready.
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

fn whole(place: &Place) -> Place {
    Place { item: None, ..place.clone() }
}

/// What CEL and Jinja see of a node.
pub fn output_value(output: &Output, roles: &[Option<RoleName>]) -> Value {
    let mut value = json!({
        "text": output.text,
        "output": output.json.clone().unwrap_or_else(|| output.text.clone().into()),
        "role": output.role.as_ref().map(RoleName::as_str),
    });
    if !roles.is_empty() {
        value["roles"] = roles.iter().map(|role| role.as_ref().map(RoleName::as_str)).collect();
    }
    value
}
