//! The admission queue of a role. There is one for each role, however many versions of the catalog its steps come from, and
//! its limits are those of the newest version.

use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::Role;
use artel_task::event::TaskPriority;

use super::step_deadline::ModelWaitCounter;
use artel_admission::{PermitRequest, PrioritySemaphore};

/// The limits of a role's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Steps that may run at once.
    pub(crate) concurrency: u32,
    /// Steps that may wait besides.
    pub(crate) capacity: u32,
}

/// The queue of a role. Clones are the same queue; it outlives the expert, so that steps that run count against its limits
/// after the expert was restarted, too.
#[derive(Clone)]
pub(crate) struct RoleQueue(Arc<Shared>);

struct Shared {
    /// Permits of steps that run.
    running: PrioritySemaphore,
    /// Counts the running steps that wait for the model.
    model_waits: ModelWaitCounter,
    admission: Mutex<Admission>,
}

struct Admission {
    limits: QueueLimits,
    /// Steps that run or wait.
    admitted: u32,
}

/// The place of a step in a queue; dropping it makes room for another.
pub(super) struct AdmittedStep(RoleQueue);

/// As many steps wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has {capacity} steps waiting, its limit")]
pub(super) struct QueueFull {
    capacity: u32,
}

impl QueueLimits {
    /// The limits that a role defines.
    pub(crate) fn of(role: &Role) -> Self {
        Self { concurrency: role.limits.concurrency, capacity: role.limits.queue }
    }
}

impl RoleQueue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self(Arc::new(Shared {
            running: PrioritySemaphore::new(limits.concurrency),
            model_waits: ModelWaitCounter::default(),
            admission: Mutex::new(Admission { limits, admitted: 0 }),
        }))
    }

    /// Changes the limits. With more concurrency, waiting steps start at once; with less, running ones finish, and none
    /// starts until fewer run than may. Steps that wait keep their places.
    pub(crate) fn resize(&self, limits: QueueLimits) {
        self.admission().limits = limits;
        self.0.running.resize(limits.concurrency);
    }

    /// Whether an expert or a step has it.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Takes a place in the queue, if one is free.
    pub(super) fn admit(&self) -> Result<AdmittedStep, QueueFull> {
        let mut admission = self.admission();
        let QueueLimits { concurrency, capacity } = admission.limits;
        if admission.admitted >= concurrency.saturating_add(capacity) {
            return Err(QueueFull { capacity });
        }
        admission.admitted += 1;
        Ok(AdmittedStep(self.clone()))
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.0.admission.lock().expect("no code panics while it holds the lock of a role's queue")
    }
}

impl AdmittedStep {
    /// Asks for the permit to run; `remaining_steps`: steps of the task after this one.
    pub(super) fn request_permit(&self, priority: TaskPriority, remaining_steps: u32) -> PermitRequest {
        self.0.0.running.request(priority, remaining_steps)
    }

    /// Counts the role's running steps that wait for the model.
    pub(super) fn model_waits(&self) -> &ModelWaitCounter {
        &self.0.0.model_waits
    }
}

impl Drop for AdmittedStep {
    fn drop(&mut self) {
        self.0.admission().admitted -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use artel_admission::Permit;

    fn queue(concurrency: u32, capacity: u32) -> RoleQueue {
        RoleQueue::new(QueueLimits { concurrency, capacity })
    }

    /// A step in the queue, with its permit once it runs.
    struct QueuedStep {
        request: PermitRequest,
        permit: Option<Permit>,
        _admitted: AdmittedStep,
    }

    fn enter(queue: &RoleQueue) -> Result<QueuedStep, QueueFull> {
        let admitted = queue.admit()?;
        Ok(QueuedStep {
            request: admitted.request_permit(TaskPriority::Interactive, 0),
            permit: None,
            _admitted: admitted,
        })
    }

    fn running(steps: &mut [QueuedStep]) -> usize {
        for step in steps.iter_mut().filter(|step| step.permit.is_none()) {
            step.permit = step.request.granted().now_or_never();
        }
        steps.iter().filter(|step| step.permit.is_some()).count()
    }

    fn full(queue: &RoleQueue) -> Option<String> {
        enter(queue).err().map(|full| full.to_string())
    }

    #[test]
    fn raised_limits_start_waiting_steps_and_admit_more() {
        let queue = queue(1, 2);
        let mut steps: Vec<_> = (0..3).map(|_| enter(&queue).unwrap()).collect();
        assert_eq!((running(&mut steps), full(&queue)), (1, Some("has 2 steps waiting, its limit".to_owned())));
        queue.resize(QueueLimits { concurrency: 2, capacity: 3 });
        assert_eq!(running(&mut steps), 2);
        steps.extend((0..2).map(|_| enter(&queue).unwrap()));
        assert_eq!((running(&mut steps), full(&queue)), (2, Some("has 3 steps waiting, its limit".to_owned())));
    }

    #[test]
    fn lowered_limits_let_running_steps_finish_and_start_none_above_them() {
        let queue = queue(3, 2);
        let mut steps: Vec<_> = (0..5).map(|_| enter(&queue).unwrap()).collect();
        assert_eq!(running(&mut steps), 3);
        queue.resize(QueueLimits { concurrency: 1, capacity: 1 });
        for left in [2, 1] {
            steps.remove(0);
            assert_eq!(running(&mut steps), left, "the others run on, and none starts");
            assert_eq!(full(&queue).as_deref(), Some("has 1 steps waiting, its limit"), "{left} run and two wait");
        }
        steps.remove(0);
        assert_eq!((running(&mut steps), full(&queue).is_some()), (1, true), "one runs, one waits");
        steps.remove(0);
        assert_eq!((running(&mut steps), enter(&queue).is_ok()), (1, true), "one runs, none waits");
    }

    #[test]
    fn a_queue_is_in_use_while_a_step_is_in_it() {
        let queue = queue(1, 0);
        let step = enter(&queue).unwrap();
        assert!(queue.is_in_use());
        drop(step);
        assert!(!queue.is_in_use() && enter(&queue).is_ok());
    }
}
