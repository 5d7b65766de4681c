//! Dispatching a step: a role's step to its expert, a router's step to the router.

use std::sync::Arc;
use std::time::Duration;

use artel_hosting::LOOKAHEAD_STEPS;
use artel_roles::template::TemplateContext;
use artel_roles::{Model, Role, Template};
use artel_task::event::{Failure, FailureCode, ReasoningParams, TaskPriority};
use artel_task::graph::{Node, NodeKind, RoleRef, RouterNode};
use artel_task::{NodeName, RoleName, StepId, Visit, unconditional_edges};
use tokio_util::sync::CancellationToken;

use super::message::Message;
use super::routing::{DECISION_TIMEOUT, route_within};
use super::running_task::{RunningAttempt, RunningTask};
use crate::commit_barrier::CommitBarrier;
use crate::completion::{Completion, StepOutcome};
use crate::expert::{PrefetchTarget, StepJob};
use crate::step_place::StepPlace;
use crate::supervisor;
use artel_routing::{Candidate, RoutingRequest};

/// Successors whose prompts are prefilled while one answer is generated.
const MAX_PREFETCH_TARGETS: usize = 4;

/// The links of an attempt to its task runner.
pub(super) struct AttemptContext {
    pub(super) barrier: CommitBarrier,
    pub(super) cancel: CancellationToken,
    pub(super) completion: Completion,
}

impl RunningTask {
    pub(super) fn dispatch(&mut self, step: StepId, barrier: CommitBarrier) {
        let cancel = CancellationToken::new();
        let upcoming = self.upcoming_roles(&step.visit);
        let model = |(steps, role): &(u32, Arc<Role>)| Some((*steps, self.cx.catalog.model_of(role)?));
        let lookahead = self.cx.lookahead.register(upcoming.iter().filter_map(model).collect());
        self.attempts.insert(step.clone(), RunningAttempt::new(lookahead, &cancel));
        let (me, ended) = (self.me.clone(), step.clone());
        let completion = Completion::new(move |result| {
            // A task runner that has stopped has no use for it.
            let _ = me.cast(Message::StepEnded { step: ended, result: Box::new(result) });
        });
        let attempt = AttemptContext { barrier, cancel, completion };
        let graph = self.cx.graph.clone();
        let Some(node) = graph.node_at(&step.visit) else { return };
        match (&node.kind, self.role_of(&step.visit)) {
            (NodeKind::Router(router), _) => self.dispatch_to_router(&step, router, node.policy.timeout, attempt),
            (NodeKind::Search(search), _) => self.dispatch_to_search(&step, search, node.policy.timeout, attempt),
            (NodeKind::Check(answer), _) => self.dispatch_to_check(&step, answer, node.passages.as_ref(), attempt),
            (NodeKind::Role { .. }, Some(role)) => {
                let next =
                    upcoming.into_iter().filter(|(steps, _)| *steps == 1).map(|(_, role)| role.name.clone()).collect();
                self.dispatch_to_expert(step, node, role, next, attempt);
            }
            // No actor runs a question to a person or a sub-graph.
            (NodeKind::Ask(_) | NodeKind::Graph { .. }, _) => attempt.completion.discard(),
            (NodeKind::Role { role, .. }, None) => attempt.completion.send(Err(no_role(&step.visit, role))),
        }
    }

    /// The role of a visit; none for one of another kind of node.
    pub(super) fn role_of(&self, visit: &Visit) -> Option<Arc<Role>> {
        self.place().role_of(visit)
    }

    /// The roles that the task needs from this visit on, and after how many steps. Roles that a router has yet to choose are
    /// not known.
    fn upcoming_roles(&self, visit: &Visit) -> Vec<(u32, Arc<Role>)> {
        let visits = [(0, visit.clone())].into_iter().chain(self.cx.graph.lookahead(visit, LOOKAHEAD_STEPS));
        visits.filter_map(|(steps, visit)| Some((steps, self.role_of(&visit)?))).collect()
    }

    /// The node's own message, which replaces its role's.
    pub(super) fn message_of(&self, visit: &Visit) -> Option<Template> {
        self.place().message_of(visit)
    }

    fn place(&self) -> StepPlace<'_> {
        StepPlace { task: &self.task, graph: &self.cx.graph, catalog: &self.cx.catalog, history: &self.history }
    }

    /// The template context of an attempt at a visit.
    pub(super) fn context_at(&self, visit: &Visit, attempt: u32) -> TemplateContext {
        self.place().context_at(visit, attempt)
    }

    /// The successors that certainly read the output of a visit as soon as it ends, on the same model.
    fn prefetch_targets(&self, visit: &Visit, node: &Node, role: &Role, model: &Arc<Model>) -> Vec<PrefetchTarget> {
        let is_plain = visit.item.is_none() && node.write.is_none() && role.output.is_none();
        let Some(graph) = self.cx.graph.subgraph(&visit.parents).filter(|_| is_plain) else { return Vec::new() };
        let target = |name: &NodeName| {
            let node = graph.node(name).filter(|node| node.join.is_none() && node.for_each.is_none())?;
            let successor = Visit { node: name.clone(), ..visit.clone() };
            let role = self.role_of(&successor)?;
            // Its passages are not known yet.
            let is_plain = role.knowledge.is_empty();
            let is_same_model =
                matches!(node.kind, NodeKind::Role { .. }) && self.cx.catalog.model_of(&role).as_ref() == Some(model);
            (is_plain && is_same_model).then(|| PrefetchTarget {
                message: self.message_of(&successor),
                context: TemplateContext { role: Some(role.template_value()), ..self.context_at(visit, 1) },
                node: visit.node.clone(),
                role,
            })
        };
        let edges = unconditional_edges(&self.cx.graph, &self.task, visit);
        edges.into_iter().filter_map(|edge| target(edge.to.as_ref()?)).take(MAX_PREFETCH_TARGETS).collect()
    }

    fn dispatch_to_expert(
        &self,
        step: StepId,
        node: &Node,
        role: Arc<Role>,
        next_roles: Vec<RoleName>,
        attempt: AttemptContext,
    ) {
        let AttemptContext { barrier, cancel, completion } = attempt;
        let Some(model) = self.cx.catalog.model_of(&role) else {
            return completion
                .send(Err(Failure::new(FailureCode::Internal, format!("role `{}` has no model", role.name))));
        };
        let is_batch = role.priority == TaskPriority::Batch || self.task.spec.priority == TaskPriority::Batch;
        // Prefetch lowers the latency of a batch task, which does not matter, and delays other requests, which does.
        let prefetch_targets =
            if is_batch { Vec::new() } else { self.prefetch_targets(&step.visit, node, &role, &model) };
        let job = StepJob {
            task: self.cx.task,
            message: self.message_of(&step.visit),
            context: self.context(&step),
            timeout: node.policy.timeout.unwrap_or(role.limits.timeout),
            idle_timeout: node.policy.idle_timeout.unwrap_or(role.limits.idle),
            invalid_outputs: self.task.active_visit(&step.visit).map_or(0, |live| live.invalid_outputs),
            sampling: self.task.spec.sampling.clone(),
            response: self.task.spec.response.clone(),
            reasoning: self.task.spec.reasoning.unwrap_or(ReasoningParams::UNLIMITED).within(role.reasoning),
            // A request of its own may give another answer.
            cache: (node.cache && self.task.spec.reasoning.is_none())
                .then(|| self.cx.response_cache.scoped(self.cx.catalog.version())),
            priority: if is_batch { TaskPriority::Batch } else { TaskPriority::Interactive },
            remaining_steps: self.cx.graph.remaining_steps(&step.visit),
            next_roles,
            prefetch_targets,
            found: node.passages.as_ref().and_then(|from| self.found_by(from, &step.visit)),
            retrieval: self.cx.retrieval.clone().map(|retrieval| (retrieval, self.cx.catalog.clone())),
            owner: self.task.spec.owner.clone(),
            loader: self.cx.loader.clone(),
            models_dir: self.cx.models_dir.clone(),
            channel: self.cx.channel.clone(),
            metrics: self.cx.metrics.tasks.role(role.name.as_str()),
            trace: self.trace_of(&step),
            tools: self.task.spec.tools.clone().filter(|_| self.task.spec.role.is_some()),
            conversation: self.task.spec.conversation.clone().filter(|_| self.task.spec.role.is_some()),
            step,
            role,
            barrier,
            cancel,
            completion,
        };
        // When the supervisor stops, so does this actor.
        let _ = self.cx.supervisor.cast(supervisor::Message::RunStep(Box::new(job), model));
    }

    fn dispatch_to_router(
        &self,
        step: &StepId,
        router: &RouterNode,
        timeout: Option<Duration>,
        attempt: AttemptContext,
    ) {
        // No barrier: its completion is handled after the start was journalled, and it publishes nothing before.
        let AttemptContext { cancel, completion, .. } = attempt;
        let text = self.task.input_of(&step.visit);
        let catalog = &self.cx.catalog;
        let roles = router.roles.iter().filter_map(|name| catalog.role(name.as_str()).cloned());
        let candidates = roles.map(Candidate::Role).collect();
        let Some(request) = RoutingRequest::for_node(text.clone(), candidates, router, catalog) else {
            return completion
                .send(Err(Failure::new(FailureCode::Router, "the catalog has no model with `use: embedding`")));
        };
        let request = request.with_trace(self.trace_of(step));
        let (supervisor, timeout) = (self.cx.supervisor.clone(), timeout.unwrap_or(DECISION_TIMEOUT));
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => completion.discard(),
                decision = route_within(&supervisor, request, timeout) => {
                    completion.send(decision.map(|decision| StepOutcome::Routed { decision, text }));
                }
            }
        });
    }
}

fn no_role(visit: &Visit, role: &RoleRef) -> Failure {
    let message = match (role.router(), visit.item) {
        (Some((router, _)), Some(item)) => {
            format!("node `{}` has an item {item}, and router `{router}` made no decision of that number", visit.node)
        }
        _ => format!("node `{}` has no role to run", visit.node),
    };
    Failure::new(FailureCode::Items, message)
}
