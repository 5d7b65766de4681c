//! A request for a response: what of it becomes a task, what is refused, and what the response repeats.

use artel_proto::v1;
use serde_json::{Map, Value, json};

use super::items::{self, PlacedItem};
use crate::api_error::ApiError;
use crate::fields::Fields;
use crate::sampling::{RequestedSampling, without_reasoning};
use crate::services::ServedKind;
use crate::target::target;
use crate::tools::{Nesting, RequestedTools, response_format, shown};

/// In `include`, asks for the likelihoods of tokens.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request for a response.
#[derive(Debug, PartialEq)]
pub(super) struct ResponseCall {
    /// The task, without its messages.
    pub(super) submit: v1::SubmitRequest,
    /// Text before that of the items.
    pub(super) instructions: Option<String>,
    pub(super) items: Vec<PlacedItem>,
    pub(super) is_streamed: bool,
    /// Fields that a response repeats.
    pub(super) echo: Map<String, Value>,
    /// Fields that the model's role does not take.
    pub(super) not_taken: Vec<&'static str>,
}

/// Parses a request for the model of this name.
pub(super) fn parse(fields: &Fields<'_>, name: String, kind: &ServedKind) -> Result<ResponseCall, ApiError> {
    let target = target(name, kind)?;
    refuse_state(fields)?;
    let (sampling, mut not_taken) = sampling(fields)?.for_model(kind);
    let (RequestedTools { tools, choice: tool_choice }, without_tools) =
        RequestedTools::parse(fields, Nesting::Flat)?.for_model(kind);
    not_taken.extend(without_tools);
    let (reasoning, is_effort_taken) = reasoning(fields)?;
    not_taken.extend((!is_effort_taken).then_some("reasoning.effort"));
    not_taken.extend(other_not_taken(fields)?);
    let format = fields.object("text")?.map(|text| text.object("format")).transpose()?.flatten();
    let submit = v1::SubmitRequest {
        target,
        sampling,
        response: response_format(format, Nesting::Flat)?,
        tools,
        tool_choice,
        reasoning,
        ..v1::SubmitRequest::default()
    };
    Ok(ResponseCall {
        submit,
        instructions: fields.text("instructions")?.filter(|text| !text.is_empty()).map(str::to_owned),
        items: items::parse(fields)?,
        is_streamed: fields.flag("stream")?.unwrap_or_default(),
        echo: echo(fields),
        not_taken,
    })
}

/// Refuses what needs responses that are kept.
fn refuse_state(fields: &Fields<'_>) -> Result<(), ApiError> {
    for (name, why) in [
        ("previous_response_id", "is not taken: responses are not kept, so send the whole conversation in `input`"),
        ("conversation", "is not taken: conversations are not kept, so send the whole of it in `input`"),
        ("prompt", "is not taken: a prompt that is kept is a role of the catalog, which `model` names"),
    ] {
        if fields.value(name).is_some() {
            return Err(fields.unsupported(name, why));
        }
    }
    if fields.flag("background")? == Some(true) {
        let why = "is not taken: with the header `x-artel-detach: true`, the task goes on without its client";
        return Err(fields.unsupported("background", why));
    }
    Ok(())
}

fn sampling(fields: &Fields<'_>) -> Result<RequestedSampling, ApiError> {
    let mut sampling = RequestedSampling::parse(fields, &["max_output_tokens"])?;
    // A response has one answer: as an unknown field, `n` is ignored.
    sampling.options.n = None;
    let includes = fields.list("include")?.unwrap_or_default();
    let asks_for_logprobs = includes.iter().any(|value| value.as_str() == Some(LOGPROBS));
    Ok(match fields.count("top_logprobs")? {
        Some(0) | None if asks_for_logprobs => sampling.with_logprobs("include", Some(0)),
        Some(0) | None => sampling,
        top => sampling.with_logprobs("top_logprobs", top),
    })
}

/// `reasoning.effort`, and whether it is taken.
fn reasoning(fields: &Fields<'_>) -> Result<(Option<v1::ReasoningOptions>, bool), ApiError> {
    let Some(reasoning) = fields.object("reasoning")? else { return Ok((None, true)) };
    reasoning.text("summary")?;
    Ok(match reasoning.text("effort")? {
        None => (None, true),
        Some("none") => (Some(without_reasoning()), true),
        Some(_) => (None, false),
    })
}

/// Further fields that are known and do nothing here.
fn other_not_taken(fields: &Fields<'_>) -> Result<Vec<&'static str>, ApiError> {
    let mut not_taken = Vec::new();
    let verbosity = fields.object("text")?.map(|text| text.text("verbosity")).transpose()?.flatten();
    if verbosity.is_some_and(|verbosity| verbosity != "medium") {
        not_taken.push("text.verbosity");
    }
    match fields.text("truncation")? {
        None | Some("disabled") => {}
        Some("auto") => not_taken.push("truncation"),
        Some(other) => {
            return Err(
                fields.invalid("truncation", format!("is `{}`, and must be `auto` or `disabled`", shown(other)))
            );
        }
    }
    Ok(not_taken)
}

/// What of a request its response repeats. Clients require most of these fields.
fn echo(fields: &Fields<'_>) -> Map<String, Value> {
    let given = |name: &str, absent: Value| (name.to_owned(), fields.value(name).cloned().unwrap_or(absent));
    Map::from_iter([
        given("instructions", Value::Null),
        given("max_output_tokens", Value::Null),
        given("max_tool_calls", Value::Null),
        given("metadata", json!({})),
        given("parallel_tool_calls", json!(true)),
        given("prompt_cache_key", Value::Null),
        given("reasoning", json!({"effort": null, "summary": null})),
        given("safety_identifier", Value::Null),
        ("service_tier".to_owned(), json!("default")),
        given("temperature", Value::Null),
        given("text", json!({"format": {"type": "text"}})),
        given("tool_choice", json!("auto")),
        given("tools", json!([])),
        given("top_logprobs", json!(0)),
        given("top_p", Value::Null),
        given("truncation", json!("disabled")),
        given("user", Value::Null),
    ])
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::submit_request::Target;

    use super::*;
    use crate::services::{GraphFacts, RoleFacts};

    fn role(is_sampling_fixed: bool) -> ServedKind {
        ServedKind::Role(RoleFacts { max_tokens: 100, is_sampling_fixed })
    }

    fn parsed(mut body: Value, kind: &ServedKind) -> Result<ResponseCall, ApiError> {
        body["input"] = json!("Hi");
        parse(&Fields::of(&body, "").unwrap(), "critic".to_owned(), kind)
    }

    #[test]
    fn what_a_role_allows_is_taken_and_repeated() {
        let body = json!({
            "instructions": "Be brief.", "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9, "top_logprobs": 2,
            "include": ["message.output_text.logprobs", "reasoning.encrypted_content"], "stream": true, "store": true,
            "reasoning": {"effort": "none", "summary": "auto"}, "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
            "metadata": {"a": "b"}, "truncation": "disabled", "user": "u", "service_tier": "auto", "n": 3, "unheard_of": [1],
        });
        let call = parsed(body.clone(), &role(false)).unwrap();
        let sampling = call.submit.sampling.unwrap();
        assert_eq!((sampling.max_tokens, sampling.temperature, sampling.top_p), (Some(50), Some(0.5), Some(0.9)));
        assert_eq!((sampling.logprobs, sampling.n), (Some(2), None));
        assert_eq!(call.submit.reasoning.unwrap().enabled, Some(false));
        assert!(call.submit.response.is_some() && call.is_streamed && call.not_taken.is_empty());
        assert_eq!(
            (call.instructions.as_deref(), call.submit.target),
            (Some("Be brief."), Some(Target::Role("critic".to_owned())))
        );
        for name in
            ["instructions", "max_output_tokens", "temperature", "top_p", "text", "reasoning", "metadata", "user"]
        {
            assert_eq!(call.echo[name], body[name], "{name}");
        }
        let absent = parsed(json!({"instructions": null, "tools": null}), &role(false)).unwrap();
        assert_eq!((&absent.echo["tools"], &absent.echo["tool_choice"]), (&json!([]), &json!("auto")));
        assert_eq!((absent.submit.sampling, absent.submit.reasoning, absent.instructions), (None, None, None));
    }

    #[test]
    fn what_is_not_taken_is_told() {
        let body = json!({
            "max_output_tokens": 101, "temperature": 0, "reasoning": {"effort": "high"}, "text": {"verbosity": "low"},
            "truncation": "auto",
        });
        let call = parsed(body, &role(true)).unwrap();
        let expected = ["max_output_tokens", "temperature", "reasoning.effort", "text.verbosity", "truncation"];
        assert_eq!((call.not_taken, call.submit.sampling), (expected.to_vec(), None));
        let call = parsed(json!({"top_p": 0.5}), &ServedKind::Graph(GraphFacts::default())).unwrap();
        assert_eq!((call.not_taken, call.submit.target), (vec!["top_p"], Some(Target::Graph("critic".to_owned()))));
        assert_eq!(parsed(json!({}), &ServedKind::Auto).unwrap().submit.target, None);
        assert_eq!(parsed(json!({}), &ServedKind::Reranker).unwrap_err().code, Some("wrong_model"));
    }

    #[test]
    fn likelihoods_are_asked_for_by_either_field() {
        let of =
            |body: Value| parsed(body, &role(false)).unwrap().submit.sampling.and_then(|sampling| sampling.logprobs);
        assert_eq!(of(json!({"include": [LOGPROBS]})), Some(0));
        assert_eq!(
            (of(json!({"top_logprobs": 5})), of(json!({"top_logprobs": 0})), of(json!({}))),
            (Some(5), None, None)
        );
    }

    #[test]
    fn what_needs_kept_responses_is_refused_in_words() {
        for (body, param, told) in [
            (
                json!({"previous_response_id": "resp_1"}),
                "previous_response_id",
                "send the whole conversation in `input`",
            ),
            (json!({"conversation": {"id": "conv_1"}}), "conversation", "send the whole of it in `input`"),
            (json!({"background": true}), "background", "x-artel-detach"),
            (json!({"prompt": {"id": "pmpt_1"}}), "prompt", "a role of the catalog"),
            (json!({"tools": [{"type": "code_interpreter"}]}), "tools[0].type", "only tools of type `function`"),
            (json!({"truncation": "middle"}), "truncation", "must be `auto` or `disabled`"),
            (json!({"reasoning": "high"}), "reasoning", "must be an object"),
            (json!({"stream": "yes"}), "stream", "must be true or false"),
            (json!({"instructions": []}), "instructions", "must be a text"),
        ] {
            let refused = parsed(body, &role(false)).unwrap_err();
            assert_eq!(refused.param.as_deref(), Some(param));
            assert!(refused.message.contains(told), "{}", refused.message);
        }
        assert!(parsed(json!({"background": false, "previous_response_id": null}), &role(false)).is_ok());
    }
}
