//! Models in pieces whose repository changes: no piece of another version is put beside the others.

use std::sync::atomic::{AtomicBool, Ordering};

use super::pieces::{COMMIT, PIECE_FILES, address, name, piece};
use super::*;

/// The commit after [`COMMIT`].
const NEXT_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A hub with two versions of a model. `v1` means the first one until it is moved.
#[derive(Clone, Default)]
struct MovingHub {
    has_moved: Arc<AtomicBool>,
    /// Whether the first commit is gone.
    is_rewritten: Arc<AtomicBool>,
}

/// The bytes of a piece of the second version, which are as many as those of the first one.
fn next_piece(number: u32) -> Vec<u8> {
    let mut bytes = piece(number);
    bytes[1000..].reverse();
    bytes
}

/// The revision and the number of the piece that is asked for.
fn asked(request: &RecordedRequest) -> (String, u32) {
    let path = request.path.strip_prefix("/org/big/resolve/").unwrap();
    let (revision, name) = path.split_once("/q4/m-").unwrap();
    (revision.to_owned(), name[..5].parse().unwrap())
}

impl MovingHub {
    fn move_on(&self) {
        self.has_moved.store(true, Ordering::SeqCst);
    }

    fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::SeqCst)
    }

    /// Answers with a piece of the version that the request names or `v1` means. With what it names, or none: no commit and no hash.
    fn answer(&self, request: &RecordedRequest, names_commit: bool) -> Vec<u8> {
        let (revision, number) = asked(request);
        let commit = match revision.as_str() {
            "v1" if self.has_moved() => NEXT_COMMIT,
            "v1" => COMMIT,
            COMMIT if self.is_rewritten.load(Ordering::SeqCst) => {
                return response("404 Not Found", &[("X-Error-Code", "RevisionNotFound")], b"");
            }
            other => other,
        };
        let bytes = if commit == COMMIT { piece(number) } else { next_piece(number) };
        let (size, hash, etag) = (bytes.len().to_string(), sha256(&bytes), format!("\"{commit}\""));
        let named = [("X-Linked-Size", size.as_str()), ("X-Linked-Etag", &hash), ("X-Repo-Commit", commit)];
        let mut headers = vec![("ETag", etag.as_str())];
        headers.extend(named.iter().filter(|_| names_commit));
        match request.method.as_str() {
            "HEAD" => response_without_body(bytes.len(), &headers),
            _ => response("200 OK", &headers, &bytes),
        }
    }
}

/// The answer to a question for a file of this size.
fn response_without_body(bytes: usize, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

impl DownloadFixture {
    fn assert_version(&self, of: fn(u32) -> Vec<u8>) {
        for number in 1..=PIECE_FILES {
            assert!(fs::read(self.place().join(name(number))).unwrap() == of(number), "piece {number}");
        }
        assert_eq!(fs::read_dir(self.place()).unwrap().count(), PIECE_FILES as usize, "nothing else is left");
    }
}

#[tokio::test]
async fn all_pieces_are_of_the_commit_that_the_first_answer_names() {
    let hub = MovingHub::default();
    let of_server = hub.clone();
    let server = TestServer::start(move |request| {
        let answer = of_server.answer(request, true);
        // The revision means another commit as soon as it was asked for.
        of_server.move_on();
        answer
    });
    let fixture = fixture(&server, None);
    fixture.get_pieces().await.unwrap();
    fixture.assert_version(piece);
    let revisions: Vec<String> = server.requests().iter().map(|request| asked(request).0).collect();
    assert!(revisions[0] == "v1" && revisions[1..].iter().all(|revision| revision == COMMIT), "{revisions:?}");
}

/// The first pieces of the first version, with what is recorded of them.
async fn interrupted(hub: &MovingHub) -> DownloadFixture {
    let of_server = hub.clone();
    let server = TestServer::start(move |request| match (request.method.as_str(), asked(request).1) {
        ("GET", 4 | 5) => response("503 Service Unavailable", &[], b""),
        _ => of_server.answer(request, true),
    });
    let first = fixture(&server, None);
    let error = first.get_pieces().await.unwrap_err();
    assert!(matches!(error, Error::GivenUp { .. }), "{error}");
    first
}

#[tokio::test]
async fn the_rest_of_a_model_is_of_the_version_of_what_is_here() {
    let hub = MovingHub::default();
    let first = interrupted(&hub).await;
    let here = (1..=PIECE_FILES).filter(|number| first.place().join(name(*number)).exists()).count();
    assert!(here >= 1, "nothing was fetched");
    hub.move_on();
    let server = TestServer::start(move |request| hub.answer(request, true));
    let second = fixture_in(first.dir, &server.address, None);
    second.get_pieces().await.unwrap();
    second.assert_version(piece);
    // What was fetched before is not asked for again.
    assert_eq!(requested_count(&server), (PIECE_FILES as usize - here, PIECE_FILES as usize - here));
}

/// The numbers of questions and of requests for pieces.
fn requested_count(server: &TestServer) -> (usize, usize) {
    let of = |method: &str| server.requests().iter().filter(|request| request.method == method).count();
    (of("HEAD"), of("GET"))
}

#[tokio::test]
async fn a_piece_of_a_version_that_the_hub_has_no_more_is_refused_in_words() {
    let hub = MovingHub::default();
    let first = interrupted(&hub).await;
    hub.move_on();
    hub.is_rewritten.store(true, Ordering::SeqCst);
    let server = TestServer::start(move |request| hub.answer(request, true));
    let second = fixture_in(first.dir, &server.address, None);
    let error = second.get_pieces().await.unwrap_err();
    assert!(!error.is_transient());
    let error = error.to_string();
    assert!(error.contains("is of another version than the hub has of this model in revision `v1`"), "{error}");
    assert!(error.contains("its sha256 is ") && error.contains("remove the file"), "{error}");
    assert_eq!(requested_count(&server).1, 0, "nothing is fetched");
    fs::remove_dir_all(second.place()).unwrap();
    second.get_pieces().await.unwrap();
    second.assert_version(next_piece);
}

#[tokio::test]
async fn a_piece_that_was_copied_from_elsewhere_is_compared_first() {
    let hub = MovingHub::default();
    let server = TestServer::start(move |request| hub.answer(request, true));
    let copied = fixture(&server, None);
    copied.write(&name(3), &next_piece(3));
    let error = copied.get_pieces().await.unwrap_err().to_string();
    let expected = format!("m-00003-of-00005.gguf: the file {}", copied.place().join(name(3)).display());
    assert!(error.contains(&expected) && error.contains(&sha256(&next_piece(3))), "{error}");
    copied.write(&name(3), &piece(3)[..5000]);
    let error = copied.get_pieces().await.unwrap_err().to_string();
    assert!(error.contains("it has 5000 bytes, the hub states 800004"), "{error}");
    assert_eq!(requested_count(&server).1, 0, "nothing is fetched");
    // With hashes in the YAML it is clear which files are meant: loading compares what is here with them.
    let hashes = PieceHashes::new((1..=PIECE_FILES).map(|number| sha256(&piece(number))).collect()).unwrap();
    copied.downloader.get(&address(), Some(&hashes), |_| ()).await.unwrap();
    assert_eq!(fs::read(copied.place().join(name(3))).unwrap().len(), 5000);
}

#[tokio::test]
async fn an_old_record_without_a_piece_holds_no_one_to_an_old_version() {
    let hub = MovingHub::default();
    hub.move_on();
    let server = TestServer::start(move |request| hub.answer(request, true));
    let fixture = fixture(&server, None);
    fixture.write(&format!("{}.commit", name(1)), COMMIT.as_bytes());
    fixture.get_pieces().await.unwrap();
    fixture.assert_version(next_piece);
}

#[tokio::test]
async fn a_server_without_commits_that_changes_before_a_piece_comes_is_refused() {
    let hub = MovingHub::default();
    let of_server = hub.clone();
    let server = TestServer::start(move |request| {
        if request.method == "GET" {
            of_server.move_on();
        }
        of_server.answer(request, false)
    });
    let fixture = fixture(&server, None);
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(error.is_transient() && matches!(error, Error::VersionChanged(_)), "{error}");
    assert!(error.to_string().contains("has another version of this file now"), "{error}");
    // The next request asks again, and gets all of the new version.
    fixture.get_pieces().await.unwrap();
    fixture.assert_version(next_piece);
}

#[tokio::test]
async fn a_server_without_commits_that_changes_after_a_piece_came_is_refused() {
    let hub = MovingHub::default();
    let of_server = hub.clone();
    let count = Mutex::new(0);
    let server = TestServer::start(move |request| {
        let answer = of_server.answer(request, false);
        if request.method == "GET" {
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count == PIECE_FILES {
                of_server.move_on();
            }
        }
        answer
    });
    let fixture = fixture(&server, None);
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(matches!(error, Error::VersionChanged(_)), "{error}");
    assert!(!fixture.downloader.has(&address()), "what has changed is removed");
    fixture.get_pieces().await.unwrap();
    fixture.assert_version(next_piece);
    assert_eq!(requested_count(&server).1, 2 * PIECE_FILES as usize);
}

#[tokio::test]
async fn two_processes_fetch_pieces_of_one_version() {
    let hub = MovingHub::default();
    let of_server = hub.clone();
    let server = TestServer::start(move |request| {
        let answer = of_server.answer(request, true);
        of_server.move_on();
        answer
    });
    let first = fixture(&server, None);
    // Stands for another process: it knows nothing of the first one's downloads.
    let second = HfDownloader {
        endpoint: first.downloader.endpoint.clone(),
        ..HfDownloader::new(first.dir.path().to_owned(), false)
    };
    let address = address();
    let (a, b) = tokio::join!(first.get_pieces(), second.get(&address, None, |_| ()));
    assert_eq!(a.unwrap(), b.unwrap());
    let version = if fs::read(first.place().join(name(1))).unwrap() == piece(1) { piece } else { next_piece };
    first.assert_version(version);
    assert_eq!(requested_count(&server).1, PIECE_FILES as usize, "each is fetched once");
}
