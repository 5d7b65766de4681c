//! The reader's side of a running generation.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::{mpsc as channel, watch};
use tokio_stream::StreamExt as _;

use crate::command::EngineCommand;
use crate::request::{Chunk, Error};

/// Pins the prefixes of flows that will be needed soon; dropping it unpins them.
pub struct PrefixPin(Option<Box<dyn FnOnce() + Send + Sync>>);

impl PrefixPin {
    /// A pin that calls `unpin` when it is dropped.
    pub fn new(unpin: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(unpin)))
    }
}

impl Drop for PrefixPin {
    fn drop(&mut self) {
        if let Some(unpin) = self.0.take() {
            unpin();
        }
    }
}

/// A running generation. Dropping it cancels the sequence before the next batch.
pub struct OutputStream {
    source: StreamSource,
    is_over: bool,
}

enum StreamSource {
    Local(LocalStream),
    Remote(Pin<Box<dyn tokio_stream::Stream<Item = Chunk> + Send>>),
}

impl OutputStream {
    pub(crate) fn local(local: LocalStream) -> Self {
        Self { source: StreamSource::Local(local), is_over: false }
    }

    /// A generation of an engine in another process. Dropping the stream must cancel it there.
    pub fn remote(chunks: impl tokio_stream::Stream<Item = Chunk> + Send + 'static) -> Self {
        Self { source: StreamSource::Remote(Box::pin(chunks)), is_over: false }
    }

    /// The next chunk; `None` after `Finished` or `Failed`.
    pub async fn recv(&mut self) -> Option<Chunk> {
        if self.is_over {
            return None;
        }
        let chunk = match &mut self.source {
            StreamSource::Local(local) => local.recv().await,
            StreamSource::Remote(chunks) => {
                let cut = || Chunk::Failed(Error::Ended("its stream ended early".to_owned()));
                chunks.next().await.unwrap_or_else(cut)
            }
        };
        self.is_over = is_last(&chunk);
        Some(chunk)
    }
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

/// The reader's end of a sequence on a thread of this process.
pub(crate) struct LocalStream {
    pub(crate) chunks: channel::Receiver<Chunk>,
    pub(crate) is_dropped: Arc<AtomicBool>,
    pub(crate) is_full: Arc<AtomicBool>,
    pub(crate) commands: mpsc::Sender<EngineCommand>,
    pub(crate) end: watch::Receiver<Option<String>>,
    pub(crate) is_over: bool,
}

impl LocalStream {
    async fn recv(&mut self) -> Chunk {
        let chunk = match self.chunks.recv().await {
            Some(chunk) => chunk,
            None => Chunk::Failed(Error::Ended(wait_for_end(&mut self.end).await)),
        };
        if self.is_full.swap(false, Ordering::AcqRel) {
            // An engine that has ended needs no waking.
            let _ = self.commands.send(EngineCommand::Wake);
        }
        self.is_over = is_last(&chunk);
        chunk
    }
}

impl Drop for LocalStream {
    fn drop(&mut self) {
        if !self.is_over {
            self.is_dropped.store(true, Ordering::Release);
            // An engine that has ended needs no waking.
            let _ = self.commands.send(EngineCommand::Wake);
        }
    }
}

fn is_last(chunk: &Chunk) -> bool {
    matches!(chunk, Chunk::Finished(_) | Chunk::Failed(_))
}

/// Waits for an engine's end and returns the reason.
pub(crate) async fn wait_for_end(end: &mut watch::Receiver<Option<String>>) -> String {
    let reason = end.wait_for(Option::is_some).await;
    reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "it ended without giving a reason".to_owned())
}
