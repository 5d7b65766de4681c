//! The concurrency permits of a role and the queue of requests for one. The order is priority, then the fewest remaining steps
//! of the task, then arrival. Each request can ask for its position. The number of permits can be changed at any time.

use std::sync::{Arc, Mutex};

use artel_engine::schedule::AGING_PERIOD;
use artel_task::event::TaskPriority;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Permits and the requests that wait for one. Clones share the state.
#[derive(Clone)]
pub struct PrioritySemaphore(Arc<Mutex<State>>);

struct State {
    /// Permits that may be out at once.
    permits: u32,
    /// Permits that are out: more than `permits` for a while after that was lowered.
    taken: u32,
    last_ticket: u64,
    waiters: Vec<Waiter>,
}

struct Waiter {
    ticket: u64,
    priority: TaskPriority,
    remaining_steps: u32,
    since: Instant,
    grant: oneshot::Sender<Permit>,
}

/// A permit; dropping it grants it to the next request.
pub struct Permit(PrioritySemaphore);

/// A queued request for a permit; dropping it leaves the queue.
pub struct PermitRequest {
    semaphore: PrioritySemaphore,
    ticket: u64,
    granted: oneshot::Receiver<Permit>,
}

impl PrioritySemaphore {
    /// With so many permits.
    pub fn new(permits: u32) -> Self {
        Self(Arc::new(Mutex::new(State { permits, taken: 0, last_ticket: 0, waiters: Vec::new() })))
    }

    /// Changes the number of permits. More are granted at once; with fewer, none is granted until enough have come back.
    pub fn resize(&self, permits: u32) {
        self.with(|state| state.permits = permits);
        self.grant_available();
    }

    /// Queues a request; `remaining_steps`: steps of the task after this one. An available permit is granted at once.
    pub fn request(&self, priority: TaskPriority, remaining_steps: u32) -> PermitRequest {
        let (grant, granted) = oneshot::channel();
        let ticket = self.with(|state| {
            state.last_ticket += 1;
            let ticket = state.last_ticket;
            state.waiters.push(Waiter { ticket, priority, remaining_steps, since: Instant::now(), grant });
            ticket
        });
        let request = PermitRequest { semaphore: self.clone(), ticket, granted };
        self.grant_available();
        request
    }

    fn grant_available(&self) {
        while let Some(grant) = self.with(State::take_next) {
            // If the request was dropped meanwhile, the permit comes back unsent and its drop releases it.
            drop(grant.send(Permit(self.clone())));
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("no code panics while it holds the semaphore's lock"))
    }
}

impl State {
    /// Takes an available permit for the first waiter.
    fn take_next(&mut self) -> Option<oneshot::Sender<Permit>> {
        if self.taken >= self.permits {
            return None;
        }
        let now = Instant::now();
        let first = (0..self.waiters.len()).min_by_key(|at| self.waiters[*at].rank(now))?;
        self.taken += 1;
        Some(self.waiters.swap_remove(first).grant)
    }
}

impl Waiter {
    /// The least rank is first. The priority rises with the waiting time, so no request starves.
    fn rank(&self, now: Instant) -> (u64, u32, u64) {
        let class = u64::from(self.priority == TaskPriority::Batch);
        let aged = now.saturating_duration_since(self.since).as_secs() / AGING_PERIOD.as_secs();
        // A request that has aged beyond the highest priority comes before all others.
        (if aged > class { 0 } else { 1 + class - aged }, self.remaining_steps, self.ticket)
    }
}

impl PermitRequest {
    /// 1 for the next to be granted; 0 once granted.
    pub fn position(&self) -> u32 {
        self.semaphore.with(|state| {
            let Some(own) = state.waiters.iter().find(|waiter| waiter.ticket == self.ticket) else { return 0 };
            let now = Instant::now();
            let rank = own.rank(now);
            let before = state.waiters.iter().filter(|waiter| waiter.rank(now) < rank).count();
            u32::try_from(before + 1).unwrap_or(u32::MAX)
        })
    }

    /// Resolves when the permit is granted. Cancel safe: may be dropped and called again.
    pub async fn granted(&mut self) -> Permit {
        // The semaphore holds the sender until it grants, and the request holds the semaphore.
        (&mut self.granted).await.expect("the semaphore keeps the sender until it grants the permit")
    }
}

impl Drop for PermitRequest {
    fn drop(&mut self) {
        self.semaphore.with(|state| state.waiters.retain(|waiter| waiter.ticket != self.ticket));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.with(|state| state.taken -= 1);
        self.0.grant_available();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn granted(request: &mut PermitRequest) -> Option<Permit> {
        request.granted().now_or_never()
    }

    #[test]
    fn permits_are_granted_by_priority_then_by_remaining_steps_then_in_order() {
        let semaphore = PrioritySemaphore::new(1);
        let mut first = semaphore.request(TaskPriority::Batch, 0);
        let permit = granted(&mut first).unwrap();
        let mut all = [
            semaphore.request(TaskPriority::Batch, 0),
            semaphore.request(TaskPriority::Interactive, 2),
            semaphore.request(TaskPriority::Interactive, 1),
            semaphore.request(TaskPriority::Interactive, 1),
        ];
        assert_eq!(all.each_ref().map(PermitRequest::position), [4, 3, 1, 2]);
        drop(permit);
        for next in [2, 3, 1, 0] {
            let own = granted(&mut all[next]).unwrap();
            assert_eq!(all[next].position(), 0);
            assert!(all.iter_mut().all(is_done_or_waiting));
            drop(own);
        }
    }

    fn is_done_or_waiting(request: &mut PermitRequest) -> bool {
        request.position() == 0 || granted(request).is_none()
    }

    #[test]
    fn a_dropped_request_gives_up_its_position_or_its_permit() {
        let semaphore = PrioritySemaphore::new(2);
        let (mut one, two) =
            (semaphore.request(TaskPriority::Interactive, 0), semaphore.request(TaskPriority::Interactive, 0));
        let (three, mut four) =
            (semaphore.request(TaskPriority::Interactive, 0), semaphore.request(TaskPriority::Interactive, 0));
        assert_eq!([three.position(), four.position()], [1, 2]);
        drop(three);
        assert_eq!(four.position(), 1);
        assert!(granted(&mut four).is_none());
        // Its permit was granted and never taken.
        drop(two);
        assert!(granted(&mut four).is_some() && granted(&mut one).is_some());
    }

    #[test]
    fn more_permits_are_granted_at_once_and_fewer_once_enough_have_come_back() {
        let semaphore = PrioritySemaphore::new(1);
        let mut requests: Vec<_> = (0..6).map(|_| semaphore.request(TaskPriority::Interactive, 0)).collect();
        let mut grant_all = || -> Vec<Permit> { requests.iter_mut().filter_map(granted_unless_taken).collect() };
        let mut permits = grant_all();
        assert_eq!(permits.len(), 1);
        semaphore.resize(4);
        permits.extend(grant_all());
        assert_eq!(permits.len(), 4, "raised under load: waiting requests are granted");
        semaphore.resize(2);
        for left in [3, 2] {
            permits.pop();
            assert_eq!((permits.len(), grant_all().len()), (left, 0), "lowered under load: two are out still");
        }
        permits.pop();
        permits.extend(grant_all());
        assert_eq!(permits.len(), 2, "one came back, one is granted");
        // Raised again to what it was, with one waiting.
        semaphore.resize(4);
        assert_eq!(grant_all().len(), 1);
    }

    /// The permit of a request, unless it was taken before.
    fn granted_unless_taken(request: &mut PermitRequest) -> Option<Permit> {
        if request.granted.is_terminated() { None } else { granted(request) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_long_is_passed_by_no_newer_one() {
        let semaphore = PrioritySemaphore::new(1);
        let mut running = semaphore.request(TaskPriority::Interactive, 0);
        let permit = granted(&mut running);
        let mut old = semaphore.request(TaskPriority::Batch, 9);
        tokio::time::advance(AGING_PERIOD).await;
        let early = semaphore.request(TaskPriority::Interactive, 0);
        assert_eq!([old.position(), early.position()], [2, 1], "one period lifts it to the class of the other");
        drop(early);
        tokio::time::advance(AGING_PERIOD).await;
        let late = semaphore.request(TaskPriority::Interactive, 0);
        assert_eq!([old.position(), late.position()], [1, 2]);
        drop(permit);
        assert!(granted(&mut old).is_some());
    }
}
