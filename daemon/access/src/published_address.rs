//! Where the daemon of a data directory listens over TCP, as that daemon itself says.
//!
//! At an address of this machine, any user's process may listen. A client sends the owner's token only to the address that it
//! finds here. The file is in a directory that only the daemon's user enters, and the daemon holds a lock on it while it
//! listens: a daemon that was killed leaves a file without a lock, which counts for nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use artel_model::open_regular_file;

/// The file in the data directory.
const ADDRESS_FILE: &str = "address";
/// For its user alone.
const PRIVATE_MODE: u32 = 0o600;
/// The longest address has some fifty bytes.
const MAX_ADDRESS_BYTES: u64 = 128;

/// The address of a daemon in its data directory, until this is dropped.
#[derive(Debug)]
pub struct PublishedAddress {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl PublishedAddress {
    /// Publishes the address at which this process listens. The journal of the same directory must be open: its lock keeps other
    /// daemons out. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be written or locked.
    pub fn publish(dir: &Path, address: SocketAddr) -> io::Result<Self> {
        let (path, new) = (dir.join(ADDRESS_FILE), dir.join(ADDRESS_FILE).with_extension("new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Locked before it has its name, so that no address is read that is not locked yet, and no reader of an old file is in
        // the way.
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_MODE).open(&new)?;
        file.try_lock()?;
        writeln!(file, "{address}")?;
        fs::rename(&new, &path)?;
        Ok(Self { path, _file: file })
    }

    /// The address at which the daemon of this directory listens now; `None` if there is none, or it does not say so.
    pub fn of(dir: &Path) -> Option<SocketAddr> {
        let file = open_regular_file(&dir.join(ADDRESS_FILE)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            // No daemon holds it.
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let mut text = String::new();
        (&file).take(MAX_ADDRESS_BYTES).read_to_string(&mut text).ok()?;
        text.trim_end().parse().ok()
    }

    /// Whether a connection to this address of this machine is one to a daemon that listens at `published`.
    pub fn is_reached_at(published: SocketAddr, address: SocketAddr) -> bool {
        let (listening, reached) = (published.ip(), address.ip().to_canonical());
        // A socket for all addresses of IPv6 has those of IPv4, too.
        let is_same = match listening.is_unspecified() {
            true => reached.is_loopback() && (listening.is_ipv6() || reached.is_ipv4()),
            false => listening.to_canonical() == reached,
        };
        is_same && published.port() == address.port()
    }
}

impl Drop for PublishedAddress {
    fn drop(&mut self) {
        // Without its lock, which ends here, it counts for nothing anyway.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_there_while_its_daemon_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ADDRESS_FILE);
        assert_eq!(PublishedAddress::of(dir.path()), None);
        fs::write(&path, "127.0.0.1:1\n").unwrap();
        assert_eq!(PublishedAddress::of(dir.path()), None, "left by a daemon that was killed");
        fs::write(path.with_extension("new"), "cut off").unwrap();
        let published = PublishedAddress::publish(dir.path(), address("127.0.0.1:7430")).unwrap();
        assert_eq!(PublishedAddress::of(dir.path()), Some(address("127.0.0.1:7430")));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(published);
        assert_eq!((PublishedAddress::of(dir.path()), path.exists()), (None, false));
        fs::write(&path, "no address").unwrap();
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        assert_eq!(PublishedAddress::of(dir.path()), None);
    }

    #[test]
    fn a_daemon_is_reached_where_it_listens() {
        let is_reached =
            |published: &str, reached: &str| PublishedAddress::is_reached_at(address(published), address(reached));
        for (published, reached) in [
            ("127.0.0.1:7430", "127.0.0.1:7430"),
            ("0.0.0.0:7430", "127.0.0.1:7430"),
            ("[::]:7430", "127.0.0.1:7430"),
            ("[::]:7430", "[::1]:7430"),
            ("[::1]:7430", "[::1]:7430"),
        ] {
            assert!(is_reached(published, reached), "{published} at {reached}");
        }
        for (published, reached) in [
            ("127.0.0.1:7430", "127.0.0.1:7431"),
            ("127.0.0.1:7430", "127.0.0.2:7430"),
            ("127.0.0.1:7430", "[::1]:7430"),
            ("0.0.0.0:7430", "[::1]:7430"),
            ("0.0.0.0:7430", "192.0.2.1:7430"),
        ] {
            assert!(!is_reached(published, reached), "{published} at {reached}");
        }
    }
}
