//! TCP keepalive on the connections that llama.cpp opens to RPC servers: it sets none, so that a server whose machine is gone,
//! or a lost network, would leave it waiting for an answer until the end of time.

use std::fs;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// The time without a packet after which the peer is probed.
const PROBE_DELAY: Duration = Duration::from_secs(10);
/// The time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer after which the connection is lost: 25 s after the last packet.
const MAX_UNANSWERED_PROBES: u32 = 3;

/// Enables keepalive on every TCP connection of this process. When one is lost, llama.cpp aborts.
///
/// That is no limit on the time in which a server computes: its kernel answers probes even if the server itself is stopped.
/// `TCP_USER_TIMEOUT` would be one, since it counts the time in which a busy server reads nothing, and stays off.
pub fn enable_tcp_keepalive() {
    // Where there is no such directory, the timeouts of the system apply.
    let descriptors = fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let descriptors: Vec<RawFd> =
        descriptors.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|fd| *fd >= 0).collect();
    for fd in descriptors {
        // SAFETY: the descriptor was open a moment ago. If another thread has closed it since, or opened something else under
        // its number, the calls fail or set an option that harms no TCP connection; none reads or closes.
        let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = SockRef::from(&descriptor);
        let is_tcp = socket.peer_addr().is_ok_and(|peer| peer.as_socket().is_some());
        if !is_tcp {
            continue;
        }
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_DELAY)
            .with_interval(PROBE_INTERVAL)
            .with_retries(MAX_UNANSWERED_PROBES);
        if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
            tracing::warn!(%error, "cannot enable TCP keepalive on the connection to an RPC server");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn every_tcp_connection_of_the_process_is_kept_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!SockRef::from(&connection).keepalive().unwrap());
        enable_tcp_keepalive();
        let socket = SockRef::from(&connection);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_DELAY);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), MAX_UNANSWERED_PROBES);
    }
}
