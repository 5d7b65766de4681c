//! The texts that wait to be computed as a whole: which of them are the next batch.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::backend::Token;
use crate::counters::Counters;
use crate::pooling::PoolingJob;
use crate::request::Error;
use crate::wait_queue::priority_after;

/// Requests whose texts wait. A batch may hold texts of several requests, and a request may take several batches.
#[derive(Default)]
pub(crate) struct PoolingQueue {
    /// In the order of their arrival.
    jobs: Vec<QueuedPooling>,
}

struct QueuedPooling {
    job: PoolingJob,
    /// The results of its first texts.
    vectors: Vec<Vec<f32>>,
}

/// The texts of a batch: a range of each request, by its place in the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PoolingBatch(Vec<(usize, Range<usize>)>);

impl PoolingQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn push(&mut self, job: PoolingJob) {
        self.jobs.push(QueuedPooling { job, vectors: Vec::new() });
    }

    /// Drops the requests whose callers stopped waiting; how many texts of them were not computed.
    pub(crate) fn drop_abandoned(&mut self) -> u64 {
        let dropped = self.jobs.extract_if(.., |queued| queued.job.reply.is_closed());
        dropped.map(|queued| (queued.job.texts.len() - queued.vectors.len()) as u64).sum()
    }

    /// The next batch: the requests of the highest priority first, which rises with their wait, then the oldest. Every text alone
    /// fits into a batch.
    pub(crate) fn next_batch(&self, max_texts: usize, max_tokens: usize, now: Instant) -> PoolingBatch {
        let mut order: Vec<usize> = (0..self.jobs.len()).collect();
        let priority = |at: &usize| {
            let job = &self.jobs[*at].job;
            priority_after(job.priority, now.saturating_duration_since(job.since))
        };
        order.sort_by_key(priority);
        let (mut batch, mut texts, mut tokens) = (Vec::new(), 0, 0);
        for at in order {
            let (all, start) = (&self.jobs[at].job.texts, self.jobs[at].vectors.len());
            let mut end = start;
            while let Some(text) = all.get(end) {
                if texts > 0 && (texts == max_texts || tokens + text.len() > max_tokens) {
                    break;
                }
                (end, texts, tokens) = (end + 1, texts + 1, tokens + text.len());
            }
            if start < end {
                batch.push((at, start..end));
            }
            if end < all.len() {
                break;
            }
        }
        PoolingBatch(batch)
    }

    /// The tokens of the texts of a batch.
    pub(crate) fn texts(&self, batch: &PoolingBatch) -> Vec<Vec<Token>> {
        batch.0.iter().flat_map(|(at, range)| self.jobs[*at].job.texts[range.clone()].iter().cloned()).collect()
    }

    /// Takes in the results of a batch, or why it failed, and answers the requests that are complete. Their texts are counted
    /// before.
    pub(crate) fn complete(
        &mut self,
        batch: &PoolingBatch,
        computed: Result<Vec<Vec<f32>>, Error>,
        counters: &Counters,
    ) {
        let (mut vectors, failure) = match computed {
            Ok(vectors) => (vectors.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        for (at, range) in &batch.0 {
            self.jobs[*at].vectors.extend(vectors.by_ref().take(range.len()));
        }
        let mut ended: Vec<usize> = batch.0.iter().map(|(at, _)| *at).collect();
        ended.retain(|at| failure.is_some() || self.jobs[*at].vectors.len() == self.jobs[*at].job.texts.len());
        // From the last one on, so that the places of the others stay.
        ended.sort_unstable_by(|a, b| b.cmp(a));
        for at in ended {
            let QueuedPooling { job: PoolingJob { texts, reply, _pending: pending, .. }, vectors } =
                self.jobs.remove(at);
            let count = if failure.is_some() { &counters.failed } else { &counters.finished };
            count.fetch_add(texts.len() as u64, Relaxed);
            drop(pending);
            // The caller may have stopped waiting.
            let _ = reply.send(failure.clone().map_or(Ok(vectors), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::counters::PendingPooling;
    use crate::request::Priority;
    use crate::schedule::AGING_PERIOD;

    type Answer = oneshot::Receiver<Result<Vec<Vec<f32>>, Error>>;

    /// A request with texts of these lengths.
    fn push(queue: &mut PoolingQueue, priority: Priority, lengths: &[usize]) -> Answer {
        let (reply, answer) = oneshot::channel();
        let texts = lengths.iter().map(|length| vec![Token(1); *length]).collect();
        let (since, pending) = (Instant::now(), PendingPooling::default());
        queue.push(PoolingJob { texts, priority, since, reply, _pending: pending });
        answer
    }

    fn batch(parts: &[(usize, Range<usize>)]) -> PoolingBatch {
        PoolingBatch(parts.to_vec())
    }

    /// As many results as texts: the number of the tokens of each.
    fn results(queue: &PoolingQueue, batch: &PoolingBatch) -> Vec<Vec<f32>> {
        queue.texts(batch).iter().map(|text| vec![text.len() as f32]).collect()
    }

    #[test]
    fn texts_of_several_requests_share_a_batch_and_a_large_request_takes_several() {
        let (mut queue, counters) = (PoolingQueue::default(), Counters::default());
        let finished = || counters.finished.load(Relaxed);
        let mut first = push(&mut queue, Priority::Interactive, &[4, 4, 4]);
        let mut second = push(&mut queue, Priority::Interactive, &[1, 1]);
        let next = queue.next_batch(16, 9, Instant::now());
        assert_eq!(next, batch(&[(0, 0..2)]), "the third text does not fit, and none is taken out of its turn");
        let computed = results(&queue, &next);
        queue.complete(&next, Ok(computed), &counters);
        assert_eq!(finished(), 0);
        let next = queue.next_batch(2, 9, Instant::now());
        assert_eq!(next, batch(&[(0, 2..3), (1, 0..1)]));
        let computed = results(&queue, &next);
        queue.complete(&next, Ok(computed), &counters);
        assert_eq!(finished(), 3);
        assert_eq!(first.try_recv().unwrap(), Ok(vec![vec![4.0]; 3]));
        let next = queue.next_batch(2, 9, Instant::now());
        let computed = results(&queue, &next);
        queue.complete(&next, Ok(computed), &counters);
        assert_eq!(finished(), 5);
        assert_eq!(second.try_recv().unwrap(), Ok(vec![vec![1.0]; 2]));
        assert!(queue.is_empty());
    }

    #[test]
    fn the_router_is_first_and_what_waits_long_rises() {
        let mut queue = PoolingQueue::default();
        let _batch = push(&mut queue, Priority::Batch, &[5]);
        let _interactive = push(&mut queue, Priority::Interactive, &[5]);
        let _router = push(&mut queue, Priority::Router, &[5]);
        assert_eq!(queue.next_batch(1, 9, Instant::now()), batch(&[(2, 0..1)]));
        let later = Instant::now() + AGING_PERIOD * 3;
        assert_eq!(queue.next_batch(1, 9, later), batch(&[(0, 0..1)]));
    }

    #[test]
    fn an_abandoned_request_is_dropped_and_a_fault_ends_all_requests_of_its_batch() {
        let (mut queue, counters) = (PoolingQueue::default(), Counters::default());
        drop(push(&mut queue, Priority::Interactive, &[1, 1]));
        let mut kept = push(&mut queue, Priority::Interactive, &[1]);
        let mut other = push(&mut queue, Priority::Batch, &[1, 20]);
        assert_eq!(queue.drop_abandoned(), 2);
        let next = queue.next_batch(16, 9, Instant::now());
        assert_eq!(next, batch(&[(0, 0..1), (1, 0..1)]));
        let fault = Error::Model("no".to_owned());
        queue.complete(&next, Err(fault.clone()), &counters);
        assert_eq!((counters.finished.load(Relaxed), counters.failed.load(Relaxed)), (0, 3));
        assert_eq!((kept.try_recv().unwrap(), other.try_recv().unwrap()), (Err(fault.clone()), Err(fault)));
        assert!(queue.is_empty());
    }
}
