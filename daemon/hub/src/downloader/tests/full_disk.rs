//! Disks that become full, with downloads of known and of unknown sizes.

use std::path::Path;

use super::pieces::{COMMIT, PIECE_FILES, address, number, piece};
use super::*;
use crate::disk::RESERVED_BYTES;

/// A disk on which so many bytes can be written below this directory: what is there takes its part of them.
fn disk_of(dir: &Path, bytes: u64) -> Arc<DiskSpace> {
    let dir = dir.to_owned();
    Arc::new(DiskSpace::new(move |_| Some((RESERVED_BYTES + bytes).saturating_sub(bytes_below(&dir)))))
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(file) if file.is_dir() => bytes_below(&entry.path()),
        // A small file says of which version the others are.
        Ok(file) if file.len() > 1000 => file.len(),
        _ => 0,
    };
    entries.flatten().map(bytes).sum()
}

impl DownloadFixture {
    fn with_disk(self, bytes: u64) -> Self {
        let disk = disk_of(self.dir.path(), bytes);
        Self { downloader: HfDownloader { disk, ..self.downloader }, dir: self.dir }
    }
}

/// A piece, or the rest of one, without a word of its size.
fn serve_unsized(request: &RecordedRequest) -> Vec<u8> {
    let bytes = piece(number(request));
    let from = request.first_byte().unwrap_or(0);
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let range = format!("Content-Range: bytes {from}-{}/*\r\n", bytes.len() - 1);
    let range = if from > 0 { range } else { String::new() };
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"v1\"\r\nX-Repo-Commit: {COMMIT}\r\n{range}\r\n");
    match request.method.as_str() {
        "HEAD" => head.into_bytes(),
        _ => [head.as_bytes(), &bytes[from..]].concat(),
    }
}

#[tokio::test]
async fn without_sizes_a_full_disk_ends_the_download_and_what_came_is_kept() {
    let server = TestServer::start(serve_unsized);
    let size = piece(1).len() as u64;
    let first = fixture(&server, None).with_disk(size * 7 / 2);
    let error = first.get_pieces().await.unwrap_err();
    assert!(error.is_transient() && matches!(error, Error::DiskFull { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("is full after ") && error.contains("the next request resumes the download"), "{error}");
    let written = bytes_below(first.dir.path());
    assert!(written > size * 2 && written <= size * 7 / 2, "{written}");
    let before = server.requests().len();
    let second = fixture_in(first.dir, &server.address, None).with_disk(size * 5);
    second.get_pieces().await.unwrap();
    second.assert_complete();
    let resumed = server.requests()[before..].iter().filter(|request| request.first_byte().is_some()).count();
    assert!(resumed > 0, "a piece goes on where it ended");
}

#[tokio::test]
async fn sizes_that_come_with_the_pieces_are_summed() {
    // A question is answered without a size.
    let server = TestServer::start(|request| {
        let commit = ("X-Repo-Commit", COMMIT);
        match request.method.as_str() {
            "HEAD" => serve_unsized(request),
            _ => response("200 OK", &[commit, ("ETag", "\"v1\"")], &piece(number(request))),
        }
    });
    let size = piece(1).len() as u64;
    let first = fixture(&server, None).with_disk(size * 5 / 4);
    let error = first.get_pieces().await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { missing_bytes, .. } if missing_bytes == size), "{error}");
    assert!(bytes_below(first.dir.path()) <= size * 5 / 4);
    let second = fixture_in(first.dir, &server.address, None).with_disk(size * u64::from(PIECE_FILES));
    second.get_pieces().await.unwrap();
    second.assert_complete();
}

#[tokio::test]
async fn a_whole_file_without_a_size_is_kept_as_far_as_the_disk_holds_it() {
    let bytes = file();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"v1\"\r\n\r\n";
    let whole = [head.as_bytes(), &bytes].concat();
    let server = TestServer::start(move |request| match request.first_byte() {
        None => whole.clone(),
        Some(_) => serve(request),
    });
    let first = fixture(&server, None).with_disk(1_000_000);
    let error = first.fails().await;
    assert!(error.contains("m.gguf is full after ") && error.contains("67.1 MB stay free"), "{error}");
    assert_eq!(first.files(), ["m.gguf.part", "m.gguf.part.etag"]);
    let second = fixture_in(first.dir, &server.address, None).with_disk(bytes.len() as u64);
    assert_eq!(fs::read(second.get(None).await.unwrap()).unwrap(), bytes);
    assert!(server.requests()[1].first_byte().is_some_and(|from| from > 500_000));
}

#[tokio::test]
async fn two_models_do_not_count_on_the_same_space() {
    let server = TestServer::start(pieces::serve_piece);
    let size = piece(1).len() as u64;
    let fixture = fixture(&server, None).with_disk(size * 6);
    let held = fixture.downloader.disk.claim(vec![(fixture.dir.path().join("other.gguf"), size * 2)]).ok().unwrap();
    let error = fixture.get_pieces().await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { claimed_bytes, .. } if claimed_bytes == size * 2), "{error}");
    assert!(error.to_string().contains("of which other downloads take 1.6 MB"), "{error}");
    drop(held);
    fixture.downloader.get(&address(), None, |_| ()).await.unwrap();
    fixture.assert_complete();
}
