//! A generation that runs, as its reader holds it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::{mpsc as channel, watch};
use tokio_stream::StreamExt as _;

use crate::command::Command;
use crate::request::{Chunk, Error};

/// Flows that will soon need the beginnings of their prompts; dropping it says that they no longer do.
pub struct Expectation(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Expectation {
    /// What is to be done when nobody expects anything any more.
    pub fn new(over: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(over)))
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        if let Some(over) = self.0.take() {
            over();
        }
    }
}

/// A running generation. Dropping it ends the sequence at the next decode step.
pub struct Stream {
    source: Source,
    over: bool,
}

enum Source {
    Near(Near),
    Far(Pin<Box<dyn tokio_stream::Stream<Item = Chunk> + Send>>),
}

impl Stream {
    pub(crate) fn near(near: Near) -> Self {
        Self { source: Source::Near(near), over: false }
    }

    /// A generation of an engine that runs elsewhere. Dropping the stream must end it there.
    pub fn far(chunks: impl tokio_stream::Stream<Item = Chunk> + Send + 'static) -> Self {
        Self { source: Source::Far(Box::pin(chunks)), over: false }
    }

    /// The next chunk; `None` after `Finished` or `Failed`.
    pub async fn recv(&mut self) -> Option<Chunk> {
        if self.over {
            return None;
        }
        let chunk = match &mut self.source {
            Source::Near(near) => near.recv().await,
            Source::Far(chunks) => {
                let cut = || Chunk::Failed(Error::Gone("its stream ended early".to_owned()));
                chunks.next().await.unwrap_or_else(cut)
            }
        };
        self.over = is_last(&chunk);
        Some(chunk)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("over", &self.over).finish_non_exhaustive()
    }
}

/// The reader's end of a sequence on a thread of this process.
pub(crate) struct Near {
    pub(crate) chunks: channel::Receiver<Chunk>,
    pub(crate) gone: Arc<AtomicBool>,
    pub(crate) full: Arc<AtomicBool>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) ended: watch::Receiver<Option<String>>,
    pub(crate) over: bool,
}

impl Near {
    async fn recv(&mut self) -> Chunk {
        let chunk = match self.chunks.recv().await {
            Some(chunk) => chunk,
            None => Chunk::Failed(Error::Gone(reason(&mut self.ended).await)),
        };
        if self.full.swap(false, Ordering::AcqRel) {
            // An engine that has ended needs no waking.
            let _ = self.commands.send(Command::Wake);
        }
        self.over = is_last(&chunk);
        chunk
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if !self.over {
            self.gone.store(true, Ordering::Release);
            // An engine that has ended needs no waking.
            let _ = self.commands.send(Command::Wake);
        }
    }
}

fn is_last(chunk: &Chunk) -> bool {
    matches!(chunk, Chunk::Finished(_) | Chunk::Failed(_))
}

/// Waits for an engine's end.
pub(crate) async fn reason(end: &mut watch::Receiver<Option<String>>) -> String {
    let reason = end.wait_for(Option::is_some).await;
    reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "it is gone without a word".to_owned())
}
