//! Variables of `template_kwargs` that the chat template of a model never reads.

use std::path::PathBuf;

use artel_roles::{Catalog, Model, TemplateKwargs};
use artel_template::ChatTemplate;

/// A message for each variable of a model or role that its chat template does not read, as far as
/// that is here: `path_of` says where a model's file is.
pub(crate) fn unread(catalog: &Catalog, path_of: impl Fn(&Model) -> Option<PathBuf>) -> Vec<String> {
    let mut messages = Vec::new();
    for model in catalog.models().values() {
        let roles =
            catalog.roles().values().filter(|role| role.model == model.name && !role.template_kwargs.is_empty());
        let mut owners: Vec<(String, &TemplateKwargs)> =
            roles.map(|role| (format!("role `{}`", role.name), &role.template_kwargs)).collect();
        if !model.template_kwargs.is_empty() {
            owners.insert(0, (format!("model `{}`", model.name), &model.template_kwargs));
        }
        if owners.is_empty() {
            continue;
        }
        let source = template_source(model, &path_of);
        let Some(template) = source.and_then(|source| ChatTemplate::parse(&source).ok()) else { continue };
        for (owner, kwargs) in owners {
            let unread = kwargs.keys().filter(|name| !template.reads(name));
            messages.extend(unread.map(|name| message(&owner, model, name, &template.variables())));
        }
    }
    messages
}

fn message(owner: &str, model: &Model, name: &str, known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let reads = if known.is_empty() { "reads none".to_owned() } else { format!("reads {}", known.join(", ")) };
    format!("{owner}: `{name}` in `template_kwargs` has no effect: the chat template of `{}` {reads}", model.name)
}

/// The source of the template of a model's YAML, or of its file. Faults of either are told elsewhere.
pub(crate) fn template_source(model: &Model, path_of: impl Fn(&Model) -> Option<PathBuf>) -> Option<String> {
    if let Some(source) = &model.template {
        return Some(source.clone());
    }
    let header = artel_gguf::inspect(&path_of(model)?).ok()?;
    header.chat_template().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_the_template_does_not_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let yaml = "model: talk\nfile: talk.gguf\ntemplate: \"{{ messages }}{{ enable_thinking }}\"\n\
                    template_kwargs: {enable_thinking: false}\n---\n\
                    role: poet\ndescription: Writes.\nmodel: talk\nprompt: P.\ntemplate_kwargs: {thinking: true}\n";
        std::fs::write(directory.path().join("crew.yaml"), yaml).unwrap();
        let catalog = Catalog::load(Some(directory.path())).unwrap();
        let expected = "role `poet`: `thinking` in `template_kwargs` has no effect: the chat template of `talk` reads \
                        `enable_thinking`";
        assert_eq!(unread(&catalog, |_| None), [expected]);
    }
}
