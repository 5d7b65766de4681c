use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const MAX_FILE_BYTES: u64 = 1 << 20;

fn limits() -> LoadLimits {
    LoadLimits { file_bytes: MAX_FILE_BYTES, ..LoadLimits::default() }
}

#[test]
fn a_file_that_changes_once_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "before").unwrap();
    let mut reads = 0;
    let (bytes, stamp) = read_with(&path, &limits(), |file, bytes| {
        reads += 1;
        file.read_to_end(bytes)?;
        if reads == 1 { fs::write(&path, "afterwards") } else { Ok(()) }
    })
    .unwrap();
    assert_eq!((bytes.as_slice(), reads, stamp.bytes), (&b"afterwards"[..], 2, 10));
}

#[test]
fn a_file_that_changes_at_each_read_is_left_for_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "0").unwrap();
    let mut reads = 0;
    let error = read_with(&path, &limits(), |file, bytes| {
        reads += 1;
        file.read_to_end(bytes)?;
        // Replaced by another file of the same size, as editors do.
        let other = directory.path().join("b.txt");
        fs::write(&other, reads.to_string())?;
        fs::rename(&other, &path)
    })
    .unwrap_err();
    assert_eq!((error.clone(), reads), (DocumentError::Changing, MAX_ATTEMPTS));
    assert!(error.may_pass());
}

#[test]
fn what_is_no_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("x.md")).unwrap();
    nix::unistd::mkfifo(&path("pipe.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.txt")).unwrap();
    symlink("b", path("a")).unwrap();
    symlink("a", path("b")).unwrap();
    let reason = |name: &str| read(&path(name), &limits()).unwrap_err().to_string();
    assert_eq!(reason("x.md"), "is a directory, not a file");
    assert_eq!(reason("pipe.txt"), "is a pipe, not a file");
    assert_eq!(reason("socket.txt"), "is a socket, not a file");
    assert!(reason("a").starts_with("cannot be read: Too many levels of symbolic links"), "{}", reason("a"));
    assert!(reason("none").starts_with("cannot be read: No such file"), "{}", reason("none"));
    assert_eq!(read(Path::new("/dev/null"), &limits()).unwrap_err().to_string(), "is a device, not a file");
}

#[test]
fn a_large_file_is_not_begun() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse.txt");
    File::create(&path).unwrap().set_len(2 << 30).unwrap();
    let error = read(&path, &limits()).unwrap_err();
    assert_eq!(error, DocumentError::TooLarge { bytes: 2 << 30, limit: MAX_FILE_BYTES });
}
