//! Which task a model name stands for.

use artel_proto::v1::submit_request::Target;

use crate::api_error::ApiError;
use crate::fields::Fields;
use crate::services::ServedKind;

/// `model`, which must be there: what answers is not guessed.
pub(crate) fn model_name(fields: &Fields<'_>) -> Result<String, ApiError> {
    let missing = || fields.invalid("model", "is missing: name a role or a graph, or `auto` for the default graph");
    Ok(fields.text("model")?.filter(|name| !name.is_empty()).ok_or_else(missing)?.to_owned())
}

/// What a model of this name in the catalog is in a task.
pub(crate) fn target(name: String, kind: &ServedKind) -> Result<Option<Target>, ApiError> {
    let (what, path) = match kind {
        ServedKind::Auto => return Ok(None),
        ServedKind::Graph(_) => return Ok(Some(Target::Graph(name))),
        ServedKind::Role(_) => return Ok(Some(Target::Role(name))),
        ServedKind::Embedding => ("an embedding model", "/v1/embeddings"),
        ServedKind::Reranker => ("a model that reranks", "/v1/rerank"),
    };
    let why = format!("names {what}: call `{path}`, or name a role or a graph");
    Err(ApiError::invalid("model", why).with_code("wrong_model"))
}
