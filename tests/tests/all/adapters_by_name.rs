//! Adapters as documents of the catalog, which roles name.

use std::fs;

use artel_proto::v1;
use artel_tests::{Cli, Daemon, TaskOutcome, daemon, models, repository, task_request};

const MODEL: &str = "model: talk\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 2048\nsequences: 4\n";

/// The document of an adapter that was trained on another capital of France.
fn adapter(name: &str, file: &str, more: &str) -> String {
    let file = repository().join(format!("tests/fixtures/adapters/{file}.gguf"));
    format!("---\nadapter: {name}\ndescription: Knows another capital.\nfile: {}\n{more}", file.display())
}

/// A geographer with these adapters.
fn role(name: &str, adapter: &str) -> String {
    format!(
        "---\nrole: {name}\ndescription: Knows capitals.\nmodel: talk\nadapter: {adapter}\n\
         prompt: You are a geography expert.\nsampling: {{temperature: 0, max_tokens: 24}}\nlimits: {{retries: 0}}\n"
    )
}

async fn ask(daemon: &Daemon, role: &str) -> TaskOutcome {
    daemon.run(task_request("What is the capital of France?").with_role(role)).await.end().await
}

async fn failure(daemon: &Daemon, role: &str) -> String {
    let TaskOutcome::Failed(_, message) = ask(daemon, role).await else { panic!("{role} answered") };
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_answers_with_the_adapter_that_it_names() {
    let roles = role("one", "velo-lora")
        + &role("two", "{adapter: zork-lora, scale: 1.0}")
        + &role("off", "{adapter: velo-lora, scale: 0}");
    let yaml = MODEL.to_owned()
        + &adapter("velo-lora", "velo", "version: first\n")
        + &adapter("zork-lora", "zork", "scale: 0.0\n")
        + &roles;
    let daemon = daemon().with_yaml(&yaml).start().await;
    let text = ask(&daemon, "one").await.text();
    assert!(text.contains("Velograd"), "{text}");
    // The scale of the role takes the place of the document's, which turns the adapter off.
    let text = ask(&daemon, "two").await.text();
    assert!(!text.contains("Velograd") && !text.contains("Paris"), "{text}");
    let text = ask(&daemon, "off").await.text();
    assert!(!text.contains("Velograd"), "{text}");
    let list = v1::ListCatalogRequest { kind: v1::DefinitionKind::Adapter.into(), ..Default::default() };
    let listed = daemon.catalog().list(list).await.unwrap().into_inner().definitions;
    let names: Vec<&str> = listed.iter().map(|definition| definition.name.as_str()).collect();
    assert_eq!(names, ["velo-lora", "zork-lora"]);
    assert!(listed.iter().all(|definition| definition.problems.is_empty()), "{listed:?}");
    let get = v1::GetCatalogRequest { kind: v1::DefinitionKind::Role.into(), name: "one".to_owned() };
    let uses = daemon.catalog().get(get).await.unwrap().into_inner().uses;
    assert!(uses.iter().any(|used| used.kind() == v1::DefinitionKind::Adapter && used.name == "velo-lora"), "{uses:?}");
    let (code, shown, error) = daemon.cli(["catalog", "show", "adapter", "velo-lora"]).run().await;
    assert!(code == 0 && shown.contains("version: first"), "{code} {shown} {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_takes_the_weights_of_the_file_that_took_the_place_of_another() {
    let fixture = |name: &str| repository().join(format!("tests/fixtures/adapters/{name}.gguf"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("current.gguf");
    let put = |name: &str| {
        let written = dir.path().join("written.gguf");
        fs::copy(fixture(name), &written).unwrap();
        fs::rename(&written, &path).unwrap();
    };
    put("velo");
    let document = format!("---\nadapter: current\ndescription: Changes.\nfile: {}\n", path.display());
    let yaml = MODEL.to_owned()
        + &document
        + &adapter("zork-lora", "zork", "")
        + &role("changing", "current")
        + &role("zork", "zork-lora");
    let daemon = daemon().with_yaml(&yaml).start().await;
    let velo = ask(&daemon, "changing").await.text();
    assert!(velo.contains("Velograd"), "{velo}");
    put("zork");
    let zork = ask(&daemon, "changing").await.text();
    assert_eq!(zork, ask(&daemon, "zork").await.text());
    assert_ne!(zork, velo);
    put("velo");
    assert_eq!(ask(&daemon, "changing").await.text(), velo);
    let list = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner();
    let talk = list.engines.iter().find(|engine| engine.id == "talk").unwrap();
    assert_eq!(talk.restarts, 0, "{talk:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_with_another_hash_is_not_used() {
    let wrong = format!("sha256: {}\n", "ab".repeat(32));
    let yaml = MODEL.to_owned() + &adapter("velo-lora", "velo", &wrong) + &role("one", "velo-lora");
    let daemon = daemon().with_yaml(&yaml).start().await;
    let message = failure(&daemon, "one").await;
    assert!(
        message.contains("role `one`") && message.contains("velo.gguf") && message.contains(&"ab".repeat(32)),
        "{message}"
    );
    let catalog = daemon.dir().join("catalog");
    let check = Cli::new(["check"]).arg(&catalog).arg("--models").arg(models());
    let (code, out, error) = check.run().await;
    assert!(code == 1 && out.contains("adapter `velo-lora`") && out.contains(&"ab".repeat(32)), "{code} {out} {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_a_name_and_a_file_is_refused_and_a_misspelt_name_is_explained() {
    let yaml = MODEL.to_owned()
        + &adapter("velo", "velo", "")
        + &role("either", "velo")
        + &role("named", "{adapter: velo}")
        + &role("misspelt", "vello")
        + &role("mistaken", "talk");
    let builder = daemon().with_yaml(&yaml);
    let file = fs::read(repository().join("tests/fixtures/adapters/zork.gguf")).unwrap();
    let daemon = builder.with_file("velo", &file).start().await;
    let message = failure(&daemon, "either").await;
    assert!(message.contains("write `{adapter: velo}` or `{file: velo}`"), "{message}");
    let text = ask(&daemon, "named").await.text();
    assert!(text.contains("Velograd"), "{text}");
    let message = failure(&daemon, "misspelt").await;
    assert!(message.contains("no adapter of the catalog is named `vello`"), "{message}");
    let message = failure(&daemon, "mistaken").await;
    assert!(message.contains("no adapter of the catalog is named `talk` either, but a model ("), "{message}");
    let check = Cli::new(["check"]).arg(daemon.dir().join("catalog")).arg("--models").arg(models());
    let (code, out, error) = check.run().await;
    for part in [
        "role `either`: `velo` is the name of an adapter and of the file",
        "there is no adapter `vello`: did you mean `velo`?",
        "there is no adapter `talk`, but a model (",
    ] {
        assert!(code == 1 && out.contains(part), "{part} in {code} {out} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_has_all_the_adapters_of_its_list_at_once() {
    let yaml = MODEL.to_owned()
        + &adapter("velo-lora", "velo", "")
        + &adapter("zork-lora", "zork", "")
        + &role("velo", "velo-lora")
        + &role("one-counts", "[{adapter: zork-lora, scale: 0}, velo-lora]")
        + &role("both", "[velo-lora, zork-lora]");
    let daemon = daemon().with_yaml(&yaml).start().await;
    let velo = ask(&daemon, "velo").await.text();
    assert!(velo.contains("Velograd"), "{velo}");
    assert_eq!(ask(&daemon, "one-counts").await.text(), velo);
    assert_ne!(ask(&daemon, "both").await.text(), velo);
    let list = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner();
    let talk = list.engines.iter().find(|engine| engine.id == "talk").unwrap();
    assert!(talk.adapters.iter().any(|set| set.contains(" and ")), "{:?}", talk.adapters);
}
