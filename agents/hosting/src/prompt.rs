//! A role's prompt as a request to an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine as engine;
use artel_roles::Role;
use artel_roles::template::TemplateContext;
use artel_task::event::{Failure, FailureCode};
use serde_json::{Value, json};

/// The value of `role` in templates.
pub fn role_value(role: &Role) -> Value {
    json!({"name": role.name.as_str(), "description": role.description})
}

/// A request of a role's prefix alone, if its prompt is the same for every task.
pub fn prefix_request(role: &Role, models_dir: &Path) -> Option<engine::Request> {
    if !role.prompt.is_fixed() {
        return None;
    }
    let system =
        role.prompt.render(&TemplateContext { role: Some(role_value(role)), ..TemplateContext::default() }).ok()?;
    request(role, models_dir, engine::Priority::Background, messages(&system, "")).ok()
}

/// A text of a conversation. What surrounds it in a file or on a command line is no part of it.
pub fn message(speaker: engine::ChatRole, text: &str) -> engine::Message {
    engine::Message::new(speaker, text.trim())
}

/// This system and this user message.
pub fn messages(system: &str, user: &str) -> Vec<engine::Message> {
    vec![message(engine::ChatRole::System, system), message(engine::ChatRole::User, user)]
}

/// A request with these messages. Its origin is the role.
pub fn request(
    role: &Role,
    models_dir: &Path,
    priority: engine::Priority,
    messages: Vec<engine::Message>,
) -> Result<engine::Request, Failure> {
    let flow: Arc<str> = role.name.as_str().into();
    Ok(engine::Request {
        origin: engine::RequestOrigin { role: Some(flow.clone()), ..engine::RequestOrigin::default() },
        flow,
        priority,
        remaining_steps: 0,
        messages,
        template_kwargs: role.template_kwargs.clone(),
        adapters: local_adapter(role, models_dir)?.into_iter().collect(),
        sampling: role.sampling.choice.params(),
        logprobs: role.sampling.choice.logprobs,
        shares_prompt: false,
        max_tokens: role.sampling.max_tokens,
        stop: role.sampling.stop.clone(),
        schema: role.output.as_ref().map(|schema| Arc::new(schema.json().clone())),
        tools: None,
        reasoning: role.reasoning,
        overflow: role.overflow,
        has_fixed_prefix: role.prompt.is_fixed(),
    })
}

/// The path of a role's adapter, which must exist, and its scale.
fn local_adapter(role: &Role, models_dir: &Path) -> Result<Option<(PathBuf, f32)>, Failure> {
    let Some(adapter) = &role.adapter else { return Ok(None) };
    let candidates = adapter.candidates(models_dir);
    let existing = candidates.iter().find(|path| path.exists());
    let existing = existing.ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        let message = format!("role `{}`: its adapter's file does not exist; tried {}", role.name, tried.join(", "));
        Failure::new(FailureCode::ModelUnavailable, message)
    })?;
    Ok(Some((existing.clone(), adapter.scale)))
}

/// The path of a role's adapter, which exists or will once it is fetched, and its scale.
pub fn expected_adapter(role: &Role, models_dir: &Path) -> Option<(PathBuf, f32)> {
    let adapter = role.adapter.as_ref()?;
    let candidates = adapter.candidates(models_dir);
    let existing = candidates.iter().find(|path| path.exists());
    let path = existing.or_else(|| candidates.first().filter(|_| adapter.file.uri().is_some()))?;
    Some((path.clone(), adapter.scale))
}
