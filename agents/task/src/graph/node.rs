//! What nodes consist of: roles, questions, edges, joins, policies.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::condition::{Condition, ListExpression};
use crate::event::Signal;
use crate::id::{KnowledgeName, NodeName, RoleName, RouterName};
use crate::value_size::{entry_len, value_len};

/// The most items of one `for_each`: about as many answers as one model gives in a day on a small machine.
pub const MAX_ITEMS: u32 = 10_000;

/// A question to a human: an interrupt, in LangGraph's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct AskNode {
    /// A Jinja source of the question.
    pub message: String,
    /// The JSON schema of the answer; without it, any text is accepted.
    pub schema: Option<Value>,
    /// How long answers are accepted; without it, for ever.
    pub deadline: Option<Duration>,
    /// The answer used when none came in time: a text, or JSON if there is a schema. Without it, the step fails.
    pub otherwise: Option<Value>,
}

/// A map of a node over a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEach {
    /// The expression that gives the list.
    pub list: ListExpression,
    /// The number of items that run at once.
    pub parallel: u32,
    /// The maximum number of items.
    pub max_items: u32,
}

/// Retries and timeouts of a step; an absent one is the role's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepPolicy {
    /// Retries after a failed attempt.
    pub retries: Option<RetryPolicy>,
    /// From an attempt's start to its end.
    pub timeout: Option<Duration>,
    /// The longest time without a token.
    pub idle_timeout: Option<Duration>,
}

/// Retries after a failed attempt, with exponential backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of retries.
    pub count: u32,
    /// The delay before the first retry; it doubles with each further one.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
}

/// The effect of running a step twice, which determines whether an interrupted step is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplaySafety {
    /// No effect: it only produces an answer.
    #[default]
    Pure,
    /// The same effect as running it once.
    Idempotent,
    /// Harm: it is not started again, neither after a failure nor after a restart.
    AtMostOnce,
}

/// How writes to a value are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reducer {
    /// The last write; null before the first.
    Last,
    /// A list of all writes, in the order in which the steps finished.
    Append,
    /// One object merged from all writes; for duplicate keys the later write wins.
    Merge,
}

impl Reducer {
    /// The value before the first write.
    pub fn initial(self) -> Value {
        match self {
            Self::Last => Value::Null,
            Self::Append => Value::Array(Vec::new()),
            Self::Merge => Value::Object(Map::new()),
        }
    }

    /// Whether this can be written.
    pub fn accepts(self, written: &Value) -> bool {
        self != Self::Merge || written.is_object()
    }

    /// What a value takes in messages after a write, in bytes, if it takes `bytes` before. The time depends on what is written, and
    /// not on what the value holds.
    pub(crate) fn bytes_after(self, bytes: usize, value: &Value, written: &Value) -> usize {
        match (self, value, written) {
            (Self::Append, ..) => bytes.saturating_add(value_len(written)),
            (Self::Merge, Value::Object(merged), Value::Object(part)) => {
                let replaced = part.keys().filter_map(|key| Some(entry_len(key, merged.get(key)?))).sum::<usize>();
                let added = part.iter().map(|(key, value)| entry_len(key, value)).sum::<usize>();
                (bytes - replaced).saturating_add(added)
            }
            (Self::Merge, ..) => bytes,
            (Self::Last, ..) => value_len(written),
        }
    }

    /// Applies a write to the value.
    pub fn apply(self, value: &mut Value, written: Value) {
        match (self, value, written) {
            (Self::Append, Value::Array(list), written) => list.push(written),
            (Self::Merge, Value::Object(merged), Value::Object(part)) => merged.extend(part),
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
    /// Of the best roles that this router node chose last, the one of this rank, from 2.
    Ranked(NodeName, u32),
}

impl RoleRef {
    /// The router node that chooses the role, and the role's rank among the chosen ones, from 1.
    pub fn router(&self) -> Option<(&NodeName, u32)> {
        match self {
            Self::Named(_) => None,
            Self::From(node) => Some((node, 1)),
            Self::Ranked(node, rank) => Some((node, *rank)),
        }
    }
}

/// The candidates of a router node, and how it chooses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouterNode {
    /// The candidates, at least one, in the order of the YAML.
    pub roles: Vec<RoleName>,
    /// The minimum confidence, from 0 to 1; below it `otherwise` is chosen.
    pub confidence: f64,
    /// The role chosen when no candidate reaches the threshold.
    pub otherwise: Option<RoleName>,
    /// How many of the best roles it chooses; 0 means one, without a list of roles in its output.
    pub best: u32,
    /// The router whose weights and background texts it uses; by default `default`.
    pub settings: Option<RouterName>,
    /// The signals that it uses; empty for those that its settings weigh.
    pub signals: Vec<Signal>,
}

/// A search of a knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchNode {
    /// What is searched.
    pub knowledge: KnowledgeName,
    /// A Jinja source of the question.
    pub query: String,
    /// How many passages it gives; without it, as many as the knowledge says.
    pub top: Option<u32>,
}

/// When a node with several incoming edges runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// When every source has arrived.
    All,
    /// At each arrival.
    Any,
    /// When this many sources have arrived; later ones of the same round are ignored.
    Quorum(u32),
}

/// An edge from one node to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Its target; `None` is `done`.
    pub to: Option<NodeName>,
    /// The condition under which it may be taken.
    pub when: Option<Condition>,
    /// How often it may be taken in one run of the graph.
    pub at_most: Option<u32>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof!["[a-z]{0,9}".prop_map(Value::from), any::<i32>().prop_map(Value::from)];
        let map = prop::collection::btree_map("[a-d]", leaf.clone(), 0..4);
        prop_oneof![leaf, map.prop_map(|map| json!(map))]
    }

    proptest! {
        #[test]
        fn the_bytes_of_a_value_are_counted_as_it_grows(
            reducer in prop::sample::select(vec![Reducer::Last, Reducer::Append, Reducer::Merge]),
            writes in prop::collection::vec(written(), 1..9),
        ) {
            let mut value = reducer.initial();
            let mut bytes = value_len(&value);
            for written in writes {
                bytes = reducer.bytes_after(bytes, &value, &written);
                reducer.apply(&mut value, written);
                prop_assert_eq!(bytes, value_len(&value));
            }
        }
    }
}
