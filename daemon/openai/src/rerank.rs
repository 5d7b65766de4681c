//! `POST /v1/rerank`, in the shape of Cohere's and Jina's.

use artel_proto::v1;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer_json::json_response;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::fields::{Fields, wrong_type};
use crate::front::Front;
use crate::services::{ServedKind, ServedModel, Services};

/// Those of `artel.v1.Models.Rerank`, which also limits their bytes.
const MAX_DOCUMENTS: usize = 1000;

/// What is asked for.
#[derive(Debug, PartialEq)]
struct RerankCall {
    /// As the client wrote it.
    model: String,
    request: v1::RerankRequest,
    returns_documents: bool,
}

/// Ranks documents.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    rerank(&front, request).await.unwrap_or_else(ApiError::into_response)
}

async fn rerank<S: Services>(front: &Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let RerankCall { model, request, returns_documents } = parse(&call.fields(), |id| front.served(id))?;
    let mut documents = if returns_documents { request.documents.clone() } else { Vec::new() };
    let ranked = front.services.rerank(call.to_service(request)).await;
    let ranked = ranked.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    let v1::RerankResponse { results, prompt_tokens } = ranked.into_inner();
    let results = results.iter().map(|v1::RankedDocument { index, relevance, .. }| {
        let mut result = json!({"index": index, "relevance_score": shortest(*relevance)});
        let document = usize::try_from(*index).ok().and_then(|index| documents.get_mut(index));
        if let Some(text) = document.map(std::mem::take) {
            result["document"] = json!({"text": text});
        }
        result
    });
    Ok(json_response(&json!({
        "id": format!("rerank-{}", Uuid::now_v7()),
        "model": model,
        "results": results.collect::<Vec<_>>(),
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
        "meta": {"api_version": {"version": "1"}, "tokens": {"input_tokens": prompt_tokens, "output_tokens": 0}},
    })))
}

/// A number whose digits are those of the number of 32 bits.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

fn parse(
    fields: &Fields<'_>,
    served: impl FnOnce(&str) -> Result<ServedModel, ApiError>,
) -> Result<RerankCall, ApiError> {
    let model = fields.required_text("model")?;
    let served = served(model)?;
    if served.kind != ServedKind::Reranker {
        let why = format!("is a {}: only a model with `use: rerank` ranks documents", served.kind.word());
        return Err(fields.invalid("model", why).with_code("wrong_model"));
    }
    if fields.value("rank_fields").is_some() {
        return Err(fields.unsupported("rank_fields", "is not taken: a document has one text, which is ranked"));
    }
    let top_n = fields.count("top_n")?;
    if top_n == Some(0) {
        return Err(fields.invalid("top_n", "is 0, and must be at least 1"));
    }
    let request = v1::RerankRequest {
        model: served.name,
        query: fields.required_text("query")?.to_owned(),
        documents: documents(fields)?,
        top_n: top_n.unwrap_or_default(),
        truncate: fields.flag("truncate")?.unwrap_or_default(),
        priority: v1::Priority::Unspecified.into(),
    };
    Ok(RerankCall {
        model: model.to_owned(),
        request,
        returns_documents: fields.flag("return_documents")?.unwrap_or_default(),
    })
}

fn documents(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let documents =
        fields.list("documents")?.ok_or_else(|| fields.invalid("documents", "is missing: it must be a list"))?;
    if documents.is_empty() || documents.len() > MAX_DOCUMENTS {
        let what = format!("has {} entries, and must have 1 to {MAX_DOCUMENTS}", documents.len());
        return Err(fields.invalid("documents", what));
    }
    let places = (0..).map(|index: usize| format!("documents[{index}]"));
    documents.iter().zip(places).map(|(document, place)| text_of_document(document, &place)).collect()
}

fn text_of_document(document: &Value, place: &str) -> Result<String, ApiError> {
    match document {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => {
            let fields = Fields::of(document, place)?;
            if fields.value("text").is_none() && fields.value("image").is_some() {
                return Err(fields.unsupported("image", "is not taken: this daemon's models read text"));
            }
            Ok(fields.required_text("text")?.to_owned())
        }
        other => Err(wrong_type(place, "a text or an object with a `text`", other)),
    }
}
