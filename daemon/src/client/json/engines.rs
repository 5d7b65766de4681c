//! Devices and engines.

use artel_proto::v1;
use serde_json::Value;

use super::{EnumName, JsonObject, ToJson};

impl ToJson for v1::Device {
    fn to_json(&self) -> Value {
        let Self {
            name,
            description,
            backend,
            kind: _,
            total_bytes,
            free_bytes,
            used_bytes,
            available,
            problem,
            rpc_address,
            monitor,
        } = self;
        JsonObject::new()
            .put("name", name.as_str())
            .text("description", description)
            .text("backend", backend)
            .put("kind", self.kind().enum_name())
            .put("total_bytes", *total_bytes)
            .put("free_bytes", *free_bytes)
            .put("used_bytes", *used_bytes)
            .put("available", *available)
            .text("problem", problem)
            .text("rpc_address", rpc_address)
            .some("monitor", monitor.as_ref())
            .into()
    }
}

impl ToJson for v1::DeviceMonitor {
    fn to_json(&self) -> Value {
        let Self { uuid, bus_id, driver_version, utilization, temperature_celsius, power_watts, name, used_bytes } =
            self;
        JsonObject::new()
            .text("name", name)
            .text("uuid", uuid)
            .text("bus_id", bus_id)
            .text("driver_version", driver_version)
            .maybe("utilization", *utilization)
            .maybe("temperature_celsius", *temperature_celsius)
            .maybe("power_watts", *power_watts)
            .maybe("used_bytes", *used_bytes)
            .into()
    }
}

impl ToJson for v1::Engine {
    fn to_json(&self) -> Value {
        let Self {
            id,
            model,
            devices,
            split: _,
            tensor_split,
            state: _,
            loaded_fraction,
            sequences,
            active_sequences,
            queued_sequences,
            context_tokens,
            memory,
            process_id,
            restarts,
            problem,
            retry_time,
            adapters,
            start_time,
            last_use_time,
            totals,
        } = self;
        JsonObject::new()
            .put("id", id.as_str())
            .put("model", model.as_str())
            .put("state", self.state().enum_name())
            .texts("devices", devices)
            .put("split", self.split().enum_name())
            .maybe("tensor_split", (!tensor_split.is_empty()).then(|| tensor_split.clone()))
            .put("loaded_fraction", *loaded_fraction)
            .put("sequences", *sequences)
            .put("active_sequences", *active_sequences)
            .put("queued_sequences", *queued_sequences)
            .put("context_tokens", *context_tokens)
            .some("memory", memory.as_ref())
            .put("process_id", *process_id)
            .put("restarts", *restarts)
            .text("problem", problem)
            .some("retry_time", retry_time.as_ref())
            .texts("adapters", adapters)
            .some("start_time", start_time.as_ref())
            .some("last_use_time", last_use_time.as_ref())
            .some("totals", totals.as_ref())
            .into()
    }
}

impl ToJson for v1::EngineMemory {
    fn to_json(&self) -> Value {
        let Self { weights_bytes, kv_cache_bytes, compute_bytes, prefix_cache_bytes } = self;
        JsonObject::new()
            .put("weights_bytes", *weights_bytes)
            .put("kv_cache_bytes", *kv_cache_bytes)
            .put("compute_bytes", *compute_bytes)
            .put("prefix_cache_bytes", *prefix_cache_bytes)
            .into()
    }
}

impl ToJson for v1::EngineTotals {
    fn to_json(&self) -> Value {
        let Self { sequences, prefill_tokens, cached_tokens, output_tokens, compute_time } = self;
        JsonObject::new()
            .put("sequences", *sequences)
            .put("prefill_tokens", *prefill_tokens)
            .put("cached_tokens", *cached_tokens)
            .put("output_tokens", *output_tokens)
            .ms("compute_time", compute_time.as_ref())
            .into()
    }
}

impl ToJson for v1::Placement {
    fn to_json(&self) -> Value {
        let Self { placed, unplaced, catalog_version, changes } = self;
        JsonObject::new()
            .text("catalog_version", catalog_version)
            .list("placed", placed)
            .list("unplaced", unplaced)
            .list("changes", changes)
            .into()
    }
}

impl ToJson for v1::PlacementChange {
    fn to_json(&self) -> Value {
        let Self { time, model, loaded, reason } = self;
        JsonObject::new()
            .some("time", time.as_ref())
            .put("model", model.as_str())
            .put("loaded", *loaded)
            .text("reason", reason)
            .into()
    }
}

impl ToJson for v1::PlacedModel {
    fn to_json(&self) -> Value {
        let Self { model, split: _, parts, reason, loaded } = self;
        JsonObject::new()
            .put("model", model.as_str())
            .put("split", self.split().enum_name())
            .list("parts", parts)
            .text("reason", reason)
            .put("loaded", *loaded)
            .into()
    }
}

impl ToJson for v1::DevicePart {
    fn to_json(&self) -> Value {
        let Self { device, share, bytes } = self;
        JsonObject::new().put("device", device.as_str()).put("share", *share).put("bytes", *bytes).into()
    }
}

impl ToJson for v1::UnplacedModel {
    fn to_json(&self) -> Value {
        let Self { model, reason, device, missing_bytes, remedies } = self;
        JsonObject::new()
            .put("model", model.as_str())
            .text("reason", reason)
            .text("device", device)
            .put("missing_bytes", *missing_bytes)
            .texts("remedies", remedies)
            .into()
    }
}

impl ToJson for v1::LoadResponse {
    fn to_json(&self) -> Value {
        let Self { engine, unloaded } = self;
        JsonObject::new().some("engine", engine.as_ref()).texts("unloaded", unloaded).into()
    }
}

impl ToJson for v1::UnloadResponse {
    fn to_json(&self) -> Value {
        let Self { freed_bytes } = self;
        JsonObject::new().put("freed_bytes", *freed_bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::render::sample::placement;

    #[test]
    fn a_placement_is_one_object() {
        let json = placement().to_json();
        assert_eq!(json["placed"][1]["split"], "layer");
        let share = json!({"device": "CUDA0", "share": 0.75, "bytes": 7_400_000_000_u64});
        assert_eq!(json["placed"][1]["parts"][0], share);
        assert_eq!(json["unplaced"][0]["missing_bytes"], 2_200_000_000_u64);
        assert_eq!(json["unplaced"][1]["remedies"], Value::Null, "empty fields are omitted");
    }
}
