//! The budget of one evaluation: it ends within a known time and memory, whatever the expression and the values are.

/// The most steps of one evaluation. A step is a part of the expression that is visited, an element of a list that is visited or
/// compared, or some bytes of text that are read: at most a few hundred nanoseconds. `output.items.all(i, i.score > 0)` over
/// 10,000 items takes 50,000. All steps take some tens of milliseconds, so that a task's next action is decided in place.
pub const MAX_EXPRESSION_STEPS: u64 = 500_000;
/// The most bytes that the values made in one evaluation take together: several times the largest output.
pub const MAX_EXPRESSION_BYTES: usize = 16 * 1024 * 1024;

/// Text is copied, compared and searched at some bytes a nanosecond.
const TEXT_STEP_BYTES: usize = 64;

/// A budget of an evaluation that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// [`MAX_EXPRESSION_STEPS`].
    #[error("it takes more than {MAX_EXPRESSION_STEPS} steps")]
    Steps,
    /// [`MAX_EXPRESSION_BYTES`].
    #[error("the values that it makes take more than {MAX_EXPRESSION_BYTES} bytes")]
    Bytes,
}

/// What one evaluation may still use.
#[derive(Debug)]
pub(super) struct EvaluationBudget {
    steps: u64,
    bytes: usize,
}

impl Default for EvaluationBudget {
    fn default() -> Self {
        Self { steps: MAX_EXPRESSION_STEPS, bytes: MAX_EXPRESSION_BYTES }
    }
}

impl EvaluationBudget {
    /// Takes steps, before they are done.
    pub(super) fn take_steps(&mut self, steps: u64) -> Result<(), Exhausted> {
        self.steps = self.steps.checked_sub(steps).ok_or(Exhausted::Steps)?;
        Ok(())
    }

    /// Takes the steps of reading a text once.
    pub(super) fn read_text(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.take_steps((bytes / TEXT_STEP_BYTES) as u64)
    }

    /// Takes memory, before it is allocated.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Exhausted::Bytes)?;
        Ok(())
    }

    /// What was used.
    #[cfg(test)]
    pub(super) fn used(&self) -> (u64, usize) {
        (MAX_EXPRESSION_STEPS - self.steps, MAX_EXPRESSION_BYTES - self.bytes)
    }
}
