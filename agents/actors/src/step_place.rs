//! A step in its task: its role, its message, and what its templates read. While a task runs, and of one whose events are in the
//! journal.

use std::sync::Arc;

use artel_roles::template::TemplateContext;
use artel_roles::{Catalog, Role, Template};
use artel_task::graph::{NodeKind, RoleRef};
use artel_task::{Graph, State, Visit, scope_values};
use serde_json::Value;

/// A task at the moment of a step.
#[derive(Clone, Copy)]
pub(crate) struct StepPlace<'a> {
    pub(crate) task: &'a State,
    pub(crate) graph: &'a Graph,
    pub(crate) catalog: &'a Catalog,
    /// The turns of the caller's conversation before the input, as templates read them.
    pub(crate) history: &'a Arc<Vec<Value>>,
}

impl StepPlace<'_> {
    /// The role of a visit; none for one of another kind of node.
    pub(crate) fn role_of(&self, visit: &Visit) -> Option<Arc<Role>> {
        let NodeKind::Role { role, .. } = &self.graph.node_at(visit)?.kind else { return None };
        let name = match (role, role.router()) {
            (RoleRef::Named(name), _) => name.clone(),
            (_, Some((router, rank))) => self.task.routed_role(router, visit, rank)?,
            _ => return None,
        };
        self.catalog.role(name.as_str()).cloned()
    }

    /// The node's own message, which replaces its role's. The graph of a single role is no graph of the catalog.
    pub(crate) fn message_of(&self, visit: &Visit) -> Option<Template> {
        let is_single_role = self.task.spec.role.is_some();
        let graph = self.graph.subgraph(&visit.parents)?;
        let message = || self.catalog.message(graph.name().as_str(), visit.node.as_str()).cloned();
        if is_single_role { None } else { message() }
    }

    /// The template context of an attempt at a visit.
    pub(crate) fn context_at(&self, visit: &Visit, attempt: u32) -> TemplateContext {
        let Some((scope, graph)) = self.task.scope(&visit.parents).zip(self.graph.subgraph(&visit.parents)) else {
            return TemplateContext::default();
        };
        TemplateContext {
            task: scope.task.clone(),
            nodes: scope.outputs.clone(),
            values: scope_values(graph, scope),
            input: self.task.input_of(visit),
            item: self.task.item(visit).cloned(),
            role: self.role_of(visit).map(|role| role.template_value()),
            attempt,
            history: self.history.clone(),
            passages: Default::default(),
        }
    }
}
