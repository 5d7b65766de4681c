//! `Models.Rerank` from outside, with a small cross-encoder of random weights, against a reference that computes with 64 bits.

use artel_proto::v1;
use artel_tests::tiny_reranker::{RERANKER_WORDS, TinyReranker};
use artel_tests::{Cli, Daemon, DaemonBuilder, daemon, models};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How far a score may be from the reference: ggml reads its GELU from a table of 16 bits, and attends over keys and values of 16
/// bits.
const REFERENCE_TOLERANCE: f64 = 2e-2;
/// How far a score may be from the same one that was computed with others.
const BATCH_TOLERANCE: f32 = 2e-3;
const QUERY: &str = "how the river wind";
const CATALOG: &str = "model: judge\nfile: judge.gguf\nuse: rerank\n";

fn reranking(model: &TinyReranker) -> DaemonBuilder {
    daemon().with_yaml(CATALOG).with_file("judge.gguf", &model.gguf(4))
}

/// Documents of one to eight words, all different.
fn documents() -> Vec<String> {
    let document = |at: usize| {
        let words = (0..at % 8 + 1).map(|word| RERANKER_WORDS[(at * 5 + word * 3 + at / 8) % RERANKER_WORDS.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..40).map(document).collect()
}

fn request(documents: &[String]) -> v1::RerankRequest {
    let (model, query) = ("judge".to_owned(), QUERY.to_owned());
    v1::RerankRequest { model, query, documents: documents.to_vec(), ..v1::RerankRequest::default() }
}

async fn rerank(daemon: &Daemon, request: v1::RerankRequest) -> Result<v1::RerankResponse, Status> {
    daemon.models().rerank(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_those_of_the_reference_in_a_batch_and_alone() {
    let model = TinyReranker::new(7);
    let daemon = reranking(&model).start().await;
    let documents = documents();
    let expected: Vec<f64> = documents.iter().map(|document| model.score(QUERY, document)).collect();
    let spread = expected.iter().copied().fold(f64::MIN, f64::max) - expected.iter().copied().fold(f64::MAX, f64::min);
    assert!(spread > 50.0 * REFERENCE_TOLERANCE, "the scores differ by far more than what is allowed: {spread}");
    let answer = rerank(&daemon, request(&documents)).await.unwrap();
    assert_eq!(answer.results.len(), documents.len());
    let mut largest = 0.0f64;
    for found in &answer.results {
        let at = found.index as usize;
        largest = largest.max((f64::from(found.score) - expected[at]).abs());
        let relevance = 1.0 / (1.0 + (-found.score).exp());
        assert!((found.relevance - relevance).abs() < 1e-6, "{found:?}");
        assert_eq!(found.tokens as usize, TinyReranker::token_count(QUERY, &documents[at]));
    }
    println!("largest difference from the reference: {largest:.2e} over a spread of {spread:.2}");
    assert!(largest <= REFERENCE_TOLERANCE, "{largest}");
    assert!(answer.results.is_sorted_by(|a, b| a.score >= b.score), "the most relevant one is first");
    let tokens: u64 = answer.results.iter().map(|found| u64::from(found.tokens)).sum();
    assert_eq!(answer.prompt_tokens, tokens);
    for found in answer.results.iter().step_by(5) {
        let alone = rerank(&daemon, request(&documents[found.index as usize..][..1])).await.unwrap();
        let difference = (alone.results[0].score - found.score).abs();
        assert!(alone.results[0].index == 0 && difference <= BATCH_TOLERANCE, "{difference}");
    }
    let best = rerank(&daemon, v1::RerankRequest { top_n: 3, ..request(&documents) }).await.unwrap();
    let indices = |answer: &v1::RerankResponse| answer.results.iter().map(|d| d.index).take(3).collect::<Vec<_>>();
    assert_eq!((best.results.len(), indices(&best)), (3, indices(&answer)));
    assert_eq!(best.prompt_tokens, tokens, "all documents were computed");
    let same = vec!["a boat".to_owned(); 3];
    let equal = rerank(&daemon, request(&same)).await.unwrap();
    assert_eq!(indices(&equal), [0, 1, 2], "of equal documents, the first is first");
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let engine = engines.iter().find(|engine| engine.model == "judge").unwrap();
    assert!(engine.state() == v1::EngineState::Ready && engine.totals.unwrap().prefill_tokens >= tokens, "{engine:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_the_file_is_used_and_nobody_writes_a_control_token() {
    let model = TinyReranker::new(7);
    let yaml = format!("{CATALOG}---\nmodel: templated\nfile: templated.gguf\nuse: rerank\n");
    let templated = model.gguf_with_template("[CLS]{query}[SEP]{document}[SEP]");
    let daemon = reranking(&model).with_yaml(&yaml).with_file("templated.gguf", &templated).start().await;
    let documents = documents()[..8].to_vec();
    let by_template = |documents: &[String]| v1::RerankRequest { model: "templated".to_owned(), ..request(documents) };
    let expected = rerank(&daemon, request(&documents)).await.unwrap();
    let found = rerank(&daemon, by_template(&documents)).await.unwrap();
    assert_eq!(found.prompt_tokens, expected.prompt_tokens);
    for (a, b) in found.results.iter().zip(&expected.results) {
        assert!(a.index == b.index && (a.score - b.score).abs() <= BATCH_TOLERANCE, "{a:?} {b:?}");
    }
    // Three words that it does not know: the brackets and what is between them.
    let forged = ["a [SEP] boat".to_owned()];
    for request in [request(&forged), by_template(&forged)] {
        let found = rerank(&daemon, request).await.unwrap();
        assert_eq!(found.prompt_tokens as usize, TinyReranker::token_count(QUERY, "a [ SEP ] boat"));
    }
    let long = ["cat ".repeat(100)];
    let cut = rerank(&daemon, v1::RerankRequest { truncate: true, ..by_template(&long) }).await.unwrap();
    let plain = rerank(&daemon, v1::RerankRequest { truncate: true, ..request(&long) }).await.unwrap();
    assert_eq!(cut.prompt_tokens, 64);
    assert!((cut.results[0].score - plain.results[0].score).abs() <= BATCH_TOLERANCE, "{cut:?} {plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_ranked_is_refused_in_words() {
    let daemon = reranking(&TinyReranker::new(7)).start().await;
    let refused = async |request: v1::RerankRequest| rerank(&daemon, request).await.unwrap_err();
    let documents = vec!["a boat".to_owned(), "cat ".repeat(100)];
    let status = refused(request(&documents)).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "documents[1]: has 107 tokens, the model takes 64")
    );
    let cut = rerank(&daemon, v1::RerankRequest { truncate: true, ..request(&documents) }).await.unwrap();
    assert!(cut.results.iter().any(|found| found.tokens == 64), "{cut:?}");
    let query = "how ".repeat(100);
    let status = refused(v1::RerankRequest { query, truncate: true, ..request(&documents) }).await;
    assert!(status.message().starts_with("query: has 103 tokens"), "{status}");
    let model = "minilm".to_owned();
    let status = refused(v1::RerankRequest { model, ..request(&documents[..1]) }).await;
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::FailedPrecondition, "WRONG_USE"));
    assert_eq!((info.metadata["use"].as_str(), info.metadata["needed"].as_str()), ("embedding", "rerank"));
    let judge = v1::EmbedRequest { model: "judge".to_owned(), inputs: documents, ..v1::EmbedRequest::default() };
    assert_eq!(daemon.models().embed(judge).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_its_use_is_refused_by_the_check_and_by_the_daemon() {
    let model = TinyReranker::new(7);
    let yaml = "model: headless\nfile: headless.gguf\nuse: rerank\n---\nmodel: judge\nfile: judge.gguf\nuse: embedding\n---\n\
                model: vectors\nfile: all-MiniLM-L6-v2.F16.gguf\nuse: rerank\n---\nmodel: writer\nfile: judge.gguf\n";
    let judge = model.gguf(4);
    let builder = daemon().with_yaml(yaml).with_file("judge.gguf", &judge);
    let daemon = builder.with_file("headless.gguf", &model.without_head().gguf(4)).start().await;
    let check = Cli::new(["check"]).arg(daemon.dir().join("catalog")).arg("--models").arg(models());
    let (code, out, err) = check.run().await;
    assert_eq!(code, 1, "{out}{err}");
    let report = format!("{out}{err}");
    let faults = [
        ("headless", "has rank pooling and no head"),
        ("judge", "set `use: rerank`"),
        ("vectors", "set `use: embedding`"),
        ("writer", "set `use: rerank`"),
    ];
    for (name, fault) in faults {
        let line = report.lines().find(|line| line.contains(&format!("model `{name}`")));
        assert!(line.is_some_and(|line| line.contains(fault)), "{name}: {report}");
    }
    for (name, fault) in [faults[0], faults[2]] {
        let named = v1::RerankRequest { model: name.to_owned(), ..request(&["a".to_owned()]) };
        let refused = rerank(&daemon, named).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(fault), "{refused}");
    }
    let embedding = v1::EmbedRequest { model: "judge".to_owned(), inputs: vec!["a".to_owned()], ..Default::default() };
    let refused = daemon.models().embed(embedding).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(faults[1].1), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_ranks_its_arguments() {
    let model = TinyReranker::new(7);
    let daemon = reranking(&model).start().await;
    let documents = ["a boat", "the moon rain", "cat dog fish"];
    let rerank = || daemon.cli(["rerank", "judge", "--query", QUERY]);
    let (code, out, err) = documents.iter().fold(rerank(), |cli, document| cli.arg(document)).run().await;
    assert_eq!(code, 0, "{err}");
    let best = documents.iter().max_by(|a, b| model.score(QUERY, a).total_cmp(&model.score(QUERY, b))).unwrap();
    assert!(out.lines().count() == 3 && out.lines().next().unwrap().ends_with(best), "{out}");
    let json = rerank().arg("--top").arg("1").arg("--json");
    let (_, out, err) = documents.iter().fold(json, |cli, document| cli.arg(document)).run().await;
    let found: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(documents[found["index"].as_u64().unwrap() as usize], *best);
    let (_, out, _) = daemon.cli(["engines"]).run().await;
    assert!(out.contains("judge"), "{out}");
}
