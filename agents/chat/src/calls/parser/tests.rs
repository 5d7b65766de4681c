use serde_json::json;

use super::*;

fn tools() -> Vec<Tool> {
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}),
    };
    vec![tool("get"), tool("get_more")]
}

/// The text, and the calls as far as they are complete.
fn read(format: &CallFormat, pieces: &[&[u8]]) -> (String, Vec<(String, String)>) {
    let mut parser = CallParser::new(format.clone(), tools(), false);
    let mut deltas: Vec<CallDelta> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    let (mut text, mut calls, mut open) = (Vec::new(), Vec::new(), None::<(String, String)>);
    for delta in deltas {
        match delta {
            CallDelta::Text(bytes) => text.extend(bytes),
            CallDelta::Begin { index, name } => {
                assert_eq!(index, calls.len());
                open = Some((name, String::new()));
            }
            CallDelta::Arguments { text, .. } => open.as_mut().unwrap().1.push_str(&text),
            CallDelta::End { .. } => calls.push(open.take().unwrap()),
            CallDelta::Withdrawn { .. } => open = None,
        }
    }
    (String::from_utf8(text).unwrap(), calls)
}

fn at_every_split(format: &CallFormat, text: &str) -> (String, Vec<(String, String)>) {
    let whole = read(format, &[text.as_bytes()]);
    for at in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(at);
        assert_eq!(read(format, &[a, b]), whole, "{text:?} at {at}");
    }
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(read(format, &bytes), whole, "{text:?} in bytes");
    whole
}

fn calls(calls: &[(&str, &str)]) -> Vec<(String, String)> {
    calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect()
}

#[test]
fn calls_are_told_from_the_text_before_and_between_them() {
    let text = "Näher: <tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"K}\\\"ö\"}}\n</tool_call>\n\
                <tool_call>{\"name\":\"get_more\",\"arguments\":{}}</tool_call>";
    let (told, found) = at_every_split(&CallFormat::generic(), text);
    assert_eq!(told, "Näher: ");
    assert_eq!(found, calls(&[("get", "{\"city\": \"K}\\\"ö\"}"), ("get_more", "{}")]));
}

#[test]
fn what_is_no_call_comes_back_as_text() {
    for broken in [
        "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": [1]}\n</tool_call> more",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\" 1}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"K",
        "<tool_call>\nget(city='K')\n</tool_call>",
        "<tool_call",
        "a <tool_call>",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {}} and so on",
    ] {
        let (told, found) = at_every_split(&CallFormat::generic(), broken);
        assert_eq!((told.as_str(), found), (broken, Vec::new()), "{broken}");
    }
}

#[test]
fn a_call_after_a_broken_one_and_text_after_a_call_are_found() {
    let text = "<tool_call> no <tool_call>{\"name\": \"get\", \"arguments\": {}}</tool_call> done";
    let (told, found) = at_every_split(&CallFormat::generic(), text);
    assert_eq!((told.as_str(), found), ("<tool_call> no  done", calls(&[("get", "{}")])));
}

#[test]
fn the_last_mark_may_be_missing_since_it_may_end_the_answer() {
    let text = "<|channel|>commentary to=functions.get <|constrain|>json<|message|>{\"days\": 2}";
    let (told, found) = at_every_split(&CallFormat::harmony(), text);
    assert_eq!((told.as_str(), found), ("", calls(&[("get", "{\"days\": 2}")])));
    let text = " to=functions.get<|channel|>commentary json<|message|>{\"days\": 2}<|call|>";
    assert_eq!(at_every_split(&CallFormat::harmony(), text).1, calls(&[("get", "{\"days\": 2}")]));
}

#[test]
fn one_call_only_leaves_the_others_as_text() {
    let call = "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>";
    let mut parser = CallParser::new(CallFormat::generic(), tools(), true);
    let deltas = [parser.push(format!("{call}{call}").as_bytes()), parser.finish()].concat();
    assert_eq!(parser.calls(), 1);
    assert_eq!(deltas.last(), Some(&CallDelta::Text(call.as_bytes().to_vec())));
}

#[test]
fn control_tokens_are_no_text() {
    let mut parser = CallParser::new(CallFormat::harmony(), tools(), false);
    let mut deltas = parser.push_mark(b"<|channel|>");
    deltas.extend(parser.push(b"final"));
    deltas.extend(parser.push_mark(b"<|message|>"));
    deltas.extend(parser.push(b"Hi"));
    deltas.extend(parser.finish());
    let text: Vec<u8> = deltas
        .iter()
        .flat_map(|delta| match delta {
            CallDelta::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(text, b"finalHi");
}
