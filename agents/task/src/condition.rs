//! Conditions on edges and lists to map over, in CEL (the Common Expression Language).
//!
//! The text is parsed by the crate `cel`; its evaluation is ours, because that crate's has no bounds. Every evaluation ends within
//! [`MAX_EXPRESSION_STEPS`] and [`MAX_EXPRESSION_BYTES`], some tens of milliseconds at most, so that it stands where the next action
//! of a task is decided.

mod budget;
mod compile;
mod evaluate;
mod function;
mod pattern;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::id::{NodeName, ValueName};
use compile::{CompiledExpression, one_line};
use evaluate::{CelVariables, EvaluationFault, Evaluator};
use value::{CelMap, CelValue, NoJson};

pub use budget::{Exhausted, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_STEPS};

/// The longest expression, in bytes: far above any written by hand, far below what would strain the parser.
pub const MAX_CONDITION_BYTES: usize = 4096;
/// The characters of an expression that a message quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// The most common functions and methods, for "did you mean".
pub const FUNCTIONS: [&str; 16] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
];

/// The outputs of nodes, by node name: `{text, output, role, finish}`, with `roles` after a `for_each` and `failure` after the last
/// attempt failed. Each is shared, not copied.
pub type NodeOutputs = BTreeMap<NodeName, Arc<Value>>;
/// The values of a graph, by name.
pub type GraphValues = BTreeMap<ValueName, Arc<Value>>;

/// A parsed CEL expression that evaluates to true or false; its variables are `task`, `nodes`, `values` and `output`.
#[derive(Clone, PartialEq)]
pub struct Condition(CelProgram);

/// A parsed CEL expression that evaluates to a list; its variables are `task`, `nodes` and `values`.
#[derive(Clone, PartialEq)]
pub struct ListExpression(CelProgram);

/// An expression that does not parse, or that gives no usable value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not parse, or names an unknown variable or function.
    #[error("invalid expression: {0}")]
    Parse(String),
    /// Its evaluation failed on these values.
    #[error("expression `{source_text}` failed: {reason}")]
    Evaluation {
        /// The expression.
        source_text: String,
        /// What failed in it.
        reason: String,
    },
    /// Its evaluation was ended: it costs too much on these values.
    #[error("expression `{source_text}` failed: {budget}")]
    Budget {
        /// The expression.
        source_text: String,
        /// The budget that is used up.
        budget: Exhausted,
    },
    /// It gave a value other than true or false.
    #[error("condition `{source_text}` gave {got}, not true or false")]
    NotBool {
        /// The expression.
        source_text: String,
        /// The type of the value.
        got: String,
    },
    /// It gave a value other than a list that JSON can represent.
    #[error("expression `{source_text}` gave {got}, not a list")]
    NotList {
        /// The expression.
        source_text: String,
        /// The type of the value.
        got: String,
    },
}

/// The variables of an expression.
#[derive(Debug, Clone, Copy)]
pub struct ConditionScope<'a> {
    /// `{id, input, graph}`.
    pub task: &'a Value,
    /// The output of each node at its last finished visit.
    pub nodes: &'a NodeOutputs,
    /// The values of the graph.
    pub values: &'a GraphValues,
    /// The output of the node whose edges are evaluated: its JSON if it has a schema, else its text.
    pub output: &'a Value,
}

/// A parsed expression.
#[derive(Clone)]
struct CelProgram {
    source: Arc<str>,
    compiled: Arc<CompiledExpression>,
}

impl Condition {
    /// The variables of conditions.
    pub const VARIABLES: [&'static str; 4] = ["task", "nodes", "values", "output"];

    /// Parses an expression; unknown variables and functions are errors.
    pub fn parse(source: &str) -> Result<Self, Error> {
        CelProgram::parse(source, &Self::VARIABLES).map(Self)
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The nodes that it reads by name, as in `nodes.critic`.
    pub fn referenced_nodes(&self) -> Vec<&str> {
        self.0.compiled.nodes.iter().map(String::as_str).collect()
    }

    /// Evaluates it on these values.
    pub fn holds(&self, scope: ConditionScope<'_>) -> Result<bool, Error> {
        let mut evaluator = self.0.evaluator(scope);
        match evaluator.value(&self.0.compiled.root) {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(other) => Err(Error::NotBool { source_text: self.0.text(), got: other.type_name().to_owned() }),
            Err(fault) => Err(self.0.failed(fault)),
        }
    }
}

impl ListExpression {
    /// The variables of list expressions.
    pub const VARIABLES: [&'static str; 3] = ["task", "nodes", "values"];

    /// Parses an expression; unknown variables and functions are errors.
    pub fn parse(source: &str) -> Result<Self, Error> {
        CelProgram::parse(source, &Self::VARIABLES).map(Self)
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The nodes that it reads by name, as in `nodes.critic`.
    pub fn referenced_nodes(&self) -> Vec<&str> {
        self.0.compiled.nodes.iter().map(String::as_str).collect()
    }

    /// Evaluates it on these values; `output` is not available to it.
    pub fn items(&self, scope: ConditionScope<'_>) -> Result<Vec<Value>, Error> {
        let not_list = |got: String| Error::NotList { source_text: self.0.text(), got };
        let mut evaluator = self.0.evaluator(scope);
        let list = match evaluator.value(&self.0.compiled.root) {
            Ok(CelValue::List(list)) => list,
            Ok(other) => return Err(not_list(other.type_name().to_owned())),
            Err(fault) => return Err(self.0.failed(fault)),
        };
        let items = (0..list.len()).map(|index| list.get(index).json(&mut evaluator.budget));
        items.collect::<Result<_, _>>().map_err(|fault| match fault {
            NoJson::Exhausted(budget) => self.0.failed(budget.into()),
            NoJson::TooDeep => not_list("a list of items that are nested too deeply".to_owned()),
            NoJson::Type(name) => not_list(format!("a list with an item that JSON cannot represent ({name})")),
        })
    }
}

impl CelProgram {
    fn parse(source: &str, variables: &[&'static str]) -> Result<Self, Error> {
        if source.len() > MAX_CONDITION_BYTES {
            return Err(Error::Parse(format!("{} bytes long, the limit is {MAX_CONDITION_BYTES}", source.len())));
        }
        let compiled = compile::compile(source, variables).map_err(|e| Error::Parse(e.to_string()))?;
        Ok(Self { source: source.into(), compiled: Arc::new(compiled) })
    }

    /// The expression in a message, on one line and cut.
    fn text(&self) -> String {
        let text = one_line(&self.source);
        match text.char_indices().nth(MAX_QUOTED_CHARS) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        }
    }

    fn evaluator<'a>(&self, scope: ConditionScope<'a>) -> Evaluator<'a> {
        Evaluator::new(variables(scope), self.compiled.pattern_count)
    }

    fn failed(&self, fault: EvaluationFault) -> Error {
        let source_text = self.text();
        match fault {
            EvaluationFault::Exhausted(budget) => Error::Budget { source_text, budget },
            fault => Error::Evaluation { source_text, reason: one_line(&fault.to_string()) },
        }
    }
}

fn variables(scope: ConditionScope<'_>) -> CelVariables<'_> {
    CelVariables {
        task: CelValue::read(scope.task),
        nodes: CelValue::Map(CelMap::Nodes(scope.nodes)),
        values: CelValue::Map(CelMap::Values(scope.values)),
        output: CelValue::read(scope.output),
    }
}

impl fmt::Debug for CelProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for CelProgram {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({:?})", self.0)
    }
}

impl fmt::Debug for ListExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListExpression({:?})", self.0)
    }
}

#[cfg(test)]
mod tests;
