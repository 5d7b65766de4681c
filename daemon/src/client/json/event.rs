//! Events, one object each.

use artel_proto::v1::{self, event, progress};
use serde_json::Value;

use super::{Json, Object, Word};

/// An event as one flat object: `task_id`, `seq`, `time`, `event` and the fields of its kind; the last event of a task
/// has `id`, `state` and `text` too. `None` for a kind that this program does not know.
pub(crate) fn event(event: &v1::Event) -> Option<Value> {
    let v1::Event { task_id, seq, time, kind } = event;
    let (name, fields) = kind_fields(kind.as_ref()?);
    let head = Object::new().put("task_id", task_id.as_str()).put("seq", *seq).some("time", time.as_ref());
    let end = last(kind.as_ref()?)
        .map(|(state, text)| Object::new().put("id", task_id.as_str()).put("state", state.word()).put("text", text));
    Some(head.put("event", name).with(fields).with(end.unwrap_or_default()).into())
}

/// The state and the result that the last event of a task tells.
fn last(kind: &event::Kind) -> Option<(v1::TaskState, Option<&str>)> {
    match kind {
        event::Kind::Completed(v1::Completed { output, .. }) => {
            Some((v1::TaskState::Completed, Some(output.as_ref().map_or("", |output| &output.text))))
        }
        event::Kind::Failed(_) => Some((v1::TaskState::Failed, None)),
        event::Kind::Cancelled(_) => Some((v1::TaskState::Cancelled, None)),
        _ => None,
    }
}

fn kind_fields(kind: &event::Kind) -> (&'static str, Object) {
    match kind {
        event::Kind::Accepted(accepted) => ("accepted", accepted_fields(accepted)),
        event::Kind::Routed(v1::Routed { step_id, node, decision }) => {
            ("routed", step(step_id, node, "").some("decision", decision.as_ref()))
        }
        event::Kind::StepStarted(v1::StepStarted { step_id, node, role, visit, attempt, item }) => {
            let fields = step(step_id, node, role).put("visit", *visit).put("attempt", *attempt);
            ("step_started", fields.maybe("item", *item))
        }
        event::Kind::Progress(v1::Progress { step_id, node, role, stage }) => {
            let fields = step(step_id, node, role);
            ("progress", stage.iter().fold(fields, |fields, stage| fields.with(stage_fields(stage))))
        }
        event::Kind::Token(v1::Token { step_id, node, role, text, offset }) => {
            ("token", step(step_id, node, role).put("text", text.as_str()).put("offset", *offset))
        }
        event::Kind::StepFinished(finished) => ("step_finished", finished_fields(finished)),
        event::Kind::StepFailed(failed) => ("step_failed", failed_fields(failed)),
        event::Kind::Waiting(waiting) => ("waiting", waiting_fields(waiting)),
        event::Kind::Resumed(v1::Resumed {}) => ("resumed", Object::new()),
        event::Kind::Completed(v1::Completed { output, instead_of }) => {
            ("completed", Object::new().some("output", output.as_ref()).some("instead_of", instead_of.as_ref()))
        }
        event::Kind::Failed(v1::Failed { failure }) => ("failed", Object::new().some("failure", failure.as_ref())),
        event::Kind::Cancelled(v1::Cancelled { reason }) => ("cancelled", Object::new().text("reason", reason)),
    }
}

fn step(step_id: &str, node: &str, role: &str) -> Object {
    Object::new().put("step_id", step_id).put("node", node).text("role", role)
}

fn accepted_fields(accepted: &v1::Accepted) -> Object {
    let v1::Accepted { graph, role, catalog_version, task_class: _, decision } = accepted;
    let fields = Object::new().text("graph", graph).text("role", role).text("catalog_version", catalog_version);
    fields.put("task_class", accepted.task_class().word()).some("decision", decision.as_ref())
}

fn stage_fields(stage: &progress::Stage) -> Object {
    match stage {
        progress::Stage::Queued(progress::Queued { position }) => {
            Object::new().put("stage", "queued").put("position", *position)
        }
        progress::Stage::Loading(progress::Loading { model, fraction }) => {
            Object::new().put("stage", "loading").put("model", model.as_str()).put("fraction", *fraction)
        }
        progress::Stage::Prefill(progress::Prefill { done_tokens, total_tokens }) => {
            Object::new().put("stage", "prefill").put("done_tokens", *done_tokens).put("total_tokens", *total_tokens)
        }
        progress::Stage::Decode(progress::Decode { output_tokens, tokens_per_second }) => {
            let fields = Object::new().put("stage", "decode").put("output_tokens", *output_tokens);
            fields.put("tokens_per_second", *tokens_per_second)
        }
    }
}

fn finished_fields(finished: &v1::StepFinished) -> Object {
    let v1::StepFinished { step_id, node, role, output, usage, timings, next, cached, source: _, item } = finished;
    step(step_id, node, role)
        .some("output", output.as_ref())
        .some("usage", usage.as_ref())
        .some("timings", timings.as_ref())
        .texts("next", next)
        .put("cached", *cached)
        .put("source", finished.source().word())
        .maybe("item", *item)
}

fn failed_fields(failed: &v1::StepFailed) -> Object {
    let v1::StepFailed { step_id, node, role, failure, will_retry, retry_after, next } = failed;
    step(step_id, node, role)
        .some("failure", failure.as_ref())
        .put("will_retry", *will_retry)
        .ms("retry_after", retry_after.as_ref())
        .texts("next", next)
}

fn waiting_fields(waiting: &v1::Waiting) -> Object {
    let v1::Waiting { step_id, node, reason: _, message, schema, deadline } = waiting;
    step(step_id, node, "")
        .put("reason", waiting.reason().word())
        .text("message", message)
        .some("schema", schema.as_ref())
        .some("deadline", deadline.as_ref())
}

impl Json for v1::Waiting {
    fn json(&self) -> Value {
        waiting_fields(self).into()
    }
}

impl Json for v1::Output {
    fn json(&self) -> Value {
        let Self { text, json, role } = self;
        Object::new().put("text", text.as_str()).some("json", json.as_ref()).text("role", role).into()
    }
}

impl Json for v1::Usage {
    fn json(&self) -> Value {
        let Self {
            prompt_tokens,
            computed_tokens,
            shared_tokens,
            output_tokens,
            drafted_tokens,
            accepted_tokens,
            forced_tokens,
        } = self;
        Object::new()
            .put("prompt_tokens", *prompt_tokens)
            .put("computed_tokens", *computed_tokens)
            .put("shared_tokens", *shared_tokens)
            .put("output_tokens", *output_tokens)
            .put("drafted_tokens", *drafted_tokens)
            .put("accepted_tokens", *accepted_tokens)
            .put("forced_tokens", *forced_tokens)
            .into()
    }
}

impl Json for v1::Timings {
    fn json(&self) -> Value {
        let Self { queue, prefill, decode, first_token, longest_gap } = self;
        Object::new()
            .ms("queue", queue.as_ref())
            .ms("prefill", prefill.as_ref())
            .ms("decode", decode.as_ref())
            .ms("first_token", first_token.as_ref())
            .ms("longest_gap", longest_gap.as_ref())
            .into()
    }
}

impl Json for v1::Failure {
    fn json(&self) -> Value {
        let Self { code: _, message, step_id } = self;
        let fields = Object::new().put("code", self.code().word()).put("message", message.as_str());
        fields.text("step_id", step_id).into()
    }
}

/// The fields of a decision; `route` has them at the top.
pub(crate) fn decision_fields(decision: &v1::Decision) -> Object {
    let v1::Decision {
        role,
        confidence,
        otherwise,
        scores,
        signal,
        duration,
        computed_tokens,
        roles,
        graph,
        margin,
        none,
    } = decision;
    Object::new()
        .text("role", role)
        .text("graph", graph)
        .texts("roles", roles)
        .put("confidence", *confidence)
        .put("margin", *margin)
        .put("otherwise", *otherwise)
        .text("signal", signal)
        .ms("duration", duration.as_ref())
        .put("computed_tokens", *computed_tokens)
        .list("scores", scores)
        .some("none", none.as_ref())
}

impl Json for v1::Decision {
    fn json(&self) -> Value {
        decision_fields(self).into()
    }
}

impl Json for v1::PreviewResponse {
    fn json(&self) -> Value {
        let Self { decision, catalog_version } = self;
        let fields = decision.as_ref().map(decision_fields).unwrap_or_default();
        fields.text("catalog_version", catalog_version).into()
    }
}

impl Json for v1::Nobody {
    fn json(&self) -> Value {
        let Self { score, signals } = self;
        Object::new().put("score", *score).pairs("signals", signals).into()
    }
}

impl Json for v1::Score {
    fn json(&self) -> Value {
        let Self { role, score, signals, graph } = self;
        let fields = Object::new().text("role", role).text("graph", graph).put("score", *score);
        fields.pairs("signals", signals).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::sample;

    #[test]
    fn a_run_is_an_object_per_event() {
        let lines: Vec<String> =
            sample::mentor().iter().filter_map(super::event).map(|value| value.to_string()).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_unknown_kind_is_passed_over() {
        assert_eq!(super::event(&artel_proto::v1::Event { seq: 7, ..Default::default() }), None);
    }
}
