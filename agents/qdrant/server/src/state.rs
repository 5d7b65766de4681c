//! What the services share: the collections, the calls, and the fault that they are to have.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::Status;

use crate::collection::ServedCollection;

/// A call that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedCall {
    /// The method, such as `Points/Upsert`.
    pub method: &'static str,
    /// The points that it writes or deletes, or the most that it asks for.
    pub points: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Unavailable,
    Hang,
}

#[derive(Debug, Default)]
pub(crate) struct SharedState(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    collections: BTreeMap<String, ServedCollection>,
    calls: Vec<ServedCall>,
    /// What is to fail, and how many calls are answered before.
    fault: Option<(Fault, usize)>,
    refuses_indexes: bool,
}

impl SharedState {
    /// Notes a call; it fails or hangs here if it is to.
    pub(crate) async fn enter(&self, method: &'static str, points: usize) -> Result<(), Status> {
        match self.note(ServedCall { method, points }) {
            None => Ok(()),
            Some(Fault::Unavailable) => Err(Status::unavailable("the server is told to fail")),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    fn note(&self, call: ServedCall) -> Option<Fault> {
        let mut state = self.lock();
        state.calls.push(call);
        let (fault, answered) = state.fault.as_mut()?;
        let fault = *fault;
        if *answered == 0 {
            return Some(fault);
        }
        *answered -= 1;
        None
    }

    pub(crate) fn set_fault(&self, fault: Fault, calls: usize) {
        self.lock().fault = Some((fault, calls));
    }

    pub(crate) fn clear_fault(&self) {
        self.lock().fault = None;
    }

    pub(crate) fn refuse_indexes(&self) {
        self.lock().refuses_indexes = true;
    }

    pub(crate) fn refuses_indexes(&self) -> bool {
        self.lock().refuses_indexes
    }

    pub(crate) fn calls(&self) -> Vec<ServedCall> {
        self.lock().calls.clone()
    }

    pub(crate) fn with_collections<T>(
        &self,
        operation: impl FnOnce(&mut BTreeMap<String, ServedCollection>) -> T,
    ) -> T {
        operation(&mut self.lock().collections)
    }

    /// Works on one collection.
    pub(crate) fn with_collection<T>(
        &self,
        name: &str,
        operation: impl FnOnce(&mut ServedCollection) -> Result<T, Status>,
    ) -> Result<T, Status> {
        self.with_collections(|collections| match collections.get_mut(name) {
            Some(collection) => operation(collection),
            None => Err(Status::not_found(format!("Not found: Collection `{name}` doesn't exist!"))),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
