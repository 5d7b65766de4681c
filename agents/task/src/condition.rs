//! Conditions on edges and lists to map over, in CEL (the Common Expression Language).

mod names;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::id::{NodeName, ValueName};
use names::ReferencedNames;

/// The longest expression, in bytes: far above any written by hand, far below what would strain the parser.
pub const MAX_CONDITION_BYTES: usize = 4096;
/// The deepest nesting of brackets: the CEL parser recurses, and a stack overflow would abort the process.
const MAX_BRACKET_DEPTH: usize = 32;

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

/// The outputs of nodes, by node name: `{text, output, role}`, with `roles` after a `for_each` and `failure` after the last
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
        /// The message of the CEL interpreter.
        reason: String,
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
    program: Arc<cel::Program>,
    /// The names that it reads: only their values are converted for it.
    names: Arc<ReferencedNames>,
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
        self.0.names.nodes.iter().flatten().map(String::as_str).collect()
    }

    /// Evaluates it on these values.
    pub fn holds(&self, scope: ConditionScope<'_>) -> Result<bool, Error> {
        match self.0.run(scope)? {
            cel::Value::Bool(holds) => Ok(holds),
            other => Err(Error::NotBool { source_text: self.0.text(), got: other.type_of().to_string() }),
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
        self.0.names.nodes.iter().flatten().map(String::as_str).collect()
    }

    /// Evaluates it on these values; `output` is not available to it.
    pub fn items(&self, scope: ConditionScope<'_>) -> Result<Vec<Value>, Error> {
        let not_list = |got: String| Error::NotList { source_text: self.0.text(), got };
        let given = self.0.run(scope)?;
        match given.json() {
            Ok(Value::Array(items)) => Ok(items),
            Ok(_) => Err(not_list(given.type_of().to_string())),
            Err(error) => Err(not_list(one_line(&format!("a value that JSON cannot represent ({error})")))),
        }
    }
}

impl CelProgram {
    fn parse(source: &str, variables: &[&str]) -> Result<Self, Error> {
        if source.len() > MAX_CONDITION_BYTES {
            return Err(Error::Parse(format!("{} bytes long, the limit is {MAX_CONDITION_BYTES}", source.len())));
        }
        if nesting(source) > MAX_BRACKET_DEPTH {
            return Err(Error::Parse(format!("brackets are nested more than {MAX_BRACKET_DEPTH} deep")));
        }
        let program = cel::Program::compile(source).map_err(|e| Error::Parse(one_line(&e.to_string())))?;
        let names = ReferencedNames::of(program.expression());
        if let Some(name) = names.variables.iter().find(|name| !variables.contains(&name.as_str())) {
            let variables = variables.join(", ");
            return Err(Error::Parse(format!("unknown name `{name}`; the variables here are {variables}")));
        }
        if let Some(name) = names.unknown_function() {
            return Err(Error::Parse(format!("unknown function `{name}`")));
        }
        Ok(Self { source: source.into(), program: Arc::new(program), names: Arc::new(names) })
    }

    fn text(&self) -> String {
        self.source.to_string()
    }

    fn run(&self, scope: ConditionScope<'_>) -> Result<cel::Value, Error> {
        let failed = |reason: String| Error::Evaluation { source_text: self.text(), reason: one_line(&reason) };
        let mut context = cel::Context::default();
        for name in &self.names.variables {
            let value = match name.as_str() {
                "task" => value::value(scope.task),
                "output" => value::value(scope.output),
                "values" => value::map_of(scope.values.iter().map(|(name, json)| (name.as_str(), json.as_ref()))),
                _ => self.nodes(scope.nodes),
            };
            context.add_variable_from_value(name.as_str(), value);
        }
        self.program.execute(&context).map_err(|e| failed(e.to_string()))
    }

    /// The outputs of the nodes that it reads by name, or of all nodes.
    fn nodes(&self, nodes: &NodeOutputs) -> cel::Value {
        let entry = |(name, json): (&NodeName, &Arc<Value>)| (name.as_str().to_owned(), json.clone());
        let read: Vec<(String, Arc<Value>)> = match &self.names.nodes {
            Some(names) => names.iter().filter_map(|name| nodes.get_key_value(name.as_str())).map(entry).collect(),
            None => nodes.iter().map(entry).collect(),
        };
        value::map_of(read.iter().map(|(name, json)| (name.as_str(), json.as_ref())))
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

/// Counts brackets of any kind, those inside string literals too, which only makes the limit stricter.
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

    fn scope<T>(run: impl FnOnce(ConditionScope<'_>) -> T) -> T {
        let (task, output) =
            (json!({"input": "hello", "graph": "g", "id": "x"}), json!({"verdict": "revise", "score": 0.5}));
        let a = json!({"text": "abc", "output": {"n": 3, "steps": ["x", "y", {"z": 1}]}, "role": "r"});
        let nodes = BTreeMap::from([(NodeName::parse("a").unwrap(), Arc::new(a))]);
        let values = BTreeMap::from([(ValueName::parse("found").unwrap(), Arc::new(json!([1, 2])))]);
        run(ConditionScope { task: &task, nodes: &nodes, values: &values, output: &output })
    }

    fn holds(source: &str) -> Result<bool, Error> {
        let condition = Condition::parse(source)?;
        scope(|scope| condition.holds(scope))
    }

    fn items(source: &str) -> Result<Vec<Value>, Error> {
        let list = ListExpression::parse(source)?;
        scope(|scope| list.items(scope))
    }

    #[test]
    fn conditions_read_output_nodes_values_and_task() {
        assert_eq!(holds("output.verdict == 'revise'"), Ok(true));
        assert_eq!(holds("output.score > 0.6"), Ok(false));
        assert_eq!(holds("nodes.a.output.n >= 3 && task.input.startsWith('he')"), Ok(true));
        assert_eq!(holds("size(values.found) == 2 && nodes.a.output.steps.exists(s, s == 'y')"), Ok(true));
        assert_eq!(holds("has(nodes.b) || size(nodes) == 1"), Ok(true));
        assert_eq!(holds("'a' in nodes"), Ok(true));
    }

    #[test]
    fn list_expressions_give_lists() {
        assert_eq!(items("nodes.a.output.steps"), Ok(vec![json!("x"), json!("y"), json!({"z": 1})]));
        assert_eq!(items("values.found.map(n, n * 2)"), Ok(vec![json!(2), json!(4)]));
        assert_eq!(items("[]"), Ok(vec![]));
        assert!(matches!(items("nodes.a.text"), Err(Error::NotList { .. })));
        assert!(matches!(items("nodes.b.output"), Err(Error::Evaluation { .. })));
        assert!(matches!(items("output.steps"), Err(Error::Parse(m)) if m.contains("`output`")));
    }

    #[test]
    fn unknown_functions_are_refused_when_parsed() {
        for bad in [
            "sise(output) > 1",
            "output.startWith('x')",
            "[1].all(x, frobnicate(x))",
            "duration('1s') > duration('2s')",
        ] {
            assert!(matches!(Condition::parse(bad), Err(Error::Parse(m)) if m.contains("unknown function")), "{bad}");
        }
        for good in [
            "size(output) > 1",
            "output.startsWith('x')",
            "output.matches('x')",
            "int(output) > 1",
            "[1].all(x, string(x) == '1')",
            "!(1 in [1]) ? true : -1 < 2",
            "type(output) == string",
        ] {
            assert!(Condition::parse(good).is_ok(), "{good}: {:?}", Condition::parse(good));
        }
    }

    #[test]
    fn an_invalid_condition_names_its_fault() {
        assert!(matches!(holds("output.verdict =="), Err(Error::Parse(_))));
        assert!(matches!(holds("outptu.verdict == 'x'"), Err(Error::Parse(m)) if m.contains("outptu")));
        assert!(matches!(holds("[1].all(x, y == x)"), Err(Error::Parse(m)) if m.contains("`y`")));
        assert!(matches!(holds("output.missing == 'x'"), Err(Error::Evaluation { .. })));
        assert!(matches!(holds("'text'"), Err(Error::NotBool { .. })));
        assert!(matches!(holds(&format!("{}true{}", "(".repeat(500), ")".repeat(500))), Err(Error::Parse(_))));
        assert!(matches!(holds(&"true && ".repeat(4000)), Err(Error::Parse(_))));
    }
}
