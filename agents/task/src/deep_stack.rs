//! Work that recurses as deep as its input is nested, on a stack that is large enough for it.

use std::thread;

/// Why work was not done on a stack of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The work panicked.
    #[error("it ended unexpectedly")]
    Panicked,
}

/// Does this work on a stack of so many bytes and waits for it. Only the pages of a stack that are used take memory.
///
/// # Errors
/// The system gave no thread, or the work panicked.
pub fn on_deep_stack<T: Send>(stack_bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("deep-stack".to_owned()).stack_size(stack_bytes);
        thread.spawn_scoped(scope, work)?.join().map_err(|_| Error::Panicked)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(levels: usize) -> usize {
        std::hint::black_box(if levels == 0 { 0 } else { 1 + depth(levels - 1) })
    }

    #[test]
    fn work_recurses_deeper_than_on_another_thread() {
        assert_eq!(on_deep_stack(256 * 1024 * 1024, || depth(200_000)).unwrap(), 200_000);
        assert!(matches!(on_deep_stack(1024 * 1024, || -> u8 { panic!("no") }), Err(Error::Panicked)));
    }
}
