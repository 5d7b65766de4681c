//! Questions to the router, and its decision as the result of a step.

use std::time::Duration;

use artel_task::RoleName;
use artel_task::event::{Decision, Failure, FailureCode, Output, Timings, Usage};
use ractor::{ActorRef, call_t};
use serde_json::json;

use crate::supervisor;
use artel_routing::RoutingRequest;

/// A decision takes milliseconds; the first one may have to wait until its model is loaded.
pub(super) const DECISION_TIMEOUT: Duration = Duration::from_secs(120);

/// Has the router decide.
pub(crate) async fn route_question(
    supervisor: &ActorRef<supervisor::Message>,
    request: RoutingRequest,
) -> Result<Decision, Failure> {
    route_within(supervisor, request, DECISION_TIMEOUT).await
}

/// Has the router decide within this time.
pub(super) async fn route_within(
    supervisor: &ActorRef<supervisor::Message>,
    request: RoutingRequest,
    timeout: Duration,
) -> Result<Decision, Failure> {
    let request = Box::new(request);
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match call_t!(supervisor, supervisor::Message::Route, timeout_ms, request) {
        Ok(decision) => decision,
        Err(ractor::RactorErr::Timeout) => {
            Err(Failure::new(FailureCode::Timeout, format!("no decision within {timeout:?}")))
        }
        Err(e) => Err(Failure::new(FailureCode::Interrupted, format!("the router stopped during the decision: {e}"))),
    }
}

/// The result of a router's step: the text that was routed and the role that was chosen; if several were chosen, their list is
/// `output.roles`.
pub(super) fn routing_result(decision: &Decision, text: String) -> (Output, Usage, Timings) {
    let roles: Vec<&str> = decision.roles.iter().map(RoleName::as_str).collect();
    let json = (!roles.is_empty()).then(|| json!({"roles": roles}));
    let output = Output { json, role: Some(decision.role.clone()), ..Output::text(text) };
    let tokens = decision.tokens.saturating_sub(decision.warmup_tokens);
    let usage = Usage { prompt: tokens, computed: tokens, ..Usage::default() };
    (output, usage, Timings { prefill: decision.elapsed, ..Timings::default() })
}
