//! How a model is told of its tools.

use artel_model::{Tool, ToolCall, ToolChoice, ToolSet};
use serde_json::{Value, json};

use super::detect;
use super::format::CallFormat;

/// How a model is told of tools, and how it calls them: as its template renders them, or in words of its own instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPrompt {
    format: CallFormat,
    /// Whether the template renders tools.
    has_tools: bool,
    /// Whether it renders calls, and the results of tools.
    has_calls: bool,
    /// Whether it takes the arguments of a call as text, not as an object.
    has_text_arguments: bool,
}

impl ToolPrompt {
    /// Renders probes with a chat template, which takes messages and tools, and returns none if it refuses them.
    pub fn detect(render: &dyn Fn(Vec<Value>, Option<Value>) -> Option<String>) -> Self {
        // Without a form to read calls in, what the template says of tools would only mislead.
        let Some((format, has_text_arguments)) = detect::detect(render) else { return Self::generic() };
        Self { format, has_tools: detect::renders_tools(render), has_calls: true, has_text_arguments }
    }

    /// For a model whose template knows no tools.
    pub fn generic() -> Self {
        Self { format: CallFormat::generic(), has_tools: false, has_calls: false, has_text_arguments: false }
    }

    /// The form in which it calls tools.
    pub fn format(&self) -> &CallFormat {
        &self.format
    }

    /// Whether the template renders tools itself.
    pub fn renders_tools(&self) -> bool {
        self.has_tools
    }

    /// Whether the template renders calls itself.
    pub fn renders_calls(&self) -> bool {
        self.has_calls
    }

    /// A message of a model that called tools, as templates take it.
    pub fn calls_message(&self, text: &str, calls: &[ToolCall]) -> Value {
        let call = |call: &ToolCall| {
            let object = || serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            let arguments = if self.has_text_arguments { Value::from(call.arguments.as_str()) } else { object() };
            json!({"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}})
        };
        let calls: Vec<Value> = calls.iter().map(call).collect();
        json!({"role": "assistant", "content": text, "tool_calls": calls})
    }

    /// Messages as the template takes them, and the tools that it renders itself.
    pub fn prepare(&self, mut messages: Vec<Value>, set: &ToolSet) -> (Vec<Value>, Option<Value>) {
        if !self.has_calls {
            messages = messages.into_iter().map(|message| self.in_words(message)).collect();
        }
        if set.is_empty() || set.choice == ToolChoice::None && !self.has_tools {
            return (messages, None);
        }
        if self.has_tools {
            return (messages, Some(Value::Array(set.tools.iter().map(definition).collect())));
        }
        let instructions = self.instructions(set);
        match messages.first_mut() {
            Some(first) if first["role"] == "system" => {
                let text = first["content"].as_str().unwrap_or_default();
                let text = if text.is_empty() { instructions } else { format!("{text}\n\n{instructions}") };
                first["content"] = Value::from(text);
            }
            _ => messages.insert(0, json!({"role": "system", "content": instructions})),
        }
        (messages, None)
    }

    /// What a model is told of tools that its template does not render.
    fn instructions(&self, set: &ToolSet) -> String {
        let tools: Vec<String> = set.callable().map(|tool| definition(tool).to_string()).collect();
        let example = self.format.write(&[("NAME", &json!({"PARAMETER": "VALUE"}))]);
        let when = if set.must_call() { "Call a tool now" } else { "To call a tool" };
        let several =
            if self.format.separator.is_some() && !set.single { " Several calls may follow each other." } else { "" };
        format!(
            "You can call tools. Each line is the JSON schema of one:\n{}\n\n{when}, write its name and its arguments exactly in \
             this form, and nothing after it:\n{example}\n{several}",
            tools.join("\n"),
        )
        .trim_end()
        .to_owned()
    }

    /// A call or a result as text, for a template that knows neither.
    fn in_words(&self, message: Value) -> Value {
        let calls = message["tool_calls"].as_array().filter(|calls| !calls.is_empty());
        if let Some(calls) = calls {
            let parsed: Vec<(String, Value)> = calls.iter().map(name_and_arguments).collect();
            let parsed: Vec<(&str, &Value)> =
                parsed.iter().map(|(name, arguments)| (name.as_str(), arguments)).collect();
            let (text, calls) = (message["content"].as_str().unwrap_or_default(), self.format.write(&parsed));
            let text = if text.is_empty() { calls } else { format!("{text}\n{calls}") };
            return json!({"role": "assistant", "content": text});
        }
        if message["role"] == "tool" {
            let text = message["content"].as_str().unwrap_or_default();
            return json!({"role": "user", "content": format!("<tool_response>\n{text}\n</tool_response>")});
        }
        message
    }
}

fn name_and_arguments(call: &Value) -> (String, Value) {
    let name = call["function"]["name"].as_str().unwrap_or_default();
    let arguments = match &call["function"]["arguments"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        arguments => arguments.clone(),
    };
    (name.to_owned(), arguments)
}

/// A tool as templates take it.
fn definition(tool: &Tool) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters,
    }})
}
