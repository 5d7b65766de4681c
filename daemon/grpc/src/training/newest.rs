//! Streams of what may change faster than a client reads: the newest of it, so that a slow client takes no memory.

use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::status::internal;

/// The least time between two states: a small model takes hundreds of steps a second.
const STATE_INTERVAL: Duration = Duration::from_millis(200);

/// The states of something: the one that it has now, the newest one after changes, and the one in which it is over, which waits for no
/// interval. The stream ends with that one, or when nothing can change any more.
pub(super) fn states<T>(mut states: watch::Receiver<T>, is_over: fn(&T) -> bool) -> impl Stream<Item = T> + Send
where
    T: Clone + Send + Sync + 'static,
{
    states.mark_changed();
    stream::unfold(Some((states, None)), move |rest| async move {
        let (mut states, pause_end) = rest?;
        states.changed().await.ok()?;
        if let Some(pause_end) = pause_end {
            // Whichever comes first: what is newest then is read below.
            let _ = timeout_at(pause_end, states.wait_for(is_over)).await;
        }
        let newest = states.borrow_and_update().clone();
        let rest = (!is_over(&newest)).then(|| (states, Some(Instant::now() + STATE_INTERVAL)));
        Some((newest, rest))
    })
}

/// What some work tells of itself, and at last its outcome. The work ends when the stream is dropped.
pub(super) fn progress<T, W>(work: impl FnOnce(watch::Sender<T>) -> W) -> impl Stream<Item = Result<T, Status>> + Send
where
    T: Clone + Default + Send + Sync + 'static,
    W: Future<Output = Result<T, Status>> + Send + 'static,
{
    let (sender, told) = watch::channel(T::default());
    let work = AbortOnDropHandle::new(tokio::spawn(work(sender)));
    stream::unfold(Some((told, work)), |rest| async {
        let (mut told, work) = rest?;
        // Fails when the work has ended and all that it told was read.
        if told.changed().await.is_ok() {
            let newest = told.borrow_and_update().clone();
            return Some((Ok(newest), Some((told, work))));
        }
        Some((work.await.unwrap_or_else(|_| Err(internal())), None))
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use futures::StreamExt as _;
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};
    use tokio_util::sync::CancellationToken;

    use super::*;

    const LAST_NUMBER: u32 = 9;

    fn states_of(sender: &watch::Sender<u32>) -> impl Stream<Item = u32> + Send + use<> {
        states(sender.subscribe(), |state| *state == LAST_NUMBER)
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_state_is_sent_after_a_pause_and_the_last_one_without() {
        let begin = Instant::now();
        let sender = watch::Sender::new(0);
        let mut states = pin!(states_of(&sender));
        assert_eq!(states.next().await, Some(0));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        tokio::spawn(async move {
            for state in [1, 2, 3, LAST_NUMBER] {
                sender.send_replace(state);
                sleep(STATE_INTERVAL * 2 / 5).await;
            }
        });
        assert_eq!(states.next().await, Some(3), "the one at the end of the pause");
        assert!((STATE_INTERVAL..STATE_INTERVAL * 11 / 10).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        assert_eq!(states.next().await, Some(LAST_NUMBER));
        assert!(begin.elapsed() < STATE_INTERVAL * 13 / 10, "the end was delayed: {:?}", begin.elapsed());
        assert_eq!(states.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_state_is_sent_though_its_sender_has_gone() {
        let sender = watch::Sender::new(0);
        let (mut read, unread) = (Box::pin(states_of(&sender)), states_of(&sender));
        assert_eq!(read.next().await, Some(0));
        sender.send_replace(1);
        sender.send_replace(LAST_NUMBER);
        drop(sender);
        assert_eq!(read.collect::<Vec<_>>().await, [LAST_NUMBER]);
        assert_eq!(unread.collect::<Vec<_>>().await, [LAST_NUMBER]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_deleted_in_the_middle_ends_its_stream() {
        let sender = watch::Sender::new(0);
        let states = states_of(&sender);
        drop(sender);
        assert_eq!(states.collect::<Vec<_>>().await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_was_away_for_long_gets_a_change_at_once() {
        let sender = watch::Sender::new(0);
        let mut states = pin!(states_of(&sender));
        assert_eq!(states.next().await, Some(0));
        sender.send_replace(1);
        advance(STATE_INTERVAL).await;
        let begin = Instant::now();
        assert_eq!(states.next().await, Some(1));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_progress_and_the_outcome() {
        for outcome in [Ok(LAST_NUMBER), Err(internal())] {
            let is_ok = outcome.is_ok();
            let (done, ended) = oneshot::channel();
            let told = progress(|sender| async move {
                for state in 1..1000 {
                    sender.send_replace(state);
                }
                done.send(()).unwrap();
                outcome
            });
            ended.await.unwrap();
            let told: Vec<Option<u32>> = told.map(Result::ok).collect().await;
            assert_eq!(told, [Some(999), is_ok.then_some(LAST_NUMBER)]);
        }
    }

    #[tokio::test]
    async fn the_work_ends_with_its_stream() {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let mut told = Box::pin(progress(|sender| async move {
            let _guard = guard;
            sender.send_replace(1);
            pending().await
        }));
        assert_eq!(told.next().await.unwrap().unwrap(), 1);
        assert!(!ended.is_cancelled());
        drop(told);
        ended.cancelled().await;
    }

    #[tokio::test]
    async fn work_that_panics_has_an_outcome() {
        let told = progress(|sender| async move {
            drop::<watch::Sender<u32>>(sender);
            panic!("as work may");
        });
        let told: Vec<_> = told.collect().await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].as_ref().unwrap_err().code(), tonic::Code::Internal);
    }
}
