//! Which models running tasks will need, and in how many steps: a model that is needed soon is not evicted for one that is
//! needed now if another one can be.

use std::sync::{Arc, Mutex};

use artel_roles::Model;

/// Steps that are looked ahead. Further on, tasks end, fail and branch too often to count on.
pub const LOOKAHEAD_STEPS: u32 = 4;

/// For each model, how many steps of running tasks need it after so many more steps. Clones are the same lookahead.
#[derive(Debug, Clone, Default)]
pub struct ModelLookahead(Arc<Mutex<ModelUseCounts>>);

type ModelUseCounts = Vec<(Arc<Model>, UseCounts)>;

/// By steps until the use; 0 for steps that have started, and wait or run.
type UseCounts = [u32; LOOKAHEAD_STEPS as usize + 1];

/// The models that one step's task will need, registered until this is dropped.
#[derive(Debug)]
pub struct LookaheadGuard {
    lookahead: ModelLookahead,
    models: Vec<(u32, Arc<Model>)>,
}

impl ModelLookahead {
    /// Registers models, each with the number of steps until its use, [`LOOKAHEAD_STEPS`] at most.
    pub fn register(&self, models: Vec<(u32, Arc<Model>)>) -> LookaheadGuard {
        self.with(|uses| {
            for (steps, model) in &models {
                let at = uses.iter().position(|(known, _)| known == model).unwrap_or_else(|| {
                    uses.push((model.clone(), UseCounts::default()));
                    uses.len() - 1
                });
                uses[at].1[*steps as usize] += 1;
            }
        });
        LookaheadGuard { lookahead: self.clone(), models }
    }

    /// After how many steps a task needs the model; none if no task is known to.
    pub fn steps_until(&self, model: &Arc<Model>) -> Option<u32> {
        self.with(|uses| {
            let (_, counts) = uses.iter().find(|(known, _)| known == model)?;
            (0..).zip(counts).find(|(_, count)| **count > 0).map(|(steps, _)| steps)
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut ModelUseCounts) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds the lookahead"))
    }
}

impl Drop for LookaheadGuard {
    fn drop(&mut self) {
        self.lookahead.with(|uses| {
            for (steps, model) in &self.models {
                if let Some((_, counts)) = uses.iter_mut().find(|(known, _)| known == model) {
                    counts[*steps as usize] -= 1;
                }
            }
            uses.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::catalog;

    #[test]
    fn the_soonest_use_counts_until_it_is_over() {
        let catalog = catalog("---\nmodel: one\nfile: one.gguf\n---\nmodel: two\nfile: two.gguf\n");
        let [one, two] = ["one", "two"].map(|name| catalog.model(name).unwrap().clone());
        let lookahead = ModelLookahead::default();
        let steps_until = || [&one, &two].map(|model| lookahead.steps_until(model));
        let first = lookahead.register(vec![(0, one.clone()), (3, two.clone())]);
        let second = lookahead.register(vec![(1, two.clone()), (LOOKAHEAD_STEPS, one.clone())]);
        assert_eq!(steps_until(), [Some(0), Some(1)]);
        drop(first);
        assert_eq!(steps_until(), [Some(LOOKAHEAD_STEPS), Some(1)]);
        drop(second);
        assert_eq!(steps_until(), [None, None]);
        assert!(lookahead.0.lock().unwrap().is_empty());
    }
}
