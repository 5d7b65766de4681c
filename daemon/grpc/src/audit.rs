//! The audit log: the calls that change something for others, with caller and outcome. Its lines have a target of their own,
//! which no level of the log silences.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use artel_accept::Peer;
use artel_access::{Caller, Route, peer_text};
use artel_log::AUDIT_TARGET;
use artel_task::TaskId;
use tonic::codegen::http::Response;
use tonic::{Code, Request, Status};

/// The longest name of an object that is logged: a task's id, or a name of the catalog.
const MAX_OBJECT_CHARS: usize = 128;

/// What a call is about. The gate puts it into the extensions of a request that is audited, the service names it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallObject(Arc<OnceLock<String>>);

impl CallObject {
    /// That of a request; of one that is not audited, its name goes nowhere.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Names it: a task, a model, a version of the catalog, a token. The first name counts.
    pub(crate) fn name(&self, object: impl Display) {
        let text = object.to_string().chars().filter(|c| !c.is_control()).take(MAX_OBJECT_CHARS).collect();
        let _ = self.0.set(text);
    }

    /// Names a task, or a step of it.
    pub(crate) fn name_step(&self, task: TaskId, step: &str) {
        match step {
            "" => self.name(task),
            step => self.name(format_args!("{task} {step}")),
        }
    }
}

/// A line of the audit log, written when the call has ended, in whatever way.
pub(crate) struct AuditedCall {
    caller: String,
    peer: String,
    path: &'static str,
    object: CallObject,
    outcome: Option<Code>,
}

impl AuditedCall {
    pub(crate) fn begin(caller: Option<&Caller>, peer: Option<&Peer>, route: &Route) -> Self {
        let caller = caller.map_or_else(String::new, |caller| caller.name.to_string());
        Self { caller, peer: peer_text(peer), path: route.path, object: CallObject::default(), outcome: None }
    }

    pub(crate) fn object(&self) -> CallObject {
        self.object.clone()
    }

    /// Ends the call with this response. An error of a call with one answer is in the headers.
    pub(crate) fn end<B>(mut self, response: &Response<B>) {
        let status = Status::from_header_map(response.headers());
        self.outcome = Some(status.map_or(Code::Ok, |status| status.code()));
    }
}

impl Drop for AuditedCall {
    fn drop(&mut self) {
        let outcome = match self.outcome {
            Some(Code::Ok) => "ok".to_owned(),
            Some(code) => format!("{code:?}"),
            // What was begun may have happened all the same.
            None => "abandoned by the client".to_owned(),
        };
        let object = self.object.0.get().map(String::as_str).unwrap_or_default();
        let method = self.path.rsplit_once('.').map_or(self.path, |(_, method)| method);
        tracing::info!(target: AUDIT_TARGET, caller = self.caller, peer = self.peer, method, object, outcome, "a call was made");
    }
}
