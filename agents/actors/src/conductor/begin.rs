//! Setting a step to work: a role's goes to its expert, a router's to the router.

use std::sync::Arc;
use std::time::Duration;

use artel_roles::template::TemplateContext;
use artel_roles::{Model, Role, Template};
use artel_task::event::{TaskPriority, FailureCode, Decision, Failure, Output, Timings, Usage};
use artel_task::graph::{Node, RoleRef, RouterNode, NodeKind};
use artel_task::{NodeName, RoleName, StepId, Visit, unconditional_edges};
use ractor::{ActorRef, call_t};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Run};
use crate::ahead::HORIZON;
use crate::begun::Begun;
use crate::expert::{self, Reader, described};
use crate::report::{Outcome, Report, failure};
use crate::router::{Candidate, Question};
use crate::supervisor;

/// A decision takes milliseconds; the first one may have to wait until its model is loaded.
const DECISION: Duration = Duration::from_secs(120);

/// Who reads one answer along at most.
const READERS: usize = 4;

/// What ties an attempt to its conductor.
struct Tie {
    begun: Begun,
    cancel: CancellationToken,
    report: Report,
}

impl Run {
    pub(super) fn begin(&mut self, step: StepId, begun: Begun) {
        let cancel = CancellationToken::new();
        let ahead = self.roles_ahead(&step.visit);
        let model = |(steps, role): &(u32, Arc<Role>)| Some((*steps, self.on.catalog.model_of(role)?));
        let needs = self.on.ahead.count(ahead.iter().filter_map(model).collect());
        self.steps.insert(step.clone(), Attempt { needs, _cancel: cancel.clone().drop_guard() });
        let tie = Tie { begun, cancel, report: Report::new(self.me.clone(), step.clone()) };
        let graph = self.on.graph.clone();
        let Some(node) = graph.node_at(&step.visit) else { return };
        match (&node.kind, self.role_of(&step.visit)) {
            (NodeKind::Router(router), _) => self.route(&step, router, node.policy.timeout, tie),
            (NodeKind::Role { .. }, Some(role)) => {
                let next =
                    ahead.into_iter().filter(|(steps, _)| *steps == 1).map(|(_, role)| role.name.clone()).collect();
                self.work(step, node, role, next, tie);
            }
            // People and sub-graphs are nobody's work.
            (NodeKind::Ask(_) | NodeKind::Graph { .. }, _) => tie.report.forget(),
            (NodeKind::Role { role, .. }, None) => tie.report.send(Err(no_role(&step.visit, role))),
        }
    }

    /// The role that works at a visit; none for one of a router, a person or a sub-graph.
    pub(super) fn role_of(&self, visit: &Visit) -> Option<Arc<Role>> {
        let NodeKind::Role { role, .. } = &self.on.graph.node_at(visit)?.kind else { return None };
        let name = match (role, role.router()) {
            (RoleRef::Named(name), _) => name.clone(),
            (_, Some((router, rank))) => self.task.routed_role(router, visit, rank)?,
            _ => return None,
        };
        self.on.catalog.role(name.as_str()).cloned()
    }

    /// The roles that the task needs from this visit on, and after how many steps. What routers have not decided is not known.
    fn roles_ahead(&self, visit: &Visit) -> Vec<(u32, Arc<Role>)> {
        let visits = [(0, visit.clone())].into_iter().chain(self.on.graph.lookahead(visit, HORIZON));
        visits.filter_map(|(steps, visit)| Some((steps, self.role_of(&visit)?))).collect()
    }

    /// What the node says in place of its role. The graph of a single role is no graph of the catalog.
    pub(super) fn message_of(&self, visit: &Visit) -> Option<Template> {
        let single = self.task.spec.role.is_some();
        let graph = self.on.graph.subgraph(&visit.parents)?;
        let message = || self.on.catalog.message(graph.name().as_str(), visit.node.as_str()).cloned();
        if single { None } else { message() }
    }

    /// Who will read the text that a visit gives, whatever it is, as soon as it is there, and on the same model.
    fn readers(&self, visit: &Visit, node: &Node, role: &Role, model: &Arc<Model>) -> Vec<Reader> {
        let alone = visit.item.is_none() && node.write.is_none() && role.output.is_none();
        let Some(graph) = self.on.graph.subgraph(&visit.parents).filter(|_| alone) else { return Vec::new() };
        let reader = |name: &NodeName| {
            let node = graph.node(name).filter(|node| node.join.is_none() && node.for_each.is_none())?;
            let there = Visit { node: name.clone(), ..visit.clone() };
            let role = self.role_of(&there)?;
            let same =
                matches!(node.kind, NodeKind::Role { .. }) && self.on.catalog.model_of(&role).as_ref() == Some(model);
            same.then(|| Reader {
                message: self.message_of(&there),
                context: TemplateContext { role: Some(described(&role)), ..self.context_at(visit, 1) },
                node: visit.node.clone(),
                role,
            })
        };
        let edges = unconditional_edges(&self.on.graph, &self.task, visit);
        edges.into_iter().filter_map(|edge| reader(edge.to.as_ref()?)).take(READERS).collect()
    }

    fn work(&self, step: StepId, node: &Node, role: Arc<Role>, next: Vec<RoleName>, tie: Tie) {
        let Tie { begun, cancel, report } = tie;
        let Some(model) = self.on.catalog.model_of(&role) else {
            return report.send(Err(failure(FailureCode::Internal, format!("role `{}` has no model", role.name))));
        };
        let batch = role.priority == TaskPriority::Batch || self.task.spec.priority == TaskPriority::Batch;
        // Nobody waits for what it would save, and others may wait for what it takes.
        let readers = if batch { Vec::new() } else { self.readers(&step.visit, node, &role, &model) };
        let job = expert::Job {
            message: self.message_of(&step.visit),
            context: self.context(&step),
            timeout: node.policy.timeout.unwrap_or(role.limits.timeout),
            idle: node.policy.idle_timeout.unwrap_or(role.limits.idle),
            cache: node.cache.then(|| self.on.cache.under(self.on.catalog.version())),
            class: if batch { TaskPriority::Batch } else { TaskPriority::Interactive },
            left: self.on.graph.remaining_steps(&step.visit),
            next,
            readers,
            loader: self.on.loader.clone(),
            models: self.on.models.clone(),
            feed: self.on.feed.clone(),
            step,
            role,
            begun,
            cancel,
            report,
        };
        // A supervisor that is gone takes us with it.
        let _ = self.on.supervisor.cast(supervisor::Message::Work(Box::new(job), model));
    }

    fn route(&self, step: &StepId, router: &RouterNode, timeout: Option<Duration>, tie: Tie) {
        // Its report is read after the beginning was journalled, and it says nothing before.
        let Tie { cancel, report, .. } = tie;
        let text = self.task.input_of(&step.visit);
        let catalog = &self.on.catalog;
        let roles = router.roles.iter().filter_map(|name| catalog.role(name.as_str()).cloned());
        let Some(question) = Question::of(text.clone(), roles.map(Candidate::Role).collect(), router, catalog) else {
            return report.send(Err(failure(FailureCode::Router, "the catalog has no model with `use: embedding`")));
        };
        let (supervisor, timeout) = (self.on.supervisor.clone(), timeout.unwrap_or(DECISION));
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => report.forget(),
                decision = decide_within(&supervisor, question, timeout) => {
                    report.send(decision.map(|decision| Outcome::Routed { decision, text }));
                }
            }
        });
    }
}

fn no_role(visit: &Visit, role: &RoleRef) -> Failure {
    let message = match (role.router(), visit.item) {
        (Some((router, _)), Some(item)) => {
            format!("node `{}` has an item {item}, and router `{router}` decided about none of that number", visit.node)
        }
        _ => format!("node `{}` has no role to run", visit.node),
    };
    failure(FailureCode::Items, message)
}

/// Has the router decide.
pub(crate) async fn ask(supervisor: &ActorRef<supervisor::Message>, question: Question) -> Result<Decision, Failure> {
    decide_within(supervisor, question, DECISION).await
}

async fn decide_within(
    supervisor: &ActorRef<supervisor::Message>,
    question: Question,
    timeout: Duration,
) -> Result<Decision, Failure> {
    let question = Box::new(question);
    let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match call_t!(supervisor, supervisor::Message::Decide, limit, question) {
        Ok(decision) => decision,
        Err(ractor::RactorErr::Timeout) => Err(failure(FailureCode::Timeout, format!("no decision within {timeout:?}"))),
        Err(e) => Err(failure(FailureCode::Interrupted, format!("the router stopped in the middle: {e}"))),
    }
}

/// What the step of a router gives: the text that it read and the role that it chose; where it chose several, their list
/// is `output.roles`.
pub(super) fn routed(decision: &Decision, text: String) -> (Output, Usage, Timings) {
    let roles: Vec<&str> = decision.roles.iter().map(RoleName::as_str).collect();
    let json = (!roles.is_empty()).then(|| json!({"roles": roles}));
    let output = Output { text, json, role: Some(decision.role.clone()) };
    let tokens = decision.tokens.saturating_sub(decision.warmup_tokens);
    let usage = Usage { prompt: tokens, computed: tokens, ..Usage::default() };
    (output, usage, Timings { prefill: decision.elapsed, ..Timings::default() })
}
