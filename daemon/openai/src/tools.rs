//! The tools of a request, how they may be called, and the form of its answer.

use artel_proto::v1::response_format::{Format, Kind};
use artel_proto::v1::{ResponseFormat, Tool, ToolChoice, ToolChoiceMode};
use serde_json::Value;

use crate::api_error::ApiError;
use crate::fields::Fields;
use crate::services::ServedKind;

/// The most tools of a request, as many as the service takes: a choice among them is looked up in all of them.
const MAX_TOOL_ENTRIES: usize = 128;

/// The tools of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct RequestedTools {
    pub(crate) tools: Vec<Tool>,
    /// `None`: the model decides.
    pub(crate) choice: Option<ToolChoice>,
}

/// Where an object of a type has its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// In its field of the name of the type, as chat completions write it.
    UnderType,
    /// In itself, as responses write it.
    Flat,
}

impl Nesting {
    fn contents<'a>(self, object: &Fields<'a>, kind: &str) -> Result<Fields<'a>, ApiError> {
        match self {
            Self::UnderType => object.object(kind)?.ok_or_else(|| object.invalid(kind, "is missing")),
            Self::Flat => Ok(object.clone()),
        }
    }
}

impl RequestedTools {
    /// `tools`, `tool_choice` and `parallel_tool_calls`.
    pub(crate) fn parse(fields: &Fields<'_>, nesting: Nesting) -> Result<Self, ApiError> {
        let given = fields.list("tools")?.unwrap_or_default();
        if given.len() > MAX_TOOL_ENTRIES {
            let what = format!("has {} entries, the limit is {MAX_TOOL_ENTRIES}", given.len());
            return Err(fields.invalid("tools", what));
        }
        let tools = given.iter().enumerate().map(|(i, tool)| {
            let tool = Fields::of(tool, format!("tools[{i}]"))?;
            expect_function(&tool)?;
            function(&nesting.contents(&tool, "function")?)
        });
        let mut tools = tools.collect::<Result<Vec<_>, ApiError>>()?;
        let (mode, name) = match fields.value("tool_choice") {
            None => (ToolChoiceMode::Auto, String::new()),
            Some(Value::String(word)) => (mode(fields, "tool_choice", word)?, String::new()),
            Some(value) => choose(&Fields::of(value, "tool_choice")?, nesting, &mut tools)?,
        };
        let must_call = matches!(mode, ToolChoiceMode::Required | ToolChoiceMode::Named);
        // Where a call is required, a small model would go on calling.
        let single = !fields.flag("parallel_tool_calls")?.unwrap_or(!must_call);
        let is_default = mode == ToolChoiceMode::Auto && !single;
        // Without tools, only the demand for a call is told: it is refused.
        let is_void = tools.is_empty() && matches!(mode, ToolChoiceMode::Auto | ToolChoiceMode::None);
        let choice = (!is_default && !is_void).then(|| ToolChoice { mode: mode.into(), name, single });
        Ok(Self { tools, choice })
    }

    /// For a graph, which takes none: without those that it need not call, whose field is told then.
    pub(crate) fn for_model(self, kind: &ServedKind) -> (Self, Option<&'static str>) {
        let is_graph = matches!(kind, ServedKind::Auto | ServedKind::Graph(_));
        let must_call = |choice: &ToolChoice| matches!(choice.mode(), ToolChoiceMode::Required | ToolChoiceMode::Named);
        match is_graph && !self.tools.is_empty() && !self.choice.as_ref().is_some_and(must_call) {
            true => (Self::default(), Some("tools")),
            false => (self, None),
        }
    }
}

/// Refuses a tool that the daemon would have to run itself.
fn expect_function(tool: &Fields<'_>) -> Result<(), ApiError> {
    match tool.required_text("type")? {
        "function" => Ok(()),
        other => {
            let why = format!("is `{}`: only tools of type `function` are taken, which the caller runs", shown(other));
            Err(tool.unsupported("type", why))
        }
    }
}

/// A function with `name`, `description` and `parameters`.
fn function(fields: &Fields<'_>) -> Result<Tool, ApiError> {
    let name = fields.required_text("name")?.to_owned();
    let description = fields.text("description")?.unwrap_or_default().to_owned();
    fields.object("parameters")?;
    let parameters = fields.value("parameters").map(ToString::to_string).unwrap_or_default();
    Ok(Tool { name, description, parameters })
}

/// `none`, `auto` or `required`.
fn mode(fields: &Fields<'_>, name: &str, word: &str) -> Result<ToolChoiceMode, ApiError> {
    match word {
        "none" => Ok(ToolChoiceMode::None),
        "auto" => Ok(ToolChoiceMode::Auto),
        "required" => Ok(ToolChoiceMode::Required),
        other => {
            Err(fields
                .invalid(name, format!("is `{}`, and must be `none`, `auto`, `required` or an object", shown(other))))
        }
    }
}

/// A choice that is an object: the mode, and the name of the tool that must be called. Tools that it does not allow are left out.
fn choose(choice: &Fields<'_>, nesting: Nesting, tools: &mut Vec<Tool>) -> Result<(ToolChoiceMode, String), ApiError> {
    match choice.required_text("type")? {
        "function" => {
            let function = nesting.contents(choice, "function")?;
            Ok((ToolChoiceMode::Named, function.required_text("name")?.to_owned()))
        }
        "allowed_tools" => {
            let allowed = nesting.contents(choice, "allowed_tools")?;
            let mode = mode(&allowed, "mode", allowed.text("mode")?.unwrap_or("auto"))?;
            let listed = allowed.list("tools")?.unwrap_or_default().iter().enumerate();
            let names = listed.map(|(i, tool)| {
                let tool = Fields::of(tool, allowed.path(&format!("tools[{i}]")))?;
                if tool.value("type").is_some() {
                    expect_function(&tool)?;
                }
                nesting.contents(&tool, "function")?.required_text("name")
            });
            let names = names.collect::<Result<Vec<_>, ApiError>>()?;
            if let Some(name) = names.iter().find(|name| !tools.iter().any(|tool| tool.name == **name)) {
                let what = format!("allows `{}`, which is not among the tools", shown(name));
                return Err(ApiError::invalid("tool_choice", what));
            }
            tools.retain(|tool| names.contains(&tool.name.as_str()));
            Ok((mode, String::new()))
        }
        other => {
            let why = format!("is `{}`, and must be `function` or `allowed_tools`", shown(other));
            Err(choice.unsupported("type", why))
        }
    }
}

/// The form of an answer, as an object describes it. Text is what every role answers with that has no schema.
pub(crate) fn response_format(
    format: Option<Fields<'_>>,
    nesting: Nesting,
) -> Result<Option<ResponseFormat>, ApiError> {
    let Some(format) = format else { return Ok(None) };
    let described = match format.required_text("type")? {
        "text" => return Ok(None),
        "json_object" if format.value("schema").is_none() => {
            return Ok(Some(ResponseFormat { format: Some(Format::Kind(Kind::JsonObject.into())) }));
        }
        // Clients of llama.cpp's server put the schema here.
        "json_object" => format,
        "json_schema" => nesting.contents(&format, "json_schema")?,
        other => {
            let what = format!("is `{}`, and must be `text`, `json_object` or `json_schema`", shown(other));
            return Err(format.invalid("type", what));
        }
    };
    described.object("schema")?;
    let schema = described.value("schema").ok_or_else(|| described.invalid("schema", "is missing"))?;
    Ok(Some(ResponseFormat { format: Some(Format::JsonSchemaText(schema.to_string())) }))
}

/// A word of the client, short enough for a message.
pub(crate) fn shown(word: &str) -> String {
    /// The longest name of a tool.
    const MAX_SHOWN_CHARS: usize = 64;
    word.chars().take(MAX_SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(body: &Value) -> Result<RequestedTools, ApiError> {
        RequestedTools::parse(&Fields::of(body, "").unwrap(), Nesting::UnderType)
    }

    fn flat(body: &Value) -> Result<RequestedTools, ApiError> {
        RequestedTools::parse(&Fields::of(body, "").unwrap(), Nesting::Flat)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn each_way_to_choose_is_taken() {
        use ToolChoiceMode as M;
        let tools = [tool("get"), tool("put")];
        for (choice, mode, name, count) in [
            (json!("none"), M::None, "", 2),
            (json!("required"), M::Required, "", 2),
            (json!({"type": "function", "function": {"name": "put"}}), M::Named, "put", 2),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
                "tools": [{"type": "function", "function": {"name": "put"}}]}}),
                M::Required,
                "",
                1,
            ),
        ] {
            let parsed = chat(&json!({"tools": tools, "tool_choice": choice})).unwrap();
            let choice = parsed.choice.unwrap();
            assert_eq!((choice.mode(), choice.name.as_str(), parsed.tools.len()), (mode, name, count));
        }
        assert_eq!(chat(&json!({"tools": tools, "tool_choice": "auto"})).unwrap().choice, None);
        assert!(chat(&json!({"tools": tools, "parallel_tool_calls": false})).unwrap().choice.unwrap().single);
    }

    #[test]
    fn a_choice_without_tools_is_void_unless_it_demands_a_call() {
        for void in
            [json!({"tool_choice": "none"}), json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": false})]
        {
            assert_eq!(chat(&void).unwrap(), RequestedTools::default());
        }
        assert!(chat(&json!({"tool_choice": "required"})).unwrap().choice.is_some());
    }

    #[test]
    fn what_is_no_function_is_refused_in_words() {
        for (body, told) in [
            (json!({"tools": [{"type": "web_search"}]}), "only tools of type `function` are taken"),
            (json!({"tools": [{"type": "function"}]}), "`tools[0].function` is missing"),
            (json!({"tools": vec![tool("get"); 129]}), "`tools` has 129 entries, the limit is 128"),
            (json!({"tools": [{"type": "function", "function": {}}]}), "`tools[0].function.name` is missing"),
            (json!({"tool_choice": "any"}), "must be `none`, `auto`, `required` or an object"),
            (
                json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools":
                [{"function": {"name": "x"}}]}}}),
                "allows `x`, which is not among the tools",
            ),
        ] {
            let refused = chat(&body).unwrap_err();
            assert!(refused.message.contains(told), "{}", refused.message);
        }
    }

    #[test]
    fn a_schema_keeps_the_order_of_its_properties() {
        let format = |body: &Value| {
            response_format(Fields::of(body, "").unwrap().object("response_format")?, Nesting::UnderType)
        };
        let schema = json!({"type": "object", "properties": {"why": {}, "answer": {}}});
        let body = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
        assert_eq!(format(&body).unwrap().unwrap().format, Some(Format::JsonSchemaText(schema.to_string())));
        let llama = json!({"response_format": {"type": "json_object", "schema": schema}});
        assert_eq!(format(&llama).unwrap(), format(&body).unwrap());
        assert_eq!(format(&json!({"response_format": {"type": "text"}})).unwrap(), None);
        for (body, told) in [
            (json!({"type": "json_schema", "json_schema": {}}), "`response_format.json_schema.schema` is missing"),
            (json!({"type": "grammar"}), "must be `text`, `json_object` or `json_schema`"),
            (json!("json"), "`response_format` must be an object, and is a text"),
        ] {
            let refused = format(&json!({"response_format": body})).unwrap_err();
            assert!(refused.message.contains(told), "{}", refused.message);
        }
    }

    fn parsed(choice: &Value, listed: &Value) -> Result<RequestedTools, ApiError> {
        let body = json!({"tools": listed, "tool_choice": choice});
        flat(&body)
    }

    fn two_tools() -> Value {
        let parameters = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        json!([
            {"type": "function", "name": "add", "description": "Adds.", "parameters": parameters, "strict": true},
            {"type": "function", "name": "now", "description": null, "parameters": null},
        ])
    }

    #[test]
    fn responses_write_the_same_flat() {
        use ToolChoiceMode as Mode;
        let request = parsed(&Value::Null, &two_tools()).unwrap();
        assert_eq!((request.tools.len(), &request.choice), (2, &None));
        assert_eq!(request.tools[0].parameters, r#"{"type":"object","properties":{"b":{},"a":{}}}"#);
        assert_eq!(request.tools[1].parameters, "");
        let one = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "now"}]});
        for (choice, mode, name, names) in [
            (json!("none"), Mode::None, "", vec!["add", "now"]),
            (json!("required"), Mode::Required, "", vec!["add", "now"]),
            (json!({"type": "function", "name": "now"}), Mode::Named, "now", vec!["add", "now"]),
            (one, Mode::Required, "", vec!["now"]),
        ] {
            let request = parsed(&choice, &two_tools()).unwrap();
            let choice = request.choice.unwrap();
            let must_call = matches!(mode, Mode::Required | Mode::Named);
            assert_eq!((choice.mode(), choice.name.as_str(), choice.single), (mode, name, must_call));
            assert_eq!(request.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), names);
        }
        let body = json!({"tools": two_tools(), "parallel_tool_calls": false});
        assert!(flat(&body).unwrap().choice.unwrap().single);
        let body = json!({"tools": two_tools(), "tool_choice": "required", "parallel_tool_calls": true});
        assert!(!flat(&body).unwrap().choice.unwrap().single);
        assert_eq!(parsed(&json!("auto"), &json!([])).unwrap(), RequestedTools::default());
    }

    #[test]
    fn what_is_no_function_is_refused_by_its_name_in_a_response() {
        let unnamed = json!([{"type": "function", "name": "a", "parameters": []}]);
        for (choice, tools, told) in [
            (
                Value::Null,
                json!([{"type": "web_search"}]),
                "`tools[0].type` is `web_search`: only tools of type `function`",
            ),
            (Value::Null, json!([{"type": "custom", "name": "x"}]), "`tools[0].type` is `custom`"),
            (Value::Null, json!([{"type": "function"}]), "`tools[0].name` is missing"),
            (Value::Null, unnamed, "`tools[0].parameters` must be an object"),
            (json!("any"), two_tools(), "`tool_choice` is `any`"),
            (json!({"type": "file_search"}), two_tools(), "`tool_choice.type` is `file_search`"),
            (json!({"type": "function"}), two_tools(), "`tool_choice.name` is missing"),
            (
                json!({"type": "allowed_tools", "tools": [{"type": "mcp"}]}),
                two_tools(),
                "`tool_choice.tools[0].type` is `mcp`",
            ),
        ] {
            let refused = parsed(&choice, &tools).unwrap_err();
            assert!(refused.message.starts_with(told), "{}", refused.message);
        }
    }

    #[test]
    fn each_form_of_an_answer_is_taken() {
        let form =
            |body: Value| response_format(Fields::of(&body, "text").unwrap().object("format").unwrap(), Nesting::Flat);
        for text in [json!({}), json!({"format": null}), json!({"format": {"type": "text"}})] {
            assert_eq!(form(text).unwrap(), None);
        }
        let schema = json!({"type": "object", "properties": {"why": {}, "answer": {}}});
        let given = form(json!({"format": {"type": "json_schema", "name": "n", "strict": true, "schema": schema}}));
        assert_eq!(given.unwrap().unwrap().format, Some(Format::JsonSchemaText(schema.to_string())));
        let object = form(json!({"format": {"type": "json_object"}})).unwrap().unwrap().format;
        assert_eq!(object, Some(Format::Kind(Kind::JsonObject.into())));
        let refused = form(json!({"format": {"type": "grammar"}})).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("text.format.type"));
        assert_eq!(
            form(json!({"format": {"type": "json_schema"}})).unwrap_err().message,
            "`text.format.schema` is missing"
        );
    }
}
