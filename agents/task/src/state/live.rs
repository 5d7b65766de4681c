//! Visits that are not over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Scope;
use crate::event::{Failure, Inner, Output, Timestamp};
use crate::id::{NodeName, Place, RoleName, StepId, TaskId, Visit};

/// A visit that is not over.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// The attempt that runs, or the last one that failed.
    pub attempt: u32,
    /// Attempts that failed through the step's own doing; those cut off by a restart do not count.
    pub failures: u32,
    /// The nodes whose output made it ready; empty at the start.
    pub from: Vec<NodeName>,
    /// The task's age when the attempt began.
    pub began: Duration,
    /// What it waits for.
    pub status: Status,
    /// What runs inside of it.
    pub inner: Option<Running>,
}

/// What a live visit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its attempt runs.
    Running,
    /// Its attempt was cut off by a restart.
    Cut,
    /// Its attempt failed at this time; the next one is due so much later.
    Retry {
        /// When the attempt failed.
        at: Timestamp,
        /// How long to wait.
        after: Duration,
    },
    /// A person was asked.
    Asked {
        /// Until when an answer counts.
        deadline: Option<Timestamp>,
    },
}

/// What runs inside of a visit.
#[derive(Debug, Clone, PartialEq)]
pub enum Running {
    /// The items of a list.
    Items(Box<Items>),
    /// Another graph.
    Graph(Box<Scope>),
}

/// A list that a node is mapped over.
#[derive(Debug, Clone, PartialEq)]
pub struct Items {
    /// The list.
    pub list: Arc<[Value]>,
    /// Items that run.
    pub live: BTreeMap<u32, Live>,
    /// The first item that has not begun; they begin in order.
    pub next: u32,
    /// What each item gave.
    pub given: Vec<Option<Output>>,
    /// Items that are not over.
    pub left: usize,
    /// Why an item failed, which fails the node.
    pub fatal: Option<Failure>,
}

impl Running {
    pub(super) fn begin(task: TaskId, inner: &Inner, age: Duration) -> Self {
        match inner {
            Inner::Items(list) => Self::Items(Box::new(Items {
                list: list.clone(),
                live: BTreeMap::new(),
                next: 0,
                given: vec![None; list.len()],
                left: list.len(),
                fatal: None,
            })),
            Inner::Graph { graph, start, input } => Self::Graph(Box::new(Scope::begin(task, graph, start, input, age))),
        }
    }
}

impl Live {
    pub(super) fn new(attempt: u32, from: Vec<NodeName>, began: Duration, inner: Option<Running>) -> Self {
        Self { attempt, failures: 0, from, began, status: Status::Running, inner }
    }

    /// The items inside of it.
    pub fn items(&self) -> Option<&Items> {
        match &self.inner {
            Some(Running::Items(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn items_mut(&mut self) -> Option<&mut Items> {
        match &mut self.inner {
            Some(Running::Items(items)) => Some(items),
            _ => None,
        }
    }

    /// The run of the graph inside of it.
    pub fn scope(&self) -> Option<&Scope> {
        match &self.inner {
            Some(Running::Graph(scope)) => Some(scope),
            _ => None,
        }
    }

    pub(super) fn scope_mut(&mut self) -> Option<&mut Scope> {
        match &mut self.inner {
            Some(Running::Graph(scope)) => Some(scope),
            _ => None,
        }
    }

    /// Whether this is the attempt that runs, or waits for a person.
    pub(super) fn runs(&self, step: &StepId) -> bool {
        self.attempt == step.attempt && matches!(self.status, Status::Running | Status::Asked { .. })
    }

    pub(super) fn again(&mut self, attempt: u32, began: Duration, inner: Option<Running>) {
        (self.attempt, self.began, self.status, self.inner) = (attempt, began, Status::Running, inner);
    }

    pub(super) fn fail(&mut self, at: Timestamp, after: Duration) {
        self.failures += 1;
        (self.status, self.inner) = (Status::Retry { at, after }, None);
    }

    /// An attempt that ran when the daemon stopped begins anew; what runs inside of it is looked at by itself, and a person
    /// goes on thinking.
    pub(super) fn resumed(&mut self) {
        match &mut self.inner {
            Some(Running::Items(items)) => items.live.values_mut().for_each(Self::resumed),
            Some(Running::Graph(scope)) => scope.resumed(),
            None if self.status == Status::Running => self.status = Status::Cut,
            None => {}
        }
    }

    /// Whether it waits for anything but people.
    pub(super) fn is_awake(&self) -> bool {
        match &self.inner {
            Some(Running::Items(items)) => items.live.is_empty() || items.live.values().any(Self::is_awake),
            Some(Running::Graph(scope)) => scope.is_awake(),
            None => !matches!(self.status, Status::Asked { .. }),
        }
    }

    pub(super) fn asked(&self, within: &mut Vec<Place>, place: &Place, found: &mut Vec<StepId>) {
        match &self.inner {
            Some(Running::Items(items)) => {
                for (item, live) in &items.live {
                    live.asked(within, &Place { item: Some(*item), ..place.clone() }, found);
                }
            }
            Some(Running::Graph(scope)) => {
                within.push(place.clone());
                scope.asked(within, found);
                within.pop();
            }
            None if matches!(self.status, Status::Asked { .. }) => {
                found.push(StepId { visit: Visit::new(within, place.clone()), attempt: self.attempt });
            }
            None => {}
        }
    }
}

impl Items {
    /// Takes what an item gave.
    pub(super) fn give(&mut self, item: u32, output: Output) {
        if let Some(place) = self.given.get_mut(item as usize) {
            *place = Some(output);
            self.left -= 1;
        }
    }

    /// What all items gave together, in their order: the texts below each other, the outputs as a list, and the roles.
    pub fn gathered(&self) -> (Output, Vec<Option<RoleName>>) {
        let given = || self.given.iter().flatten();
        let texts: Vec<&str> = given().map(|output| output.text.as_str()).collect();
        let list = given().map(|output| output.json.clone().unwrap_or_else(|| output.text.clone().into())).collect();
        let roles: Vec<Option<RoleName>> = given().map(|output| output.role.clone()).collect();
        (Output { text: texts.join("\n\n"), json: Some(Value::Array(list)), role: None }, roles)
    }
}
