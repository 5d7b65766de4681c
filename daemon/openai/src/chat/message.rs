//! A message of the model, as JSON.

use artel_proto::v1;
use serde_json::{Value, json};

/// What the model says: a text, calls, or both.
pub(super) fn message(output: &v1::Output) -> Value {
    let content = if output.text.is_empty() && !output.calls.is_empty() { None } else { Some(&output.text) };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !output.reasoning.is_empty() {
        // Clients of DeepSeek and of vLLM look for different names.
        message["reasoning_content"] = output.reasoning.as_str().into();
        message["reasoning"] = output.reasoning.as_str().into();
    }
    if !output.calls.is_empty() {
        let call = |call: &v1::ToolCall| {
            json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })
        };
        message["tool_calls"] = output.calls.iter().map(call).collect();
    }
    message
}
