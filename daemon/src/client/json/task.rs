//! Tasks and their steps.

use artel_proto::v1;
use serde_json::Value;

use super::{EnumName, JsonObject, ToJson};

impl ToJson for v1::Task {
    fn to_json(&self) -> Value {
        let Self {
            id,
            graph,
            role,
            state: _,
            input,
            result,
            failure,
            create_time,
            end_time,
            usage,
            last_seq,
            catalog_version,
            steps,
            priority: _,
            labels,
            request_id,
            cancel_reason,
            forked_from_task_id,
            forked_from_step_id,
        } = self;
        JsonObject::new()
            .put("id", id.as_str())
            .put("state", self.state().enum_name())
            .text("graph", graph)
            .text("role", role)
            .text("input", input)
            .some("result", result.as_ref())
            .some("failure", failure.as_ref())
            .text("cancel_reason", cancel_reason)
            .some("create_time", create_time.as_ref())
            .some("end_time", end_time.as_ref())
            .some("usage", usage.as_ref())
            .put("last_seq", *last_seq)
            .text("catalog_version", catalog_version)
            .put("priority", self.priority().enum_name())
            .pairs("labels", labels)
            .text("request_id", request_id)
            .text("forked_from_task_id", forked_from_task_id)
            .text("forked_from_step_id", forked_from_step_id)
            .list("steps", steps)
            .into()
    }
}

impl ToJson for v1::Step {
    fn to_json(&self) -> Value {
        let Self {
            id,
            node,
            visit,
            attempt,
            role,
            state: _,
            output,
            failure,
            usage,
            timings,
            start_time,
            end_time,
            decision,
            next,
            retry_time,
            waiting,
            item,
            cached,
            source: _,
        } = self;
        JsonObject::new()
            .put("id", id.as_str())
            .put("state", self.state().enum_name())
            .put("node", node.as_str())
            .text("role", role)
            .put("visit", *visit)
            .put("attempt", *attempt)
            .maybe("item", *item)
            .some("output", output.as_ref())
            .some("failure", failure.as_ref())
            .some("decision", decision.as_ref())
            .some("waiting", waiting.as_ref())
            .some("usage", usage.as_ref())
            .some("timings", timings.as_ref())
            .some("start_time", start_time.as_ref())
            .some("end_time", end_time.as_ref())
            .some("retry_time", retry_time.as_ref())
            .texts("next", next)
            .put("cached", *cached)
            .put("source", self.source().enum_name())
            .into()
    }
}
