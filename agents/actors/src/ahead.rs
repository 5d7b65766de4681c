//! Which models the tasks that run will need, and how soon: a model that is needed in a moment is not unloaded for one that
//! is needed now if another can be missed.

use std::sync::{Arc, Mutex};

use artel_roles::Model;

/// How many steps ahead it is looked. Further on, tasks end, fail and branch too often to count on.
pub(crate) const HORIZON: u32 = 4;

/// By model, for how many steps of running tasks it is needed after so many more steps. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead(Arc<Mutex<All>>);

type All = Vec<(Arc<Model>, Counts)>;

/// 0 for the steps that have begun, and wait or run.
type Counts = [u32; HORIZON as usize + 1];

/// What one step's task will need; until this is dropped.
#[derive(Debug)]
pub(crate) struct Needs {
    ahead: Ahead,
    models: Vec<(u32, Arc<Model>)>,
}

impl Ahead {
    /// Counts these in, each with the number of steps until then, [`HORIZON`] at most.
    pub(crate) fn count(&self, models: Vec<(u32, Arc<Model>)>) -> Needs {
        self.with(|all| {
            for (steps, model) in &models {
                let at = all.iter().position(|(known, _)| known == model).unwrap_or_else(|| {
                    all.push((model.clone(), Counts::default()));
                    all.len() - 1
                });
                all[at].1[*steps as usize] += 1;
            }
        });
        Needs { ahead: self.clone(), models }
    }

    /// After how many steps some task needs the model; none if none is known to.
    pub(crate) fn until(&self, model: &Arc<Model>) -> Option<u32> {
        self.with(|all| {
            let (_, counts) = all.iter().find(|(known, _)| known == model)?;
            (0..).zip(counts).find(|(_, count)| **count > 0).map(|(steps, _)| steps)
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut All) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds what is ahead"))
    }
}

impl Drop for Needs {
    fn drop(&mut self) {
        self.ahead.with(|all| {
            for (steps, model) in &self.models {
                if let Some((_, counts)) = all.iter_mut().find(|(known, _)| known == model) {
                    counts[*steps as usize] -= 1;
                }
            }
            all.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::stage::parse;

    #[test]
    fn the_soonest_need_counts_until_it_is_over() {
        let catalog = parse("---\nmodel: one\nfile: one.gguf\n---\nmodel: two\nfile: two.gguf\n");
        let [one, two] = ["one", "two"].map(|name| catalog.model(name).unwrap().clone());
        let ahead = Ahead::default();
        let until = || [&one, &two].map(|model| ahead.until(model));
        let first = ahead.count(vec![(0, one.clone()), (3, two.clone())]);
        let second = ahead.count(vec![(1, two.clone()), (HORIZON, one.clone())]);
        assert_eq!(until(), [Some(0), Some(1)]);
        drop(first);
        assert_eq!(until(), [Some(HORIZON), Some(1)]);
        drop(second);
        assert_eq!(until(), [None, None]);
        assert!(ahead.0.lock().unwrap().is_empty());
    }
}
