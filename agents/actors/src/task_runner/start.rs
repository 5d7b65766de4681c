//! Starting a step: the items or the sub-graph inside of it, and the context of its templates.

use std::fmt::Display;

use artel_roles::template::TemplateContext;
use artel_task::condition::ConditionScope;
use artel_task::event::{Failure, FailureCode, Nested, Trigger};
use artel_task::graph::{ForEach, Node, NodeKind};
use artel_task::{EventKind, StepId, Visit, scope_values};
use serde_json::Value;

use super::running_task::RunningTask;

impl RunningTask {
    /// Records that an attempt starts; returns it if it must be dispatched to an actor.
    pub(super) fn start(&mut self, step: StepId, trigger: Option<Trigger>) -> Option<StepId> {
        let graph = self.cx.graph.clone();
        let node = graph.node_at(&step.visit)?;
        let mapped = node.for_each.as_ref().filter(|_| step.visit.item.is_none());
        let inner = self.inner(node, mapped, &step, trigger);
        let role = if mapped.is_some() { None } else { self.role_of(&step.visit).map(|role| role.name.clone()) };
        let (inner, failed) = match inner {
            Ok(inner) => (inner, None),
            Err(failure) => (None, Some(failure)),
        };
        self.record(EventKind::StepStarted { step: step.clone(), trigger, role, nested: inner });
        match (failed, &node.kind) {
            (Some(failure), _) => self.step_failed(&step, failure),
            (None, _) if mapped.is_some() => {}
            (None, NodeKind::Graph { .. }) => {}
            (None, NodeKind::Ask(ask)) => self.ask_person(&step, ask),
            (None, NodeKind::Role { .. } | NodeKind::Router(_) | NodeKind::Search(_) | NodeKind::Check(_)) => {
                return Some(step);
            }
        }
        None
    }

    fn inner(
        &self,
        node: &Node,
        mapped: Option<&ForEach>,
        step: &StepId,
        trigger: Option<Trigger>,
    ) -> Result<Option<Nested>, Failure> {
        if let Some(each) = mapped {
            return self.items(each, &step.visit).map(|items| Some(Nested::Items(items.into())));
        }
        let NodeKind::Graph { graph, .. } = &node.kind else { return Ok(None) };
        let input = self.task.input_before_start(&step.visit, trigger);
        let input = match self.message_of(&step.visit) {
            Some(template) => {
                let context = TemplateContext { input, ..self.context(step) };
                template.render(&context).map_err(|e| Self::bad_template(step, &e))?
            }
            None => input,
        };
        Ok(Some(Nested::Graph { graph: graph.name().clone(), start: graph.start().clone(), input }))
    }

    fn items(&self, each: &ForEach, visit: &Visit) -> Result<Vec<Value>, Failure> {
        let scope = self.task.scope(&visit.parents).zip(self.cx.graph.subgraph(&visit.parents));
        let (scope, graph) =
            scope.ok_or_else(|| Failure::new(FailureCode::Internal, "the step is in no scope of the task"))?;
        let values = scope_values(graph, scope);
        let visible =
            ConditionScope { task: &scope.task, nodes: &scope.outputs, values: &values, output: &Value::Null };
        let invalid = |message: String| Failure::new(FailureCode::Items, format!("node `{}`: {message}", visit.node));
        let items = each.list.items(visible).map_err(|e| invalid(format!("`for_each`: {e}")))?;
        match items.len() {
            len if len > each.max_items as usize => {
                Err(invalid(format!("`for_each` gave {len} items, the node takes {} (`at_most`)", each.max_items)))
            }
            _ => Ok(items),
        }
    }

    /// The failure of a step whose template cannot be rendered.
    pub(super) fn bad_template(step: &StepId, error: &impl Display) -> Failure {
        Failure::new(FailureCode::Template, format!("node `{}`: {error}", step.visit.node))
    }

    /// The template context of a step.
    pub(super) fn context(&self, step: &StepId) -> TemplateContext {
        self.context_at(&step.visit, step.attempt)
    }
}
