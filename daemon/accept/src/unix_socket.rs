//! A Unix socket for processes of one user.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::listener::Listener;
use crate::log_throttle::LogThrottle;
use crate::peer_address::PeerAddress;

/// Connections that wait to be accepted: what tokio takes for TCP.
const BACKLOG_CONNECTIONS: i32 = 1024;
/// For the user of this process alone.
const SOCKET_MODE: u32 = 0o600;
/// The user that may do everything anyway.
const ROOT_USER_ID: u32 = 0;

/// Why a Unix socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The system allows no path of this length.
    #[error("{path}: the path has {bytes} bytes, more than a socket may have (107 on Linux)")]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something else lies there, which is left alone.
    #[error("{0}: there is a file that is not a socket")]
    NotASocket(PathBuf),
    /// Another process listens there.
    #[error("{0}: another process listens there")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A Unix socket that admits the user of this process, and root. Its file goes when it is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
    user_id: u32,
    strangers: LogThrottle,
}

impl UnixSocket {
    /// Listens at this path, in a directory that exists. A socket on which nothing listens any more is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if SocketAddr::from_pathname(path).is_err() {
            return Err(SocketError::TooLong { path: path.to_owned(), bytes: path.as_os_str().len() });
        }
        remove_stale(path)?;
        let socket = socket().map_err(failed)?;
        let bound = SockAddr::unix(path).and_then(|address| socket.bind(&address));
        bound.map_err(|error| match error.kind() {
            // Another process was quicker.
            io::ErrorKind::AddrInUse => SocketError::InUse(path.to_owned()),
            _ => failed(error),
        })?;
        let file = SocketFile::of(path).map_err(failed)?;
        // Before it listens, so that no other user has connected.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        socket.listen(BACKLOG_CONNECTIONS).map_err(failed)?;
        let listener = UnixListener::from_std(StdListener::from(socket)).map_err(failed)?;
        Ok(Self { listener, file, user_id: geteuid().as_raw(), strangers: LogThrottle::default() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn log_stranger(&mut self, stranger: PeerAddress) {
        if let Some(refused) = self.strangers.count() {
            tracing::warn!(
                peer = %stranger,
                refused,
                "a connection of another user was closed: the socket is for the daemon's own user and root"
            );
        }
    }
}

impl Listener for UnixSocket {
    type Stream = UnixStream;

    /// Connections of other users are closed.
    async fn accept(&mut self) -> io::Result<(UnixStream, PeerAddress)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let user_id = stream.peer_cred()?.uid();
            let peer = PeerAddress::Unix { user_id };
            if is_admitted(user_id, self.user_id) {
                return Ok((stream, peer));
            }
            self.log_stranger(peer);
        }
    }
}

fn is_admitted(user_id: u32, own_user_id: u32) -> bool {
    user_id == own_user_id || user_id == ROOT_USER_ID
}

/// A socket that does not block.
fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes a socket on which nothing listens: one that a killed process has left.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    let connected = socket().and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        // A listener that is too busy to accept is a listener as well.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        Ok(()) | Err(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

/// The file of a socket. It is removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { identity: identity(path)?, path: path.to_owned() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // One that stays is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_its_user_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("artel.sock");
        let mut socket = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, SOCKET_MODE);
        let _client = UnixStream::connect(&path).await.unwrap();
        let (_stream, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, PeerAddress::Unix { user_id: geteuid().as_raw() });
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_process_left_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("artel.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the file stays");
        let first = UnixSocket::bind(&path).unwrap();
        let refused = UnixSocket::bind(&path).unwrap_err();
        assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
        assert_eq!(first.path(), path);
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_not_a_socket_stays_and_the_path_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes");
        fs::write(&file, "mine").unwrap();
        let refused = UnixSocket::bind(&file).unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let long = dir.path().join("x".repeat(120));
        let refused = UnixSocket::bind(&long).unwrap_err();
        assert!(matches!(refused, SocketError::TooLong { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_file_that_took_the_place_of_the_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("artel.sock");
        let socket = UnixSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let next = UnixSocket::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(next);
    }

    #[test]
    fn root_and_the_own_user_are_admitted() {
        assert_eq!([0, 1000, 1001].map(|user_id| is_admitted(user_id, 1000)), [true, true, false]);
    }
}
