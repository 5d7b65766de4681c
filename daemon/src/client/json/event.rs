//! Events, one JSON object each.

use artel_proto::v1::{self, event, progress};
use serde_json::Value;

use super::{EnumName, JsonObject, ToJson};

/// An event as one flat object: `task_id`, `seq`, `time`, `event` and the fields of its kind; the last event of a task
/// also has `id`, `state` and `text`. `None` for a kind unknown to this program.
pub(crate) fn event(event: &v1::Event) -> Option<Value> {
    let v1::Event { task_id, seq, time, kind } = event;
    let (name, fields) = kind_fields(kind.as_ref()?);
    let head = JsonObject::new().put("task_id", task_id.as_str()).put("seq", *seq).some("time", time.as_ref());
    let end = final_state(kind.as_ref()?).map(|(state, text)| {
        JsonObject::new().put("id", task_id.as_str()).put("state", state.enum_name()).put("text", text)
    });
    Some(head.put("event", name).with(fields).with(end.unwrap_or_default()).into())
}

/// The final state and the result, if this is the last event of a task.
fn final_state(kind: &event::Kind) -> Option<(v1::TaskState, Option<&str>)> {
    match kind {
        event::Kind::Completed(v1::Completed { output, .. }) => {
            Some((v1::TaskState::Completed, Some(output.as_ref().map_or("", |output| &output.text))))
        }
        event::Kind::Failed(_) => Some((v1::TaskState::Failed, None)),
        event::Kind::Cancelled(_) => Some((v1::TaskState::Cancelled, None)),
        _ => None,
    }
}

fn kind_fields(kind: &event::Kind) -> (&'static str, JsonObject) {
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
        event::Kind::Resumed(v1::Resumed {}) => ("resumed", JsonObject::new()),
        event::Kind::Completed(v1::Completed { output, fallback_cause }) => (
            "completed",
            JsonObject::new().some("output", output.as_ref()).some("fallback_cause", fallback_cause.as_ref()),
        ),
        event::Kind::Failed(v1::Failed { failure }) => ("failed", JsonObject::new().some("failure", failure.as_ref())),
        event::Kind::Cancelled(v1::Cancelled { reason }) => ("cancelled", JsonObject::new().text("reason", reason)),
    }
}

fn step(step_id: &str, node: &str, role: &str) -> JsonObject {
    JsonObject::new().put("step_id", step_id).put("node", node).text("role", role)
}

fn accepted_fields(accepted: &v1::Accepted) -> JsonObject {
    let v1::Accepted { graph, role, catalog_version, priority: _, decision } = accepted;
    let fields = JsonObject::new().text("graph", graph).text("role", role).text("catalog_version", catalog_version);
    fields.put("priority", accepted.priority().enum_name()).some("decision", decision.as_ref())
}

fn stage_fields(stage: &progress::Stage) -> JsonObject {
    match stage {
        progress::Stage::Queued(progress::Queued { position }) => {
            JsonObject::new().put("stage", "queued").put("position", *position)
        }
        progress::Stage::Loading(progress::Loading { model, fraction }) => {
            JsonObject::new().put("stage", "loading").put("model", model.as_str()).put("fraction", *fraction)
        }
        progress::Stage::Prefill(progress::Prefill { done_tokens, total_tokens }) => JsonObject::new()
            .put("stage", "prefill")
            .put("done_tokens", *done_tokens)
            .put("total_tokens", *total_tokens),
        progress::Stage::Decode(progress::Decode { output_tokens, tokens_per_second }) => {
            let fields = JsonObject::new().put("stage", "decode").put("output_tokens", *output_tokens);
            fields.put("tokens_per_second", *tokens_per_second)
        }
    }
}

fn finished_fields(finished: &v1::StepFinished) -> JsonObject {
    let v1::StepFinished { step_id, node, role, output, usage, timings, next, cached, source: _, item } = finished;
    step(step_id, node, role)
        .some("output", output.as_ref())
        .some("usage", usage.as_ref())
        .some("timings", timings.as_ref())
        .texts("next", next)
        .put("cached", *cached)
        .put("source", finished.source().enum_name())
        .maybe("item", *item)
}

fn failed_fields(failed: &v1::StepFailed) -> JsonObject {
    let v1::StepFailed { step_id, node, role, failure, will_retry, retry_after, next } = failed;
    step(step_id, node, role)
        .some("failure", failure.as_ref())
        .put("will_retry", *will_retry)
        .ms("retry_after", retry_after.as_ref())
        .texts("next", next)
}

fn waiting_fields(waiting: &v1::Waiting) -> JsonObject {
    let v1::Waiting { step_id, node, reason: _, message, schema, deadline } = waiting;
    step(step_id, node, "")
        .put("reason", waiting.reason().enum_name())
        .text("message", message)
        .some("schema", schema.as_ref())
        .some("deadline", deadline.as_ref())
}

impl ToJson for v1::Waiting {
    fn to_json(&self) -> Value {
        waiting_fields(self).into()
    }
}

impl ToJson for v1::Output {
    fn to_json(&self) -> Value {
        let Self { text, json, role } = self;
        JsonObject::new().put("text", text.as_str()).some("json", json.as_ref()).text("role", role).into()
    }
}

impl ToJson for v1::Usage {
    fn to_json(&self) -> Value {
        let Self {
            prompt_tokens,
            prefill_tokens,
            cached_tokens,
            output_tokens,
            drafted_tokens,
            accepted_tokens,
            forced_tokens,
        } = self;
        JsonObject::new()
            .put("prompt_tokens", *prompt_tokens)
            .put("prefill_tokens", *prefill_tokens)
            .put("cached_tokens", *cached_tokens)
            .put("output_tokens", *output_tokens)
            .put("drafted_tokens", *drafted_tokens)
            .put("accepted_tokens", *accepted_tokens)
            .put("forced_tokens", *forced_tokens)
            .into()
    }
}

impl ToJson for v1::Timings {
    fn to_json(&self) -> Value {
        let Self { queue, prefill, decode, time_to_first_token, max_inter_token_latency } = self;
        JsonObject::new()
            .ms("queue", queue.as_ref())
            .ms("prefill", prefill.as_ref())
            .ms("decode", decode.as_ref())
            .ms("time_to_first_token", time_to_first_token.as_ref())
            .ms("max_inter_token_latency", max_inter_token_latency.as_ref())
            .into()
    }
}

impl ToJson for v1::Failure {
    fn to_json(&self) -> Value {
        let Self { code: _, message, step_id } = self;
        let fields = JsonObject::new().put("code", self.code().enum_name()).put("message", message.as_str());
        fields.text("step_id", step_id).into()
    }
}

/// The fields of a decision; `route` has them at the top.
pub(crate) fn decision_fields(decision: &v1::Decision) -> JsonObject {
    let v1::Decision {
        role,
        confidence,
        otherwise,
        scores,
        signal,
        duration,
        prefill_tokens,
        roles,
        graph,
        margin,
        no_match,
    } = decision;
    JsonObject::new()
        .text("role", role)
        .text("graph", graph)
        .texts("roles", roles)
        .put("confidence", *confidence)
        .put("margin", *margin)
        .put("otherwise", *otherwise)
        .text("signal", signal)
        .ms("duration", duration.as_ref())
        .put("prefill_tokens", *prefill_tokens)
        .list("scores", scores)
        .some("no_match", no_match.as_ref())
}

impl ToJson for v1::Decision {
    fn to_json(&self) -> Value {
        decision_fields(self).into()
    }
}

impl ToJson for v1::PreviewResponse {
    fn to_json(&self) -> Value {
        let Self { decision, catalog_version } = self;
        let fields = decision.as_ref().map(decision_fields).unwrap_or_default();
        fields.text("catalog_version", catalog_version).into()
    }
}

impl ToJson for v1::NoMatch {
    fn to_json(&self) -> Value {
        let Self { score, signals } = self;
        JsonObject::new().put("score", *score).pairs("signals", signals).into()
    }
}

impl ToJson for v1::Score {
    fn to_json(&self) -> Value {
        let Self { role, score, signals, graph } = self;
        let fields = JsonObject::new().text("role", role).text("graph", graph).put("score", *score);
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
    fn an_unknown_kind_is_skipped() {
        assert_eq!(super::event(&artel_proto::v1::Event { seq: 7, ..Default::default() }), None);
    }
}
