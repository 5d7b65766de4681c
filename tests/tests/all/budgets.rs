//! What expressions, schemas and templates may cost: a document of some hundred bytes takes neither a core nor the memory of the
//! daemon, whichever way it arrives, and the error says which budget it exceeds.

use std::fs;
use std::time::Duration;

use artel_proto::v1;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, TaskOutcome, daemon, models, task_request};
use nix::sys::signal::Signal;

/// So that a test that would never end fails.
const DEADLINE: Duration = Duration::from_secs(120);
/// What the daemon's memory may grow by at most while it checks one of the documents below.
const MAX_GROWTH_BYTES: u64 = 300 * 1024 * 1024;

/// Loops over ten numbers inside of each other.
fn loops(name: &str, inner: &str) -> String {
    let open = format!("[0,1,2,3,4,5,6,7,8,9].{name}(x,");
    format!("{}{inner}{}", open.repeat(12), ")".repeat(12))
}

fn role(more: &str) -> String {
    format!("role: costly\ndescription: Costs much.\nmodel: talk\nprompt: You work.\n{more}\n")
}

fn rule(when: &str) -> String {
    role(&format!("when: \"{when}\""))
}

fn prompt(template: &str) -> String {
    format!("role: costly\ndescription: Costs much.\nmodel: talk\nprompt: \"{template}\"\n")
}

/// A question whose answer after the deadline is checked against alternatives that double with each of forty levels.
fn alternatives() -> String {
    let level = |at: usize| {
        let next = format!("{{\"$ref\": \"#/$defs/a{}\"}}", at + 1);
        format!("a{at}: {{anyOf: [{next}, {next}]}}")
    };
    let levels: Vec<String> = (0..40).map(level).collect();
    format!(
        "graph: costly\ndescription: Asks.\nstart: ask\nnodes:\n  ask:\n    ask:\n      message: Which?\n      deadline: 1h\n      \
         otherwise: {{x: 1}}\n      output:\n        type: object\n        properties: {{x: {{$ref: \"#/$defs/a0\"}}}}\n        \
         $defs: {{{}, a40: {{type: string}}}}\n    next: done\n",
        levels.join(", ")
    )
}

/// Documents, and what is said about each.
pub(crate) fn costly_documents() -> Vec<(String, &'static str)> {
    let doubled = format!("size(['0123456789'].map(x,{}x{})) > 0", "[x+x].map(x,".repeat(30), ")".repeat(30));
    vec![
        (rule(&format!("{} > 0", vec!["1"; 2000].join("+"))), "more than 64 levels deep"),
        (rule(&loops("all", "true")), "more than 500000 steps"),
        (rule(&format!("size({}) > 0", loops("map", "x"))), "more than 500000 steps"),
        (rule(&doubled), "more than 16777216 bytes"),
        (rule("task.input.matches('(a{500}){500}')"), "bad pattern"),
        (alternatives(), "more than 20000000 steps"),
        (prompt(&format!("{{{{ {} }}}}", vec!["1"; 50_000].join("+"))), "more than 500 operators"),
        (prompt(&"{% if x %}".repeat(20_000)), "bad template"),
    ]
}

/// Documents that cost nothing until a task renders them.
fn growing_templates() -> [String; 2] {
    let grown = |step: &str| prompt(&format!("{{% set x = [1] %}}{}{{{{ x == [x] }}}}", step.repeat(60)));
    [grown("{% set x = x + x %}"), grown("{% set x = [x, x] %}")]
}

async fn started() -> Daemon {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).start().await
}

pub(crate) fn file(text: &str) -> v1::SourceFile {
    v1::SourceFile { path: "costly.yaml".to_owned(), content: format!("{SCRIPTED_CATALOG}---\n{text}").into_bytes() }
}

fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Validates a document while a task runs, which completes.
async fn validated(daemon: &Daemon, text: &str) -> v1::ValidateResponse {
    let mut catalog = daemon.catalog();
    let validation = catalog.validate(v1::ValidateRequest { files: vec![file(text)] });
    let task =
        async { daemon.run(task_request("Which sail for a storm?").with_graph("line")).await.end().await.text() };
    let both = async { tokio::join!(validation, task) };
    let (response, text) = tokio::time::timeout(DEADLINE, both).await.expect("the check or the task has not ended");
    assert!(text.contains("storm"), "{text}");
    response.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_documents_are_refused_while_tasks_run() {
    let daemon = started().await;
    daemon.run(task_request("Hello").with_graph("line")).await.end().await.text();
    for (text, expected) in costly_documents() {
        let before = peak_bytes(&daemon);
        let response = validated(&daemon, &text).await;
        let messages: Vec<&str> = response.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(
            !response.valid && messages.iter().any(|message| message.contains(expected)),
            "{expected}: {messages:?}"
        );
        let growth = peak_bytes(&daemon).saturating_sub(before);
        assert!(growth < MAX_GROWTH_BYTES, "{expected}: {growth} bytes");
    }
    for text in growing_templates() {
        let before = peak_bytes(&daemon);
        assert!(validated(&daemon, &text).await.valid);
        assert!(peak_bytes(&daemon).saturating_sub(before) < MAX_GROWTH_BYTES);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_documents_are_refused_by_check() {
    for (text, expected) in costly_documents() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("costly.yaml"), format!("{SCRIPTED_CATALOG}---\n{text}")).unwrap();
        let check = Cli::new(["check"]).arg(dir.path()).run();
        let (code, out, err) = tokio::time::timeout(DEADLINE, check).await.expect("the check has not ended");
        assert!(code == 1 && out.contains(expected), "{expected}: {code} {out}{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_costly_document_in_the_directory_changes_nothing() {
    let daemon = started().await;
    fs::write(daemon.dir().join("catalog/costly.yaml"), rule(&loops("all", "true"))).unwrap();
    daemon.signal(Signal::SIGHUP);
    let reported = async {
        loop {
            let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
            if let Some(problem) = list.directory_problems.first() {
                return problem.message.clone();
            }
        }
    };
    let message = tokio::time::timeout(DEADLINE, reported).await.expect("the reload has not ended");
    assert!(message.contains("more than 500000 steps"), "{message}");
    assert!(daemon.run(task_request("Which sail?").with_graph("line")).await.end().await.text().contains("sail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_and_a_message_that_cost_too_much_fail_their_task_alone() {
    let graph = |name: &str, node: &str| {
        format!("---\ngraph: {name}\ndescription: Costs much.\nstart: work\nnodes:\n  work: {{role: writer, {node}}}\n")
    };
    let edge = graph("edge", &format!("next: [{{to: done, when: \"{}\"}}]", loops("all", "output != ''")));
    let grown = "{% set x = [1] %}".to_owned() + &"{% set x = x + x %}".repeat(60);
    let message = graph("message", &format!("message: \"{grown}{{{{ x }}}}\", next: done"));
    let items = graph("items", &format!("for_each: \"{}\", next: done", loops("map", "x")));
    let yaml = format!("{SCRIPTED_CATALOG}{edge}{message}{items}");
    let daemon = daemon().with_yaml(&yaml).with_failpoints(&model_script()).start().await;
    for (graph, code, expected) in [
        ("edge", v1::FailureCode::Condition, "more than 500000 steps"),
        ("message", v1::FailureCode::Template, "more than 400000 values"),
        ("items", v1::FailureCode::Items, "more than 500000 steps"),
    ] {
        let mut costly = daemon.run(task_request("Hello").with_graph(graph)).await;
        let outcome = tokio::time::timeout(DEADLINE, costly.end()).await.expect("the task has not ended");
        let TaskOutcome::Failed(failed, message) = outcome else { panic!("{graph} completed") };
        assert!(failed == code && message.contains(expected), "{graph}: {failed:?} {message}");
        assert!(daemon.run(task_request("Which sail?").with_graph("line")).await.end().await.text().contains("sail"));
    }
}

/// The small chat model with another text in place of its own chat template.
fn with_chat_template(template: &str) -> Vec<u8> {
    let mut bytes = fs::read(models().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let key = b"tokenizer.chat_template";
    // The key is followed by the type of its value in four bytes, the length and the text.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let text = format!("{template:length$}");
    bytes[at + 8..at + 8 + length].copy_from_slice(text.as_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_template_that_costs_too_much_fails_its_task_alone() {
    let yaml = "---\nmodel: hostile\nfile: hostile.gguf\ncontext: 512\nsequences: 1\n\
                ---\nmodel: chat\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\n\
                ---\nrole: victim\ndescription: D.\nmodel: hostile\nprompt: P.\nsampling: {max_tokens: 4}\n\
                ---\nrole: other\ndescription: D.\nmodel: chat\nprompt: P.\nsampling: {max_tokens: 4}\n";
    // Two lists that contain themselves twice, sixty times over, are compared.
    let template = "{% set n=namespace(x=[1],y=[1]) %}{% for i in range(60) %}{% set n.x=[n.x,n.x] %}\
                    {% set n.y=[n.y,n.y] %}{% endfor %}{{ n.x==n.y }}";
    let daemon = daemon().with_yaml(yaml).with_file("hostile.gguf", &with_chat_template(template)).start().await;
    let mut costly = daemon.run(task_request("Hello").with_role("victim")).await;
    let outcome = tokio::time::timeout(DEADLINE, costly.end()).await.expect("the task has not ended");
    let TaskOutcome::Failed(code, message) = outcome else { panic!("it completed") };
    let names_all = ["role `victim`", "hostile.gguf: the chat template", "more than 1000000 instructions"];
    assert!(code == v1::FailureCode::Template && names_all.iter().all(|part| message.contains(part)), "{message}");
    daemon.run(task_request("Hello").with_role("other")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_takes_no_engine_down() {
    let levels: Vec<String> = (0..900).map(|at| format!("d{at}: {{$ref: \"#/$defs/d{}\"}}", at + 1)).collect();
    let patterns = |count: usize| {
        let one = |at| format!("{{pattern: \"^[ab]*a[ab]{{{}}}b[ab]*$\"}}", at + 3);
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let role = |name: &str, x: &str, defs: &str| {
        format!(
            "---\nrole: {name}\ndescription: D.\nmodel: chat\nprompt: P.\nsampling: {{max_tokens: 32}}\noutput:\n  \
             type: object\n  required: [x]\n  additionalProperties: false\n  properties: {{x: {x}}}\n  $defs: {{{defs}}}\n"
        )
    };
    let chain = role("chain", "{$ref: \"#/$defs/d0\"}", &format!("{}, d900: {{enum: [1, 2]}}", levels.join(", ")));
    let prime = role("prime", "{type: integer, multipleOf: 999999937}", "");
    let product = role("product", &format!("{{type: string, allOf: [{}]}}", patterns(20)), "");
    let chat = "---\nmodel: chat\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\n";
    let daemon = daemon().with_yaml(&format!("{chat}{chain}")).start().await;
    for costly in [prime, product] {
        let content = format!("{chat}{costly}").into_bytes();
        let files = vec![v1::SourceFile { path: "costly.yaml".to_owned(), content }];
        let mut catalog = daemon.catalog();
        let validation = catalog.validate(v1::ValidateRequest { files });
        let response = tokio::time::timeout(DEADLINE, validation).await.expect("the check has not ended");
        let response = response.unwrap().into_inner();
        let messages: Vec<&str> = response.problems.iter().map(|problem| problem.message.as_str()).collect();
        let says_so = |message: &&str| message.contains("takes too much work or memory") && message.len() < 500;
        assert!(!response.valid && messages.iter().any(says_so), "{messages:?}");
    }
    let text = daemon.run(task_request("Hello").with_role("chain")).await.end().await.text();
    assert!(["{\"x\":1}", "{\"x\":2}"].contains(&text.as_str()), "{text}");
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    assert!(engines.iter().all(|engine| engine.restarts == 0), "{engines:?}");
}
