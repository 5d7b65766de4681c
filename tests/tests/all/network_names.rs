//! What a client may name: files of the models directory, of the catalog directory and of `network` in the settings, and no others.
//! What it names is a regular file whose header takes a bounded amount of work, and no answer tells the content of a file.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, DaemonBuilder, daemon, task_request};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Far more than any answer of these tests takes, and less than a blocked thread.
const DEADLINE: Duration = Duration::from_secs(60);
/// The content of a file that a client must not learn.
const SECRET: &str = "root:$6$c0ffee$salted:19000:0:99999:7:::";
/// Texts of the sparse header, and the bytes of each: 4 GiB together.
const SPARSE_TEXTS: u64 = 256;
const SPARSE_TEXT_BYTES: u64 = 16 << 20;
/// The most that the daemon's memory may grow by such a file.
const MAX_GROWTH_BYTES: u64 = 256 << 20;

/// A daemon with scripted models, and with a directory of models of its own.
fn scripted() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).without_models()
}

/// Starts it, and makes its directory of models.
async fn start(builder: DaemonBuilder) -> Daemon {
    let daemon = builder.start().await;
    fs::create_dir_all(daemon.dir().join("models")).unwrap();
    daemon
}

/// The files of a client: the daemon's catalog and a model of this file.
fn files(file: &str) -> Vec<v1::SourceFile> {
    let source = |path: &str, content: String| v1::SourceFile { path: path.to_owned(), content: content.into_bytes() };
    vec![
        source("test.yaml", SCRIPTED_CATALOG.to_owned()),
        source("named.yaml", format!("model: named\nfile: {file}\n")),
    ]
}

async fn apply(daemon: &Daemon, file: &str) -> Result<v1::ApplyResponse, Status> {
    let request = v1::ApplyRequest { files: files(file), expected_version: String::new() };
    Ok(timeout(DEADLINE, daemon.catalog().apply(request)).await.unwrap()?.into_inner())
}

async fn validate(daemon: &Daemon, file: &str) -> Result<v1::ValidateResponse, Status> {
    let request = v1::ValidateRequest { files: files(file) };
    Ok(timeout(DEADLINE, daemon.catalog().validate(request)).await.unwrap()?.into_inner())
}

/// The problem of the model `named` in the catalog.
async fn problem(daemon: &Daemon) -> String {
    let request = v1::GetCatalogRequest { kind: v1::DefinitionKind::Model.into(), name: "named".to_owned() };
    let model = timeout(DEADLINE, daemon.catalog().get(request)).await.unwrap().unwrap().into_inner();
    assert_eq!(model.location.unwrap().file, "named.yaml");
    model.problems.first().map(|problem| problem.message.clone()).unwrap_or_default()
}

async fn assert_serves(daemon: &Daemon) {
    let mut task = daemon.run(task_request("Hello").with_role("writer")).await;
    timeout(DEADLINE, task.end()).await.unwrap().text();
}

/// The message by which both calls refuse a file.
async fn refusal(daemon: &Daemon, file: &str) -> String {
    let applied = apply(daemon, file).await.expect_err(file);
    let validated = validate(daemon, file).await.expect_err(file);
    assert_eq!(applied.message(), validated.message());
    assert_eq!((applied.code(), validated.code()), (Code::InvalidArgument, Code::InvalidArgument));
    let violations = applied.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "files[1].content");
    assert!(violations[0].description.starts_with("named.yaml:2:7: `file` of model `named`"), "{violations:?}");
    assert!(!applied.message().contains("root") && !applied.message().contains("salt"), "{applied:?}");
    applied.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_outside_is_refused_and_nothing_is_told_of_it() {
    let daemon = start(scripted()).await;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("shadow");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let existing = refusal(&daemon, &secret.to_string_lossy()).await;
    let missing = refusal(&daemon, &outside.path().join("absent").to_string_lossy()).await;
    assert_eq!(existing, missing, "whether a refused file exists is not told");
    assert!(existing.contains("`network.files`") || existing.contains("network: {files: [DIR]}"), "{existing}");
    let models = daemon.dir().join("models");
    symlink(&secret, models.join("link.gguf")).unwrap();
    symlink(outside.path(), models.join("dir")).unwrap();
    symlink(outside.path().join("absent"), models.join("dangling.gguf")).unwrap();
    let link = models.join("link.gguf").to_string_lossy().into_owned();
    for file in [
        "link.gguf",
        &link,
        "dir/shadow",
        "dir/absent",
        "dangling.gguf",
        "../log",
        "../models/../log",
        "/etc/shadow",
        "/dev/zero",
    ] {
        refusal(&daemon, file).await;
    }
    let hub = refusal(&daemon, "hf:org/repo/m.gguf").await;
    assert!(hub.contains("network: {hubs: [hf]}"), "{hub}");
    assert_serves(&daemon).await;
    let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
    assert!(!list.definitions.iter().any(|definition| definition.name == "named"), "nothing was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_allowed_file_holds_is_not_told() {
    let daemon = start(scripted()).await;
    fs::write(daemon.dir().join("models/notes.gguf"), SECRET).unwrap();
    assert!(apply(&daemon, "notes.gguf").await.unwrap().applied);
    let message = problem(&daemon).await;
    assert!(message.contains("not a GGUF file") && !message.contains("root"), "{message}");
    let load = daemon.engines().load(v1::LoadRequest { model: "named".to_owned() }).await.unwrap_err();
    assert!(load.message().contains("not a GGUF file") && !load.message().contains("root"), "{load:?}");
    let log = daemon.whole_log().await;
    assert!(!log.contains("salted"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_allow_directories_and_hubs() {
    let shared = tempfile::tempdir().unwrap();
    let settings = format!("offline: true\nnetwork: {{files: [{}], hubs: [hf]}}\n", shared.path().display());
    let daemon = start(scripted().with_settings(&settings)).await;
    for name in ["there.gguf", "absent.gguf"] {
        fs::write(shared.path().join("there.gguf"), "GGUF").unwrap();
        let file = shared.path().join(name);
        assert!(validate(&daemon, &file.to_string_lossy()).await.unwrap().valid);
        assert!(apply(&daemon, &file.to_string_lossy()).await.unwrap().applied);
    }
    assert!(apply(&daemon, "hf:org/repo/m.gguf").await.unwrap().applied);
    refusal(&daemon, "/etc/shadow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_catalog_names_what_is_allowed_no_more_is_set_aside_until_it_is() {
    let shared = tempfile::tempdir().unwrap();
    let allowed = format!("network: {{files: [{}]}}\n", shared.path().display());
    let asked = "---\ngraph: asked\ndescription: A person is asked.\nstart: ask\n\
                 nodes: {ask: {ask: {message: 'Which?', deadline: 1h}, next: done}}\n";
    let daemon = start(scripted().with_settings(&allowed)).await;
    let file = shared.path().join("there.gguf");
    let mut files = files(&file.to_string_lossy());
    files[0].content.extend(asked.as_bytes());
    let request = v1::ApplyRequest { files, expected_version: String::new() };
    assert!(daemon.catalog().apply(request).await.unwrap().into_inner().applied);
    let mut run = daemon.run(task_request("Which sail?").with_graph("asked")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let id = run.id;

    let daemon = restart(daemon, "").await;
    assert_serves(&daemon).await;
    let task = daemon.task(&id).await;
    assert_eq!(task.state(), v1::TaskState::SetAside);
    assert!(
        task.set_aside_reason.contains("`file` of model `named` names a file that a client may not name"),
        "{task:?}"
    );
    assert_eq!(daemon.resume(&id).await.unwrap_err().code(), Code::FailedPrecondition);

    let daemon = restart(daemon, &allowed).await;
    assert_eq!(daemon.resume(&id).await.unwrap().state(), v1::TaskState::Waiting);
}

/// Stops the daemon in order and starts it with these settings.
async fn restart(mut daemon: Daemon, settings: &str) -> Daemon {
    daemon.signal(Signal::SIGTERM);
    timeout(DEADLINE, daemon.wait()).await.unwrap();
    start(daemon.after_exit().await.with_settings(settings)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_hub_may_be_named_once_it_is_fetched() {
    let daemon = start(scripted()).await;
    refusal(&daemon, "hf:org/repo/m.gguf").await;
    let fetched = daemon.dir().join("models/hf/org/repo/main");
    fs::create_dir_all(&fetched).unwrap();
    fs::write(fetched.join("m.gguf"), "GGUF").unwrap();
    assert!(apply(&daemon, "hf:org/repo/m.gguf").await.unwrap().applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_of_a_client_finds_the_files_of_the_models_directory() {
    let daemon = daemon().start().await;
    let own = tempfile::tempdir().unwrap();
    fs::create_dir(own.path().join("models")).unwrap();
    fs::write(
        own.path().join("models/own.yaml"),
        "model: own\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 1024\nsequences: 1\n---\n\
         role: newcomer\ndescription: Is new.\nmodel: own\nprompt: You are new.\nsampling: {max_tokens: 8}\n",
    )
    .unwrap();
    let (code, out, err) = daemon.cli(["catalog", "apply"]).arg(own.path()).run().await;
    assert_eq!(code, 0, "{out}{err}");
    daemon.run(task_request("Hi").with_role("newcomer")).await.end().await.text();
    fs::write(own.path().join("models/other.yaml"), "model: other\nfile: /etc/shadow\n").unwrap();
    let (code, out, err) = daemon.cli(["catalog", "apply"]).arg(own.path()).run().await;
    assert!(code == 2 && err.contains("models/other.yaml:2:7") && err.contains("network"), "{code} {out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_blocks_neither_an_answer_nor_the_exit() {
    let mut daemon = start(scripted()).await;
    mkfifo(&daemon.dir().join("models/pipe.gguf"), Mode::S_IRWXU).unwrap();
    assert!(apply(&daemon, "pipe.gguf").await.unwrap().applied);
    let message = problem(&daemon).await;
    assert!(message.contains("not a regular file"), "{message}");
    let load = timeout(DEADLINE, daemon.engines().load(v1::LoadRequest { model: "named".to_owned() })).await.unwrap();
    assert!(load.unwrap_err().message().contains("not a regular file"));
    assert_serves(&daemon).await;
    daemon.signal(Signal::SIGTERM);
    assert!(timeout(DEADLINE, daemon.wait()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_catalog_file_in_the_directory_is_a_problem_of_its_own() {
    let mut daemon = start(scripted()).await;
    let catalog = daemon.dir().join("catalog");
    symlink(&catalog, catalog.join("again")).unwrap();
    symlink(catalog.join("loop.yaml"), catalog.join("loop.yaml")).unwrap();
    File::create(catalog.join("large.yaml")).unwrap().set_len(10 << 30).unwrap();
    mkfifo(&catalog.join("pipe.yaml"), Mode::S_IRWXU).unwrap();
    // No event reports a failed reload, so this polls; each request is a round trip.
    let problems = async {
        loop {
            let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
            if list.directory_problems.len() >= 3 {
                break list.directory_problems;
            }
        }
    };
    let problems = timeout(DEADLINE, problems).await.unwrap();
    let of = |file: &str| {
        let problem = problems.iter().find(|problem| problem.location.as_ref().unwrap().file == file);
        problem.unwrap_or_else(|| panic!("{file} in {problems:?}")).message.clone()
    };
    assert!(of("pipe.yaml").contains("not a regular file"));
    assert!(of("loop.yaml").contains("cannot be read"));
    assert!(of("large.yaml").contains("the limit is"));
    let dir = daemon.dir().to_string_lossy();
    assert!(!problems.iter().any(|problem| problem.message.contains(&*dir)), "{problems:?}");
    assert_serves(&daemon).await;
    daemon.signal(Signal::SIGTERM);
    assert!(timeout(DEADLINE, daemon.wait()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_a_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("settings.yaml");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    for settings in [pipe.as_path(), Path::new("/dev/zero")] {
        let doctor = Cli::new(["doctor", "--config"]).arg(settings).arg("--data").arg(dir.path().join("data"));
        let (code, _, err) = timeout(DEADLINE, doctor.run()).await.unwrap();
        assert!(code == 1 && err.contains("not a regular file"), "{code} {err}");
    }
}

/// A GGUF file of about a megabyte on disk whose metadata has 4 GiB.
fn write_sparse(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.write_all(&[&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &SPARSE_TEXTS.to_le_bytes()].concat())
        .unwrap();
    for number in 0..SPARSE_TEXTS {
        let key = format!("text.{number}");
        let text_type = 8u32.to_le_bytes();
        let lengths = [(key.len() as u64).to_le_bytes(), SPARSE_TEXT_BYTES.to_le_bytes()];
        file.write_all(&[&lengths[0][..], key.as_bytes(), &text_type, &lengths[1]].concat()).unwrap();
        let end = file.seek(SeekFrom::Current(SPARSE_TEXT_BYTES as i64)).unwrap();
        file.set_len(end).unwrap();
    }
}

/// The most memory that the daemon had so far.
fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_header_takes_no_memory() {
    let daemon = start(scripted()).await;
    write_sparse(&daemon.dir().join("models/sparse.gguf"));
    let before = peak_bytes(&daemon);
    assert!(apply(&daemon, "sparse.gguf").await.unwrap().applied);
    let message = problem(&daemon).await;
    assert!(message.contains("exceeds the budget of 268435456 bytes of metadata"), "{message}");
    let load = daemon.engines().load(v1::LoadRequest { model: "named".to_owned() }).await.unwrap_err();
    assert!(load.message().contains("exceeds the budget"), "{load:?}");
    let growth = peak_bytes(&daemon) - before;
    assert!(growth < MAX_GROWTH_BYTES, "the daemon grew by {growth} bytes");
    assert_serves(&daemon).await;
}
