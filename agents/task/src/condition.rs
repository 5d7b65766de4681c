//! Conditions on edges, in CEL (the Common Expression Language).

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// The longest condition, in bytes: far above any that a person writes, far below what would strain the parser.
pub const MAX_CONDITION: usize = 4096;
/// The deepest nesting of brackets: the CEL parser recurses, and a stack overflow would take the process along.
const MAX_NESTING: usize = 32;

/// A CEL expression that was parsed; it sees `task`, `nodes` and `output`.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    program: Arc<cel::Program>,
}

/// Why a condition is none, or had no truth value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not parse, or names something a condition cannot see.
    #[error("bad condition: {0}")]
    Parse(String),
    /// It failed on these values.
    #[error("condition `{source_text}` failed: {reason}")]
    Run {
        /// The condition.
        source_text: String,
        /// What CEL says.
        reason: String,
    },
    /// It gave something else than true or false.
    #[error("condition `{source_text}` gave {got}, not true or false")]
    NotBool {
        /// The condition.
        source_text: String,
        /// The kind of value it gave.
        got: String,
    },
}

/// What a condition sees.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `{id, input, graph}`.
    pub task: &'a Value,
    /// Node name -> `{text, output, role}` of its last finished visit.
    pub nodes: &'a Value,
    /// What the node that is being left gave: its JSON if it has a schema, else its text.
    pub output: &'a Value,
}

const VARIABLES: [&str; 3] = ["task", "nodes", "output"];

impl Condition {
    /// Parses an expression and refuses names that no condition can see.
    pub fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_CONDITION {
            return Err(Error::Parse(format!("it has {} bytes, the limit is {MAX_CONDITION}", source.len())));
        }
        if nesting(source) > MAX_NESTING {
            return Err(Error::Parse(format!("brackets nest deeper than {MAX_NESTING}")));
        }
        let program = cel::Program::compile(source).map_err(|e| Error::Parse(one_line(&e.to_string())))?;
        let references = program.references();
        if let Some(name) = references.variables().into_iter().find(|name| !VARIABLES.contains(name)) {
            return Err(Error::Parse(format!("unknown name `{name}`; a condition sees task, nodes and output")));
        }
        Ok(Self { source: source.into(), program: Arc::new(program) })
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it holds on these values.
    pub fn holds(&self, scope: Scope<'_>) -> Result<bool, Error> {
        let failed = |reason: String| Error::Run { source_text: self.source.to_string(), reason: one_line(&reason) };
        let mut context = cel::Context::default();
        for (name, value) in VARIABLES.into_iter().zip([scope.task, scope.nodes, scope.output]) {
            let value = cel::to_value(value).map_err(|e| failed(e.to_string()))?;
            context.add_variable_from_value(name, value);
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(Error::NotBool { source_text: self.source.to_string(), got: other.type_of().to_string() }),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.source)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Brackets of any kind count; those inside string literals too, which only makes the guard stricter.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for b in source.bytes() {
        match b {
            b'(' | b'[' | b'{' | b'!' | b'?' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(source: &str) -> Result<bool, Error> {
        let (task, nodes, output) = (
            json!({"input": "hello", "graph": "g", "id": "x"}),
            json!({"a": {"text": "abc", "output": {"n": 3}, "role": "r"}}),
            json!({"verdict": "revise", "score": 0.5}),
        );
        Condition::parse(source)?.holds(Scope { task: &task, nodes: &nodes, output: &output })
    }

    #[test]
    fn conditions_see_output_nodes_and_task() {
        assert_eq!(holds("output.verdict == 'revise'"), Ok(true));
        assert_eq!(holds("output.score > 0.6"), Ok(false));
        assert_eq!(holds("nodes.a.output.n >= 3 && task.input.startsWith('he')"), Ok(true));
    }

    #[test]
    fn what_is_no_condition_says_so() {
        assert!(matches!(holds("output.verdict =="), Err(Error::Parse(_))));
        assert!(matches!(holds("outptu.verdict == 'x'"), Err(Error::Parse(m)) if m.contains("outptu")));
        assert!(matches!(holds("output.missing == 'x'"), Err(Error::Run { .. })));
        assert!(matches!(holds("'text'"), Err(Error::NotBool { .. })));
        assert!(matches!(holds(&format!("{}true{}", "(".repeat(500), ")".repeat(500))), Err(Error::Parse(_))));
        assert!(matches!(holds(&"true && ".repeat(4000)), Err(Error::Parse(_))));
    }
}
