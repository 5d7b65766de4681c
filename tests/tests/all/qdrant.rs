//! A knowledge whose vectors are in Qdrant: the same answers as without, what is gone is gone there, and a server that is away is told.

use std::fs;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::knowledge_client::KnowledgeClient;
use artel_qdrant_server::QdrantServer;
use artel_tests::client_scripts::{ClientPackages, ScriptOutput, run_example_on};
use artel_tests::{Daemon, DaemonBuilder, daemon};
use serde_json::json;

/// No test waits longer for a collection.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);
const QUESTIONS: [&str; 5] = [
    "When do parcels leave?",
    "reimbursement of a payment",
    "Who opens the workshop?",
    "What is the cat doing?",
    "How long is the warranty?",
];

/// The same files in two knowledge, one of them with a store.
fn stored_daemon(url: &str, key: &str) -> DaemonBuilder {
    let yaml = format!(
        "knowledge: here\nsources: [notes]\nembedding: minilm\nsearch: {{top: 3}}\n---\n\
         knowledge: there\nsources: [notes]\nembedding: minilm\nsearch: {{top: 3}}\n\
         store: {{qdrant: '{url}', collection: handbook, key: {{file: qdrant.key}}}}\n"
    );
    let builder = daemon().with_yaml(&yaml).with_file("qdrant.key", key.as_bytes());
    let notes = builder.dir().join("catalog/notes");
    fs::create_dir(&notes).unwrap();
    for (name, text) in [
        ("delivery.md", "# Delivery\n\nParcels leave the house every weekday at four.\n"),
        ("refunds.md", "# Refunds\n\nMoney comes back within thirty days.\n"),
        ("hours.txt", "Olga opens the workshop on Saturdays.\n"),
        ("cat.txt", "The cat sleeps on the sofa.\n"),
        ("warranty.txt", "Lamps have a warranty of two years.\n"),
    ] {
        fs::write(notes.join(name), text).unwrap();
    }
    builder
}

fn query(knowledge: &str, text: &str, mode: v1::SearchMode) -> v1::SearchKnowledgeRequest {
    let (knowledge, query, mode) = (knowledge.to_owned(), text.to_owned(), mode.into());
    v1::SearchKnowledgeRequest { knowledge, query, mode, ..v1::SearchKnowledgeRequest::default() }
}

async fn found(daemon: &Daemon, knowledge: &str, text: &str, mode: v1::SearchMode) -> Vec<(String, String, f64)> {
    let answer = daemon.knowledge().search(query(knowledge, text, mode)).await.unwrap().into_inner();
    let round = |score: f64| (score * 100.0).round();
    answer.passages.into_iter().map(|passage| (passage.source, passage.text, round(passage.score))).collect()
}

/// Waits until the collection has so many points.
async fn until_points(server: &QdrantServer, points: usize) {
    let has = async {
        while server.points("handbook").len() != points {
            tokio::task::yield_now().await;
        }
    };
    let has = tokio::time::timeout(MIRROR_TIMEOUT, has).await;
    assert!(has.is_ok(), "{} points, not {points}", server.points("handbook").len());
}

/// How often the server was asked for the nearest vectors.
fn searches(server: &QdrantServer) -> usize {
    server.calls().iter().filter(|call| call.method.to_lowercase().contains("query")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_gives_the_same_answers_and_has_no_ghosts() {
    let server = QdrantServer::start_with_key("secret-key-of-qdrant").await.unwrap();
    let daemon = stored_daemon(&server.url(), "secret-key-of-qdrant\n").start().await;
    daemon.until_index("there", |status| status.sources == 5 && status.problem.is_empty()).await;
    daemon.until_index("here", |status| status.sources == 5).await;
    until_points(&server, 5).await;
    // As LangChain reads it.
    let points = server.points("handbook");
    let of_cat = points.iter().find(|point| point.payload["page_content"] == "The cat sleeps on the sofa.").unwrap();
    assert_eq!(
        (&of_cat.payload["metadata"]["knowledge"], &of_cat.payload["metadata"]["lines"]),
        (&json!("there"), &json!([1, 1]))
    );
    // The first searches may come before the collection is known to be alike.
    let asked = async {
        while searches(&server) == 0 {
            found(&daemon, "there", QUESTIONS[0], v1::SearchMode::Vector).await;
        }
    };
    tokio::time::timeout(MIRROR_TIMEOUT, asked).await.expect("Qdrant is asked");
    for mode in [v1::SearchMode::Vector, v1::SearchMode::Hybrid, v1::SearchMode::Keyword] {
        for question in QUESTIONS {
            let before = searches(&server);
            let there = found(&daemon, "there", question, mode).await;
            assert_eq!(there, found(&daemon, "here", question, mode).await, "{mode:?} {question}");
            assert_eq!(searches(&server) - before, usize::from(mode != v1::SearchMode::Keyword), "{mode:?} {question}");
        }
    }
    // What is deleted and what is renamed is so there too.
    let notes = daemon.dir().join("catalog/notes");
    fs::remove_file(notes.join("cat.txt")).unwrap();
    fs::rename(notes.join("hours.txt"), notes.join("opening.txt")).unwrap();
    until_points(&server, 4).await;
    let renamed = async {
        let is_renamed = || {
            server
                .points("handbook")
                .iter()
                .any(|point| point.payload["metadata"]["source"].as_str().unwrap().ends_with("opening.txt"))
        };
        while !is_renamed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MIRROR_TIMEOUT, renamed).await.expect("the new path is written");
    let nearest = found(&daemon, "there", "What is the cat doing?", v1::SearchMode::Vector).await;
    assert!(nearest.iter().all(|(source, ..)| !source.ends_with("cat.txt")), "{nearest:?}");
    let log = daemon.whole_log().await;
    assert!(!log.contains("secret-key-of-qdrant"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_and_answers_are_the_daemons() {
    let server = QdrantServer::start().await.unwrap();
    let daemon = stored_daemon(&server.url(), "unneeded").start().await;
    daemon.until_index("there", |status| status.sources == 5).await;
    until_points(&server, 5).await;
    server.hang();
    fs::write(daemon.dir().join("catalog/notes/tram.txt"), "The tram stops behind the museum.\n").unwrap();
    daemon.until_index("there", |status| status.sources == 6).await;
    let nearest = found(&daemon, "there", "Where does the tram stop?", v1::SearchMode::Vector).await;
    assert!(nearest[0].0.ends_with("tram.txt"), "{nearest:?}");
    daemon.until_index("there", |status| !status.problem.is_empty()).await;
    let (_, out, _) = daemon.cli(["knowledge", "status"]).run().await;
    assert!(out.to_lowercase().contains("qdrant"), "{out}");
    server.heal();
    until_points(&server, 6).await;
    // A collection that was lost is written again after a restart.
    server.drop_collection("handbook");
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    let daemon = daemon.restart().await;
    until_points(&server, 6).await;
    daemon.until_index("there", |status| status.problem.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_text_leaves_the_collection_too() {
    let server = QdrantServer::start().await.unwrap();
    let daemon = stored_daemon(&server.url(), "unneeded").start().await;
    daemon.until_index("there", |status| status.sources == 5).await;
    until_points(&server, 5).await;
    let token = daemon.create_token("alice", "submit,read", &[]).await;
    let (knowledge, source, text) = ("there".to_owned(), "diary".to_owned(), "The kanarienvogel sings.".to_owned());
    let diary = v1::AddTextRequest { knowledge, source, text, ..Default::default() };
    KnowledgeClient::new(daemon.caller(&token)).add_text(diary).await.unwrap();
    until_points(&server, 6).await;
    let holds = || server.points("handbook").iter().any(|point| point.payload.to_string().contains("kanarienvogel"));
    assert!(holds());
    let erase = v1::EraseRequest { task_ids: Vec::new(), owner: "alice".to_owned() };
    daemon.tasks().erase(erase).await.unwrap();
    until_points(&server, 5).await;
    assert!(!holds(), "{:?}", server.points("handbook"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn langchain_qdrant_finds_in_the_collection_what_the_daemon_does() {
    let server = QdrantServer::start().await.unwrap();
    let daemon = stored_daemon(&server.url(), "unused-key\n").start().await;
    daemon.until_index("here", |status| status.sources == 5).await;
    until_points(&server, 5).await;
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let replaced = [("grpc_port=6334", format!("grpc_port={port}"))];
    let replaced = replaced.each_ref().map(|(from, to)| (*from, to.as_str()));
    let output = run_example_on(&daemon, "langchain_qdrant_example.py", ClientPackages::Frameworks, &replaced).await;
    let ScriptOutput { code, out, err } = output;
    assert_eq!(code, 0, "{out}{err}");
    let nearest = found(&daemon, "here", QUESTIONS[2], v1::SearchMode::Vector).await;
    let passages: Vec<String> = nearest.iter().map(|(source, text, _)| format!("{source} [1, 1] {text}")).collect();
    let expected = passages.join("\n").replace("[1, 1] # Delivery", "[1, 3] # Delivery");
    assert_eq!(out.trim(), expected.trim(), "{err}");
}
