//! Roles that say something of a reasoning which the template of their model has no marks for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use artel_chat::{ReasoningMarks, TemplateProbe};
use artel_roles::{Catalog, Model};
use artel_template::{Chat, ChatTemplate, TextShield};

use crate::template_variables::template_source;

/// A message for each role whose `reasoning` has no effect, as far as the file of its model is here.
pub(crate) fn without_effect(catalog: &Catalog, path_of: impl Fn(&Model) -> Option<PathBuf>) -> Vec<String> {
    let mut known = BTreeMap::new();
    let mut messages = Vec::new();
    for role in catalog.roles().values().filter(|role| role.reasoning != Default::default()) {
        let Some(model) = catalog.models().get(&role.model) else { continue };
        let has_marks = *known.entry(model.name.clone()).or_insert_with(|| {
            let source = template_source(model, &path_of);
            source.is_none_or(|source| has_marks(&source, model))
        });
        if !has_marks {
            messages.push(format!(
                "role `{}`: `reasoning` has no effect: the chat template of `{}` has no marks of a reasoning",
                role.name, model.name
            ));
        }
    }
    messages
}

/// Whether a template has such marks; one that cannot be loaded is told of elsewhere.
fn has_marks(source: &str, model: &Model) -> bool {
    let Ok(template) = ChatTemplate::load(source, TextShield::default()) else { return true };
    let render = |probe: &TemplateProbe| {
        let mut kwargs = (*model.template_kwargs).clone();
        kwargs.extend(probe.kwargs.clone());
        let (messages, adds_generation_prompt) = (probe.messages.clone(), probe.adds_generation_prompt);
        template.render(Chat { messages, kwargs, adds_generation_prompt, ..Chat::default() }).ok()
    };
    ReasoningMarks::find(source, &render).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_that_its_model_does_not_reason() {
        let directory = tempfile::tempdir().unwrap();
        let yaml = "model: plain\nfile: p.gguf\ntemplate: \"{{ messages[0].content }}\"\n---\n\
                    model: deep\nfile: d.gguf\ntemplate: \"{{ messages[0].content.split('</think>')[-1] }}\"\n---\n\
                    role: poet\ndescription: D.\nmodel: plain\nprompt: P.\nreasoning: {show: true}\n---\n\
                    role: silent\ndescription: D.\nmodel: plain\nprompt: P.\n---\n\
                    role: thinker\ndescription: D.\nmodel: deep\nprompt: P.\nreasoning: {budget: 9}\n";
        std::fs::write(directory.path().join("crew.yaml"), yaml).unwrap();
        let catalog = Catalog::load(Some(directory.path())).unwrap();
        let expected =
            "role `poet`: `reasoning` has no effect: the chat template of `plain` has no marks of a reasoning";
        assert_eq!(without_effect(&catalog, |_| None), [expected]);
    }
}
