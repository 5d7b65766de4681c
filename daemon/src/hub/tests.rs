//! Fetching from servers on the loopback that behave as told.

mod server;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use server::{Asked, Server, answer, sha256};

const FILE: &str = "hf:org/repo@v1/q4/m.gguf";
const PATH: &str = "/org/repo/resolve/v1/q4/m.gguf";

/// A file of some chunks.
fn file() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend((0..700_000u32).flat_map(|n| (n % 65_521).to_le_bytes()));
    bytes
}

struct Here {
    dir: tempfile::TempDir,
    hub: Hub,
}

fn here(server: &Server, token: Option<&str>) -> Here {
    at(tempfile::tempdir().unwrap(), &server.address, token)
}

fn at(dir: tempfile::TempDir, endpoint: &str, token: Option<&str>) -> Here {
    let source = Source::new(endpoint, token.map(str::to_owned), Duration::from_millis(1)).map(Arc::new);
    let hub = Hub { source, ..Hub::new(dir.path().to_owned(), false) };
    Here { dir, hub }
}

impl Here {
    async fn get(&self, sha256: Option<&str>) -> Result<PathBuf, String> {
        self.hub.get(&Address::parse(FILE).unwrap(), sha256, |_| ()).await
    }

    async fn fails(&self) -> String {
        let error = self.get(None).await.unwrap_err();
        assert!(!self.dir.path().join("hf/org/repo/v1/q4/m.gguf").exists());
        error
    }

    fn left(&self) -> Vec<String> {
        let dir = fs::read_dir(self.dir.path().join("hf/org/repo/v1/q4")).unwrap();
        let mut names: Vec<String> = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Leads from the hub to a server of files, as the hub does for large files.
fn redirect(to: &Server) -> impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static {
    let to = format!("{}/blob?signature=secret", to.address);
    move |_| {
        let (hash, size) = (sha256(&file()), file().len().to_string());
        let headers = [("Location", &*to), ("X-Linked-Etag", &format!("\"{hash}\"")), ("X-Linked-Size", &size)];
        answer("302 Found", &headers, b"")
    }
}

/// Gives the rest that was asked for, or all of it.
fn serve(asked: &Asked) -> Vec<u8> {
    let (bytes, all) = (file(), file().len());
    let etag = [("ETag", "\"v1\"")];
    match asked.from() {
        Some(from) if from >= all => {
            answer("416 Range Not Satisfiable", &[("Content-Range", &format!("bytes */{all}"))], b"")
        }
        Some(from) if asked.header("if-range").is_none_or(|tag| tag == "\"v1\"") => {
            let range = format!("bytes {from}-{}/{all}", all - 1);
            answer("206 Partial Content", &[etag[0], ("Content-Range", &range)], &bytes[from..])
        }
        _ => answer("200 OK", &etag, &bytes),
    }
}

#[tokio::test]
async fn a_file_comes_over_a_redirect_and_the_token_stays_with_the_hub() {
    let files = Server::start(serve);
    let hub = Server::start(redirect(&files));
    let here = here(&hub, Some("hf_token"));
    let shares = Mutex::new(Vec::new());
    let address = Address::parse(FILE).unwrap();
    let path = here.hub.get(&address, None, |going| shares.lock().unwrap().push(going.share())).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), file());
    assert_eq!(here.left(), ["m.gguf"]);
    assert_eq!(hub.asked()[0].path, PATH);
    assert_eq!(hub.asked()[0].header("authorization"), Some("Bearer hf_token"));
    assert_eq!(files.asked()[0].header("authorization"), None);
    assert!(shares.lock().unwrap().is_sorted());
    // It is there: nobody is asked again.
    here.get(None).await.unwrap();
    assert_eq!((hub.asked().len(), here.hub.share(&address)), (1, None));
}

#[tokio::test]
async fn what_is_interrupted_goes_on_where_it_ended() {
    let calls = Mutex::new(0);
    let files = Server::start(move |asked| {
        let whole = serve(asked);
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let length = if *calls <= 2 { whole.len() / 2 } else { whole.len() };
        whole[..length].to_vec()
    });
    let hub = Server::start(redirect(&files));
    let here = here(&hub, None);
    assert_eq!(fs::read(here.get(None).await.unwrap()).unwrap(), file());
    let asked = files.asked();
    let from: Vec<_> = asked.iter().map(|asked| asked.from().unwrap_or(0)).collect();
    assert!(from.len() == 3 && from[0] == 0 && 0 < from[1] && from[1] < from[2], "{from:?}");
    assert_eq!(asked[1].header("if-range"), Some("\"v1\""));
}

#[tokio::test]
async fn a_later_start_goes_on_too_unless_the_file_has_changed() {
    let cut = Server::start(|asked| serve(asked)[..1_000_000].to_vec());
    let hub = Server::start(redirect(&cut));
    let first = here(&hub, None);
    // Each attempt brings something until the server is gone.
    drop(cut);
    let error = first.fails().await;
    assert!(error.contains("given up after 6 attempts") && error.contains("HF_ENDPOINT"), "{error}");
    let path = first.dir.path().join("hf/org/repo/v1/q4");
    fs::write(path.join("m.gguf.part"), &file()[..900_000]).unwrap();
    let marks = |linked: &str| format!("{{\"linked\":\"{linked}\",\"etag\":\"\\\"v1\\\"\"}}");
    fs::write(path.join("m.gguf.part.etag"), marks(&sha256(&file()))).unwrap();
    let files = Server::start(serve);
    let hub = Server::start(redirect(&files));
    let second = at(first.dir, &hub.address, None);
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.asked()[0].from(), Some(900_000));
    // The hub has another file by now.
    fs::remove_file(path.join("m.gguf")).unwrap();
    fs::write(path.join("m.gguf.part"), vec![7; 900_000]).unwrap();
    fs::write(path.join("m.gguf.part.etag"), marks("other")).unwrap();
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.asked()[1].from(), None);
    // All of it was there already.
    fs::rename(path.join("m.gguf"), path.join("m.gguf.part")).unwrap();
    fs::write(path.join("m.gguf.part.etag"), marks(&sha256(&file()))).unwrap();
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(second.left(), ["m.gguf"]);
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_begins_again() {
    let calls = Mutex::new(0);
    let files = Server::start(move |_| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let whole = answer("200 OK", &[("ETag", "\"v1\"")], &file());
        if *calls == 1 { whole[..500_000].to_vec() } else { whole }
    });
    let here = here(&files, None);
    assert_eq!(fs::read(here.get(None).await.unwrap()).unwrap(), file());
    assert_eq!(files.asked().len(), 2);
}

#[tokio::test]
async fn what_is_not_the_file_is_not_kept() {
    let mut other = file();
    *other.last_mut().unwrap() ^= 1;
    let files = Server::start(move |_| answer("200 OK", &[], &other));
    let hub = Server::start(redirect(&files));
    let error = here(&hub, None).fails().await;
    assert!(error.contains("its sha256 is") && error.contains("the hub states"), "{error}");
    let whole = Server::start(serve);
    let hub = Server::start(redirect(&whole));
    let stated = "a".repeat(64);
    let fetching = here(&hub, None);
    let error = fetching.get(Some(&stated)).await.unwrap_err();
    assert!(error.contains("the hub has another file than is wanted"), "{error}");
    assert!(whole.asked().len() == 1 && fetching.left().len() == 1, "nothing was read: {:?}", fetching.left());
    // A hub that states no hash does not make the YAML's count less.
    let error = here(&whole, None).get(Some(&stated)).await.unwrap_err();
    assert!(error.contains("the YAML states aaaa"), "{error}");
    let page = Server::start(|_| answer("200 OK", &[], b"<html>Who are you?</html>"));
    let error = here(&page, None).fails().await;
    assert!(error.contains("no GGUF file"), "{error}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let refusing = |status: &'static str, code: &'static str| {
        Server::start(move |_| answer(status, &[("X-Error-Code", code)], b"no"))
    };
    for (status, code, token, words) in [
        ("401 Unauthorized", "GatedRepo", None, "set HF_TOKEN"),
        ("403 Forbidden", "GatedRepo", Some("hf_token"), "the token of HF_TOKEN may not read it"),
        ("404 Not Found", "EntryNotFound", None, "no file `q4/m.gguf` in org/repo, revision `v1`"),
        ("404 Not Found", "RevisionNotFound", None, "no revision `v1`"),
        ("404 Not Found", "RepoNotFound", None, "no repository org/repo"),
        ("400 Bad Request", "", None, "answers 400"),
    ] {
        let server = refusing(status, code);
        let error = here(&server, token).fails().await;
        assert!(error.contains(words) && !error.contains("hf_token"), "{error}");
        assert_eq!(server.asked().len(), 1, "{status} is not asked again");
    }
    let busy = refusing("503 Service Unavailable", "");
    let error = here(&busy, None).fails().await;
    assert!(error.contains("answers 503; given up after 6 attempts"), "{error}");
    assert_eq!(busy.asked().len(), 6);
    let endless = Server::start(|asked| answer("302 Found", &[("Location", &asked.path)], b""));
    assert!(here(&endless, None).fails().await.contains("without end"));
}

#[tokio::test]
async fn nothing_is_asked_offline_and_the_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub { source: Err("nobody asks".to_owned()), ..Hub::new(dir.path().to_owned(), true) };
    let address = Address::parse(FILE).unwrap();
    let error = hub.get(&address, None, |_| ()).await.unwrap_err();
    let place = dir.path().join("hf/org/repo/v1/q4/m.gguf");
    assert!(error.contains("offline") && error.contains(&*place.to_string_lossy()), "{error}");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "GGUF").unwrap();
    assert_eq!(hub.get(&address, None, |_| ()).await.unwrap(), place);
}

#[tokio::test]
async fn those_who_want_the_same_file_share_one_fetch() {
    let files = Server::start(serve);
    let hub = Server::start(redirect(&files));
    let first = here(&hub, None);
    // Another process, as far as locks go: its part is open on its own.
    let second = Hub { source: first.hub.source.clone(), ..Hub::new(first.dir.path().to_owned(), false) };
    let address = Address::parse(FILE).unwrap();
    let (a, b, c) = tokio::join!(first.get(None), first.get(None), second.get(&address, None, |_| ()));
    assert_eq!((a.unwrap(), fs::read(b.unwrap()).unwrap(), fs::read(c.unwrap()).unwrap()).1, file());
    assert_eq!((hub.asked().len(), files.asked().len()), (1, 1));
}

#[test]
fn what_is_wrong_with_the_environment_is_said() {
    let error = |endpoint: &str, token: Option<&str>| {
        Source::new(endpoint, token.map(str::to_owned), Duration::ZERO).err().unwrap()
    };
    assert!(error("hub", None).contains("HF_ENDPOINT"));
    assert!(error("file:///hub", None).contains("HF_ENDPOINT"));
    let words = error("http://127.0.0.1", Some("se\ncret"));
    assert!(words.contains("HF_TOKEN") && !words.contains("cret"));
}
