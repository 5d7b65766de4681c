//! Parses the tools of a request.

use std::sync::Arc;

use artel_proto::v1;
use artel_task::event::{Tool, ToolChoice, ToolSet};
use artel_task::portable;
use serde_json::{Value, json};

/// Why the tools of a request are refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error(transparent)]
    Invalid(#[from] artel_task::event::InvalidTools),
    #[error("the parameters of tool `{name}` are no JSON: {error}")]
    NotJson { name: String, error: serde_json::Error },
    #[error("the parameters of tool `{name}` cannot be read: {error}")]
    NotPortable { name: String, error: portable::Error },
    #[error("unknown mode {0} of `tool_choice`")]
    UnknownMode(i32),
}

/// The tools, if there are any.
pub(super) fn parse(tools: Vec<v1::Tool>, choice: Option<v1::ToolChoice>) -> Result<Option<Arc<ToolSet>>, ToolError> {
    let v1::ToolChoice { mode, name, single } = choice.unwrap_or_default();
    let mode = v1::ToolChoiceMode::try_from(mode).map_err(|_| ToolError::UnknownMode(mode))?;
    let choice = match mode {
        v1::ToolChoiceMode::Unspecified | v1::ToolChoiceMode::Auto => ToolChoice::Auto,
        v1::ToolChoiceMode::None => ToolChoice::None,
        v1::ToolChoiceMode::Required => ToolChoice::Required,
        v1::ToolChoiceMode::Named => ToolChoice::Named(name),
    };
    let set = ToolSet { tools: tools.into_iter().map(tool).collect::<Result<_, _>>()?, choice, single };
    set.check()?;
    Ok((!set.is_empty()).then(|| Arc::new(set)))
}

fn tool(tool: v1::Tool) -> Result<Tool, ToolError> {
    let v1::Tool { name, description, parameters } = tool;
    let parameters: Value = if parameters.is_empty() {
        json!({"type": "object", "properties": {}})
    } else {
        serde_json::from_str(&parameters).map_err(|error| ToolError::NotJson { name: shown(&name), error })?
    };
    portable::check(&parameters).map_err(|error| ToolError::NotPortable { name: shown(&name), error })?;
    Ok(Tool { name, description, parameters })
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(parameters: &str) -> v1::Tool {
        v1::Tool { name: "get".to_owned(), description: String::new(), parameters: parameters.to_owned() }
    }

    fn choice(mode: i32) -> Option<v1::ToolChoice> {
        Some(v1::ToolChoice { mode, name: "get".to_owned(), single: false })
    }

    #[test]
    fn tools_are_parsed_and_a_fault_is_told() {
        let parsed = parse(vec![tool("{\"type\": \"object\"}")], choice(4)).unwrap().unwrap();
        assert_eq!((parsed.tools.len(), &parsed.choice), (1, &ToolChoice::Named("get".to_owned())));
        assert_eq!(parse(vec![tool("")], None).unwrap().unwrap().tools[0].parameters["type"], "object");
        assert!(parse(Vec::new(), None).unwrap().is_none());
        for (tools, mode, told) in [
            (vec![tool("{")], 0, "are no JSON"),
            (vec![tool("[]")], 0, "no JSON schema of an object"),
            (vec![tool(&format!("{{\"a\": {}1{}}}", "[".repeat(60), "]".repeat(60)))], 0, "nest"),
            (vec![tool("")], 9, "unknown mode 9"),
            (Vec::new(), 3, "no tool is given"),
        ] {
            let refused = parse(tools, choice(mode)).unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
