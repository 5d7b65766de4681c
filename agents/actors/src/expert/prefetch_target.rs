//! A successor that will read a step's answer.

use std::path::Path;
use std::sync::Arc;

use artel_engine as engine;
use artel_hosting::prompt;
use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::Output;
use artel_task::{NodeName, output_value};

/// A successor that will read a step's answer as soon as it ends.
pub(crate) struct PrefetchTarget {
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// The template context without the answer.
    pub(crate) context: TemplateContext,
    /// The node that generates the answer.
    pub(crate) node: NodeName,
}

impl PrefetchTarget {
    /// The part of its prompt that stays the same while the answer grows; `None` if it cannot be determined.
    pub(super) fn request(&self, answer: &Output, models_dir: &Path) -> Option<engine::Request> {
        let (system, user) = self.render(answer)?;
        let longer = Output { text: format!("{}x", answer.text), ..answer.clone() };
        let (longer_system, longer_user) = self.render(&longer)?;
        let common = user.chars().zip(longer_user.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let user = user.get(..common)?.to_owned();
        (system == longer_system).then(|| {
            let messages = prompt::messages(&system, &user);
            prompt::request(&self.role, models_dir, engine::Priority::Prefetch, messages).ok()
        })?
    }

    /// Its system and user prompt if this were the answer.
    fn render(&self, answer: &Output) -> Option<(String, String)> {
        let mut context = TemplateContext { input: answer.text.clone(), ..self.context.clone() };
        Arc::make_mut(&mut context.nodes).insert(self.node.clone(), Arc::new(output_value(answer, &[])));
        let system = self.role.prompt.render(&context).ok()?;
        let user = match self.message.as_ref().or(self.role.message.as_ref()) {
            Some(template) => template.render(&context).ok()?,
            None => context.input,
        };
        Some((system, user))
    }
}
