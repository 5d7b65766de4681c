//! The bytes of one connection, which can be cut off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a client may read nothing while bytes wait for it: a keepalive ping and its deadline, which cannot be sent then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(50);

/// A TCP stream whose reads and writes fail once it is cut, or once the client has read nothing for too long.
pub(crate) struct ConnectionIo {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Set while a write waits for the client.
    write_deadline: Option<Pin<Box<Sleep>>>,
    _ended: DropGuard,
}

impl ConnectionIo {
    /// The stream, and a token that is cancelled when it is dropped.
    pub(crate) fn new(stream: TcpStream, cut: CancellationToken) -> (Self, CancellationToken) {
        let ended = CancellationToken::new();
        let cut = Box::pin(cut.cancelled_owned());
        (Self { stream, cut, write_deadline: None, _ended: ended.clone().drop_guard() }, ended)
    }

    /// An error if the connection is to end. Otherwise the task is woken when it is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.write_deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    /// Writes, under the deadline of a client that does not read.
    fn poll_within_deadline(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = write(Pin::new(&mut self.stream), cx);
        match (&written, &self.write_deadline) {
            (Poll::Ready(_), _) => self.write_deadline = None,
            (Poll::Pending, None) => {
                self.write_deadline = Some(Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
                // The task is woken at the deadline.
                self.check(cx)?;
            }
            (Poll::Pending, Some(_)) => {}
        }
        written
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_within_deadline(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_within_deadline(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for ConnectionIo {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
