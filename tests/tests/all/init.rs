//! `artel init`: a fresh user, a hub on the loopback, and a crew that answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use artel_tests::hub::{EMBEDDING_URI, HubServer, MODEL_URI};
use artel_tests::{Cli, TerminalSession, artel, models, repository};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

/// A table with the models of the test hub. The size of the first one is wrong.
const TABLE: &str = "\
- name: smol
  repository: org/smol
  file: q4/smol.gguf
  quantisation: Q4_1
  bytes: 1000
  parameters: 135M
  layers: 30
  kv: 384
  context: 8192
  licence: Apache-2.0
  fetched: never
- name: mini
  use: embedding
  repository: org/mini
  file: mini.gguf
  quantisation: F16
  bytes: 46220352
  parameters: 23M
  layers: 6
  kv: 0
  context: 512
  licence: Apache-2.0
  fetched: never
";

const FILES: [&str; 4] = ["graph.yaml", "models.yaml", "roles.yaml", "router.yaml"];

/// A user with an empty home directory, beside which a table of models lies.
struct FreshUser {
    dir: TempDir,
}

impl FreshUser {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        fs::write(dir.path().join("table.yaml"), TABLE).unwrap();
        Self { dir }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("table.yaml")
    }

    fn catalog(&self) -> PathBuf {
        self.home().join(".config/artel/catalog")
    }

    /// A call of the command line by this user.
    fn cli<const N: usize>(&self, args: [&str; N]) -> Cli {
        self.at_home(Cli::new(args))
    }

    fn at_home(&self, cli: Cli) -> Cli {
        let home = self.home();
        let cli = cli.env("XDG_CONFIG_HOME", home.join(".config")).env("XDG_DATA_HOME", home.join(".local/share"));
        cli.env("HOME", home)
    }

    /// `artel init --yes` with the table.
    fn init(&self) -> Cli {
        self.cli(["init", "--yes", "--models-table"]).arg(self.table())
    }

    /// The contents of the catalog.
    fn files(&self) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.catalog()) else { return BTreeMap::new() };
        let read = |path: &Path| (name(path), fs::read_to_string(path).unwrap());
        entries.map(|entry| read(&entry.unwrap().path())).collect()
    }

    /// A daemon as `artel serve` starts it, and its address.
    async fn serve(&self) -> (Child, String) {
        self.started(self.cli(["serve", "--json", "--listen", "127.0.0.1:0"])).await
    }

    /// A daemon, when it is ready, and its address.
    async fn started(&self, serve: Cli) -> (Child, String) {
        let mut command = serve.into_command();
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let mut daemon = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{}", fs::read_to_string(self.dir.path().join("log")).unwrap()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        (daemon, format!("http://{}", ready["listening"].as_str().unwrap()))
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_user_gets_a_crew_whose_roles_answer() {
    let (user, hub) = (FreshUser::new(), HubServer::start());
    hub.resume();
    let (code, out, err) = user.init().env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("the file of smol has 98.4 MB on the hub, and 1.0 kB in the table"), "{out}");
    assert!(out.contains("licence Apache-2.0; this row of the table was never tried"), "{out}");
    assert!(out.contains("smol runs on ") && out.contains("artel run --graph crew"), "{out}");
    assert_eq!(user.files().into_keys().collect::<Vec<_>>(), FILES);
    let fetched = user.home().join(".local/share/artel/models").join(HubServer::model_path());
    assert!(fetched.is_file() && user.files()["models.yaml"].contains(MODEL_URI), "{:?}", user.files());
    assert!(user.files()["models.yaml"].contains(EMBEDDING_URI), "{:?}", user.files());
    println!("{out}");

    let (code, out, err) = user.cli(["check"]).arg(user.catalog()).run().await;
    assert_eq!(code, 0, "{out}{err}");

    let (before, requests) = (user.files(), hub.requests().len());
    let (code, out, err) = user.init().env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert!(code == 0 && out.contains("nothing was changed"), "{code} {out}{err}");
    assert_eq!((user.files(), hub.requests().len()), (before, requests), "a second run asks and writes nothing");

    drop(hub);
    let (_daemon, address) = user.serve().await;
    let questions = [
        ("--role=explainer", "Why is the sky blue?"),
        ("--role=writer", "Write one sentence that thanks Ada for the book."),
        ("--role=organizer", "Plan a picnic."),
        ("--graph=crew", "Make a checklist for a weekend in the mountains."),
    ];
    for (choice, question) in questions {
        let (code, out, err) =
            user.cli(["run", "--json"]).arg(choice).arg(question).env("ARTEL_ADDRESS", &address).run().await;
        assert_eq!(code, 0, "{choice}: {out}{err}");
        let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(last["state"], "completed", "{choice}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_the_catalog_is_written_and_the_command_that_fetches_is_named() {
    let user = FreshUser::new();
    let (code, out, err) = user.init().arg("--offline").arg("--json").run().await;
    assert_eq!(code, 0, "{out}{err}");
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&result["model"], &result["next"][0]), (&Value::from("smol"), &Value::from("artel fetch")));
    assert_eq!(result["models"][0]["path"], Value::Null);
    assert!(result["notes"].to_string().contains("the demo model is not here either"), "{result}");
    assert_eq!(user.files().into_keys().collect::<Vec<_>>(), FILES);

    let hub = HubServer::start();
    hub.resume();
    let (code, out, err) = user.cli(["fetch"]).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = user.init().arg("--offline").run().await;
    assert!(code == 0 && out.contains("nothing was changed") && !out.contains("to fetch"), "{code} {out}{err}");

    let here = user.home().join(".local/share/artel/models");
    fs::remove_file(here.join(HubServer::embedding_path())).unwrap();
    let demo = "SmolLM2-135M-Instruct.Q4_1.gguf";
    fs::copy(models().join(demo), here.join(demo)).unwrap();
    let (code, out, err) = user.init().arg("--offline").arg("--force").arg("--json").run().await;
    assert_eq!(code, 0, "{out}{err}");
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&result["model"], &result["embedding_model"]), (&Value::from("smol"), &Value::Null), "{result}");
    assert!(result["notes"].to_string().contains("mini is not here, and the router goes by words"), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_are_printed_reach_their_daemon() {
    let user = FreshUser::new();
    let data = user.home().join("my data");
    let init = user.init().arg("--offline").arg("--json").arg("--data").arg(&data).arg("--models").arg(models());
    let (code, out, err) = init.run().await;
    assert_eq!(code, 0, "{out}{err}");
    let result: Value = serde_json::from_str(&out).unwrap();
    let path = format!("{}:{}", artel().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = |line: String| {
        let shell = Cli::program(Path::new("sh"), ["-c"]).arg(line);
        user.at_home(shell).env("PATH", &path)
    };
    let next = |at: usize| result["next"][at].as_str().unwrap().to_owned();
    let (code, out, err) = shell(next(0)).run().await;
    assert_eq!(code, 0, "{out}{err}");
    // Another port: this one may be taken.
    let serve = format!("exec {} --json --listen 127.0.0.1:0", next(1));
    let _daemon = user.started(shell(serve)).await;
    let (code, out, err) = shell(next(2)).run().await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_refuses_leaves_the_demo_model() {
    let (user, hub) = (FreshUser::new(), HubServer::start());
    fs::write(user.table(), TABLE.replace("org/smol", "org/gone")).unwrap();
    let init = user.init().env("HF_ENDPOINT", &hub.endpoint).env("ARTEL_MODELS", models());
    let (code, out, err) = init.run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("smol was not fetched") && out.contains("in org/gone"), "{out}");
    assert!(out.contains("the catalog names the demo model"), "{out}");
    let models = &user.files()["models.yaml"];
    assert!(models.contains("model: demo\n") && models.contains("SmolLM2-135M-Instruct.Q4_1.gguf"), "{models}");
    assert!(out.contains("demo runs on "), "it is placed: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_exist_are_listed_and_kept() {
    let (user, hub) = (FreshUser::new(), HubServer::start());
    hub.resume();
    fs::create_dir_all(user.catalog()).unwrap();
    fs::write(user.catalog().join("roles.yaml"), "# mine\n").unwrap();
    let (code, out, err) = user.init().env("HF_ENDPOINT", &hub.endpoint).run().await;
    let listed = user.catalog().join("roles.yaml");
    assert!(code == 1 && err.contains(&*listed.to_string_lossy()) && err.contains("--force"), "{code} {out}{err}");
    assert_eq!(user.files().into_iter().collect::<Vec<_>>(), [("roles.yaml".to_owned(), "# mine\n".to_owned())]);
    assert!(hub.file_requests().is_empty(), "nothing was downloaded either");

    let (code, out, err) = user.init().arg("--offline").arg("--force").run().await;
    assert_eq!(code, 0, "{out}{err}");
    let files = user.files();
    assert_eq!(files["roles.yaml.bak"], "# mine\n");
    assert!(files["roles.yaml"].contains("role: explainer") && files.len() == 5, "{files:?}");
}

#[tokio::test]
async fn without_a_terminal_nothing_is_asked() {
    let user = FreshUser::new();
    let (code, _, err) = user.cli(["init"]).run().await;
    assert!(code == 2 && err.contains("--yes"), "{code} {err}");
    let (code, _, err) = user.init().arg("--model").arg("smoll").run().await;
    assert!(code == 1 && err.contains("is `smol` meant?"), "{code} {err}");
    fs::write(user.table(), "- {name: smol}\n").unwrap();
    let (code, _, err) = user.init().run().await;
    assert!(code == 1 && err.contains("row 1: missing field `repository`"), "{code} {err}");
    assert!(user.files().is_empty());
}

/// `artel init` at a terminal, in the directory of the table.
fn at_terminal(user: &FreshUser, endpoint: &str) -> TerminalSession {
    let line = format!("cd '{}'; '{}' init --models-table table.yaml", user.dir.path().display(), artel().display());
    TerminalSession::start(&line, |script| user.at_home(script).env("HF_ENDPOINT", endpoint))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_person_is_asked() {
    let user = FreshUser::new();
    // This hub does not answer, so that the size is that of the table.
    let mut session = at_terminal(&user, "http://127.0.0.1:1");
    session.answer("Where do the files of the catalog go?", "").await;
    session.answer("Which model?", "huge").await;
    session.answer("`huge` is none of smol", "").await;
    session.answer("Download smol (1.0 kB, Apache-2.0)", "n").await;
    assert_eq!(session.end().await, Some(0), "{}", session.screen());
    let shown = session.screen();
    assert!(shown.contains("nothing is downloaded") && shown.contains("artel fetch"), "{shown}");
    assert_eq!(user.files().into_keys().collect::<Vec<_>>(), FILES);
}

/// The page with the transcript of a session.
const PAGE: &str = "docs/book/src/init.md";
/// The first line of the transcript.
const TRANSCRIPT_COMMAND: &str = "$ artel init --models-table table.yaml\n";
/// A row of a model that no machine has room for.
const COLOSSUS: &str = "\
- name: colossus
  repository: org/colossus
  file: colossus.gguf
  quantisation: Q8_0
  bytes: 90000000000000
  parameters: 90T
  layers: 400
  kv: 65536
  context: 131072
  licence: Apache-2.0
  fetched: never
";

/// A text without what differs between machines and runs: figures, the units of sizes, and the spaces that align columns.
fn steady(text: &str) -> String {
    let mut steady = text.to_owned();
    for unit in ["kB", "MB", "GB", "TB"] {
        steady = steady.replace(&format!(" {unit}"), " B");
    }
    let mut kept = String::new();
    for c in steady.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        let repeats = matches!(c, '0' | ' ') && kept.ends_with(c);
        // The point of a decimal.
        let joins = c == '.' && kept.ends_with('0');
        if !repeats && !joins {
            kept.push(c);
        }
    }
    kept
}

/// The block of a page that begins with a line, with the text before and after it.
fn block<'p>(page: &'p str, first_line: &str) -> [&'p str; 3] {
    let start = page.find(first_line).unwrap_or_else(|| panic!("{PAGE} has no `{first_line}`"));
    let length = page[start..].find("```").expect("the block ends");
    [&page[..start], &page[start..start + length], &page[start + length..]]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_shows_what_a_fresh_user_sees_at_a_terminal() {
    let (user, hub) = (FreshUser::new(), HubServer::start());
    let size = models().join("SmolLM2-135M-Instruct.Q4_1.gguf").metadata().unwrap().len();
    fs::write(user.table(), format!("{COLOSSUS}{}", TABLE.replace("bytes: 1000", &format!("bytes: {size}")))).unwrap();
    let mut session = at_terminal(&user, &hub.endpoint);
    session.answer("Where do the files of the catalog go?", "").await;
    session.answer("Which model?", "").await;
    session.answer("[Y/n]", "y").await;
    // The download stops on its way, and how far it is stays on the screen.
    let is_progress = |line: &str| line.starts_with(MODEL_URI) && line.contains('░') && line.contains("B/s");
    session.until_last_line(is_progress).await;
    hub.resume();
    assert_eq!(session.end().await, Some(0), "{}", session.screen());
    let shown = session.screen().replace(&*user.home().to_string_lossy(), "/home/ada");
    let lines: Vec<&str> = shown.trim_end().lines().map(str::trim_end).collect();
    let shown = format!("{TRANSCRIPT_COMMAND}{}\n", lines.join("\n"));

    let path = repository().join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let [before, recorded, after] = block(&page, TRANSCRIPT_COMMAND);
    if std::env::var_os("ARTEL_RECORD").is_some() {
        fs::write(&path, [before, &shown, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        steady(recorded),
        steady(&shown),
        "{PAGE} shows another session: ARTEL_RECORD=1 cargo test -p artel-tests book_shows records it"
    );
}
