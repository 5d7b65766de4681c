//! Conditions on edges and lists to map over, in CEL (the Common Expression Language).

mod names;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::id::{NodeName, ValueName};
use names::Names;

/// The longest expression, in bytes: far above any that a person writes, far below what would strain the parser.
pub const MAX_CONDITION: usize = 4096;
/// The deepest nesting of brackets: the CEL parser recurses, and a stack overflow would take the process along.
const MAX_NESTING: usize = 32;

/// The functions and methods that people use most, for "did you mean".
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

/// What nodes have given, each shared: node name -> `{text, output, role}`, with `roles` after a `for_each` and `failure`
/// after an attempt that failed for good.
pub type Outputs = BTreeMap<NodeName, Arc<Value>>;
/// What nodes have written together.
pub type Values = BTreeMap<ValueName, Arc<Value>>;

/// A CEL expression that was parsed and gives true or false; it sees `task`, `nodes`, `values` and `output`.
#[derive(Clone, PartialEq)]
pub struct Condition(Program);

/// A CEL expression that was parsed and gives a list; it sees `task`, `nodes` and `values`.
#[derive(Clone, PartialEq)]
pub struct List(Program);

/// Why an expression is none, or did not give what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not parse, or names something it cannot see.
    #[error("bad condition: {0}")]
    Parse(String),
    /// It failed on these values.
    #[error("condition `{source_text}` failed: {reason}")]
    Run {
        /// The expression.
        source_text: String,
        /// What CEL says.
        reason: String,
    },
    /// It gave something else than true or false.
    #[error("condition `{source_text}` gave {got}, not true or false")]
    NotBool {
        /// The expression.
        source_text: String,
        /// The kind of value it gave.
        got: String,
    },
    /// It gave something else than a list that JSON can hold.
    #[error("`{source_text}` gave {got}, not a list")]
    NotList {
        /// The expression.
        source_text: String,
        /// The kind of value it gave.
        got: String,
    },
}

/// What an expression sees.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `{id, input, graph}`.
    pub task: &'a Value,
    /// What each node gave at its last finished visit.
    pub nodes: &'a Outputs,
    /// What nodes have written together.
    pub values: &'a Values,
    /// What the node that is being left gave: its JSON if it has a schema, else its text.
    pub output: &'a Value,
}

/// A parsed expression.
#[derive(Clone)]
struct Program {
    source: Arc<str>,
    program: Arc<cel::Program>,
    /// Which of what it could see it reads: only that is made ready for it.
    names: Arc<Names>,
}

impl Condition {
    /// The names that conditions see.
    pub const NAMES: [&'static str; 4] = ["task", "nodes", "values", "output"];

    /// Parses an expression and refuses names that no condition can see and functions that do not exist.
    pub fn parse(source: &str) -> Result<Self, Error> {
        Program::parse(source, &Self::NAMES).map(Self)
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The nodes that it names, as in `nodes.critic`.
    pub fn nodes(&self) -> Vec<&str> {
        self.0.names.nodes.iter().flatten().map(String::as_str).collect()
    }

    /// Whether it holds on these values.
    pub fn holds(&self, scope: Scope<'_>) -> Result<bool, Error> {
        match self.0.run(scope)? {
            cel::Value::Bool(holds) => Ok(holds),
            other => Err(Error::NotBool { source_text: self.0.text(), got: other.type_of().to_string() }),
        }
    }
}

impl List {
    /// The names that lists see.
    pub const NAMES: [&'static str; 3] = ["task", "nodes", "values"];

    /// Parses an expression and refuses names that no list can see and functions that do not exist.
    pub fn parse(source: &str) -> Result<Self, Error> {
        Program::parse(source, &Self::NAMES).map(Self)
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The nodes that it names, as in `nodes.critic`.
    pub fn nodes(&self) -> Vec<&str> {
        self.0.names.nodes.iter().flatten().map(String::as_str).collect()
    }

    /// The list that it gives on these values; `output` is not seen.
    pub fn items(&self, scope: Scope<'_>) -> Result<Vec<Value>, Error> {
        let not_list = |got: String| Error::NotList { source_text: self.0.text(), got };
        let given = self.0.run(scope)?;
        match given.json() {
            Ok(Value::Array(items)) => Ok(items),
            Ok(_) => Err(not_list(given.type_of().to_string())),
            Err(error) => Err(not_list(one_line(&format!("what JSON cannot hold ({error})")))),
        }
    }
}

impl Program {
    fn parse(source: &str, seen: &[&str]) -> Result<Self, Error> {
        if source.len() > MAX_CONDITION {
            return Err(Error::Parse(format!("it has {} bytes, the limit is {MAX_CONDITION}", source.len())));
        }
        if nesting(source) > MAX_NESTING {
            return Err(Error::Parse(format!("brackets nest deeper than {MAX_NESTING}")));
        }
        let program = cel::Program::compile(source).map_err(|e| Error::Parse(one_line(&e.to_string())))?;
        let names = Names::of(program.expression());
        if let Some(name) = names.variables.iter().find(|name| !seen.contains(&name.as_str())) {
            let seen = seen.join(", ");
            return Err(Error::Parse(format!("unknown name `{name}`; what can be seen here is {seen}")));
        }
        if let Some(name) = names.unknown_function() {
            return Err(Error::Parse(format!("unknown function `{name}`")));
        }
        Ok(Self { source: source.into(), program: Arc::new(program), names: Arc::new(names) })
    }

    fn text(&self) -> String {
        self.source.to_string()
    }

    fn run(&self, scope: Scope<'_>) -> Result<cel::Value, Error> {
        let failed = |reason: String| Error::Run { source_text: self.text(), reason: one_line(&reason) };
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

    /// Those that are read by name, or all.
    fn nodes(&self, nodes: &Outputs) -> cel::Value {
        let entry = |(name, json): (&NodeName, &Arc<Value>)| (name.as_str().to_owned(), json.clone());
        let read: Vec<(String, Arc<Value>)> = match &self.names.nodes {
            Some(names) => names.iter().filter_map(|name| nodes.get_key_value(name.as_str())).map(entry).collect(),
            None => nodes.iter().map(entry).collect(),
        };
        value::map_of(read.iter().map(|(name, json)| (name.as_str(), json.as_ref())))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({:?})", self.0)
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({:?})", self.0)
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

    fn scope<T>(run: impl FnOnce(Scope<'_>) -> T) -> T {
        let (task, output) =
            (json!({"input": "hello", "graph": "g", "id": "x"}), json!({"verdict": "revise", "score": 0.5}));
        let a = json!({"text": "abc", "output": {"n": 3, "steps": ["x", "y", {"z": 1}]}, "role": "r"});
        let nodes = BTreeMap::from([(NodeName::parse("a").unwrap(), Arc::new(a))]);
        let values = BTreeMap::from([(ValueName::parse("found").unwrap(), Arc::new(json!([1, 2])))]);
        run(Scope { task: &task, nodes: &nodes, values: &values, output: &output })
    }

    fn holds(source: &str) -> Result<bool, Error> {
        let condition = Condition::parse(source)?;
        scope(|scope| condition.holds(scope))
    }

    fn items(source: &str) -> Result<Vec<Value>, Error> {
        let list = List::parse(source)?;
        scope(|scope| list.items(scope))
    }

    #[test]
    fn conditions_see_output_nodes_values_and_task() {
        assert_eq!(holds("output.verdict == 'revise'"), Ok(true));
        assert_eq!(holds("output.score > 0.6"), Ok(false));
        assert_eq!(holds("nodes.a.output.n >= 3 && task.input.startsWith('he')"), Ok(true));
        assert_eq!(holds("size(values.found) == 2 && nodes.a.output.steps.exists(s, s == 'y')"), Ok(true));
        assert_eq!(holds("has(nodes.b) || size(nodes) == 1"), Ok(true));
        assert_eq!(holds("'a' in nodes"), Ok(true));
    }

    #[test]
    fn lists_are_lists() {
        assert_eq!(items("nodes.a.output.steps"), Ok(vec![json!("x"), json!("y"), json!({"z": 1})]));
        assert_eq!(items("values.found.map(n, n * 2)"), Ok(vec![json!(2), json!(4)]));
        assert_eq!(items("[]"), Ok(vec![]));
        assert!(matches!(items("nodes.a.text"), Err(Error::NotList { .. })));
        assert!(matches!(items("nodes.b.output"), Err(Error::Run { .. })));
        assert!(matches!(items("output.steps"), Err(Error::Parse(m)) if m.contains("`output`")));
    }

    #[test]
    fn functions_that_do_not_exist_are_refused_when_parsed() {
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
    fn what_is_no_condition_says_so() {
        assert!(matches!(holds("output.verdict =="), Err(Error::Parse(_))));
        assert!(matches!(holds("outptu.verdict == 'x'"), Err(Error::Parse(m)) if m.contains("outptu")));
        assert!(matches!(holds("[1].all(x, y == x)"), Err(Error::Parse(m)) if m.contains("`y`")));
        assert!(matches!(holds("output.missing == 'x'"), Err(Error::Run { .. })));
        assert!(matches!(holds("'text'"), Err(Error::NotBool { .. })));
        assert!(matches!(holds(&format!("{}true{}", "(".repeat(500), ")".repeat(500))), Err(Error::Parse(_))));
        assert!(matches!(holds(&"true && ".repeat(4000)), Err(Error::Parse(_))));
    }
}
