//! Jinja templates: what a role says to its model.

mod lenient;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use artel_task::condition::{NodeOutputs, GraphValues};
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use crate::decode::text;
use crate::node::Node;
use crate::problem::{Report, did_you_mean, nearest, shown};
use lenient::Lenient;

/// The largest text that a template may give, in bytes: more than any context of a model holds.
pub const MAX_RENDERED: usize = 1024 * 1024;
/// The longest template, in characters: a long prompt has some thousand.
const MAX_SOURCE: usize = 262_144;
/// How many instructions a rendering may take: a loop over a thousand items takes some ten thousand.
const FUEL: u64 = 1_000_000;
/// What a template sees.
const NAMES: [&str; 7] = ["task", "nodes", "values", "input", "item", "role", "attempt"];
/// Methods of maps, which follow `nodes.` without being nodes.
const METHODS: [&str; 4] = ["get", "items", "keys", "values"];

/// A template that was parsed. Cheap to clone.
#[derive(Clone)]
pub struct Template {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
}

/// What a template sees.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// `{id, graph, input}`.
    pub task: Arc<Json>,
    /// What each node gave at its last finished visit.
    pub nodes: Arc<NodeOutputs>,
    /// What nodes have written together.
    pub values: Arc<GraphValues>,
    /// What the node before gave, the item, or the request.
    pub input: String,
    /// The item of a `for_each`; without it, none can be named.
    pub item: Option<Json>,
    /// `{name, description}` of the role that works; without it, none can be named.
    pub role: Option<Json>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// Why a template is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct Error {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line in the template, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// How many characters are meant.
    pub width: u32,
}

impl Template {
    /// Parses a template. It may name `task`, `nodes`, `values`, `input`, `item`, `role`, `attempt` and what it sets itself; any other
    /// name, filter or test is refused as far as it can be seen without running every branch.
    pub fn parse(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        lenient::install(&mut environment);
        environment.add_template_owned("template", source.to_owned()).map_err(|e| Error::of(&e, source))?;
        let template = Self { environment: Arc::new(environment), source: source.into() };
        template.names()?;
        template.probe()?;
        Ok(template)
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders it. What is missing is an error that names it, except below `nodes`: there it is empty, because a node may
    /// not have run yet. Errors are one line.
    pub fn render(&self, context: &Context) -> Result<String, String> {
        if self.is_plain() {
            let source = self.source.strip_suffix('\n').unwrap_or(&self.source);
            return Ok(source.strip_suffix('\r').unwrap_or(source).to_owned());
        }
        let Context { task, nodes, values, input, item, role, attempt } = context;
        let json = |value: &Json| Value::from(Serde(value.clone()));
        let mut seen: HashMap<&str, Value> = HashMap::from([
            ("task", json(task)),
            ("nodes", Lenient::nodes(nodes.clone())),
            ("input", Value::from(input.as_str())),
            ("attempt", Value::from(*attempt)),
        ]);
        let values: BTreeMap<&str, Value> = values.iter().map(|(name, value)| (name.as_str(), json(value))).collect();
        seen.insert("values", Value::from(values));
        seen.extend(item.as_ref().map(|item| ("item", json(item))));
        seen.extend(role.as_ref().map(|role| ("role", json(role))));
        let mut out = Bounded(Vec::new());
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        template.render_captured_to(Value::from(seen), &mut out).map_err(|e| sentence(&e))?;
        String::from_utf8(out.0).map_err(|_| "the text is not UTF-8".to_owned())
    }

    /// The names below a map that are read directly, as in `nodes.critic.text`, but do not exist.
    pub(crate) fn unknown_below(&self, map: &str, what: &str, exists: impl Fn(&str) -> bool) -> Vec<(String, Error)> {
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        let mut chains: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        chains.sort();
        let below = |chain: &str| chain.strip_prefix(map)?.strip_prefix('.')?.split('.').next().map(str::to_owned);
        let mut names: Vec<String> = chains.iter().filter_map(|chain| below(chain)).collect();
        names.dedup();
        names.retain(|name| !METHODS.contains(&name.as_str()) && !exists(name));
        let error = |name: &String| {
            let message = format!("the template reads `{map}.{}`, and this graph has no such {what}", shown(name));
            Error::near(&self.source, &format!("{map}.{name}"), message)
        };
        names.iter().map(|name| (name.clone(), error(name))).collect()
    }

    /// Says where a name is read that is not to be seen there.
    pub(crate) fn reads(&self, name: &str) -> Option<Error> {
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        let reads = template.undeclared_variables(false).contains(name);
        let message = format!("`{name}` is read here, and this node has no `for_each`");
        reads.then(|| Error::near(&self.source, name, message))
    }

    /// Whether it says the same for every task: it reads nothing but the role.
    pub fn is_fixed(&self) -> bool {
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        !template.undeclared_variables(false).iter().any(|name| name != "role" && NAMES.contains(&name.as_str()))
    }

    /// Whether nothing in it is for Jinja, which then takes away the end of the last line and nothing else.
    fn is_plain(&self) -> bool {
        !["{{", "{%", "{#"].iter().any(|mark| self.source.contains(mark)) && self.source.len() <= MAX_RENDERED
    }

    fn names(&self) -> Result<(), Error> {
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        let globals: Vec<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !NAMES.contains(&name.as_str()) && !globals.contains(&name.as_str()));
        unknown.sort();
        let Some(name) = unknown.first() else { return Ok(()) };
        let mut error = Error::near(&self.source, name, format!("unknown name `{}` in the template", shown(name)));
        error.hint = did_you_mean(name, NAMES).or_else(|| {
            Some("a template sees `task`, `nodes`, `values`, `input`, `item`, `role` and `attempt`".to_owned())
        });
        Err(error)
    }

    /// Renders with nothing in every place, to find filters, tests and functions that do not exist: minijinja looks
    /// them up only when it comes to them.
    fn probe(&self) -> Result<(), Error> {
        let context: HashMap<&str, Value> = NAMES.iter().map(|name| (*name, Lenient::empty())).collect();
        let template = self.environment.get_template("template").expect("the template was added when it was parsed");
        let Err(error) = template.render_captured_to(Value::from(context), Bounded(Vec::new())) else { return Ok(()) };
        let kinds =
            [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction, ErrorKind::TemplateNotFound];
        if !kinds.contains(&error.kind()) {
            return Ok(());
        }
        let mut found = Error::of(&error, &self.source);
        if error.kind() == ErrorKind::TemplateNotFound {
            found.message = "a template cannot include, import or extend another".to_owned();
        }
        Err(found)
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Error {
    fn of(error: &minijinja::Error, source: &str) -> Self {
        let line = error.line().and_then(|l| u32::try_from(l).ok()).unwrap_or(1);
        let range = error.range().filter(|r| source.is_char_boundary(r.start) && source.is_char_boundary(r.end));
        let (line, column, width) = range.map_or((line, 1, 1), |r| place(source, r.start, r.end));
        Self { message: sentence_without_place(error), hint: advice(error), line, column, width }
    }

    fn near(source: &str, what: &str, message: String) -> Self {
        let (line, column, width) = word(source, what);
        Self { message, hint: None, line, column, width }
    }
}

/// Line, column and width of the first place where `what` stands as a whole word.
pub(crate) fn word(source: &str, what: &str) -> (u32, u32, u32) {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut starts = source.match_indices(what).map(|(at, _)| at);
    let whole =
        |at: &usize| !source[..*at].ends_with(|c| word(c) || c == '.') && !source[at + what.len()..].starts_with(word);
    let at = starts.find(whole).unwrap_or(0);
    place(source, at, (at + what.len()).min(source.len()))
}

/// Line, column and width of the first place where a name stands, after a dot or not.
pub(crate) fn name_in(source: &str, name: &str) -> (u32, u32, u32) {
    let dotted = format!(".{name}");
    match (word(source, name), source.find(&dotted)) {
        ((1, 1, _), Some(at)) if !source.starts_with(name) => place(source, at + 1, at + dotted.len()),
        (found, _) => found,
    }
}

/// Line, column and width of a range of bytes.
fn place(source: &str, start: usize, end: usize) -> (u32, u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let before = &source[..start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let inside = source[start..end.max(start)].lines().next().unwrap_or_default();
    (
        number(before.matches('\n').count() + 1),
        number(before[line_start..].chars().count() + 1),
        number(inside.chars().count().max(1)),
    )
}

fn advice(error: &minijinja::Error) -> Option<String> {
    let detail = error.detail()?;
    let name = detail.split('`').nth(1).or_else(|| detail.split_whitespace().nth(1))?;
    match error.kind() {
        ErrorKind::UnknownFilter => nearest(name, FILTERS).map(|near| format!("did you mean `{near}`?")),
        _ => None,
    }
}

/// The filters that people use most, for "did you mean".
const FILTERS: [&str; 22] = [
    "abs",
    "batch",
    "capitalize",
    "default",
    "first",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "replace",
    "reverse",
    "round",
    "sort",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

fn sentence_without_place(error: &minijinja::Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("bad template: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn sentence(error: &minijinja::Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        text.push_str(&format!(" (line {line} of the template)"));
    }
    if error.kind() == ErrorKind::WriteFailure {
        text = format!("the text has more than {MAX_RENDERED} bytes");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text that refuses to grow beyond [`MAX_RENDERED`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a chat template of a model parses.
pub(crate) fn syntax(source: &str) -> Result<(), Error> {
    let mut environment = Environment::new();
    environment.set_debug(true);
    environment.add_template_owned("template", source.to_owned()).map_err(|e| Error::of(&e, source))
}

/// A template in YAML; what is wrong with it is reported at its place in the file.
pub(crate) fn decode(node: &Node, what: &str, report: &mut Report<'_>) -> Option<Template> {
    let source = text(node, what, 1..=MAX_SOURCE, report)?;
    Template::parse(&source).map_err(|e| e.report(node, report)).ok()
}

impl Error {
    pub(crate) fn report(self, node: &Node, report: &mut Report<'_>) {
        let span = node.inside(&report.source.text, self.line, self.column, self.width);
        let vague = span == node.span && self.line > 1;
        let message =
            if vague { format!("{} (in line {} of the text)", self.message, self.line) } else { self.message };
        report.push(span, message, self.hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_for_jinja_is_given_as_jinja_would() {
        let render = |source: &str| Template::parse(source).unwrap().render(&Context::default()).unwrap();
        for plain in ["W.", "W.\n", "W.\r\n", "W.\n\n", "a\r", "\n a { b } % # }} \n b ", ""] {
            assert!(Template::parse(plain).unwrap().is_plain(), "{plain:?}");
            assert_eq!(render(plain), render(&format!("{{# a comment #}}{plain}")), "{plain:?}");
        }
        assert!(!Template::parse("{{ input }}").unwrap().is_plain());
    }
}
