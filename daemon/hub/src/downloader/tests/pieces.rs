//! Models in pieces: asked for together, fetched a few at once, each one resumed and verified.

use std::sync::Condvar;

use super::*;

pub(super) const PIECE_FILES: u32 = 5;
/// What the revision `v1` means.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub(super) fn address() -> HfUri {
    HfUri::parse("hf:org/big@v1/q4/m-00002-of-00005.gguf").unwrap()
}

/// The bytes of a piece, by its number.
pub(super) fn piece(number: u32) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend((0..200_000u32).flat_map(|n| (n.wrapping_mul(number) % 65_521).to_le_bytes()));
    bytes
}

pub(super) fn name(number: u32) -> String {
    format!("m-{number:05}-of-{PIECE_FILES:05}.gguf")
}

/// The number of the piece that is requested.
pub(super) fn number(request: &RecordedRequest) -> u32 {
    let path = request.path.strip_prefix("/org/big/resolve/").unwrap();
    let (revision, name) = path.split_once("/q4/m-").unwrap();
    assert!(matches!(revision, "v1" | COMMIT), "{revision}");
    name.strip_suffix(&format!("-of-{PIECE_FILES:05}.gguf")).unwrap().parse().unwrap()
}

/// Responds to questions and requests for a piece, or for the rest of one.
pub(super) fn serve_piece(request: &RecordedRequest) -> Vec<u8> {
    let bytes = piece(number(request));
    let (all, hash) = (bytes.len().to_string(), format!("\"{}\"", sha256(&bytes)));
    let linked = [("X-Linked-Etag", hash.as_str()), ("X-Linked-Size", &all)];
    let stated = [linked[0], linked[1], ("ETag", "\"v1\""), ("X-Repo-Commit", COMMIT)];
    match (request.method.as_str(), request.first_byte()) {
        ("HEAD", _) => response("200 OK", &stated, b""),
        (_, Some(from)) => {
            let range = format!("bytes {from}-{}/{all}", bytes.len() - 1);
            response("206 Partial Content", &[&stated[..], &[("Content-Range", &range)]].concat(), &bytes[from..])
        }
        _ => response("200 OK", &stated, &bytes),
    }
}

pub(super) fn requested(server: &TestServer, method: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        server.requests().iter().filter(|request| request.method == method).map(number).collect();
    numbers.sort_unstable();
    numbers
}

impl DownloadFixture {
    pub(super) fn place(&self) -> PathBuf {
        self.dir.path().join("hf/org/big/v1/q4")
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.place()).unwrap();
        fs::write(self.place().join(name), bytes).unwrap();
    }

    pub(super) async fn get_pieces(&self) -> Result<PathBuf, Error> {
        self.downloader.get(&address(), None, |_| ()).await
    }

    pub(super) fn assert_complete(&self) {
        for number in 1..=PIECE_FILES {
            assert!(fs::read(self.place().join(name(number))).unwrap() == piece(number), "piece {number}");
        }
        assert_eq!(fs::read_dir(self.place()).unwrap().count(), PIECE_FILES as usize, "nothing else is left");
    }
}

#[tokio::test]
async fn all_pieces_are_fetched_three_at_once_with_one_progress() {
    // The numbers of responses that wait for each other, and of all that began.
    let waiting = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let gate = waiting.clone();
    let server = TestServer::start(move |request| {
        if request.method == "GET" {
            let mut counts = gate.0.lock().unwrap();
            counts.0 += 1;
            counts.1 += 1;
            assert!(counts.0 <= 3, "more than three at once");
            gate.1.notify_all();
            let first_three = |counts: &mut (u32, u32)| counts.1 < 3;
            let (mut counts, timeout) =
                gate.1.wait_timeout_while(counts, Duration::from_secs(60), first_three).unwrap();
            assert!(!timeout.timed_out(), "the first three do not come at once");
            counts.0 -= 1;
        }
        serve_piece(request)
    });
    let fixture = fixture(&server, Some("hf_token"));
    let seen = Mutex::new(Vec::new());
    let progress = |progress: &DownloadProgress| {
        seen.lock().unwrap().push((progress.done_bytes, progress.total_bytes));
    };
    let path = fixture.downloader.get(&address(), None, progress).await.unwrap();
    assert_eq!(path, fixture.place().join(name(1)));
    fixture.assert_complete();
    assert_eq!((requested(&server, "HEAD"), requested(&server, "GET")), ((1..=5).collect(), (1..=5).collect()));
    assert!(server.requests().iter().all(|request| request.header("authorization") == Some("Bearer hf_token")));
    let (last, all) = (seen.lock().unwrap().last().copied().unwrap(), 5 * piece(1).len() as u64);
    assert!(seen.lock().unwrap().is_sorted() && last == (all, Some(all)), "{last:?}");
    assert!(fixture.downloader.has(&address()) && fixture.downloader.fraction(&address()).is_none());
    // They are here: nothing is asked any more.
    fixture.get_pieces().await.unwrap();
    assert_eq!(server.requests().len(), 10);
}

#[tokio::test]
async fn a_piece_that_the_hub_has_not_is_named_before_anything_is_fetched() {
    let server = TestServer::start(|request| match number(request) {
        2 | 5 => response("404 Not Found", &[("X-Error-Code", "EntryNotFound")], b""),
        _ => serve_piece(request),
    });
    let fixture = fixture(&server, None);
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(!error.is_transient());
    let wanted = "hf:org/big@v1/q4/m-00001-of-00005.gguf: the hub lacks pieces 2 and 5 of 5 in org/big, revision `v1`";
    assert!(error.to_string().starts_with(wanted), "{error}");
    assert!(requested(&server, "GET").is_empty() && !fixture.place().exists());
}

#[tokio::test]
async fn a_lack_of_space_for_all_is_told_before_anything_is_fetched() {
    let server = TestServer::start(|request| {
        let size = (1u64 << 60).to_string();
        if request.method == "HEAD" { response("200 OK", &[("X-Linked-Size", &size)], b"") } else { panic!("fetched") }
    });
    let fixture = fixture(&server, None);
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(
        error.is_transient() && matches!(&error, Error::NoSpace { missing_bytes, .. } if *missing_bytes == 5 << 60)
    );
    assert!(!fixture.place().exists());
}

#[tokio::test]
async fn what_is_here_of_a_model_is_kept_and_the_rest_resumed() {
    let server = TestServer::start(serve_piece);
    let fixture = fixture(&server, None);
    fixture.write(&name(1), &piece(1));
    fixture.write(&format!("{}.part", name(3)), &piece(3)[..300_000]);
    let validators = format!("{{\"linked\":\"{}\",\"etag\":\"\\\"v1\\\"\"}}", sha256(&piece(3)));
    fixture.write(&format!("{}.part.etag", name(3)), validators.as_bytes());
    let first = Mutex::new(None);
    let progress = |progress: &DownloadProgress| {
        let seen = (progress.done_bytes, progress.total_bytes);
        if seen.1.is_some() {
            first.lock().unwrap().get_or_insert(seen);
        }
    };
    fixture.downloader.get(&address(), None, progress).await.unwrap();
    fixture.assert_complete();
    // What is here is compared with what the hub states.
    assert_eq!((requested(&server, "HEAD"), requested(&server, "GET")), ((1..=5).collect(), (2..=5).collect()));
    let resumed =
        server.requests().into_iter().find(|request| request.method == "GET" && number(request) == 3).unwrap();
    assert_eq!(resumed.first_byte(), Some(300_000));
    let (done, total) = first.lock().unwrap().unwrap();
    let size = piece(1).len() as u64;
    assert!(done >= size + 300_000 && total == Some(5 * size), "{done} of {total:?}");
}

#[tokio::test]
async fn a_wrong_piece_is_named_and_the_next_request_fetches_it_again() {
    let is_wrong = Arc::new(Mutex::new(true));
    let wrong = is_wrong.clone();
    let server = TestServer::start(move |request| {
        let mut bytes = serve_piece(request);
        if request.method == "GET" && number(request) == 4 && *wrong.lock().unwrap() {
            *bytes.last_mut().unwrap() ^= 1;
        }
        bytes
    });
    let fixture = fixture(&server, None);
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let error = error.to_string();
    assert!(error.starts_with("hf:org/big@v1/q4/m-00004-of-00005.gguf: the downloaded file is wrong"), "{error}");
    assert!(!fixture.downloader.has(&address()));
    *is_wrong.lock().unwrap() = false;
    fixture.get_pieces().await.unwrap();
    fixture.assert_complete();
}

#[tokio::test]
async fn the_hashes_of_the_yaml_are_compared_with_what_the_hub_states_first() {
    let server = TestServer::start(serve_piece);
    let download = fixture(&server, None);
    let hashes = |wrong: u32| {
        let hash = |number| if number == wrong { "0".repeat(64) } else { sha256(&piece(number)) };
        PieceHashes::new((1..=PIECE_FILES).map(hash).collect()).unwrap()
    };
    let error = download.downloader.get(&address(), Some(&hashes(3)), |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("m-00003-of-00005.gguf: the hub has another file than expected"), "{error}");
    assert!(requested(&server, "GET").is_empty());
    let one = "0".repeat(64).into();
    let error = download.downloader.get(&address(), Some(&one), |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("the model has 5 files and `sha256` has 1 hashes"), "{error}");
    download.downloader.get(&address(), Some(&hashes(0)), |_| ()).await.unwrap();
    download.assert_complete();
}

#[tokio::test]
async fn offline_the_missing_pieces_are_named_with_their_directory() {
    let download = DownloadFixture {
        downloader: HfDownloader::new("nowhere".into(), true),
        ..fixture_in(tempfile::tempdir().unwrap(), "http://127.0.0.1:9", None)
    };
    let offline = HfDownloader::new(download.dir.path().to_owned(), true);
    for number in [1, 3, 4] {
        download.write(&name(number), &piece(number));
    }
    let error = offline.get(&address(), None, |_| ()).await.unwrap_err().to_string();
    let place = download.place().display().to_string();
    assert!(
        error.contains(&format!("pieces 2 and 5 of 5 not found in {place}, and downloads are disabled")),
        "{error}"
    );
    for number in [2, 5] {
        download.write(&name(number), &piece(number));
    }
    assert_eq!(offline.get(&address(), None, |_| ()).await.unwrap(), download.place().join(name(1)));
}

#[tokio::test]
async fn the_hub_states_the_size_of_all_pieces_together() {
    let server = TestServer::start(serve_piece);
    let stated = fixture(&server, None).downloader.statement(&address()).await.unwrap();
    assert_eq!(stated, HubStatement { size_bytes: Some(5 * piece(1).len() as u64), sha256: None });
    assert!(requested(&server, "GET").is_empty());
}

#[tokio::test]
async fn a_download_that_ends_early_keeps_what_is_here() {
    // Each response with a piece breaks off, and the rest is not to be had.
    let server = TestServer::start(|request| match (request.method.as_str(), request.first_byte()) {
        ("HEAD", _) => serve_piece(request),
        (_, None) => serve_piece(request)[..400_000].to_vec(),
        (_, Some(_)) => response("503 Service Unavailable", &[], b""),
    });
    let first = fixture(&server, None);
    let error = first.get_pieces().await.unwrap_err();
    assert!(error.is_transient() && matches!(error, Error::GivenUp { .. }), "the first error and no stop: {error}");
    let server = TestServer::start(serve_piece);
    let second = fixture_in(first.dir, &server.address, None);
    second.get_pieces().await.unwrap();
    second.assert_complete();
    let resumed = server.requests().iter().filter_map(RecordedRequest::first_byte).collect::<Vec<_>>();
    assert!(!resumed.is_empty() && resumed.iter().all(|from| *from > 300_000), "{resumed:?}");
}
