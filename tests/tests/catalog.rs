//! The catalog while the daemon runs: applied as a whole or not at all, and never under a running task.
#![allow(clippy::unwrap_used)]

use std::fs;

use artel_proto::v1;
use artel_tests::{ask, crew, daemon};
use nix::sys::signal::Signal;
use tonic::Code;

fn file(text: &str) -> v1::SourceFile {
    v1::SourceFile { path: "roles/new.yaml".to_owned(), content: text.as_bytes().to_vec() }
}

const NEW: &str =
    "role: newcomer\ndescription: Is new.\nmodel: smollm2\nprompt: You are new.\nsampling: {max_tokens: 8}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_applied_as_a_whole_while_a_task_keeps_its_own() {
    let daemon = daemon().with_yaml(&crew()).start().await;
    let mut old = daemon.run(ask("Tell a long story.").of_role("teller")).await;
    old.until_it_speaks().await;
    let mut catalog = daemon.catalog();
    let broken =
        vec![file(NEW), v1::SourceFile { path: "b.yaml".to_owned(), content: b"role: b\nmodle: x\n".to_vec() }];
    let applied = catalog.apply(v1::ApplyRequest { files: broken, expected_version: String::new() }).await;
    let applied = applied.unwrap().into_inner();
    assert!(!applied.applied && applied.problems.iter().any(|p| p.hint.contains("model")), "{applied:?}");
    assert!(daemon.submit(ask("Hi").of_role("newcomer")).await.is_err(), "nothing changed");

    let valid = catalog.validate(v1::ValidateRequest { files: vec![file(NEW)] }).await.unwrap().into_inner();
    assert!(valid.valid && !valid.catalog_version.is_empty());
    let wrong = v1::ApplyRequest { files: vec![file(NEW)], expected_version: "0".repeat(64) };
    assert_eq!(catalog.apply(wrong).await.unwrap_err().code(), Code::Aborted);
    let request = v1::ApplyRequest { files: vec![file(NEW)], expected_version: applied.catalog_version };
    let applied = catalog.apply(request).await.unwrap().into_inner();
    assert_eq!((applied.applied, &applied.catalog_version), (true, &valid.catalog_version));
    assert!(applied.added.iter().any(|d| d.name == "newcomer") && applied.removed.iter().any(|d| d.name == "teller"));
    daemon.run(ask("Hi").of_role("newcomer")).await.end().await.text();
    assert!(daemon.submit(ask("Hi").of_role("teller")).await.is_err());
    // The old task is still told by a role that the catalog no longer has.
    old.until_it_speaks().await;
    daemon.cancel(&old.id).await;
    let bad =
        v1::ValidateRequest { files: vec![v1::SourceFile { path: "../up.yaml".to_owned(), content: Vec::new() }] };
    assert_eq!(catalog.validate(bad).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_directory_again() {
    let daemon = daemon().with_yaml(&crew()).with_settings("watch: false\n").start().await;
    let version = async || {
        let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
        list.catalog_version
    };
    let before = version().await;
    fs::write(daemon.dir().join("catalog/new.yaml"), NEW).unwrap();
    daemon.signal(Signal::SIGHUP);
    // There is no event for a reload but the version itself; each question is a round trip.
    while version().await == before {}
    daemon.run(ask("Hi").of_role("newcomer")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_directory_are_seen_and_a_broken_one_changes_nothing() {
    let daemon = daemon().with_yaml(&crew()).start().await;
    let list = async || daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
    let before = list().await;
    assert!(before.directory_problems.is_empty());
    let new = daemon.dir().join("catalog/new.yaml");
    fs::write(&new, "role: newcomer\ndescription: Is new.\nmodle: smollm2\nprompt: You are new.\n").unwrap();
    // There is no event for what was read but the answer itself; each question is a round trip.
    let broken = loop {
        let broken = list().await;
        if !broken.directory_problems.is_empty() {
            break broken;
        }
    };
    assert_eq!(broken.catalog_version, before.catalog_version, "nothing changed");
    let problem = &broken.directory_problems[0];
    assert!(problem.location.as_ref().unwrap().file.ends_with("new.yaml"), "{problem:?}");
    assert!(daemon.log().contains("the catalog stays as it was"));
    let (_, out, _) = daemon.cli(["catalog", "list"]).run().await;
    assert!(out.contains("serves an earlier catalog") && out.contains("modle"), "{out}");
    // As editors do it: beside, and then in its place.
    let beside = daemon.dir().join("catalog/new.yaml~");
    fs::write(&beside, NEW).unwrap();
    fs::rename(&beside, &new).unwrap();
    let mended = loop {
        let mended = list().await;
        if mended.catalog_version != before.catalog_version {
            break mended;
        }
    };
    assert!(mended.directory_problems.is_empty());
    daemon.run(ask("Hi").of_role("newcomer")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_tell_what_they_use_and_what_is_missing() {
    let yaml = format!("{}---\nmodel: gone\nfile: gone.gguf\n", crew());
    let daemon = daemon().with_yaml(&yaml).start().await;
    let get = async |kind: v1::DefinitionKind, name: &str| {
        let request = v1::GetCatalogRequest { kind: kind.into(), name: name.to_owned() };
        daemon.catalog().get(request).await
    };
    let role = get(v1::DefinitionKind::Role, "teller").await.unwrap().into_inner();
    assert_eq!(role.uses[0].name, "solo");
    assert!(role.yaml.starts_with("role: teller") && role.content.unwrap().fields.contains_key("sampling"));
    assert_eq!((role.layer, role.problems.len()), (v1::Layer::User.into(), 0));
    let model = get(v1::DefinitionKind::Model, "gone").await.unwrap().into_inner();
    assert!(model.problems[0].message.contains("no such file"), "{model:?}");
    let missing = get(v1::DefinitionKind::Graph, "counsil").await.unwrap_err();
    assert!(missing.code() == Code::NotFound && missing.message().contains("council"), "{missing:?}");
}
