//! `POST /v1/embeddings`.

use artel_proto::v1;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use crate::answer_json::json_response;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::fields::{Fields, text_of, wrong_type};
use crate::front::Front;
use crate::services::{ServedKind, ServedModel, Services};

/// As many as OpenAI takes.
const MAX_INPUT_TEXTS: usize = 2048;
/// What one call of `artel.v1.Models.Embed` takes; more texts are embedded by several, one after the other.
const MAX_CALL_TEXTS: usize = 256;
const MAX_CALL_BYTES: usize = 1024 * 1024;
/// What the service names, in the names of the request.
const FIELD_NAMES: FieldNames = FieldNames::new(&[("inputs", "input")]);

/// What is asked for.
#[derive(Debug, PartialEq)]
struct EmbeddingCall {
    /// As the client wrote it.
    model: String,
    request: v1::EmbedRequest,
    is_base64: bool,
}

/// The answer as it is written. Its numbers are written as they are: as 64-bit values they would have twice the digits.
#[derive(Serialize)]
struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingEntry>,
    model: String,
    usage: Value,
}

#[derive(Serialize)]
struct EmbeddingEntry {
    object: &'static str,
    index: usize,
    embedding: EncodedVector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EncodedVector {
    Floats(Vec<f32>),
    Base64(String),
}

/// Embeds texts.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    embed(&front, request).await.unwrap_or_else(ApiError::into_response)
}

async fn embed<S: Services>(front: &Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let EmbeddingCall { model, request, is_base64 } = parse(&call.fields(), |id| front.served(id))?;
    let (mut embeddings, mut prompt_tokens) = (Vec::new(), 0);
    for inputs in portions(request.inputs) {
        let part = v1::EmbedRequest { inputs, model: request.model.clone(), ..request };
        let embedded = front.services.embed(call.to_service(part)).await;
        let names = FIELD_NAMES.with_first_input(embeddings.len());
        let embedded = embedded.map_err(|status| ApiError::from_status(&status, &names))?.into_inner();
        embeddings.extend(embedded.embeddings);
        prompt_tokens += embedded.prompt_tokens;
    }
    let data = embeddings.into_iter().enumerate().map(|(index, embedding)| {
        let values = embedding.values;
        let embedding = if is_base64 { EncodedVector::Base64(encoded(&values)) } else { EncodedVector::Floats(values) };
        EmbeddingEntry { object: "embedding", index, embedding }
    });
    let usage = json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens});
    let answer = EmbeddingList { object: "list", data: data.collect(), model, usage };
    Ok(json_response(&serde_json::to_string(&answer).expect("numbers and texts are JSON")))
}

fn parse(
    fields: &Fields<'_>,
    served: impl FnOnce(&str) -> Result<ServedModel, ApiError>,
) -> Result<EmbeddingCall, ApiError> {
    let model = fields.required_text("model")?;
    let served = served(model)?;
    if served.kind != ServedKind::Embedding {
        let why = format!("is a {}: only a model with `use: embedding` embeds texts", served.kind.word());
        return Err(fields.invalid("model", why).with_code("wrong_model"));
    }
    let is_base64 = match fields.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.invalid("encoding_format", "must be `float` or `base64`")),
    };
    let dimensions = fields.count("dimensions")?;
    if dimensions == Some(0) {
        return Err(fields.invalid("dimensions", "is 0, and must be at least 1"));
    }
    let request = v1::EmbedRequest {
        model: served.name,
        inputs: inputs(fields)?,
        dimensions: dimensions.unwrap_or_default(),
        truncate: fields.flag("truncate")?.unwrap_or_default(),
        priority: v1::Priority::Unspecified.into(),
        input_kind: input_kind(fields)?.into(),
    };
    Ok(EmbeddingCall { model: model.to_owned(), request, is_base64 })
}

/// `input_type`, a field of Cohere's, Voyage's and NVIDIA's interfaces: what the texts are.
fn input_kind(fields: &Fields<'_>) -> Result<v1::InputKind, ApiError> {
    match fields.text("input_type")? {
        None => Ok(v1::InputKind::Unspecified),
        Some("query" | "search_query") => Ok(v1::InputKind::Query),
        Some("passage" | "document" | "search_document") => Ok(v1::InputKind::Passage),
        Some(_) => Err(fields.invalid("input_type", "must be `query` or `passage`")),
    }
}

fn inputs(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let texts = match fields.value("input") {
        None => return Err(fields.invalid("input", "is missing: it must be a text or a list of texts")),
        Some(Value::String(text)) => return Ok(vec![text.clone()]),
        Some(Value::Array(texts)) => texts,
        Some(other) => return Err(wrong_type("input", "a text or a list of texts", other)),
    };
    if let Some(Value::Number(_) | Value::Array(_)) = texts.first() {
        let why = "is made of token ids, which this daemon does not take: send text \
                   (LangChain: `OpenAIEmbeddings(check_embedding_ctx_length=False)`)";
        return Err(fields.unsupported("input", why));
    }
    if texts.is_empty() || texts.len() > MAX_INPUT_TEXTS {
        let what = format!(
            "has {} texts, and must have 1 to {MAX_INPUT_TEXTS}: send the others in further requests",
            texts.len()
        );
        return Err(fields.invalid("input", what));
    }
    let texts = texts.iter().enumerate();
    texts.map(|(index, text)| Ok(text_of(text, || format!("input[{index}]"))?.to_owned())).collect()
}

/// The texts in portions that one call of the service takes. A text that is too long for any is one of its own, and is refused there.
fn portions(texts: Vec<String>) -> Vec<Vec<String>> {
    let (mut portions, mut bytes): (Vec<Vec<String>>, usize) = (Vec::new(), 0);
    for text in texts {
        bytes += text.len();
        match portions.last_mut() {
            Some(last) if last.len() < MAX_CALL_TEXTS && bytes <= MAX_CALL_BYTES => last.push(text),
            _ => {
                bytes = text.len();
                portions.push(vec![text]);
            }
        }
    }
    portions
}

/// The numbers as 32-bit floats, little-endian, in base64.
fn encoded(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64.encode(bytes)
}
