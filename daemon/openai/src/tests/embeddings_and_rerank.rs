//! `/v1/embeddings` and `/v1/rerank`.

use artel_proto::v1;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tonic::Code;

use super::scripted::{ReadResponse, Scripted, refusal};

fn embedded(vectors: &[&[f32]]) -> Scripted {
    let embeddings = vectors.iter().map(|values| v1::Embedding { values: values.to_vec(), tokens: 3 }).collect();
    Scripted::new().0.embeds(Ok(v1::EmbedResponse { embeddings, prompt_tokens: 6 }))
}

async fn embed(services: &Scripted, body: &Value) -> ReadResponse {
    ReadResponse::of(services.post("/v1/embeddings", &[], body).await).await
}

async fn rerank(services: &Scripted, body: &Value) -> ReadResponse {
    ReadResponse::of(services.post("/v1/rerank", &[], body).await).await
}

fn ranked() -> Scripted {
    let result = |index, score, relevance| v1::RankedDocument { index, score, relevance, tokens: 9 };
    let results = vec![result(1, 4.5, 0.99), result(0, -2.0, 0.12)];
    Scripted::new().0.reranks(Ok(v1::RerankResponse { results, prompt_tokens: 18 }))
}

/// What is refused names the field and says why.
fn assert_refused(response: &ReadResponse, param: &str, told: &str) {
    let error = &response.json()["error"];
    assert_eq!((response.status.as_u16(), error["param"].as_str()), (400, Some(param)), "{error}");
    assert!(error["message"].as_str().unwrap().contains(told), "{error}");
}

#[tokio::test]
async fn texts_are_embedded_in_their_order() {
    let services = embedded(&[&[0.6, 0.8], &[1.0, 0.0]]);
    let body = json!({"model": "e5", "input": ["a", "b"], "user": "u", "unheard_of": {}});
    let response = embed(&services, &body).await;
    let expected = json!({
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
        ],
        "model": "e5",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    });
    assert_eq!((response.status.as_u16(), response.json()), (200, expected), "numbers have the digits of 32 bits");
    assert_eq!(response.header("content-type"), "application/json");
    let request = &services.embed_requests()[0];
    assert_eq!((request.model.as_str(), request.inputs.as_slice()), ("e5", &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!((request.dimensions, request.truncate), (0, false));
}

#[tokio::test]
async fn base64_has_the_same_numbers() {
    let services = embedded(&[&[0.6, -0.8]]);
    let body =
        json!({"model": "model:helper", "input": "a", "encoding_format": "base64", "dimensions": 2, "truncate": true});
    let response = embed(&services, &body).await.json();
    let bytes = BASE64.decode(response["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, [0.6f32.to_le_bytes(), (-0.8f32).to_le_bytes()].concat());
    let request = &services.embed_requests()[0];
    assert_eq!((request.dimensions, request.truncate), (2, true));
    // The service knows its name in the catalog.
    assert_eq!((&response["model"], request.model.as_str()), (&json!("model:helper"), "helper"));
}

#[tokio::test]
async fn many_texts_are_embedded_by_several_calls() {
    let services = embedded(&[&[1.0], &[1.0]]);
    let mut texts = vec!["a".to_owned(); 300];
    texts.push("b".repeat(1 << 20));
    let response = embed(&services, &json!({"model": "e5", "input": texts})).await.json();
    let calls: Vec<usize> = services.embed_requests().iter().map(|request| request.inputs.len()).collect();
    assert_eq!((calls, &response["usage"]["prompt_tokens"]), (vec![256, 44, 1], &json!(18)));
    assert_eq!(response["data"].as_array().unwrap().last().unwrap()["index"], 5);
}

#[tokio::test]
async fn what_is_no_text_to_embed_is_refused_by_name() {
    let services = embedded(&[&[1.0]]);
    let many = vec!["a"; 2049];
    for (body, param, told) in [
        (json!({"model": "e5"}), "input", "is missing"),
        (json!({"model": "e5", "input": []}), "input", "must have 1 to 2048"),
        (json!({"model": "e5", "input": many}), "input", "has 2049 texts, and must have 1 to 2048"),
        (json!({"model": "e5", "input": [1, 2]}), "input", "check_embedding_ctx_length=False"),
        (json!({"model": "e5", "input": [[1, 2]]}), "input", "token ids"),
        (json!({"model": "e5", "input": ["a", 5]}), "input[1]", "must be a text"),
        (json!({"model": "e5", "input": {"text": "a"}}), "input", "a text or a list of texts"),
        (json!({"model": "e5", "input": "a", "encoding_format": "int8"}), "encoding_format", "`float` or `base64`"),
        (json!({"model": "e5", "input": "a", "dimensions": 0}), "dimensions", "at least 1"),
        (json!({"model": "e5", "input": "a", "dimensions": "2"}), "dimensions", "must be an integer"),
        (json!({"model": "helper", "input": "a"}), "model", "only a model with `use: embedding`"),
        (json!({"input": "a"}), "model", "is missing"),
    ] {
        assert_refused(&embed(&services, &body).await, param, told);
    }
    let unknown = embed(&services, &json!({"model": "bert", "input": "a"})).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(services.embed_requests().is_empty());
}

#[tokio::test]
async fn what_the_service_refuses_names_the_text_as_the_client_sent_it() {
    let refused = refusal(Code::InvalidArgument, "BAD_REQUEST", |details| {
        details.add_bad_request_violation("inputs[1]", "has 900 tokens, the limit is 512");
    });
    let services = Scripted::new().0.embeds(Err(refused));
    let response = embed(&services, &json!({"model": "e5", "input": ["a", "b"]})).await;
    assert_refused(&response, "input[1]", "`input[1]`: has 900 tokens, the limit is 512");
}

#[tokio::test]
async fn documents_are_ranked_and_repeated_where_asked_for() {
    let services = ranked();
    let body = json!({
        "model": "ranker", "query": "q", "documents": ["a", {"text": "b", "title": "t"}], "top_n": 2,
        "return_documents": true, "max_chunks_per_doc": 3,
    });
    let response = rerank(&services, &body).await;
    let mut page = response.json();
    assert!(page["id"].take().as_str().unwrap().starts_with("rerank-"));
    let expected = json!({
        "id": null,
        "model": "ranker",
        "results": [
            {"index": 1, "relevance_score": 0.99, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.12, "document": {"text": "a"}},
        ],
        "usage": {"prompt_tokens": 18, "total_tokens": 18},
        "meta": {"api_version": {"version": "1"}, "tokens": {"input_tokens": 18, "output_tokens": 0}},
    });
    assert_eq!((response.status.as_u16(), page), (200, expected));
    let request = &services.rerank_requests()[0];
    assert_eq!((request.query.as_str(), request.top_n, request.truncate), ("q", 2, false));
    assert_eq!(request.documents, ["a", "b"]);
    let without =
        rerank(&services, &json!({"model": "model:team", "query": "q", "documents": ["a", "b"]})).await.json();
    assert_eq!(without["results"][0], json!({"index": 1, "relevance_score": 0.99}));
    assert_eq!((&without["model"], services.rerank_requests()[1].model.as_str()), (&json!("model:team"), "team"));
}

#[tokio::test]
async fn what_is_no_document_is_refused_by_name() {
    let services = ranked();
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "ranker", "query": "q", "documents": ["a"]});
        body[field] = value;
        body
    };
    for (body, param, told) in [
        (with("query", Value::Null), "query", "is missing"),
        (with("query", json!(["q"])), "query", "must be a text"),
        (with("documents", Value::Null), "documents", "is missing"),
        (with("documents", json!([])), "documents", "must have 1 to 1000"),
        (with("documents", json!(vec!["a"; 1001])), "documents", "has 1001 entries"),
        (with("documents", json!(["a", 5])), "documents[1]", "a text or an object with a `text`"),
        (with("documents", json!([{"image": "data:"}])), "documents[0].image", "read text"),
        (with("documents", json!([{"title": "t"}])), "documents[0].text", "is missing"),
        (with("rank_fields", json!(["title"])), "rank_fields", "a document has one text"),
        (with("top_n", json!(0)), "top_n", "at least 1"),
        (with("return_documents", json!("yes")), "return_documents", "must be true or false"),
        (with("model", json!("e5")), "model", "only a model with `use: rerank`"),
    ] {
        assert_refused(&rerank(&services, &body).await, param, told);
    }
    assert!(services.rerank_requests().is_empty());
}
