//! A role's prompt as a request to an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_engine as engine;
use artel_roles::template::TemplateContext;
use artel_roles::{Adapter, Role};
use artel_task::AdapterName;
use artel_task::event::{Failure, FailureCode};

/// A request of a role's prefix alone, if its prompt is the same for every task.
pub fn prefix_request(role: &Role, models_dir: &Path) -> Option<engine::Request> {
    if !role.prompt.is_fixed() {
        return None;
    }
    let system = role
        .prompt
        .render(&TemplateContext { role: Some(role.template_value()), ..TemplateContext::default() })
        .ok()?;
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
        adapters: local_adapters(role, models_dir)?,
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

/// The paths of a role's adapters, which must exist, and their scales.
fn local_adapters(role: &Role, models_dir: &Path) -> Result<Vec<(PathBuf, f32)>, Failure> {
    let local = |adapter: &Adapter| {
        if let Some(homonym) = homonym(adapter, models_dir) {
            let name = adapter.name.as_ref().map(AdapterName::as_str).unwrap_or_default();
            let message = format!(
                "role `{}`: `{name}` is the name of an adapter and of the file {}; write `{{adapter: {name}}}` or `{{file: {name}}}`",
                role.name,
                homonym.display()
            );
            return Err(Failure::new(FailureCode::Template, message));
        }
        let candidates = adapter.candidates(models_dir);
        let existing = candidates.iter().find(|path| path.exists());
        let existing = existing.ok_or_else(|| {
            let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            let named = adapter.missing_name();
            let others = adapter.other_kinds().map(|others| format!(", but {others}")).unwrap_or_default();
            let named = named.map(|name| format!("; no adapter of the catalog is named `{name}` either{others}"));
            let (tried, named) = (tried.join(", "), named.unwrap_or_default());
            let message = format!("role `{}`: its adapter's file does not exist; tried {tried}{named}", role.name);
            Failure::new(FailureCode::ModelUnavailable, message)
        })?;
        Ok((existing.clone(), adapter.scale))
    };
    role.adapters.iter().map(local).collect()
}

/// A file that a role may have meant by the name of an adapter.
fn homonym(adapter: &Adapter, models_dir: &Path) -> Option<PathBuf> {
    adapter.homonyms(models_dir).into_iter().find(|path| path.is_file())
}

/// The adapters of a role, each with its path and scale, if all their files exist, or will once they are fetched.
pub fn expected_adapters<'a>(role: &'a Role, models_dir: &Path) -> Option<Vec<(&'a Adapter, (PathBuf, f32))>> {
    let expected = |adapter: &'a Adapter| {
        let candidates = adapter.candidates(models_dir);
        let existing = candidates.iter().find(|path| path.exists());
        let path = existing.or_else(|| candidates.first().filter(|_| adapter.file.uri().is_some()))?;
        // No request of a role that may mean another file reaches an engine.
        homonym(adapter, models_dir).is_none().then(|| (adapter, (path.clone(), adapter.scale)))
    };
    role.adapters.iter().map(expected).collect()
}
