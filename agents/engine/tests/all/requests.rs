//! The request that the tests vary.

use std::sync::Arc;

use artel_engine::{ChatRole, ContextOverflow, Message, Priority, Request, RequestOrigin, SamplingParams};

/// A user's message to a role, answered greedily.
pub(crate) fn ask(text: &str) -> Request {
    Request {
        origin: RequestOrigin::default(),
        flow: Arc::from("role"),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![Message { role: ChatRole::User, text: text.to_owned() }],
        adapter: None,
        sampling: SamplingParams::GREEDY,
        max_tokens: 100,
        stop: Vec::new(),
        schema: None,
        overflow: ContextOverflow::Reject,
        has_fixed_prefix: true,
        template_kwargs: Arc::default(),
    }
}
