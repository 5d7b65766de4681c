//! Reads the form of calls off what a chat template renders.

use serde_json::{Value, json};

use super::format::{ArgumentFormat, CallFormat, CallPart, ElementFormat, ID_MARK, INDEX_MARK};
use super::parser::{CallDelta, CallParser};
use artel_model::Tool;

/// Two tools, two ids, and the names and values of arguments. None is a part of another text.
const TOOLS: [&str; 2] = ["artelprobea", "artelprobeb"];
const IDS: [&str; 2] = ["artelidaa", "artelidbb"];
const KEYS: [&str; 3] = ["artelkeya", "artelkeyb", "artelkeyc"];
const VALUES: [&str; 2] = ["artelvala", "artelvalb"];
const PROBED_INTEGER: i64 = 7531;
const QUESTION: &str = "artelquestion";
const ANSWER: &str = "artelanswer\u{E000}";

/// Renders messages with these tools; none if the template refuses them.
pub(crate) type Render<'r> = &'r dyn Fn(Vec<Value>, Option<Value>) -> Option<String>;

/// Whether a template tells a model of its tools.
pub(crate) fn renders_tools(render: Render<'_>) -> bool {
    let question = || vec![json!({"role": "user", "content": QUESTION})];
    render(question(), Some(tools())).is_some_and(|text| TOOLS.iter().all(|tool| text.contains(tool)))
}

/// The form of calls in a template, and whether it takes their arguments as text; none if it renders none, or in a form of which
/// arguments cannot be held to a schema.
pub(crate) fn detect(render: Render<'_>) -> Option<(CallFormat, bool)> {
    let messages = |calls: Option<Value>, content: &str| {
        let mut answer = json!({"role": "assistant", "content": content});
        if let Some(calls) = calls {
            answer["tool_calls"] = calls;
        }
        vec![json!({"role": "user", "content": QUESTION}), answer]
    };
    let plain = render(messages(None, ANSWER), Some(tools())).or_else(|| render(messages(None, ANSWER), None))?;
    let rendered = |count: usize, is_text: bool| {
        let text = render(messages(Some(calls(count, is_text)), ""), Some(tools()))?;
        Some(IDS.iter().fold(text, |text, id| text.replace(id, &ID_MARK.to_string())))
    };
    // A template that takes an object shows the model's own form with that.
    let is_text = rendered(1, false).is_none();
    let one = rendered(1, is_text)?;
    let two = rendered(2, is_text).filter(|two| two.contains(TOOLS[1]) && two.len() > one.len());
    let format = known(&one).or_else(|| derive(&one, two.as_deref(), &plain))?;
    // What begins answers too does not tell calls from them.
    let (_, answer) = plain.rsplit_once(QUESTION)?;
    let is_distinct = format.openings().iter().all(|(opening, _)| !answer.contains(opening.as_str()));
    (is_distinct && is_read(&format)).then_some((format, is_text))
}

/// Forms that models write in another way than their template does.
fn known(one: &str) -> Option<CallFormat> {
    (one.contains("to=functions.") && one.contains("<|channel|>commentary")).then(CallFormat::harmony)
}

fn derive(one: &str, two: Option<&str>, plain: &str) -> Option<CallFormat> {
    let start = mark_start(one, common_prefix(one, plain));
    let from = one.rfind(QUESTION)? + QUESTION.len();
    let name = from + one[from..].find(TOOLS[0])?;
    let first = ProbedArguments::read(&one[name + TOOLS[0].len()..])?;
    let turn_end = common_suffix(one, plain).min(first.tail.len());
    let tail = without_open_mark(&first.tail[..first.tail.len() - turn_end]);
    let head = one.get(start..name).unwrap_or_default();
    let mut format = CallFormat {
        section_begin: String::new(),
        begins: vec![CallPart::parts(head.trim_start())],
        name_ends: vec![CallPart::parts(&first.name_end)],
        arguments: first.format.clone(),
        end: CallPart::parts(tail.trim_end()),
        separator: None,
        section_end: String::new(),
    };
    if let Some(two) = two {
        let name_of_one = one[..name].to_owned();
        let from = two.rfind(QUESTION)? + QUESTION.len();
        let name = from + two[from..].find(TOOLS[0])?;
        let read = ProbedArguments::read(&two[name + TOOLS[0].len()..])?;
        let between = &read.tail[..read.tail.find(TOOLS[1])?];
        let second = ProbedArguments::read(&read.tail[between.len() + TOOLS[1].len()..])?;
        if second.name_end != first.name_end {
            let numbered = numbered(&first.name_end, &second.name_end)?;
            format.name_ends = vec![CallPart::parts(&numbered)];
        }
        let (head, between) = match numbered_ends(&name_of_one[start.min(name_of_one.len())..], between) {
            Some((head, between)) => (name_of_one[..start.min(name_of_one.len())].to_owned() + &head, between),
            None => (name_of_one, between.to_owned()),
        };
        let shared = common_suffix(&head, &between);
        let shared = aligned(&between[between.len() - shared..]).len();
        let begin = &between[between.len() - shared..];
        let rest = &between[..between.len() - shared];
        let end_bytes = mark_start(rest, common_prefix(rest, tail));
        let end = rest[..end_bytes].trim_end();
        let space = &begin[..begin.len() - begin.trim_start().len()];
        let section = head.get(start..head.len() - shared).unwrap_or_default().trim_start();
        format.section_begin = if section.is_empty() { String::new() } else { format!("{section}{space}") };
        format.begins = vec![CallPart::parts(begin.trim_start())];
        format.end = CallPart::parts(end);
        format.separator = Some(rest[end.len()..].to_owned() + space);
        format.section_end = tail.get(end.len()..).unwrap_or_default().trim_end().to_owned();
    }
    if format.begins[0].is_empty() && format.section_begin.is_empty() {
        return None;
    }
    // Llama 3 writes it before a call too, though its template does not.
    if format.section_begin.is_empty() && format.begins[0] == CallPart::parts("{\"name\": \"") {
        format.begins.push(CallPart::parts("<|python_tag|>{\"name\": \""));
    }
    Some(format)
}

/// What stands behind the name of a call.
struct ProbedArguments<'t> {
    name_end: String,
    format: ArgumentFormat,
    /// What stands behind the arguments.
    tail: &'t str,
}

impl<'t> ProbedArguments<'t> {
    fn read(text: &'t str) -> Option<Self> {
        Self::read_json(text).or_else(|| Self::read_elements(text))
    }

    fn read_json(text: &'t str) -> Option<Self> {
        let key = text.find(KEYS[0])?;
        for (at, _) in text[..key].match_indices('{') {
            let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
            if let Some(Ok(value)) = values.next()
                && value == arguments()
            {
                let (name_end, tail) = (text[..at].to_owned(), &text[at + values.byte_offset()..]);
                return Some(Self { name_end, format: ArgumentFormat::Json, tail });
            }
        }
        None
    }

    fn read_elements(text: &'t str) -> Option<Self> {
        let (before, rest) = text.split_once(KEYS[0])?;
        let (string_name_end, rest) = rest.split_once(VALUES[0])?;
        let (between, rest) = rest.split_once(KEYS[1])?;
        let (second_name_end, rest) = rest.split_once(VALUES[1])?;
        let (_, rest) = rest.split_once(KEYS[2])?;
        let (json_name_end, last) = rest.split_once(&PROBED_INTEGER.to_string())?;
        // An element that is named after the argument or its type would need a form for each.
        let is_own = [before, between, json_name_end].iter().any(|text| {
            KEYS.iter().chain(&TOOLS).any(|name| text.contains(name))
                || text.contains("number")
                || text.contains("integer")
        });
        if is_own || second_name_end != string_name_end || string_name_end.trim().is_empty() {
            return None;
        }
        let shared = &between[between.len() - common_suffix(before, between)..];
        let mark = &shared[shared.find('<')?..];
        let (name_end, end) = (before.strip_suffix(mark)?, between.strip_suffix(mark)?);
        let space = &end[end.trim_end().len()..];
        let (begin, name_end, end) = match name_end.strip_suffix(space) {
            Some(name_end) => (format!("{space}{mark}"), name_end, end.trim_end()),
            None => (mark.to_owned(), name_end, end.trim_end()),
        };
        let tail = last.strip_prefix(end).filter(|_| !end.trim().is_empty())?;
        let format = ElementFormat {
            begin,
            string_name_end: string_name_end.to_owned(),
            json_name_end: json_name_end.to_owned(),
            end: end.to_owned(),
        };
        Some(Self { name_end: name_end.to_owned(), format: ArgumentFormat::Elements(format), tail })
    }
}

/// Whether the parser reads calls back that are written in this form.
fn is_read(format: &CallFormat) -> bool {
    let tools = TOOLS.map(|name| Tool { name: name.to_owned(), description: String::new(), parameters: parameters() });
    let count = if format.separator.is_some() { 2 } else { 1 };
    let arguments = arguments();
    let calls: Vec<(&str, &Value)> = TOOLS[..count].iter().map(|name| (*name, &arguments)).collect();
    let mut parser = CallParser::new(format.clone(), tools.to_vec(), false);
    let deltas = [parser.push(format.write(&calls).as_bytes()), parser.finish()].concat();
    parser.calls() == count
        && !deltas.iter().any(|delta| matches!(delta, CallDelta::Text(_) | CallDelta::Withdrawn { .. }))
}

fn arguments() -> Value {
    json!({KEYS[0]: VALUES[0], KEYS[1]: VALUES[1], KEYS[2]: PROBED_INTEGER})
}

fn parameters() -> Value {
    let text = |of: &str| json!({"type": of, "description": "D"});
    let properties = json!({KEYS[0]: text("string"), KEYS[1]: text("string"), KEYS[2]: text("integer")});
    json!({"type": "object", "properties": properties, "required": KEYS})
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "description": "D", "parameters": parameters()}});
    Value::Array(TOOLS.iter().map(|name| tool(name)).collect())
}

fn calls(count: usize, is_text: bool) -> Value {
    let arguments = if is_text { Value::from(arguments().to_string()) } else { arguments() };
    let call = |at: usize| json!({"type": "function", "id": IDS[at], "function": {"name": TOOLS[at], "arguments": arguments.clone()}});
    Value::Array((0..count).map(call).collect())
}

/// Two texts of one place in the first and the second call as one, in which the number of the call is marked.
fn numbered(first: &str, second: &str) -> Option<String> {
    [(0, 1), (1, 2)].into_iter().find_map(|(one, two)| {
        let marked = with_index(first, one)?;
        (marked == with_index(second, two)?).then_some(marked)
    })
}

/// The ends of two texts, in which the number of the call is marked; none if that makes no more of them equal.
fn numbered_ends(first: &str, second: &str) -> Option<(String, String)> {
    [(0, 1), (1, 2)].into_iter().find_map(|(one, two)| {
        let marked = (with_index(first, one)?, with_index(second, two)?);
        (common_suffix(&marked.0, &marked.1) > common_suffix(first, second) + INDEX_MARK.len_utf8()).then_some(marked)
    })
}

/// A text in which a number that stands alone is marked.
fn with_index(text: &str, index: usize) -> Option<String> {
    let digit = index.to_string();
    let is_alone = |at: usize| {
        let around = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        around(text[..at].chars().next_back()) && around(text[at + digit.len()..].chars().next())
    };
    let at = text.match_indices(&digit).map(|(at, _)| at).find(|at| is_alone(*at))?;
    Some(format!("{}{INDEX_MARK}{}", &text[..at], &text[at + digit.len()..]))
}

fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(same)
}

fn common_suffix(a: &str, b: &str) -> usize {
    let same = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// The beginning of the mark that a place lies in, or the place.
fn mark_start(text: &str, at: usize) -> usize {
    match (text[..at].rfind('<'), text[..at].rfind('>')) {
        (Some(open), close) if close.is_none_or(|close| close < open) => open,
        _ => at,
    }
}

/// A text without the end of a mark that is cut at its beginning.
fn aligned(text: &str) -> &str {
    match (text.find('>'), text.find('<')) {
        (Some(close), open) if open.is_none_or(|open| close < open) => &text[close + 1..],
        _ => text,
    }
}

/// A text without a mark that is cut at its end.
fn without_open_mark(text: &str) -> &str {
    &text[..mark_start(text, text.len())]
}
