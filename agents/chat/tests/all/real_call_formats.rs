//! The form of calls in the chat templates that real models carry. `ARTEL_TEST_CHAT_TEMPLATES` names their directory; `cargo xtask
//! test` fetches them.

use std::fs;
use std::path::PathBuf;

use artel_chat::{ArgumentFormat, CallDelta, CallParser, ToolPrompt};
use artel_model::{Tool, ToolCall, ToolSet};
use artel_template::{Chat, ChatTemplate, TextShield};
use serde_json::{Value, json};

/// How many templates render calls in a form that is read off them.
const READ_FILES: usize = 50;

fn templates() -> Vec<(String, String)> {
    let directory = std::env::var_os("ARTEL_TEST_CHAT_TEMPLATES");
    let directory: PathBuf = directory.expect("run `cargo xtask test`, which sets ARTEL_TEST_CHAT_TEMPLATES").into();
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut templates: Vec<(String, String)> = paths
        .filter(|path| path.extension().is_some_and(|of| of == "jinja"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    templates.sort();
    templates
}

fn render(template: &ChatTemplate, messages: Vec<Value>, tools: Option<Value>) -> Option<String> {
    let chat = Chat { messages, tools, bos_token: "<s>", eos_token: "</s>", ..Chat::default() };
    template.render(chat).ok().map(|text| template.shield().reveal(&text).into_owned())
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.to_owned(),
        description: "Does <it>.".to_owned(),
        parameters,
    };
    let city = json!({"type": "object", "properties": {"city": {"type": "string", "description": "C"},
        "days": {"type": "integer", "description": "D"}, "exact": {"type": "boolean", "description": "E"}}, "required": ["city"]});
    let add = json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "number"}, "description": "L"}}});
    vec![tool("get_weather", city), tool("add", add)]
}

fn read(prompt: &ToolPrompt, pieces: &[&[u8]]) -> (String, Vec<(String, Value)>) {
    let mut parser = CallParser::new(prompt.format().clone(), tools(), false);
    let mut deltas: Vec<CallDelta> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    let (mut text, mut calls, mut open) = (Vec::new(), Vec::new(), (String::new(), String::new()));
    for delta in deltas {
        match delta {
            CallDelta::Text(bytes) => text.extend(bytes),
            CallDelta::Begin { name, .. } => open = (name, String::new()),
            CallDelta::Arguments { text, .. } => open.1.push_str(&text),
            CallDelta::End { .. } => calls.push((open.0.clone(), serde_json::from_str(&open.1).unwrap())),
            CallDelta::Withdrawn { .. } => open = (String::new(), String::new()),
        }
    }
    (String::from_utf8(text).unwrap(), calls)
}

#[test]
fn calls_in_the_form_of_each_template_are_read_whatever_the_pieces() {
    let city = json!({"city": "Köln <&'> \"x\"", "days": 2, "exact": true});
    let list = json!({"list": [1.5, -2]});
    let mut read_templates = 0;
    for (name, source) in templates() {
        let Ok(template) = ChatTemplate::load(&source, TextShield::default()) else { continue };
        let prompt = ToolPrompt::detect(&|messages, tools| render(&template, messages, tools));
        let format = prompt.format();
        let form = match (prompt.renders_calls(), &format.arguments) {
            (false, _) => "the generic form".to_owned(),
            (true, ArgumentFormat::Json) => "JSON".to_owned(),
            (true, ArgumentFormat::Elements(_)) => "elements".to_owned(),
        };
        let tools_by = if prompt.renders_tools() { "its template" } else { "instructions" };
        println!("{name:50} {form:18} tools by {tools_by:13} {:?}", format.write(&[("N", &json!({"a": "b", "c": 1}))]));
        read_templates += usize::from(prompt.renders_calls());
        let mut wanted = vec![("get_weather", &city)];
        if format.separator.is_some() {
            wanted.push(("add", &list));
        }
        let written = format.write(&[("", &list)]);
        let is_at_start = !written.starts_with('<') && !written.starts_with("[TOOL");
        let before = if is_at_start { "" } else { "So: " };
        let text = format!("{before}{}", format.write(&wanted));
        let wanted: Vec<(String, Value)> = wanted.into_iter().map(|(name, of)| (name.to_owned(), of.clone())).collect();
        let is_read = |pieces: &[&[u8]]| {
            let (told, calls) = read(&prompt, pieces);
            assert_eq!((told.trim(), &calls), (before.trim(), &wanted), "{name}: {text:?}");
        };
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            is_read(&[a, b]);
        }
        is_read(&text.as_bytes().chunks(1).collect::<Vec<_>>());
    }
    assert_eq!(read_templates, READ_FILES, "templates whose form of calls is read");
}

#[test]
fn a_call_of_the_past_is_rendered_as_it_is_read() {
    let arguments = json!({"city": "Paris", "days": 2, "exact": true});
    for (name, source) in templates() {
        let Ok(template) = ChatTemplate::load(&source, TextShield::default()) else { continue };
        let prompt = ToolPrompt::detect(&|messages, tools| render(&template, messages, tools));
        let (id, name_of) = ("call00001".to_owned(), "get_weather".to_owned());
        let call = ToolCall { id, name: name_of, arguments: arguments.to_string() };
        let messages = vec![
            json!({"role": "user", "content": "How is it?"}),
            prompt.calls_message("", &[call]),
            json!({"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "It rains."}),
        ];
        let set = ToolSet { tools: tools(), ..ToolSet::default() };
        let (messages, tools) = prompt.prepare(messages, &set);
        let rendered = render(&template, messages, tools);
        // Those of gemma-2 and its like refuse a system message or two questions in a row.
        let Some(rendered) = rendered else {
            println!("{name}: refuses results of tools");
            continue;
        };
        assert!(rendered.contains("get_weather"), "{name}: {rendered}");
        if !prompt.renders_calls() {
            assert_eq!(
                read(&prompt, &[rendered.split("How is it?").last().unwrap().as_bytes()]).1.len(),
                1,
                "{name}: {rendered}"
            );
        }
    }
}
