//! Downloads from scripted servers on the loopback.

mod full_disk;
mod pieces;
mod server;
mod versions;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use server::{RecordedRequest, TestServer, response, sha256};

const FILE: &str = "hf:org/repo@v1/q4/m.gguf";
const PATH: &str = "/org/repo/resolve/v1/q4/m.gguf";

/// A file of several chunks.
fn file() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend((0..700_000u32).flat_map(|n| (n % 65_521).to_le_bytes()));
    bytes
}

struct DownloadFixture {
    dir: tempfile::TempDir,
    downloader: HfDownloader,
}

fn fixture(server: &TestServer, token: Option<&str>) -> DownloadFixture {
    fixture_in(tempfile::tempdir().unwrap(), &server.address, token)
}

fn fixture_in(dir: tempfile::TempDir, url: &str, token: Option<&str>) -> DownloadFixture {
    let endpoint = HfEndpoint::new(url, token.map(str::to_owned), Duration::from_millis(1)).map(Arc::new);
    let downloader = HfDownloader { endpoint, ..HfDownloader::new(dir.path().to_owned(), false) };
    DownloadFixture { dir, downloader }
}

impl DownloadFixture {
    async fn get(&self, sha256: Option<&str>) -> Result<PathBuf, Error> {
        let sha256 = sha256.map(|hash| hash.to_owned().into());
        self.downloader.get(&HfUri::parse(FILE).unwrap(), sha256.as_ref(), |_| ()).await
    }

    /// The message of its error.
    async fn fails(&self) -> String {
        let error = self.get(None).await.unwrap_err().to_string();
        assert!(!self.dir.path().join("hf/org/repo/v1/q4/m.gguf").exists());
        error
    }

    fn files(&self) -> Vec<String> {
        let dir = fs::read_dir(self.dir.path().join("hf/org/repo/v1/q4")).unwrap();
        let mut names: Vec<String> = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Redirects from the hub to a file server, as the hub does for large files.
fn redirect(to: &TestServer) -> impl Fn(&RecordedRequest) -> Vec<u8> + Send + Sync + 'static {
    let to = format!("{}/blob?signature=secret", to.address);
    move |_| {
        let (hash, size) = (sha256(&file()), file().len().to_string());
        let headers = [("Location", &*to), ("X-Linked-Etag", &format!("\"{hash}\"")), ("X-Linked-Size", &size)];
        response("302 Found", &headers, b"")
    }
}

/// Responds with the requested range, or with the whole file.
fn serve(request: &RecordedRequest) -> Vec<u8> {
    let (bytes, all) = (file(), file().len());
    let etag = [("ETag", "\"v1\"")];
    match request.first_byte() {
        Some(from) if from >= all => {
            response("416 Range Not Satisfiable", &[("Content-Range", &format!("bytes */{all}"))], b"")
        }
        Some(from) if request.header("if-range").is_none_or(|tag| tag == "\"v1\"") => {
            let range = format!("bytes {from}-{}/{all}", all - 1);
            response("206 Partial Content", &[etag[0], ("Content-Range", &range)], &bytes[from..])
        }
        _ => response("200 OK", &etag, &bytes),
    }
}

#[tokio::test]
async fn a_file_is_downloaded_over_a_redirect_and_the_token_is_sent_only_to_the_hub() {
    let files = TestServer::start(serve);
    let hub = TestServer::start(redirect(&files));
    let fixture = fixture(&hub, Some("hf_token"));
    let fractions = Mutex::new(Vec::new());
    let address = HfUri::parse(FILE).unwrap();
    let path = fixture
        .downloader
        .get(&address, None, |progress| fractions.lock().unwrap().push(progress.fraction()))
        .await
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), file());
    assert_eq!(fixture.files(), ["m.gguf"]);
    assert_eq!(hub.requests()[0].path, PATH);
    assert_eq!(hub.requests()[0].header("authorization"), Some("Bearer hf_token"));
    assert_eq!(files.requests()[0].header("authorization"), None);
    assert!(fractions.lock().unwrap().is_sorted());
    // The file exists: no further request is sent.
    fixture.get(None).await.unwrap();
    assert_eq!((hub.requests().len(), fixture.downloader.fraction(&address)), (1, None));
}

#[tokio::test]
async fn an_interrupted_download_is_resumed() {
    let calls = Mutex::new(0);
    let files = TestServer::start(move |request| {
        let whole = serve(request);
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let length = if *calls <= 2 { whole.len() / 2 } else { whole.len() };
        whole[..length].to_vec()
    });
    let hub = TestServer::start(redirect(&files));
    let fixture = fixture(&hub, None);
    assert_eq!(fs::read(fixture.get(None).await.unwrap()).unwrap(), file());
    let requests = files.requests();
    let from: Vec<_> = requests.iter().map(|request| request.first_byte().unwrap_or(0)).collect();
    assert!(from.len() == 3 && from[0] == 0 && 0 < from[1] && from[1] < from[2], "{from:?}");
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
}

#[tokio::test]
async fn a_download_is_resumed_after_a_restart_unless_the_file_has_changed() {
    let cut = TestServer::start(|request| serve(request)[..1_000_000].to_vec());
    let hub = TestServer::start(redirect(&cut));
    let first = fixture(&hub, None);
    // Each attempt makes progress until the server has stopped.
    drop(cut);
    let error = first.fails().await;
    assert!(error.contains("given up after 6 attempts") && error.contains("HF_ENDPOINT"), "{error}");
    let path = first.dir.path().join("hf/org/repo/v1/q4");
    fs::write(path.join("m.gguf.part"), &file()[..900_000]).unwrap();
    let validators = |linked: &str| format!("{{\"linked\":\"{linked}\",\"etag\":\"\\\"v1\\\"\"}}");
    fs::write(path.join("m.gguf.part.etag"), validators(&sha256(&file()))).unwrap();
    let files = TestServer::start(serve);
    let hub = TestServer::start(redirect(&files));
    let second = fixture_in(first.dir, &hub.address, None);
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.requests()[0].first_byte(), Some(900_000));
    // The file on the hub has changed.
    fs::remove_file(path.join("m.gguf")).unwrap();
    fs::write(path.join("m.gguf.part"), vec![7; 900_000]).unwrap();
    fs::write(path.join("m.gguf.part.etag"), validators("other")).unwrap();
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.requests()[1].first_byte(), None);
    // The partial file is complete.
    fs::rename(path.join("m.gguf"), path.join("m.gguf.part")).unwrap();
    fs::write(path.join("m.gguf.part.etag"), validators(&sha256(&file()))).unwrap();
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(second.files(), ["m.gguf"]);
}

#[tokio::test]
async fn without_range_support_the_download_starts_again() {
    let calls = Mutex::new(0);
    let files = TestServer::start(move |_| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let whole = response("200 OK", &[("ETag", "\"v1\"")], &file());
        if *calls == 1 { whole[..500_000].to_vec() } else { whole }
    });
    let fixture = fixture(&files, None);
    assert_eq!(fs::read(fixture.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.requests().len(), 2);
}

#[tokio::test]
async fn a_wrong_file_is_not_kept() {
    let mut other = file();
    *other.last_mut().unwrap() ^= 1;
    let files = TestServer::start(move |_| response("200 OK", &[], &other));
    let hub = TestServer::start(redirect(&files));
    let error = fixture(&hub, None).fails().await;
    assert!(error.contains("its sha256 is") && error.contains("the hub states"), "{error}");
    let whole = TestServer::start(serve);
    let hub = TestServer::start(redirect(&whole));
    let stated = "a".repeat(64);
    let download = fixture(&hub, None);
    let error = download.get(Some(&stated)).await.unwrap_err().to_string();
    assert!(error.contains("the hub has another file than expected"), "{error}");
    assert!(whole.requests().len() == 1 && download.files().len() == 1, "no byte was read: {:?}", download.files());
    // The hash in the YAML is checked even if the hub states none.
    let error = fixture(&whole, None).get(Some(&stated)).await.unwrap_err().to_string();
    assert!(error.contains("the YAML states aaaa"), "{error}");
    let page = TestServer::start(|_| response("200 OK", &[], b"<html>Who are you?</html>"));
    let error = fixture(&page, None).fails().await;
    assert!(error.contains("no GGUF file"), "{error}");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let failing = |status: &'static str, code: &'static str| {
        TestServer::start(move |_| response(status, &[("X-Error-Code", code)], b"no"))
    };
    for (status, code, token, words) in [
        ("401 Unauthorized", "GatedRepo", None, "set HF_TOKEN"),
        ("403 Forbidden", "GatedRepo", Some("hf_token"), "the token that was sent may not read it"),
        ("404 Not Found", "EntryNotFound", None, "no file `q4/m.gguf` in org/repo, revision `v1`"),
        ("404 Not Found", "RevisionNotFound", None, "no revision `v1`"),
        ("404 Not Found", "RepoNotFound", None, "no repository org/repo"),
        ("400 Bad Request", "", None, "answers 400"),
    ] {
        let server = failing(status, code);
        let error = fixture(&server, token).get(None).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        let error = error.to_string();
        assert!(error.contains(words) && !error.contains("hf_token"), "{error}");
        assert_eq!(server.requests().len(), 1, "{status} is not retried");
    }
    let overloaded = failing("503 Service Unavailable", "");
    let error = fixture(&overloaded, None).get(None).await.unwrap_err();
    assert!(error.to_string().contains("answers 503; given up after 6 attempts"), "{error}");
    assert!(error.is_transient(), "{error}");
    assert_eq!(overloaded.requests().len(), 6);
    let endless = TestServer::start(|request| response("302 Found", &[("Location", &request.path)], b""));
    assert!(fixture(&endless, None).fails().await.contains("too many redirects"));
}

#[tokio::test]
async fn offline_no_request_is_sent_and_the_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let downloader =
        HfDownloader { endpoint: Err(Error::InvalidToken), ..HfDownloader::new(dir.path().to_owned(), true) };
    let address = HfUri::parse(FILE).unwrap();
    let error = downloader.get(&address, None, |_| ()).await.unwrap_err();
    assert!(!error.is_transient());
    let error = error.to_string();
    let path = dir.path().join("hf/org/repo/v1/q4/m.gguf");
    assert!(error.contains("offline") && error.contains(&*path.to_string_lossy()), "{error}");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "GGUF").unwrap();
    assert_eq!(downloader.get(&address, None, |_| ()).await.unwrap(), path);
}

#[tokio::test]
async fn requests_for_the_same_file_share_one_download() {
    let files = TestServer::start(serve);
    let hub = TestServer::start(redirect(&files));
    let first = fixture(&hub, None);
    // Stands for another process: it opens and locks the partial file by itself.
    let second = HfDownloader {
        endpoint: first.downloader.endpoint.clone(),
        ..HfDownloader::new(first.dir.path().to_owned(), false)
    };
    let address = HfUri::parse(FILE).unwrap();
    let (a, b, c) = tokio::join!(first.get(None), first.get(None), second.get(&address, None, |_| ()));
    assert_eq!((a.unwrap(), fs::read(b.unwrap()).unwrap(), fs::read(c.unwrap()).unwrap()).1, file());
    assert_eq!((hub.requests().len(), files.requests().len()), (1, 1));
}

#[test]
fn invalid_environment_variables_are_reported() {
    let error = |endpoint: &str, token: Option<&str>| {
        HfEndpoint::new(endpoint, token.map(str::to_owned), Duration::ZERO).err().unwrap().to_string()
    };
    assert!(error("hub", None).contains("HF_ENDPOINT"));
    assert!(error("file:///hub", None).contains("HF_ENDPOINT"));
    let message = error("http://127.0.0.1", Some("se\ncret"));
    assert!(message.contains("HF_TOKEN") && !message.contains("cret"));
}

#[tokio::test]
async fn the_hub_states_size_and_hash_of_a_large_file_without_its_bytes() {
    let files = TestServer::start(serve);
    let hub = TestServer::start(redirect(&files));
    let address = HfUri::parse(FILE).unwrap();
    let stated = fixture(&hub, None).downloader.statement(&address).await.unwrap();
    assert_eq!(stated, HubStatement { size_bytes: Some(file().len() as u64), sha256: Some(sha256(&file())) });
    assert!(files.requests().is_empty(), "nothing was asked of the server of large files");
}

#[tokio::test]
async fn a_hub_that_has_no_such_file_or_does_not_answer_states_nothing() {
    let address = HfUri::parse(FILE).unwrap();
    let hub = TestServer::start(|_| response("404 Not Found", &[("X-Error-Code", "RepoNotFound")], b""));
    let error = fixture(&hub, None).downloader.statement(&address).await.unwrap_err();
    assert!(error.to_string().contains("no repository org/repo"), "{error}");
    let gone = hub.address.clone();
    drop(hub);
    let error = fixture_in(tempfile::tempdir().unwrap(), &gone, None).downloader.statement(&address).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    let offline = HfDownloader::new("models".into(), true).statement(&address).await.unwrap_err();
    assert!(offline.to_string().contains("downloads are disabled"), "{offline}");
}
