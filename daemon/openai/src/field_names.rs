//! The names of a request's fields in the gRPC services, and those that its client wrote.

/// What the services call a field, and what the request of an endpoint calls it.
type Renaming = (&'static str, &'static str);

/// The names of all endpoints that begin a task.
const SUBMIT_FIELDS: [Renaming; 12] = [
    ("sampling.repeat_penalty", "repetition_penalty"),
    ("sampling.logprobs", "top_logprobs"),
    ("sampling", ""),
    ("response", "response_format"),
    ("tool_choice", "tool_choice"),
    ("tools", "tools"),
    ("labels", "metadata"),
    ("request_id", "Idempotency-Key"),
    ("reasoning", "reasoning_effort"),
    ("messages", "messages"),
    ("input", "messages"),
    ("target", "model"),
];

/// How the fields of a call of a service are called in the request of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldNames {
    /// Before those of all endpoints.
    own: &'static [Renaming],
    /// The places in the request of the messages that were passed on, if some were not.
    message_places: Option<Vec<usize>>,
    /// The place in the request of the first text that was passed on.
    first_input: usize,
}

impl FieldNames {
    /// The names of an endpoint with fields of its own, as (name of the service, name of the client); the first that fits counts.
    pub(crate) const fn new(own: &'static [Renaming]) -> Self {
        Self { own, message_places: None, first_input: 0 }
    }

    /// The same where the services see fewer messages than the client sent.
    pub(crate) fn with_message_places(self, places: Vec<usize>) -> Self {
        Self { message_places: Some(places), ..self }
    }

    /// The same for texts that the services see from this one on.
    pub(crate) fn with_first_input(self, first_input: usize) -> Self {
        Self { first_input, ..self }
    }

    /// The client's name of a field.
    pub(crate) fn translate(&self, field: &str) -> String {
        let field = field.strip_prefix("submit.").unwrap_or(field);
        let field = &self.with_place_of_client(field);
        let renamings = self.own.iter().chain(&SUBMIT_FIELDS);
        let renamed = renamings.filter_map(|(ours, theirs)| {
            let rest = field.strip_prefix(ours)?;
            let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
            is_whole.then(|| format!("{theirs}{rest}").trim_start_matches('.').to_owned())
        });
        let name = renamed.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| field.clone());
        name.strip_prefix("response_format.").map_or_else(|| name.clone(), |_| "response_format".to_owned())
    }

    /// `messages[2].text` with the place that the message has in the request.
    fn with_place_of_client(&self, field: &str) -> String {
        let place = || {
            let (index, rest) = field.strip_prefix("messages[")?.split_once(']')?;
            let place = self.message_places.as_ref()?.get(index.parse::<usize>().ok()?)?;
            let rest = match rest {
                ".text" => ".content",
                ".call_id" => ".tool_call_id",
                other => other,
            };
            Some(format!("messages[{place}]{rest}"))
        };
        let input = || {
            let (index, rest) = field.strip_prefix("inputs[")?.split_once(']')?;
            Some(format!("inputs[{}]{rest}", index.parse::<usize>().ok()?.checked_add(self.first_input)?))
        };
        place().or_else(input).unwrap_or_else(|| field.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_of_the_request() {
        let names =
            FieldNames::new(&[("sampling.max_tokens", "max_completion_tokens")]).with_message_places(vec![0, 3]);
        for (field, expected) in [
            ("submit.sampling.max_tokens", "max_completion_tokens"),
            ("submit.sampling.stop[0]", "stop[0]"),
            ("submit.sampling.logprobs", "top_logprobs"),
            ("submit.response.json_schema_text", "response_format"),
            ("submit.messages[1].text", "messages[3].content"),
            ("submit.messages", "messages"),
            ("submit.labels", "metadata"),
            ("submit.request_id", "Idempotency-Key"),
            ("dimensions", "dimensions"),
            ("inputs[3]", "inputs[3]"),
        ] {
            assert_eq!(names.translate(field), expected);
        }
        assert_eq!(FieldNames::new(&[("inputs", "input")]).with_first_input(256).translate("inputs[3]"), "input[259]");
    }
}
