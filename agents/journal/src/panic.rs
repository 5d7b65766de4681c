//! Panics as values: the writer catches its own, so that no caller waits for an answer that cannot come.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// The output of a future, or the payload of its panic. What the future shares with its caller may be inconsistent after a
/// panic.
pub(crate) async fn catch<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

/// The message of a panic, which is nearly always a string.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_has_its_message_and_other_futures_their_output() {
        let yielding = async |number: u32| {
            tokio::task::yield_now().await;
            assert_ne!(number, 7, "seven of {number}");
            number
        };
        assert_eq!(catch(yielding(3)).await.unwrap(), 3);
        let payload = catch(yielding(7)).await.unwrap_err();
        assert!(message(&*payload).contains("seven of 7"), "{}", message(&*payload));
        let payload = catch::<()>(async { panic!("plain") }).await.unwrap_err();
        assert_eq!(message(&*payload), "plain");
    }
}
