//! Setting a step to work: a role's goes to its expert, a router's to the router.

use std::sync::Arc;
use std::time::Duration;

use artel_roles::{Role, Template};
use artel_task::event::{Class, Code, Decision, Failure, Output, Timings, Usage};
use artel_task::graph::{RoleRef, Router, Work};
use artel_task::{NodeName, RoleName, StepId};
use ractor::{ActorRef, call_t};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Run;
use crate::report::{Outcome, Report, failure};
use crate::router::Question;
use crate::{expert, retry, supervisor};

/// A decision takes milliseconds; the first one may have to wait until its model is loaded.
const DECISION: Duration = Duration::from_secs(120);

impl Run {
    pub(super) fn begin(&mut self, step: StepId) {
        let cancel = CancellationToken::new();
        self.steps.insert(step.clone(), cancel.clone().drop_guard());
        let report = Report::new(self.me.clone(), step.clone());
        let graph = self.on.graph.clone();
        let Some(node) = graph.node(&step.visit.node) else { return };
        match (&node.work, self.role_of(&step.visit.node)) {
            (Work::Router(router), _) => self.route(&step, router, cancel, report),
            (Work::Role { .. }, Some(role)) => self.work(step, role, cancel, report),
            (Work::Role { .. }, None) => {
                report.send(Err(failure(Code::Internal, format!("node `{}` has no role to run", step.visit.node))));
            }
        }
    }

    /// The role that works at a node; none for a router.
    pub(super) fn role_of(&self, node: &NodeName) -> Option<Arc<Role>> {
        let Work::Role { role, .. } = &self.on.graph.node(node)?.work else { return None };
        let name = match role {
            RoleRef::Named(name) => name,
            RoleRef::From(router) => self.task.chosen_by(router)?,
        };
        self.on.catalog.role(name.as_str()).cloned()
    }

    /// The roles of the nodes to which edges lead from a node.
    fn roles_after(&self, node: &NodeName) -> Vec<RoleName> {
        let edges = self.on.graph.node(node).map_or(&[][..], |node| &node.next);
        let targets = edges.iter().filter_map(|edge| edge.to.as_ref());
        targets.filter_map(|to| self.role_of(to)).map(|role| role.name.clone()).collect()
    }

    /// How often a step may be tried again.
    pub(super) fn retries(&self, step: &StepId) -> u32 {
        self.role_of(&step.visit.node).map_or(retry::ROUTER, |role| role.limits.retries)
    }

    /// What the node says in place of its role. The graph of a single role is no graph of the catalog.
    fn message_of(&self, node: &NodeName) -> Option<Template> {
        let single = self.task.accepted.role.is_some();
        if single { None } else { self.on.catalog.message(self.on.graph.name().as_str(), node.as_str()).cloned() }
    }

    fn work(&self, step: StepId, role: Arc<Role>, cancel: CancellationToken, report: Report) {
        let Some(model) = self.on.catalog.model(role.model.as_str()).cloned() else {
            return report.send(Err(failure(Code::Internal, format!("role `{}` has no model", role.name))));
        };
        let batch = role.class == Class::Batch || self.task.accepted.class == Class::Batch;
        let input = self.task.input_of(&step.visit);
        let job = expert::Job {
            message: self.message_of(&step.visit.node),
            context: json!({
                "task": self.task.task_value(),
                "nodes": self.task.nodes_value(),
                "input": input,
                "role": {"name": role.name.as_str(), "description": role.description},
                "attempt": step.attempt,
            }),
            input,
            class: if batch { Class::Batch } else { Class::Interactive },
            next: self.roles_after(&step.visit.node),
            models: self.on.models.clone(),
            feed: self.on.feed.clone(),
            step,
            role,
            cancel,
            report,
        };
        // A supervisor that is gone takes us with it.
        let _ = self.on.supervisor.cast(supervisor::Message::Work(Box::new(job), model));
    }

    fn route(&self, step: &StepId, router: &Router, cancel: CancellationToken, report: Report) {
        let text = self.task.input_of(&step.visit);
        let candidates = router.roles.iter().filter_map(|name| self.on.catalog.role(name.as_str()).cloned()).collect();
        let Some(model) = self.on.catalog.embedding_model().cloned() else {
            return report.send(Err(failure(Code::Router, "the catalog has no model with `use: embedding`")));
        };
        let (confidence, otherwise) = (router.confidence, router.otherwise.clone());
        let question = Question { text: text.clone(), candidates, confidence, otherwise, model };
        let supervisor = self.on.supervisor.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => report.forget(),
                decision = ask(&supervisor, question) => {
                    report.send(decision.map(|decision| Outcome::Routed { decision, text }));
                }
            }
        });
    }
}

/// Has the router decide.
pub(crate) async fn ask(supervisor: &ActorRef<supervisor::Message>, question: Question) -> Result<Decision, Failure> {
    let question = Box::new(question);
    let limit = u64::try_from(DECISION.as_millis()).unwrap_or(u64::MAX);
    match call_t!(supervisor, supervisor::Message::Decide, limit, question) {
        Ok(decision) => decision,
        Err(ractor::RactorErr::Timeout) => Err(failure(Code::Timeout, format!("no decision within {DECISION:?}"))),
        Err(e) => Err(failure(Code::Interrupted, format!("the router stopped in the middle: {e}"))),
    }
}

/// What the step of a router gives: the text that it read and the role that it chose.
pub(super) fn routed(decision: &Decision, text: String) -> (Output, Usage, Timings) {
    let output = Output { text, json: None, role: Some(decision.role.clone()) };
    let usage = Usage { prompt: decision.tokens, computed: decision.tokens, ..Usage::default() };
    (output, usage, Timings { prefill: decision.took, ..Timings::default() })
}
