//! What a graph's nodes are.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Graph;
use crate::condition::{Condition, List};
use crate::event::Signal;
use crate::id::{NodeName, RoleName, RouterName, ValueName};

/// The most items of one `for_each`: what a day of answers is for one model on a small machine.
pub const MAX_ITEMS: u32 = 10_000;

/// A place in a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Who works here.
    pub work: Work,
    /// The items that it is run for, each by itself.
    pub each: Option<Each>,
    /// When it runs, if several edges lead here.
    pub join: Option<Join>,
    /// The ways from here, in the order in which they are tried.
    pub next: Vec<Edge>,
    /// The way from here when it has failed for good; without one, its graph fails.
    pub on_failure: Option<Edge>,
    /// How hard it is tried.
    pub effort: Effort,
    /// What running it twice would do.
    pub effect: Effect,
    /// Whether an earlier answer to the same messages will do.
    pub cache: bool,
    /// The value of the graph that its output goes into.
    pub write: Option<ValueName>,
}

impl Node {
    /// A node with nothing special about it.
    pub fn new(work: Work, next: Vec<Edge>) -> Self {
        let (each, join, on_failure, write) = (None, None, None, None);
        Self {
            work,
            each,
            join,
            next,
            on_failure,
            effort: Effort::default(),
            effect: Effect::Pure,
            cache: false,
            write,
        }
    }

    /// All ways from here; the one on failure comes after those of `next`.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.next.iter().chain(&self.on_failure)
    }
}

/// Who works at a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A role, with a message template that replaces the role's own in this place.
    Role {
        /// Which role.
        role: RoleRef,
        /// A Jinja source.
        message: Option<String>,
    },
    /// A router.
    Router(Router),
    /// A person.
    Ask(Ask),
    /// Another graph, run inside of the same task.
    Graph {
        /// Which graph.
        graph: Arc<Graph>,
        /// A Jinja source of what it gets as its input; without it, what a role would read here.
        message: Option<String>,
    },
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// A Jinja source of the question.
    pub message: String,
    /// The JSON schema of the answer; without it, any text will do.
    pub schema: Option<Value>,
    /// How long there is for an answer; without it, for ever.
    pub deadline: Option<Duration>,
    /// The answer when nobody gave one in time: a text, or JSON where there is a schema. Without it, the step fails.
    pub otherwise: Option<Value>,
}

/// A list that a node is mapped over.
#[derive(Debug, Clone, PartialEq)]
pub struct Each {
    /// What gives the list.
    pub list: List,
    /// How many items run at once.
    pub parallel: u32,
    /// The most items that it may have.
    pub at_most: u32,
}

/// How hard a step is tried; what is absent is as the role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Further attempts after a failed one.
    pub retries: Option<Retries>,
    /// From an attempt's start to its end.
    pub timeout: Option<Duration>,
    /// The longest time without a token.
    pub idle: Option<Duration>,
}

/// Further attempts after a failed one, with pauses that double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How many.
    pub at_most: u32,
    /// Before the second attempt.
    pub pause: Duration,
    /// The longest pause.
    pub longest: Duration,
}

/// What running a step twice would do, which decides whether a step that was cut off is begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effect {
    /// Nothing: it only gives an answer.
    #[default]
    Pure,
    /// The same as running it once.
    Idempotent,
    /// Harm: it is not begun again, neither after a failure nor after a restart.
    AtMostOnce,
}

/// How a value is made of what nodes write into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// What was written last; null before.
    Last,
    /// A list of all that was written, in the order in which the steps finished.
    Append,
    /// One object of all that were written; of two with one key the later holds.
    Merge,
}

impl Reduce {
    /// The value before anything was written.
    pub fn empty(self) -> Value {
        match self {
            Self::Last => Value::Null,
            Self::Append => Value::Array(Vec::new()),
            Self::Merge => Value::Object(Map::new()),
        }
    }

    /// Whether this can be written.
    pub fn takes(self, written: &Value) -> bool {
        self != Self::Merge || written.is_object()
    }

    /// Writes.
    pub fn write(self, value: &mut Value, written: Value) {
        match (self, value, written) {
            (Self::Append, Value::Array(list), written) => list.push(written),
            (Self::Merge, Value::Object(whole), Value::Object(part)) => whole.extend(part),
            (Self::Merge, ..) => {}
            (_, value, written) => *value = written,
        }
    }
}

/// A role, named or chosen by a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRef {
    /// This role.
    Named(RoleName),
    /// The role that this router node chose last.
    From(NodeName),
    /// Of the several best roles that this router node chose last, the one in this place, from 2.
    Ranked(NodeName, u32),
}

impl RoleRef {
    /// The router node that chooses the role, and the place of the role among those that it chooses, from 1.
    pub fn router(&self) -> Option<(&NodeName, u32)> {
        match self {
            Self::Named(_) => None,
            Self::From(node) => Some((node, 1)),
            Self::Ranked(node, rank) => Some((node, *rank)),
        }
    }
}

/// What a router node chooses from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Router {
    /// The candidates, at least one, in the order of the YAML.
    pub roles: Vec<RoleName>,
    /// Below this confidence `otherwise` wins; from 0 to 1.
    pub confidence: f64,
    /// Who takes what nobody is sure of.
    pub otherwise: Option<RoleName>,
    /// How many roles it chooses, the best ones; 0 means one, of which no list is made.
    pub best: u32,
    /// Whose weights and background it uses; by default those of `default`.
    pub settings: Option<RouterName>,
    /// The signals that it listens to; empty for those that its settings weigh.
    pub signals: Vec<Signal>,
}

/// When a node with several incoming edges runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// When every source has arrived.
    All,
    /// At each arrival.
    Any,
    /// When so many sources have arrived; later ones of the same round are ignored.
    Quorum(u32),
}

/// A way from one node to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where it leads; `None` is `done`.
    pub to: Option<NodeName>,
    /// When it may be taken.
    pub when: Option<Condition>,
    /// How often it may be taken in one task.
    pub at_most: Option<u32>,
}
