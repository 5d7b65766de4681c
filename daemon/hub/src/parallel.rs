//! A few requests at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Error;
use crate::stop::StopToken;

/// The pieces that are fetched at once, and the requests that ask for them: enough to use a connection that is faster than a server
/// sends one file, and few enough that the hub serves others.
const MAX_PARALLEL_FILES: usize = 3;

/// Calls `task` with each number below `count`, a few at once. The first error stops the others of the group, and is returned.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    stop: &StopToken,
    task: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let (next, error) = (AtomicUsize::new(0), Mutex::new(None));
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<T>>>());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count || error.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
            match task(at) {
                Ok(result) => results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result),
                Err(cause) => {
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
                    stop.stop_group();
                }
            }
        }
    };
    thread::scope(|scope| {
        // A thread that cannot be started leaves its work to the others.
        let start = |_| thread::Builder::new().name("fetch-piece".to_owned()).spawn_scoped(scope, work).ok();
        let _threads: Vec<_> = (1..MAX_PARALLEL_FILES.min(count)).map(start).collect();
        work();
    });
    match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()),
    }
}
