//! The request of a chat completion.

use artel_proto::v1;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::fields::Fields;
use crate::messages::RequestedMessages;
use crate::run_options::RunOptions;
use crate::sampling::{RequestedSampling, without_reasoning};
use crate::services::{ServedKind, ServedModel};
use crate::target::{model_name, target};
use crate::tools::{Nesting, RequestedTools, response_format};

/// The names where the limit of tokens has its newer one.
const COMPLETION_NAMES: FieldNames = FieldNames::new(&[("sampling.max_tokens", "max_completion_tokens")]);

/// A request, parsed.
pub(super) struct ChatRequest {
    /// As the client wrote it.
    pub(super) model: String,
    pub(super) kind: ServedKind,
    pub(super) submit: v1::SubmitRequest,
    pub(super) options: RunOptions,
    pub(super) names: FieldNames,
    /// `None`: the answer comes as a whole.
    pub(super) stream: Option<StreamOptions>,
    pub(super) not_taken: Vec<&'static str>,
}

/// What a stream is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamOptions {
    /// A chunk with the token counts, before the end.
    pub(super) include_usage: bool,
    /// The likelihoods of tokens.
    pub(super) has_logprobs: bool,
}

impl ChatRequest {
    /// Parses a call; `served` finds the model.
    pub(super) fn parse(
        call: &Call,
        served: impl FnOnce(&str) -> Result<ServedModel, ApiError>,
    ) -> Result<Self, ApiError> {
        let fields = &call.fields();
        let model = model_name(fields)?;
        let ServedModel { name, kind, .. } = served(&model)?;
        let target = target(name, &kind)?;
        refuse_unsupported(fields)?;
        let RequestedMessages { messages, places } = RequestedMessages::of_chat(fields)?;
        let (RequestedTools { tools, choice: tool_choice }, without_tools) =
            RequestedTools::parse(fields, Nesting::UnderType)?.for_model(&kind);
        let lengths = ["max_completion_tokens", "max_tokens"];
        let sampling = RequestedSampling::parse(fields, &lengths)?.with_logprobs("logprobs", logprobs(fields)?);
        let names = if fields.value(lengths[0]).is_some() { COMPLETION_NAMES } else { FieldNames::default() };
        let names = names.with_message_places(places);
        let (sampling, mut not_taken) = sampling.for_model(&kind);
        not_taken.extend(without_tools);
        let reasoning = reasoning(fields, &mut not_taken)?;
        let submit = v1::SubmitRequest {
            target,
            messages,
            tools,
            tool_choice,
            sampling,
            reasoning,
            response: response_format(fields.object("response_format")?, Nesting::UnderType)?,
            ..v1::SubmitRequest::default()
        };
        let has_logprobs = submit.sampling.as_ref().is_some_and(|sampling| sampling.logprobs.is_some());
        let stream = stream(fields, has_logprobs)?;
        let options = RunOptions::parse(&call.headers, fields)?;
        Ok(Self { model, kind, submit, options, names, stream, not_taken })
    }
}

/// What this daemon does not do, and what would change the answer if it were ignored.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ApiError> {
    let is_given = |name: &str| match fields.value(name) {
        None => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    for (name, why) in [
        ("functions", "is of an interface before tools: send `tools`"),
        ("function_call", "is of an interface before tools: send `tool_choice`"),
        ("audio", "is not taken: the models of this daemon write text alone"),
        ("web_search_options", "is not taken: this daemon searches nothing; offer a search as one of the `tools`"),
    ] {
        if is_given(name) {
            return Err(fields.unsupported(name, why));
        }
    }
    let modalities = fields.list("modalities")?.unwrap_or_default();
    match modalities.iter().find(|modality| **modality != "text") {
        Some(_) => {
            Err(fields.unsupported("modalities", "must be `[\"text\"]`: the models of this daemon write text alone"))
        }
        None => Ok(()),
    }
}

/// How many of the likeliest tokens are told at each place, if any are.
fn logprobs(fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let is_on = fields.flag("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs")? {
        Some(top) if !is_on && top > 0 => Err(fields.invalid("top_logprobs", "needs `logprobs: true`")),
        top => Ok(is_on.then(|| top.unwrap_or(0))),
    }
}

/// What the request says of reasoning: that there is none, which every model that can be told is told. Efforts are not taken.
fn reasoning(fields: &Fields<'_>, not_taken: &mut Vec<&'static str>) -> Result<Option<v1::ReasoningOptions>, ApiError> {
    let effort = fields.text("reasoning_effort")?;
    let kwargs = fields.object("chat_template_kwargs")?;
    let thinking = kwargs.map(|kwargs| kwargs.flag("enable_thinking")).transpose()?.flatten();
    if effort.is_some_and(|effort| effort != "none") {
        not_taken.push("reasoning_effort");
    }
    Ok((effort == Some("none") || thinking == Some(false)).then(without_reasoning))
}

fn stream(fields: &Fields<'_>, has_logprobs: bool) -> Result<Option<StreamOptions>, ApiError> {
    let options = fields.object("stream_options")?;
    let include_usage = options.map(|options| options.flag("include_usage")).transpose()?.flatten().unwrap_or(false);
    let is_streamed = fields.flag("stream")?.unwrap_or(false);
    Ok(is_streamed.then_some(StreamOptions { include_usage, has_logprobs }))
}
