//! Jinja templates of prompts and messages.

mod lenient;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use artel_task::condition::{GraphValues, NodeOutputs};
use artel_template::{
    BoundedTemplate, ChatTemplate, InvalidTemplate, MAX_RENDERED_BYTES, MAX_SOURCE_CHARS, RenderError,
};
use artel_yaml::{Diagnostics, YamlNode, did_you_mean, nearest, shown};
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use crate::decode::text;
use lenient::LenientValue;

/// The names that a template may read.
const NAMES: [&str; 9] = ["task", "nodes", "values", "input", "item", "role", "attempt", "history", "passages"];
/// Methods of maps: they may follow `nodes.` and are no nodes.
const METHODS: [&str; 4] = ["get", "items", "keys", "values"];

/// A parsed template. Cheap to clone.
#[derive(Clone)]
pub struct Template {
    template: BoundedTemplate,
    source: Arc<str>,
    reads_history: bool,
    reads_passages: bool,
}

/// The values that a template reads.
#[derive(Debug, Clone, Default)]
pub struct TemplateContext {
    /// `{id, graph, input}`.
    pub task: Arc<Json>,
    /// The output of each node at its last finished visit.
    pub nodes: Arc<NodeOutputs>,
    /// The values that nodes have written.
    pub values: Arc<GraphValues>,
    /// The output of the node before, the item, or the task's input.
    pub input: String,
    /// The item of a `for_each`; reading it without one is an error.
    pub item: Option<Json>,
    /// `{name, description}` of the role of the step; reading it without one is an error.
    pub role: Option<Json>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The turns before the task's input: `{role, content, calls, tool}` each, the oldest first.
    pub history: Arc<Vec<Json>>,
    /// The passages of the role's knowledge that may answer: `{number, text, source, page, lines, context, header, knowledge}` each.
    pub passages: Arc<Vec<Json>>,
}

/// Why a template is invalid.
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
    /// How many characters the fault covers.
    pub width: u32,
}

impl Template {
    /// Parses a template. It may read `task`, `nodes`, `values`, `input`, `item`, `role`, `attempt`, `history`, `passages` and the
    /// names that it sets; any other name, filter or test is refused as far as it can be found without running every branch.
    pub fn parse(source: &str) -> Result<Self, Error> {
        let template = BoundedTemplate::parse(source, configure).map_err(|e| Error::of(&e, source))?;
        let names = template.jinja().undeclared_variables(false);
        let [reads_history, reads_passages] = ["history", "passages"].map(|name| names.contains(name));
        let template = Self { template, source: source.into(), reads_history, reads_passages };
        template.names()?;
        template.probe()?;
        Ok(template)
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders it. A missing value is an error that names it, except below `nodes`: there it renders as nothing, because a
    /// node may not have run yet.
    pub fn render(&self, context: &TemplateContext) -> Result<String, RenderError> {
        if self.is_static() {
            let source = self.source.strip_suffix('\n').unwrap_or(&self.source);
            return Ok(source.strip_suffix('\r').unwrap_or(source).to_owned());
        }
        let TemplateContext { task, nodes, values, input, item, role, attempt, history, passages } = context;
        let json = |value: &Json| Value::from(Serde(value.clone()));
        let mut seen: HashMap<&str, Value> = HashMap::from([
            ("task", json(task)),
            ("nodes", LenientValue::nodes(nodes.clone())),
            ("input", Value::from(input.as_str())),
            ("attempt", Value::from(*attempt)),
        ]);
        let values: BTreeMap<&str, Value> = values.iter().map(|(name, value)| (name.as_str(), json(value))).collect();
        seen.insert("values", Value::from(values));
        // It may be long, and most templates do not read it.
        seen.extend(self.reads_history.then(|| ("history", history.iter().map(json).collect())));
        seen.extend(self.reads_passages.then(|| ("passages", passages.iter().map(json).collect())));
        seen.extend(item.as_ref().map(|item| ("item", json(item))));
        seen.extend(role.as_ref().map(|role| ("role", json(role))));
        self.template.render(Value::from(seen))
    }

    /// The names below a map that are read directly, as in `nodes.critic.text`, but do not exist.
    pub(crate) fn unknown_below(&self, map: &str, what: &str, exists: impl Fn(&str) -> bool) -> Vec<(String, Error)> {
        let mut chains: Vec<String> = self.template.jinja().undeclared_variables(true).into_iter().collect();
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

    /// The error of a template that reads `item` in a node without a `for_each`.
    pub(crate) fn reads_item(&self) -> Option<Error> {
        let reads = self.template.jinja().undeclared_variables(false).contains("item");
        let message = "`item` is read here, and this node has no `for_each`".to_owned();
        reads.then(|| Error::near(&self.source, "item", message))
    }

    /// Whether it places the turns before the task's input itself.
    pub fn reads_history(&self) -> bool {
        self.reads_history
    }

    /// Whether it places the passages of the role's knowledge itself.
    pub fn reads_passages(&self) -> bool {
        self.reads_passages
    }

    /// Whether it reads what nodes of a graph before it have made.
    pub fn reads_graph(&self) -> bool {
        let read = self.template.jinja().undeclared_variables(false);
        ["nodes", "values", "item"].iter().any(|name| read.contains(*name))
    }

    /// Whether it renders the same for every task: it reads nothing but the role.
    pub fn is_fixed(&self) -> bool {
        !self
            .template
            .jinja()
            .undeclared_variables(false)
            .iter()
            .any(|name| name != "role" && NAMES.contains(&name.as_str()))
    }

    /// Whether it has no Jinja syntax: then Jinja removes the end of the last line and nothing else.
    fn is_static(&self) -> bool {
        !["{{", "{%", "{#"].iter().any(|mark| self.source.contains(mark)) && self.source.len() <= MAX_RENDERED_BYTES
    }

    fn names(&self) -> Result<(), Error> {
        let globals = self.template.globals();
        let mut unknown: Vec<String> = self.template.jinja().undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !NAMES.contains(&name.as_str()) && !globals.contains(&name.as_str()));
        unknown.sort();
        let Some(name) = unknown.first() else { return Ok(()) };
        let mut error = Error::near(&self.source, name, format!("unknown name `{}` in the template", shown(name)));
        error.hint = did_you_mean(name, NAMES).or_else(|| {
            Some(
                "a template sees `task`, `nodes`, `values`, `input`, `item`, `role`, `attempt`, `history` and `passages`"
                    .to_owned(),
            )
        });
        Err(error)
    }

    /// Renders with an empty value for every name, to find filters, tests and functions that do not exist: minijinja looks
    /// them up only when it reaches them.
    fn probe(&self) -> Result<(), Error> {
        let context: HashMap<&str, Value> = NAMES.iter().map(|name| (*name, LenientValue::empty())).collect();
        let Err(RenderError::Template(error)) = self.template.render(Value::from(context)) else { return Ok(()) };
        let kinds =
            [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction, ErrorKind::TemplateNotFound];
        if !kinds.contains(&error.kind()) {
            return Ok(());
        }
        let mut found = Error::of_jinja(&error, &self.source, self.template.place_of(&error));
        if error.kind() == ErrorKind::TemplateNotFound {
            found.message = "a template cannot include, import or extend another".to_owned();
        }
        Err(found)
    }
}

/// What a template of a role sees besides Jinja.
fn configure(environment: &mut Environment<'static>) {
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // So that an error has a place.
    environment.set_debug(true);
    // Nothing of a prompt needs a value that changes.
    environment.remove_global("namespace");
    lenient::install(environment);
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
    fn of(error: &InvalidTemplate, source: &str) -> Self {
        let (range, hint) = match error {
            InvalidTemplate::Syntax(error, place) => return Self::of_jinja(error, source, place.clone()),
            InvalidTemplate::Chain(place) => (place.clone(), Some("split the expression with `{% set %}`".to_owned())),
            _ => (0..0, None),
        };
        let (line, column, width) = place(source, range.start, range.end);
        Self { message: error.to_string(), hint, line, column, width }
    }

    fn of_jinja(error: &minijinja::Error, source: &str, range: Option<Range<usize>>) -> Self {
        let line = error.line().and_then(|l| u32::try_from(l).ok()).unwrap_or(1);
        let range = range.filter(|r| source.is_char_boundary(r.start) && source.is_char_boundary(r.end));
        let (line, column, width) = range.map_or((line, 1, 1), |r| place(source, r.start, r.end));
        Self { message: sentence_without_place(error), hint: advice(error), line, column, width }
    }

    fn near(source: &str, what: &str, message: String) -> Self {
        let (line, column, width) = word(source, what);
        Self { message, hint: None, line, column, width }
    }
}

/// Line, column and width of the first occurrence of `what` as a whole word.
pub(crate) fn word(source: &str, what: &str) -> (u32, u32, u32) {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut starts = source.match_indices(what).map(|(at, _)| at);
    let whole =
        |at: &usize| !source[..*at].ends_with(|c| word(c) || c == '.') && !source[at + what.len()..].starts_with(word);
    let at = starts.find(whole).unwrap_or(0);
    place(source, at, (at + what.len()).min(source.len()))
}

/// Line, column and width of the first occurrence of a name, after a dot or not.
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

/// The most common filters, for "did you mean".
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

/// Checks the syntax of a model's chat template.
pub(crate) fn syntax(source: &str) -> Result<(), Error> {
    ChatTemplate::parse(source).map(drop).map_err(|e| Error::of(&e, source))
}

/// A template in YAML; a fault is reported at its place in the file.
pub(crate) fn decode(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<Template> {
    let source = text(node, what, 1..=MAX_SOURCE_CHARS, report)?;
    if report.is_over_time(node.span) {
        return None;
    }
    Template::parse(&source).map_err(|e| e.report(node, report)).ok()
}

impl Error {
    pub(crate) fn report(self, node: &YamlNode, report: &mut Diagnostics<'_>) {
        let span = node.inside(&report.source.text, self.line, self.column, self.width);
        // The place in the file is unknown.
        let is_whole_node = span == node.span && self.line > 1;
        let message =
            if is_whole_node { format!("{} (in line {} of the text)", self.message, self.line) } else { self.message };
        report.push_error(span, message, self.hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_operators_are_bounded() {
        let chain = |open: &str, part: &str, end: &str, count: usize| format!("{open}{}{end}", part.repeat(count));
        for (open, part, end) in [
            ("{{ 1", "+1", " }}"),
            ("{{ 1", "*1", " }}"),
            ("{{ 1", "~1", " }}"),
            ("{{ 1", "**1", " }}"),
            ("{{ 1", " - 1", " }}"),
            ("{{ 1", " and 1", " }}"),
            ("{{ 1", " in [1]", " }}"),
            ("{{ ", "not ", "1 }}"),
            ("{{ ", "- ", "1 }}"),
            ("{{ 1", " == 1", " }}"),
            ("{{ task", ".a", " }}"),
            ("{{ task", "[0]", " }}"),
            ("{{ task", "()", " }}"),
            ("{{ task", "|upper", " }}"),
            ("{{ task", " is defined", " }}"),
            ("{{ 1", " if 1 else 1", " }}"),
            ("{% set x = 1", "+1", " %}"),
            ("{% filter upper", "|upper", " %}{% endfilter %}"),
            ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ] {
            // The largest that are accepted need no more stack than a thread has, nor does what walks them later.
            for count in [250, 499] {
                let largest = Template::parse(&chain(open, part, end, count));
                largest.into_iter().for_each(|template| drop((template.is_fixed(), template.reads_item())));
            }
            let refused = Template::parse(&chain(open, part, end, 20_000)).unwrap_err();
            assert!(refused.message.contains("more than 500 operators"), "{part}: {}", refused.message);
        }
        for nested in
            ["{{ (", "{{ [", "{{ {1:", "{% if 1 %}", "{% for x in [1] %}", "{{ f(", "{{ x[", "{% macro m() %}"]
        {
            let nested = format!("{nested}{}", nested.trim_start_matches("{{ ").repeat(20_000));
            assert!(Template::parse(&nested).is_err(), "{}", &nested[..40]);
        }
        assert!(Template::parse(&"{{ 1 + 1 }}, {{ 2 * 2 }}. ".repeat(1000)).is_ok());
        assert!(Template::parse(&format!("{{{{ [{}] | length }}}}", "'a', ".repeat(5000))).is_ok());
    }

    #[test]
    fn what_a_rendering_makes_is_bounded() {
        let context = TemplateContext { input: "x".repeat(1024), ..TemplateContext::default() };
        let doubled =
            |make: &str, then: &str| format!("{{% set x = [1] %}}{{% set y = [1] %}}{}{then}", make.repeat(60));
        let dag = "{% set x = [x, x] %}{% set y = [y, y] %}";
        for source in [
            doubled("{% set x = input ~ x ~ x %}", ""),
            doubled("{% set x = x + x %}", ""),
            doubled("{% set x = x|list + x|list %}", ""),
            doubled(dag, "{{ x == y }}"),
            doubled(dag, "{{ x }}"),
            doubled("{% set x = {1: x, 2: x} %}", "{{ x }}"),
            doubled("{% set x = (x, x) %}", "{{ x }}"),
            doubled("{% set x = x, x %}", "{{ x }}"),
            doubled("{% set x = dict(a=x, b=x) %}", "{{ x }}"),
            doubled("{% set x = [x]|batch(2)|list + [x]|batch(2)|list %}", "{{ x }}"),
            doubled("{% set x = x|zip(x)|list %}{% set x = x + x %}", "{{ x }}"),
            doubled("{% set x = [x, x]|sum(start=[]) %}", ""),
            doubled("{% set x = x|chain(x) %}", ""),
            doubled("{% with x = [x, x] %}", "{{ x == [x] }}"),
            "{% set ns = namespace(x=[]) %}".to_owned(),
            "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}".to_owned(),
            "{% macro m(x) %}{{ m(x + x) }}{% endmacro %}{{ m([1]) }}".to_owned(),
            "{{ ([1] * 99999999 + [1] * 99999999) | length }}".to_owned(),
            "{% set x = input * 90000 %}".to_owned(),
            "{% for i in range(90000) %}{{ input }}{% endfor %}".to_owned(),
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}".to_owned(),
            "{{ input | replace('x', input) | replace('x', input) }}".to_owned(),
            "{{ '%90000000s' | format(1) }}".to_owned(),
            "{{ input | indent(90000000) }}".to_owned(),
            "{{ 'x'.center(90000000) }}".to_owned(),
            "{{ 'x'.ljust(90000000) }}".to_owned(),
            "{{ 'x'.zfill(90000000) }}".to_owned(),
            "{{ '{:99999999999}'.format(1) }}".to_owned(),
            "{{ [1]|tojson(indent=99999999999) }}".to_owned(),
            "{{ 2 ** 99999999 }}".to_owned(),
            "{{ 9 ** 9 ** 9 ** 9 }}".to_owned(),
            format!("{{% set x = 9 %}}{}{{{{ x }}}}", "{% set x = x * x %}".repeat(60)),
        ] {
            let refused = Template::parse(&source).map_or(true, |template| template.render(&context).is_err());
            assert!(refused, "{source}");
        }
        // What these make is small, and hidden below many values.
        for (begin, step, end) in [
            ("{% set x = [] %}", "{% set x = [x] %}", ""),
            ("{% set x = [] %}", "{% set x = x[0:] %}", "{{ x }}"),
            ("{% set x = '' %}", "{% set x = x|e|safe %}", "{{ x }}"),
        ] {
            let source = format!("{begin}{}{end}", step.repeat(10_000));
            let rendered = Template::parse(&source).unwrap().render(&context);
            assert!(rendered.is_ok() || step.contains("[x]"), "{rendered:?}");
        }
    }

    #[test]
    fn a_template_without_jinja_syntax_renders_as_jinja_would() {
        let render = |source: &str| Template::parse(source).unwrap().render(&TemplateContext::default()).unwrap();
        for plain in ["W.", "W.\n", "W.\r\n", "W.\n\n", "a\r", "\n a { b } % # }} \n b ", ""] {
            assert!(Template::parse(plain).unwrap().is_static(), "{plain:?}");
            assert_eq!(render(plain), render(&format!("{{# a comment #}}{plain}")), "{plain:?}");
        }
        assert!(!Template::parse("{{ input }}").unwrap().is_static());
    }
}
