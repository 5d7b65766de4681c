//! Files and texts that roles answer from, through the port: what is saved is found, what is gone is not, what cannot be read is
//! told, and what is cited is in the file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::knowledge_client::KnowledgeClient;
use artel_tests::scripted::SCRIPTED_CATALOG;
use artel_tests::{CallerChannel, Daemon, DaemonBuilder, daemon, task_request};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

/// No test waits longer for an index.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);

const NOTES: &str = "
knowledge: notes
description: Notes of the shop.
sources: [notes]
search: {mode: keyword, top: 3}
";

/// Roles over a scripted model: a clerk that cites a passage and one that does not exist, and one with a schema.
const CLERKS: &str = "---
knowledge: notes
sources: [notes]
search: {mode: keyword, top: 3}
---
role: clerk
description: Answers from the notes.
model: talk
knowledge: notes
prompt: You cite.
---
role: registrar
description: Answers as JSON.
model: talk
knowledge: [notes]
prompt: You list.
output: {type: object, required: [answer, citations], properties: {answer: {type: string}, citations: {type: array, items: {type: integer}}}}
limits: {retries: 0}
---
role: careful
description: Answers from the notes or not at all.
model: talk
knowledge: notes
grounded: true
prompt: You cite.
---
role: reader
description: Reads what a node has found.
model: talk
prompt: You read.
message: '{% for passage in passages %}{{ passage.number }}:{{ passage.text }}{% endfor %}'
---
graph: lookup
description: A search and a reader.
start: find
result: read
nodes:
  find: {search: {knowledge: notes, query: 'parcels {{ input }}', top: 1}, next: read}
  read: {role: reader, passages: find, next: done}
---
role: liar
description: Adds to what was found.
model: talk
prompt: You add.
---
graph: checked
description: An answer without what was added.
start: find
result: check
nodes:
  find: {search: {knowledge: notes}, next: answer}
  answer:
    role: liar
    passages: find
    message: '{% for doubted in nodes.check.output.doubted %}Not so: {{ doubted.sentence }} {% endfor %}{{ task.input }}'
    next: check
  check:
    check: answer
    passages: find
    next:
      - {to: done, when: output.supported}
      - {to: answer, at_most: 1}
      - {to: done}
";

/// A file below the directory of the notes.
fn note(daemon: &Path, name: &str) -> PathBuf {
    let path = daemon.join("catalog/notes").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// Writes a file as editors do: another one is renamed over it.
fn save(daemon: &Path, name: &str, text: &str) {
    let path = note(daemon, name);
    let written = path.with_extension("tmp~");
    fs::write(&written, text).unwrap();
    fs::rename(written, path).unwrap();
}

fn noted_daemon() -> DaemonBuilder {
    let builder = daemon().with_yaml(NOTES);
    save(builder.dir(), "delivery.md", "# Delivery\n\nParcels leave the house\nevery weekday at four.\n");
    save(builder.dir(), "refunds.md", "# Refunds\n\nMoney comes back within thirty days.\n");
    builder
}

fn query(text: &str) -> v1::SearchKnowledgeRequest {
    v1::SearchKnowledgeRequest { knowledge: "notes".to_owned(), query: text.to_owned(), ..Default::default() }
}

async fn search(daemon: &Daemon, text: &str) -> Vec<v1::Passage> {
    found(&mut daemon.knowledge(), query(text)).await
}

async fn found(client: &mut KnowledgeClient<CallerChannel>, request: v1::SearchKnowledgeRequest) -> Vec<v1::Passage> {
    client.search(request).await.unwrap().into_inner().passages
}

/// Waits until what is asked of the daemon holds.
async fn within<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let held = async { while !holds().await {} };
    tokio::time::timeout(INDEX_TIMEOUT, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until these are the files that are indexed or refused, and nothing is left to do.
async fn indexed(daemon: &Daemon, sources: u64, failed: u64) {
    daemon.until_index("notes", |status| (status.sources, status.failed) == (sources, failed)).await;
}

fn names(passages: &[v1::Passage]) -> Vec<&str> {
    passages.iter().map(|passage| passage.source.rsplit('/').next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_found_and_what_is_gone_is_not() {
    let daemon = noted_daemon().start().await;
    indexed(&daemon, 2, 0).await;
    let passages = search(&daemon, "When do parcels leave?").await;
    let best = &passages[0];
    assert_eq!((best.first_line, best.last_line, best.page, best.rank), (1, 4, 0, 1), "{best:?}");
    assert_eq!(best.context, ["Delivery"]);
    let file = fs::read(&best.source).unwrap();
    assert_eq!(&file[best.first_byte as usize..best.end_byte as usize], best.text.as_bytes());
    // Saved, changed, renamed, moved out of the way, deleted.
    save(daemon.dir(), "team/hours.txt", "Olga opens the workshop on Saturdays.");
    within("a saved file is found", || async { names(&search(&daemon, "Olga").await) == ["hours.txt"] }).await;
    save(daemon.dir(), "team/hours.txt", "Pavel opens the workshop on Saturdays.");
    within("a changed file is found", || async { names(&search(&daemon, "Pavel").await) == ["hours.txt"] }).await;
    assert!(search(&daemon, "Olga").await.is_empty(), "what it said before is gone with it");
    fs::rename(note(daemon.dir(), "team"), note(daemon.dir(), "crew")).unwrap();
    within("a moved file is found where it is", || async {
        let passages = search(&daemon, "Pavel").await;
        passages.len() == 1 && passages[0].source.contains("/crew/")
    })
    .await;
    fs::remove_file(note(daemon.dir(), "crew/hours.txt")).unwrap();
    within("a deleted file is not found", || async { search(&daemon, "Pavel").await.is_empty() }).await;
    indexed(&daemon, 2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_was_changed_meanwhile_and_embeds_nothing_else() {
    let mut daemon = noted_daemon().start().await;
    indexed(&daemon, 2, 0).await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    save(daemon.dir(), "refunds.md", "# Refunds\n\nMoney comes back within ninety days.\n");
    fs::remove_file(note(daemon.dir(), "delivery.md")).unwrap();
    let daemon = daemon.restart().await;
    within("the change is found", || async { !search(&daemon, "ninety").await.is_empty() }).await;
    indexed(&daemon, 1, 0).await;
    assert!(search(&daemon, "thirty parcels").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_finds_what_grpc_does() {
    let daemon = noted_daemon().start().await;
    indexed(&daemon, 2, 0).await;
    let found = search(&daemon, "When do parcels leave?").await;
    let body = json!({"knowledge": "notes", "query": "When do parcels leave?", "top": 2});
    let answer = daemon.openai().call("/v1/search", &body).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let best = &answer.body["data"][0];
    assert_eq!(best["source"], found[0].source);
    assert_eq!((&best["lines"], &best["page"], &best["rank"]), (&json!([1, 4]), &Value::Null, &json!(1)));
    let refused = daemon.openai().call("/v1/search", &json!({"knowledge": "notes", "query": "x", "top": 51})).await;
    assert_eq!((refused.status.as_u16(), &refused.body["error"]["param"]), (400, &json!("top")), "{refused:?}");
    let unknown = daemon.openai().call("/v1/search", &json!({"knowledge": "minutes", "query": "x"})).await;
    assert_eq!(unknown.status.as_u16(), 404, "{unknown:?}");
    let reader = daemon.create_token("reader", "read", &[]).await;
    assert_eq!(daemon.openai_of(&reader).call("/v1/search", &body).await.status.as_u16(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_line_each_and_the_rest_is_found() {
    let builder = noted_daemon();
    let write = |name: &str, bytes: &[u8]| fs::write(note(builder.dir(), name), bytes).unwrap();
    write("half.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog");
    write("words.docx", b"these are words");
    write("zeros.txt", &[b'a', 0, 0, 0, b'b']);
    write(
        "old.txt",
        b"\xcf\xf0\xe8\xe2\xe5\xf2, \xea\xe0\xea \xe4\xe5\xeb\xe0? \xd1\xe0\xec\xee\xe2\xe0\xf0 \xea\xe8\xef\xe8\xf2.",
    );
    fs::File::create(note(builder.dir(), "huge.txt")).unwrap().set_len(2 << 30).unwrap();
    symlink("..", note(builder.dir(), "loop")).unwrap();
    symlink("/etc/passwd", note(builder.dir(), "outside.txt")).unwrap();
    let daemon = builder.start().await;
    indexed(&daemon, 3, 4).await;
    let (code, out, error) = daemon.cli(["knowledge", "status", "notes"]).run().await;
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().filter(|line| line.contains(": ")).collect();
    for (name, reason) in [
        ("half.pdf", "is no valid PDF: "),
        ("huge.txt", "it has 2147483648 bytes, and the limit is "),
        ("words.docx", "is no valid DOCX: "),
        ("zeros.txt", "is no text: byte 1 is 0"),
    ] {
        let line = lines.iter().filter(|line| line.contains(name)).collect::<Vec<_>>();
        assert!(line.len() == 1 && line[0].contains(reason), "{name}: {out}");
    }
    // A text in CP1251 is read as such.
    assert_eq!(names(&search(&daemon, "самовары").await), ["old.txt"]);
    assert!(search(&daemon, "root").await.is_empty(), "a link leads nowhere else");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_and_takes_texts() {
    let daemon = noted_daemon().start().await;
    let (code, out, error) = daemon.cli(["knowledge", "status", "notes"]).run().await;
    assert!(code == 0 && out.contains("notes"), "also before it is indexed: {code} {out}{error}");
    indexed(&daemon, 2, 0).await;
    let (code, out, error) = daemon.cli(["knowledge", "search", "notes", "parcels", "--json"]).run().await;
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let line: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&line["rank"], &line["lines"], &line["page"]), (&json!(1), &json!([1, 4]), &json!(0)), "{line}");
    assert!(line["score"].is_number() && line["source"].as_str().unwrap().ends_with("notes/delivery.md"), "{line}");
    assert_eq!(line["text"], "# Delivery\n\nParcels leave the house\nevery weekday at four.");
    let text = daemon.dir().join("coffee.txt");
    fs::write(&text, "Olga cleans the coffee machine on Fridays.").unwrap();
    let add = ["knowledge", "add", "notes", "kitchen", text.to_str().unwrap(), "--label", "team=house"];
    let (code, out, error) = daemon.cli(add).run().await;
    assert!(code == 0 && out.starts_with("added kitchen"), "{code} {out} {error}");
    // It is found when the command has ended.
    let labelled = ["knowledge", "search", "notes", "coffee", "--label", "team=house"];
    let (_, out, _) = daemon.cli(labelled).run().await;
    assert!(out.starts_with("1  kitchen, line 1") && out.contains("Olga cleans"), "{out}");
    let (_, out, _) = daemon.cli(["knowledge", "search", "notes", "coffee", "--label", "team=shop"]).run().await;
    assert_eq!(out, "nothing was found\n");
    let (_, out, _) = daemon.cli(["knowledge", "show", "notes", "kitchen"]).run().await;
    assert!(out.contains("Olga cleans"), "{out}");
    let (code, out, _) = daemon.cli(["knowledge", "remove", "notes", "kitchen"]).run().await;
    assert_eq!((code, out.as_str()), (0, "removed kitchen\n"));
    assert!(search(&daemon, "coffee").await.is_empty());
    let (code, _, error) = daemon.cli(["knowledge", "search", "minutes", "coffee"]).run().await;
    assert!(code == 2 && error.contains("there is no knowledge `minutes`"), "{code} {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_belongs_to_its_caller_and_is_erased_with_it() {
    let daemon = noted_daemon().start().await;
    indexed(&daemon, 2, 0).await;
    let client = async |name: &str| {
        let token = daemon.create_token(name, "submit,read", &[]).await;
        KnowledgeClient::new(daemon.caller(&token))
    };
    let (mut alice, mut bob) = (client("alice").await, client("bob").await);
    let text = |text: &str| v1::AddTextRequest {
        knowledge: "notes".to_owned(),
        source: "diary".to_owned(),
        text: text.to_owned(),
        ..Default::default()
    };
    alice.add_text(text("The kanarienvogel sings.")).await.unwrap();
    bob.add_text(text("The zaunkoenig sings.")).await.unwrap();
    let texts = async |client: &mut KnowledgeClient<CallerChannel>| {
        let passages = found(client, query("sings")).await;
        let mut texts: Vec<String> = passages.into_iter().map(|passage| passage.text).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&mut alice).await, ["The kanarienvogel sings."]);
    assert_eq!(texts(&mut bob).await, ["The zaunkoenig sings."]);
    assert_eq!(texts(&mut daemon.knowledge()).await.len(), 2, "the owner of the daemon finds both");
    assert_eq!(found(&mut alice, query("parcels")).await.len(), 1, "files are everybody's");
    let missing = v1::RemoveTextRequest { knowledge: "notes".to_owned(), source: "none".to_owned() };
    assert_eq!(bob.remove_text(missing).await.unwrap_err().code(), Code::NotFound);
    let get = v1::GetSourceRequest { knowledge: "notes".to_owned(), source: "diary".to_owned() };
    let read = bob.get_source(get).await.unwrap().into_inner();
    assert_eq!(read.passages[0].text, "The zaunkoenig sings.");
    let erase = v1::EraseRequest { task_ids: Vec::new(), owner: "alice".to_owned() };
    daemon.tasks().erase(erase).await.unwrap();
    assert_eq!(texts(&mut daemon.knowledge()).await, ["The zaunkoenig sings."]);
    let stored = fs::read(daemon.dir().join("data/knowledge.db")).unwrap();
    let wal = fs::read(daemon.dir().join("data/knowledge.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(13).any(|window| window == b"kanarienvogel");
    assert!(!holds(&stored) && !holds(&wal), "an erased text is nowhere in the index");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_told() {
    let daemon = noted_daemon().start().await;
    indexed(&daemon, 2, 0).await;
    let mut client = daemon.knowledge();
    let long = "a".repeat(8 * 1024 + 1);
    for (request, part) in [
        (query(""), "query"),
        (query(&long), "8"),
        (v1::SearchKnowledgeRequest { top: 51, ..query("parcels") }, "50"),
        (v1::SearchKnowledgeRequest { sources: vec!["*".to_owned(); 17], ..query("parcels") }, "16"),
        (v1::SearchKnowledgeRequest { sources: vec!["[".to_owned()], ..query("parcels") }, "["),
    ] {
        let status = client.search(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(part), "{part} in {}", status.message());
    }
    let unknown = v1::SearchKnowledgeRequest { knowledge: "minutes".to_owned(), ..query("parcels") };
    assert_eq!(client.search(unknown).await.unwrap_err().code(), Code::NotFound);
    let text = v1::AddTextRequest {
        knowledge: "notes".to_owned(),
        source: "long".to_owned(),
        text: "word ".repeat(300_000),
        ..Default::default()
    };
    assert_eq!(client.add_text(text).await.unwrap_err().code(), Code::InvalidArgument);
}

/// What the scripted model says to the roles of [`CLERKS`].
fn script() -> Value {
    json!({"replies": [
        {"when": ["You cite."], "say": "They leave at four [1], not at five [7] or six [1, 9]."},
        {"when": ["You list."], "say": "{\"answer\": \"at four\", \"citations\": [1]}"},
        {"when": ["You add.", "Not so: Olga drives them to Paris [1]."], "say": "Parcels leave the house at four [1]. Every weekday Pavel leaves [1]."},
        {"when": ["You add."], "say": "Parcels leave the house at four [1]. Olga drives them to Paris [1]."},
        {"say": "<{last}>"},
    ]})
}

fn clerks() -> DaemonBuilder {
    let builder = daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{CLERKS}")).with_failpoints(&script());
    save(builder.dir(), "delivery.md", "# Delivery\n\nParcels leave the house\nevery weekday at four.\n");
    builder
}

fn citations(task: &artel_tests::TaskStream) -> Vec<v1::Citation> {
    match task.events.last().and_then(|event| event.kind.clone()) {
        Some(Kind::Completed(completed)) => completed.output.unwrap().citations,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cites_what_was_found_and_nothing_else() {
    let daemon = clerks().start().await;
    indexed(&daemon, 1, 0).await;
    let mut task = daemon.run(task_request("When do parcels leave?").with_role("clerk")).await;
    let text = task.end().await.text();
    assert!(text.contains("[1]") && !text.contains("[7]") && !text.contains('9'), "{text}");
    let streamed: String = task
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(Kind::Token(token)) => Some(token.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(streamed, text, "no client has seen the other numbers");
    let cited = citations(&task);
    assert_eq!(cited.len(), 1, "{cited:?}");
    let [citation] = &cited[..] else { unreachable!() };
    assert_eq!((citation.number, citation.first_line, citation.last_line), (1, 1, 4));
    let file = fs::read_to_string(&citation.source).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines[0..4].join("\n"), citation.quote.trim_end());
    // As JSON, cited numbers are those of passages.
    let mut task = daemon.run(task_request("When do parcels leave?").with_role("registrar")).await;
    let json: Value = serde_json::from_str(&task.end().await.text()).unwrap();
    assert_eq!((&json["citations"], citations(&task)), (&json!([1]), cited));
    // A role that is grounded says that it found nothing, without its model.
    let mut task = daemon.run(task_request("xyzzy").with_role("careful")).await;
    assert_eq!(task.end().await.text(), "Nothing was found that answers this.");
    assert!(citations(&task).is_empty());
    // A client of OpenAI's interface is told too.
    let body = json!({"model": "clerk", "messages": [{"role": "user", "content": "When do parcels leave?"}]});
    let answer = daemon.openai().call("/v1/chat/completions", &body).await.body;
    assert_eq!(answer["artel"]["citations"][0]["lines"], json!([1, 4]), "{answer}");
    // The passages of a node that searched.
    let read = daemon.run(task_request("of the house").with_graph("lookup")).await.end().await.text();
    // The scripted model repeats the last line.
    assert_eq!(read, "<every weekday at four.>");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_passage_says_is_not_in_a_checked_answer() {
    let daemon = clerks().start().await;
    indexed(&daemon, 1, 0).await;
    let mut task = daemon.run(task_request("When do parcels leave the house?").with_graph("checked")).await;
    assert_eq!(task.end().await.text(), "Parcels leave the house at four [1].");
    let cited = citations(&task);
    assert_eq!((cited.len(), cited[0].number), (1, 1), "{cited:?}");
    let (_, lines, _) =
        daemon.cli(["run", "--graph", "checked", "--json", "When do parcels leave the house?"]).run().await;
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let checks = events.filter(|event| event["event"] == "step_finished" && event["node"] == "check");
    let checks: Vec<Value> = checks.map(|event| event["output"]["json"].clone()).collect();
    assert_eq!(checks.len(), 2, "it was asked once more: {checks:?}");
    assert_eq!(checks[0]["doubted"][0]["sentence"], "Olga drives them to Paris [1].");
    assert!(checks[1]["doubted"][0]["reason"].as_str().unwrap().contains("Pavel"), "{checks:?}");
    let (code, out, _) = daemon.cli(["run", "--graph", "checked", "When do parcels leave the house?"]).run().await;
    assert!(code == 0 && out.contains("  [1] ") && out.contains("delivery.md, lines 1 to 4"), "{out}");
    // Nothing is left of an answer that is not in the passages.
    let mut task = daemon.run(task_request("xyzzy").with_graph("checked")).await;
    assert_eq!(task.end().await.text(), "Nothing was found that answers this.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_is_found_without_its_words() {
    let yaml = "knowledge: notes\nsources: [notes]\nembedding: minilm\nsearch: {top: 2}\n";
    let builder = noted_daemon().with_yaml(yaml);
    save(builder.dir(), "long.txt", &"A sentence of a text that has a good many of them. ".repeat(40));
    let daemon = builder.start().await;
    indexed(&daemon, 3, 0).await;
    let request =
        v1::SearchKnowledgeRequest { mode: v1::SearchMode::Vector.into(), ..query("reimbursement of a payment") };
    let answer = daemon.knowledge().search(request).await.unwrap().into_inner();
    assert_eq!(names(&answer.passages)[0], "refunds.md", "{answer:?}");
    assert!(answer.passages[0].vector_score.is_some_and(|score| score > 0.2), "{answer:?}");
    // Another size of passages: a second index is built, and one of both answers at any time.
    let before = daemon.knowledge_status("notes").await.unwrap().passages;
    fs::write(daemon.dir().join("catalog/test.yaml"), format!("{yaml}chunk: {{tokens: 32, overlap: 0}}\n")).unwrap();
    within("the new index answers", || async {
        assert!(!search(&daemon, "parcels").await.is_empty());
        let status = daemon.knowledge_status("notes").await.unwrap();
        status.passages > before && !status.rebuilding && status.pending == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_that_the_embedding_model_does_not_know_is_told() {
    let multilingual = "---\nmodel: e5\nfile: multilingual-e5-small.Q4_0.gguf\nuse: embedding\n\
                        prefixes: {query: 'query: ', passage: 'passage: '}\n";
    let base = |name: &str, model: &str| format!("---\nknowledge: {name}\nsources: [notes]\nembedding: {model}\n");
    let yaml = format!("{NOTES}{multilingual}{}{}", base("english", "minilm"), base("any", "e5"));
    let builder = noted_daemon().with_yaml(&yaml);
    save(
        builder.dir(),
        "hours.txt",
        "\u{41e}\u{43b}\u{44c}\u{433}\u{430} \u{43e}\u{442}\u{43a}\u{440}\u{44b}\u{432}\u{430}\u{435}\u{442} \u{43c}\u{430}\u{441}\u{442}\u{435}\u{440}\u{441}\u{43a}\u{443}\u{44e} \u{43f}\u{43e} \u{441}\u{443}\u{431}\u{431}\u{43e}\u{442}\u{430}\u{43c}.\n",
    );
    let daemon = builder.start().await;
    daemon.until_index("english", |status| status.sources == 3).await;
    daemon.until_index("any", |status| status.sources == 3).await;
    let warning = daemon.knowledge_status("english").await.unwrap().warning;
    assert!(warning.contains("Cyrillic") && warning.contains("`minilm`"), "{warning}");
    assert_eq!(daemon.knowledge_status("any").await.unwrap().warning, "");
    let (code, out, _) = daemon.cli(["knowledge", "status"]).run().await;
    assert!(code == 0 && out.contains(&warning), "{out}");
}
