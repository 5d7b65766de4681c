//! The committed states of the index in memory. Each belongs to a state of the database, so that a query sees one state of both.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::segment::{GenerationView, IndexedChunk};
use artel_terms::Language;

/// The states that are kept: a query that began before this many commits takes a newer state.
const KEPT_GENERATIONS: usize = 8;

/// All generations by their ids.
pub(crate) type Views = HashMap<i64, GenerationView>;

/// What a transaction changes in memory.
#[derive(Debug)]
pub(crate) enum ViewChange {
    Create { generation: i64, dimensions: usize, languages: Vec<Language> },
    Drop { generation: i64 },
    Remove { generation: i64, chunks: Vec<i64> },
    Append { generation: i64, chunks: Vec<IndexedChunk> },
}

/// The state after these changes.
pub(crate) fn changed(views: &Views, changes: Vec<ViewChange>) -> Views {
    let mut views = views.clone();
    for change in changes {
        match change {
            ViewChange::Create { generation, dimensions, languages } => {
                views.insert(generation, GenerationView::new(dimensions, &languages));
            }
            ViewChange::Drop { generation } => {
                views.remove(&generation);
            }
            ViewChange::Remove { generation, chunks } => {
                if let Some(view) = views.get_mut(&generation) {
                    view.remove(&chunks);
                }
            }
            ViewChange::Append { generation, chunks } => {
                if let Some(view) = views.get_mut(&generation) {
                    view.append(&chunks);
                }
            }
        }
    }
    views
}

/// The last states with the number of their commits. A state is published before its commit, and taken back if that fails: so
/// a query that sees a commit in the database always finds its state here.
#[derive(Debug)]
pub(crate) struct CommittedViews {
    recent: Mutex<VecDeque<(i64, Arc<Views>)>>,
}

impl CommittedViews {
    pub(crate) fn new(commits: i64, views: Views) -> Self {
        Self { recent: Mutex::new([(commits, Arc::new(views))].into()) }
    }

    pub(crate) fn at(&self, commits: i64) -> Option<Arc<Views>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().find(|(of, _)| *of == commits).map(|(_, views)| views.clone())
    }

    pub(crate) fn publish(&self, commits: i64, views: Arc<Views>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(of, _)| *of < commits);
        recent.push_back((commits, views));
        while recent.len() > KEPT_GENERATIONS {
            recent.pop_front();
        }
    }

    pub(crate) fn take_back(&self, commits: i64) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != commits);
    }
}
