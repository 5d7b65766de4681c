//! Changes of the catalog while the daemon runs: applied as a whole or not at all; a running task keeps its catalog.

use std::fs;

use artel_proto::v1;
use artel_tests::{daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use tonic::Code;

fn source_file(text: &str) -> v1::SourceFile {
    v1::SourceFile { path: "roles/new.yaml".to_owned(), content: text.as_bytes().to_vec() }
}

const NEW_ROLE: &str =
    "role: newcomer\ndescription: Is new.\nmodel: smollm2\nprompt: You are new.\nsampling: {max_tokens: 8}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_applied_as_a_whole_while_a_task_keeps_its_own() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut old_task = daemon.run(task_request("Tell a long story.").with_role("teller")).await;
    old_task.until_token().await;
    let mut catalog = daemon.catalog();
    let broken = vec![
        source_file(NEW_ROLE),
        v1::SourceFile { path: "b.yaml".to_owned(), content: b"role: b\nmodle: x\n".to_vec() },
    ];
    let applied = catalog.apply(v1::ApplyRequest { files: broken, expected_version: String::new() }).await;
    let applied = applied.unwrap().into_inner();
    assert!(!applied.applied && applied.problems.iter().any(|p| p.hint.contains("model")), "{applied:?}");
    assert!(daemon.submit(task_request("Hi").with_role("newcomer")).await.is_err(), "nothing changed");

    let valid =
        catalog.validate(v1::ValidateRequest { files: vec![source_file(NEW_ROLE)] }).await.unwrap().into_inner();
    assert!(valid.valid && !valid.catalog_version.is_empty());
    let wrong = v1::ApplyRequest { files: vec![source_file(NEW_ROLE)], expected_version: "0".repeat(64) };
    assert_eq!(catalog.apply(wrong).await.unwrap_err().code(), Code::Aborted);
    let request = v1::ApplyRequest { files: vec![source_file(NEW_ROLE)], expected_version: applied.catalog_version };
    let applied = catalog.apply(request).await.unwrap().into_inner();
    assert_eq!((applied.applied, &applied.catalog_version), (true, &valid.catalog_version));
    assert!(applied.added.iter().any(|d| d.name == "newcomer") && applied.removed.iter().any(|d| d.name == "teller"));
    daemon.run(task_request("Hi").with_role("newcomer")).await.end().await.text();
    assert!(daemon.submit(task_request("Hi").with_role("teller")).await.is_err());
    // The old task still runs with a role that the catalog no longer has.
    old_task.until_token().await;
    daemon.cancel(&old_task.id).await;
    let outside =
        v1::ValidateRequest { files: vec![v1::SourceFile { path: "../up.yaml".to_owned(), content: Vec::new() }] };
    assert_eq!(catalog.validate(outside).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_directory_again() {
    let daemon = daemon().with_yaml(&test_catalog()).with_settings("watch: false\n").start().await;
    let version = async || {
        let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
        list.catalog_version
    };
    let before = version().await;
    fs::write(daemon.dir().join("catalog/new.yaml"), NEW_ROLE).unwrap();
    daemon.signal(Signal::SIGHUP);
    // No event reports a reload, so this polls the version; each request is a round trip.
    while version().await == before {}
    daemon.run(task_request("Hi").with_role("newcomer")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_directory_are_read_and_an_invalid_one_changes_nothing() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let list = async || daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
    let before = list().await;
    assert!(before.directory_problems.is_empty());
    let new = daemon.dir().join("catalog/new.yaml");
    fs::write(&new, "role: newcomer\ndescription: Is new.\nmodle: smollm2\nprompt: You are new.\n").unwrap();
    // No event reports a failed reload, so this polls; each request is a round trip.
    let broken = loop {
        let broken = list().await;
        if !broken.directory_problems.is_empty() {
            break broken;
        }
    };
    assert_eq!(broken.catalog_version, before.catalog_version, "nothing changed");
    let problem = &broken.directory_problems[0];
    assert!(problem.location.as_ref().unwrap().file.ends_with("new.yaml"), "{problem:?}");
    daemon.until_logged("the catalog stays as it was").await;
    let (_, out, _) = daemon.cli(["catalog", "list"]).run().await;
    assert!(out.contains("serves an earlier catalog") && out.contains("modle"), "{out}");
    // Editors write a temporary file and rename it.
    let temporary = daemon.dir().join("catalog/new.yaml~");
    fs::write(&temporary, NEW_ROLE).unwrap();
    fs::rename(&temporary, &new).unwrap();
    let fixed = loop {
        let fixed = list().await;
        if fixed.catalog_version != before.catalog_version {
            break fixed;
        }
    };
    assert!(fixed.directory_problems.is_empty());
    daemon.run(task_request("Hi").with_role("newcomer")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_list_their_references_and_problems() {
    let yaml = format!("{}---\nmodel: gone\nfile: gone.gguf\n", test_catalog());
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
