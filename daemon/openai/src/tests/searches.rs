//! `/v1/search`, and what answers cite.

use std::collections::HashMap;

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use serde_json::{Value, json};
use tonic::Code;

use super::scripted::{Play, ReadResponse, Scripted, refusal};

fn passage() -> v1::Passage {
    v1::Passage {
        rank: 1,
        score: 0.75,
        source: "handbook.pdf".to_owned(),
        first_line: 4,
        last_line: 6,
        page: 3,
        text: "Parcels leave at four.".to_owned(),
        context: vec!["Delivery".to_owned()],
        first_byte: 10,
        end_byte: 32,
        keyword_score: Some(2.5),
        labels: HashMap::from([("team".to_owned(), "shop".to_owned())]),
        ..v1::Passage::default()
    }
}

fn finding() -> Scripted {
    let timings = v1::SearchTimings {
        keyword: Some(prost_types::Duration { seconds: 0, nanos: 1_500_000 }),
        ..v1::SearchTimings::default()
    };
    let passages = vec![passage()];
    Scripted::new().0.finds(Ok(v1::SearchKnowledgeResponse { passages, timings: Some(timings), stale: true }))
}

async fn search(services: &Scripted, body: &Value) -> ReadResponse {
    ReadResponse::of(services.post("/v1/search", &[], body).await).await
}

#[tokio::test]
async fn passages_have_their_places_and_scores() {
    let services = finding();
    let body = json!({
        "knowledge": "handbook", "query": "When?", "top": 3, "mode": "keyword", "sources": "*.pdf", "labels": {"team": "shop"},
    });
    let response = search(&services, &body).await;
    let expected = json!({
        "object": "list",
        "knowledge": "handbook",
        "data": [{
            "rank": 1, "score": 0.75, "source": "handbook.pdf", "page": 3, "lines": [4, 6], "bytes": [10, 32],
            "context": ["Delivery"], "header": "", "text": "Parcels leave at four.", "labels": {"team": "shop"},
            "keyword_score": 2.5, "vector_score": null, "rerank_score": null,
        }],
        "stale": true,
        "timings_ms": {"embedding": 0.0, "keyword": 1.5, "vector": 0.0, "fusion": 0.0, "rerank": 0.0},
    });
    assert_eq!((response.status.as_u16(), response.json()), (200, expected));
    let [request] = &services.search_requests()[..] else { panic!("one search") };
    assert_eq!((request.top, request.mode()), (3, v1::SearchMode::Keyword));
    assert_eq!((&request.sources[..], request.labels["team"].as_str()), (&["*.pdf".to_owned()][..], "shop"));
    search(&services, &json!({"knowledge": "handbook", "query": "When?", "sources": ["a", "b"]})).await;
    let request = &services.search_requests()[1];
    assert_eq!((request.top, request.mode(), request.sources.len()), (0, v1::SearchMode::Unspecified, 2));
}

#[tokio::test]
async fn a_search_that_is_none_is_refused_by_name() {
    let services = finding();
    for (body, param, told) in [
        (json!({"query": "When?"}), "knowledge", "is missing"),
        (json!({"knowledge": "handbook"}), "query", "is missing"),
        (json!({"knowledge": "handbook", "query": "When?", "top": 0}), "top", "at least 1"),
        (
            json!({"knowledge": "handbook", "query": "When?", "mode": "words"}),
            "mode",
            "`hybrid`, `vector` or `keyword`",
        ),
        (json!({"knowledge": "handbook", "query": "When?", "sources": 7}), "sources", "a list of patterns"),
        (json!({"knowledge": "handbook", "query": "When?", "sources": [7]}), "sources[0]", "must be a text"),
        (json!({"knowledge": "handbook", "query": "When?", "labels": {"a": 1}}), "labels.a", "must be a text"),
    ] {
        let response = search(&services, &body).await;
        let error = &response.json()["error"];
        assert_eq!((response.status.as_u16(), error["param"].as_str()), (400, Some(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
    assert!(services.search_requests().is_empty());
    let none = refusal(Code::NotFound, "DEFINITION_NOT_FOUND", |_| ());
    let services = Scripted::new().0.finds(Err(none));
    let response = search(&services, &json!({"knowledge": "minutes", "query": "When?"})).await;
    assert_eq!(response.status.as_u16(), 404);
}

#[tokio::test]
async fn an_answer_has_what_it_cites() {
    let citation = v1::Citation {
        number: 1,
        knowledge: "handbook".to_owned(),
        source: "delivery.md".to_owned(),
        first_line: 3,
        last_line: 4,
        quote: "Parcels leave at four.".to_owned(),
        ..v1::Citation::default()
    };
    let output = v1::Output { text: "At four [1].".to_owned(), citations: vec![citation], ..v1::Output::default() };
    let expected = json!([{
        "number": 1, "knowledge": "handbook", "source": "delivery.md", "page": null, "lines": [3, 4], "context": [],
        "quote": "Parcels leave at four.",
    }]);
    let completed =
        || Play::Event(K::Completed(v1::Completed { output: Some(output.clone()), ..v1::Completed::default() }));
    let body = json!({"model": "helper", "messages": [{"role": "user", "content": "When?"}]});
    let whole = Scripted::new().0.plays(vec![completed()]);
    let response = ReadResponse::of(whole.post("/v1/chat/completions", &[], &body).await).await;
    assert_eq!(response.json()["artel"]["citations"], expected);
    let whole = Scripted::new().0.plays(vec![completed()]);
    let asked = json!({"model": "helper", "input": "When?"});
    let response = ReadResponse::of(whole.post("/v1/responses", &[], &asked).await).await;
    assert_eq!(response.json()["artel"]["citations"], expected);
    for include_usage in [false, true] {
        let streamed = json!({
            "model": "helper", "messages": [{"role": "user", "content": "When?"}], "stream": true,
            "stream_options": {"include_usage": include_usage},
        });
        let services = Scripted::new().0.plays(vec![completed()]);
        let response = ReadResponse::of(services.post("/v1/chat/completions", &[], &streamed).await).await;
        let chunks = response.chunks();
        let cited: Vec<&Value> = chunks.iter().filter(|chunk| chunk["artel"]["citations"] == expected).collect();
        assert_eq!(cited.len(), 1, "{chunks:?}");
        assert_eq!(chunks.last(), cited.last().copied());
    }
}
