//! The tools that a model may call, and its calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most tools of a request; agents in use offer some dozen, and OpenAI allows as many.
pub const MAX_TOOL_ENTRIES: usize = 128;
/// The longest name of a tool; OpenAI allows as many.
pub const MAX_TOOL_NAME_BYTES: usize = 64;
/// The most bytes of all tools of a request together: 128 tools of two thousand bytes each, far more than a prompt holds.
pub const MAX_TOOLS_BYTES: usize = 256 * 1024;

/// A function that the caller can run, and that a model may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// What the model calls it by.
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A JSON schema of its arguments, which are an object.
    pub parameters: Value,
}

/// Why a list of tools is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTools {
    /// There are too many.
    #[error("{given} tools are more than the limit of {MAX_TOOL_ENTRIES}")]
    TooMany {
        /// How many there are.
        given: usize,
    },
    /// They are too long.
    #[error("the tools take {given} bytes, the limit is {MAX_TOOLS_BYTES}: shorten their descriptions or parameters")]
    TooLarge {
        /// How many bytes they take.
        given: usize,
    },
    /// A name cannot be one.
    #[error("`{name}` is no name of a tool: use 1 to {MAX_TOOL_NAME_BYTES} letters, digits, `_` and `-`")]
    Name {
        /// The name, cut.
        name: String,
    },
    /// Two tools have one name.
    #[error("two tools are named `{name}`")]
    Repeated {
        /// The name.
        name: String,
    },
    /// The arguments would be no object.
    #[error("the parameters of tool `{name}` are no JSON schema of an object: set `\"type\": \"object\"`")]
    Parameters {
        /// The tool.
        name: String,
    },
    /// The choice names none of them.
    #[error("the choice names tool `{name}`, which is not among the tools")]
    NotAmong {
        /// The name, cut.
        name: String,
    },
    /// A call is required, and there is no tool.
    #[error("a call of a tool is required, but no tool is given")]
    NoTool,
}

/// Which tools a model may call, or must.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides whether it calls tools.
    #[default]
    Auto,
    /// It calls none, though it is told of them.
    None,
    /// It calls at least one.
    Required,
    /// It calls this one.
    Named(String),
}

/// The tools of a request and how they may be called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolSet {
    /// The tools.
    pub tools: Vec<Tool>,
    /// Which may be called, or must.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub choice: ToolChoice,
    /// Whether an answer has one call at most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub single: bool,
}

/// A model's request to run a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Tells the calls of a conversation apart.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments: the text of a JSON object.
    pub arguments: String,
}

fn is_auto(choice: &ToolChoice) -> bool {
    *choice == ToolChoice::Auto
}

impl ToolSet {
    /// Whether there are no tools.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// The tools that may be called.
    pub fn callable(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter().filter(|tool| match &self.choice {
            ToolChoice::None => false,
            ToolChoice::Named(name) => tool.name == *name,
            ToolChoice::Auto | ToolChoice::Required => true,
        })
    }

    /// Whether an answer without a call is refused.
    pub fn must_call(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_))
    }

    /// Checks names, counts and sizes.
    ///
    /// # Errors
    /// One of them is beyond its limit, or the choice does not fit the tools.
    pub fn check(&self) -> Result<(), InvalidTools> {
        if self.tools.len() > MAX_TOOL_ENTRIES {
            return Err(InvalidTools::TooMany { given: self.tools.len() });
        }
        let mut names = std::collections::BTreeSet::new();
        for Tool { name, parameters, .. } in &self.tools {
            if !is_tool_name(name) {
                return Err(InvalidTools::Name { name: cut(name) });
            }
            if !names.insert(name.as_str()) {
                return Err(InvalidTools::Repeated { name: name.clone() });
            }
            let is_object = parameters.get("type").is_none_or(|of| of == "object");
            if !parameters.is_object() || !is_object {
                return Err(InvalidTools::Parameters { name: name.clone() });
            }
        }
        let given = self.bytes();
        if given > MAX_TOOLS_BYTES {
            return Err(InvalidTools::TooLarge { given });
        }
        match &self.choice {
            ToolChoice::Named(name) if !names.contains(name.as_str()) => {
                Err(InvalidTools::NotAmong { name: cut(name) })
            }
            ToolChoice::Required if self.tools.is_empty() => Err(InvalidTools::NoTool),
            _ => Ok(()),
        }
    }

    /// How many bytes the tools take as text.
    pub fn bytes(&self) -> usize {
        let of = |tool: &Tool| tool.name.len() + tool.description.len() + tool.parameters.to_string().len();
        self.tools.iter().map(of).sum()
    }
}

/// Whether a tool may have this name.
pub fn is_tool_name(name: &str) -> bool {
    (1..=MAX_TOOL_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_name_byte)
}

/// Whether a name of a tool may have this byte.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn cut(name: &str) -> String {
    name.chars().take(MAX_TOOL_NAME_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str) -> Tool {
        Tool { name: name.to_owned(), description: String::new(), parameters: json!({"type": "object"}) }
    }

    #[test]
    fn tools_beyond_a_limit_are_refused_with_it() {
        let check = |tools: Vec<Tool>, choice| ToolSet { tools, choice, single: false }.check();
        assert_eq!(check(vec![tool("a"), tool("b-1_")], ToolChoice::Auto), Ok(()));
        let refused = |tools, choice| check(tools, choice).unwrap_err().to_string();
        let many: Vec<Tool> = (0..129).map(|at| tool(&format!("t{at}"))).collect();
        assert_eq!(refused(many, ToolChoice::Auto), "129 tools are more than the limit of 128");
        for name in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(refused(vec![tool(name)], ToolChoice::Auto).contains("is no name of a tool"), "{name}");
        }
        assert_eq!(refused(vec![tool("a"), tool("a")], ToolChoice::Auto), "two tools are named `a`");
        let long = Tool { description: "x".repeat(MAX_TOOLS_BYTES), ..tool("a") };
        assert!(refused(vec![long], ToolChoice::Auto).contains("the limit is 262144"));
        let list = Tool { parameters: json!({"type": "array"}), ..tool("a") };
        assert!(refused(vec![list], ToolChoice::Auto).contains("no JSON schema of an object"));
        assert!(refused(vec![tool("a")], ToolChoice::Named("b".to_owned())).contains("not among"));
        assert!(refused(vec![], ToolChoice::Required).contains("no tool is given"));
    }

    #[test]
    fn a_choice_limits_what_may_be_called() {
        let tools = vec![tool("a"), tool("b")];
        let names = |choice: ToolChoice| {
            let set = ToolSet { tools: tools.clone(), choice, single: false };
            set.callable().map(|tool| tool.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(ToolChoice::Auto), "a b");
        assert_eq!(names(ToolChoice::None), "");
        assert_eq!(names(ToolChoice::Named("b".to_owned())), "b");
    }
}
