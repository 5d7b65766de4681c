//! How a task is run for a client: what its headers and its `metadata` say of it.

use std::collections::HashMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::api_error::ApiError;
use crate::fields::{Fields, text_of};

const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const DETACH_HEADER: HeaderName = HeaderName::from_static("x-artel-detach");
const EVENTS_HEADER: HeaderName = HeaderName::from_static("x-artel-events");
/// What stands for [`DETACH_HEADER`] in `metadata`, for clients that cannot set headers.
const DETACH_LABEL: &str = "artel-detach";
/// The longest `request_id` of a task.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// How a task is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RunOptions {
    /// The `request_id` of the task.
    pub(crate) idempotency_key: Option<String>,
    /// Whether it goes on when its client goes away.
    pub(crate) detach: bool,
    pub(crate) events: EventsMode,
    /// The labels of the task.
    pub(crate) labels: HashMap<String, String>,
}

/// How the steps of a graph are told in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EventsMode {
    #[default]
    Off,
    /// As comments of the stream.
    Comments,
    /// As parts of the reasoning.
    Reasoning,
}

impl RunOptions {
    /// Reads the headers, and `metadata` of the request.
    pub(crate) fn parse(headers: &HeaderMap, fields: &Fields<'_>) -> Result<Self, ApiError> {
        let mut labels = labels(fields)?;
        let detach_label = labels.remove(DETACH_LABEL);
        let detach = match headers.get(DETACH_HEADER) {
            Some(value) => switch(value.as_bytes()).ok_or_else(|| header_error(&DETACH_HEADER, "`true` or `false`"))?,
            None => match detach_label {
                Some(text) => switch(text.as_bytes())
                    .ok_or_else(|| ApiError::invalid("metadata.artel-detach", "must be `true` or `false`"))?,
                None => false,
            },
        };
        let events = match headers.get(EVENTS_HEADER).map(HeaderValue::as_bytes) {
            None | Some(b"false") => EventsMode::Off,
            Some(b"true") => EventsMode::Comments,
            Some(b"reasoning") => EventsMode::Reasoning,
            Some(_) => return Err(header_error(&EVENTS_HEADER, "`true`, `false` or `reasoning`")),
        };
        let key = headers.get(KEY_HEADER).map(HeaderValue::as_bytes).filter(|key| !key.is_empty());
        Ok(Self { idempotency_key: key.map(request_id), detach, events, labels })
    }

    /// The same for one of several tasks of a request, from 0: each has a key of its own.
    pub(crate) fn of_part(&self, index: usize) -> Self {
        let key = self.idempotency_key.as_ref().map(|key| request_id(format!("{key}/{index}").as_bytes()));
        Self { idempotency_key: key, ..self.clone() }
    }
}

/// A key as the id of a request: itself if it may be one, otherwise its hash.
fn request_id(key: &[u8]) -> String {
    let fits = key.len() <= MAX_REQUEST_ID_BYTES && key.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(key) {
        Ok(text) if fits => text.to_owned(),
        _ => {
            let hash = Sha256::digest(key);
            hash.iter().fold("sha256-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
        }
    }
}

fn switch(text: &[u8]) -> Option<bool> {
    match text {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

fn header_error(name: &HeaderName, expected: &str) -> ApiError {
    ApiError::invalid(name.as_str(), format!("must be {expected}"))
}

/// `metadata` of the request; their number and lengths are limited by the service.
fn labels(fields: &Fields<'_>) -> Result<HashMap<String, String>, ApiError> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(HashMap::new()) };
    let label = |name: &str| {
        let value = metadata.value(name).unwrap_or(&Value::Null);
        Ok((name.to_owned(), text_of(value, || metadata.path(name))?.to_owned()))
    };
    metadata.names().map(label).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(headers: &[(HeaderName, &'static str)], body: &Value) -> Result<RunOptions, ApiError> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        RunOptions::parse(&headers, &Fields::of(body, "").unwrap())
    }

    #[test]
    fn headers_and_metadata_say_how_a_task_is_run() {
        let options = parsed(&[(KEY_HEADER, "k-1"), (EVENTS_HEADER, "reasoning")], &json!({"metadata": {"a": "b"}}));
        let options = options.unwrap();
        assert_eq!((options.idempotency_key.as_deref(), options.detach), (Some("k-1"), false));
        assert_eq!((options.events, options.labels["a"].as_str()), (EventsMode::Reasoning, "b"));
        let detached = parsed(&[], &json!({"metadata": {"artel-detach": "true"}})).unwrap();
        assert!(detached.detach && detached.labels.is_empty(), "it is no label");
        assert!(parsed(&[(DETACH_HEADER, "true")], &json!({})).unwrap().detach);
    }

    #[test]
    fn what_is_no_switch_is_refused_by_name() {
        for (headers, body, told) in [
            (vec![(DETACH_HEADER, "yes")], json!({}), "`x-artel-detach` must be `true` or `false`"),
            (vec![(EVENTS_HEADER, "all")], json!({}), "`x-artel-events` must be `true`, `false` or `reasoning`"),
            (vec![], json!({"metadata": {"a": 1}}), "`metadata.a` must be a text, and is a number"),
            (vec![], json!({"metadata": {"artel-detach": "1"}}), "`metadata.artel-detach` must be `true` or `false`"),
        ] {
            assert_eq!(parsed(&headers, &body).unwrap_err().message, told);
        }
    }

    #[test]
    fn a_key_that_is_no_request_id_is_hashed() {
        let fits = "x".repeat(MAX_REQUEST_ID_BYTES);
        assert_eq!(request_id(fits.as_bytes()), fits);
        let of = |key: &[u8]| request_id(key);
        for key in ["two words".as_bytes(), "schlüssel".as_bytes(), &[b'x'; MAX_REQUEST_ID_BYTES + 1]] {
            assert!(of(key).starts_with("sha256-") && of(key).len() == 71, "{}", of(key));
            assert_eq!(of(key), of(key));
        }
        let options = RunOptions { idempotency_key: Some(fits), ..RunOptions::default() };
        assert_ne!(options.of_part(0).idempotency_key, options.of_part(1).idempotency_key);
    }
}
