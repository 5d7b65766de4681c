//! The chat template of a model. The model's file may come from anywhere, so it is rendered within budgets.
//!
//! It is rendered with marks in the places of the messages. So it sees nothing of what people write, and its budgets need not
//! allow for long messages.

use std::path::{Path, PathBuf};

use artel_engine::backend::Error;
use artel_engine::{ChatRole, Message};
use artel_template::BoundedTemplate;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

/// How often a template may repeat its messages; some write the system message twice. Each repetition is tokenized.
const MAX_MESSAGE_REPEATS: usize = 4;

/// A chat template that parses.
pub(crate) struct ChatTemplate {
    template: BoundedTemplate,
    path: PathBuf,
}

/// A conversation in the form of the model, with marks in the places of the messages.
#[derive(Debug)]
pub(crate) struct RenderedChat {
    text: String,
    message_count: usize,
}

/// A part of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChatPart<'a> {
    /// What the template writes.
    Text(&'a str),
    /// The message with this index.
    Message(usize),
}

impl ChatTemplate {
    /// Parses the template of the GGUF at `path`, or the one that the catalog has for it.
    pub(crate) fn parse(source: &str, path: &Path) -> Result<Self, Error> {
        let template = BoundedTemplate::parse(source, configure);
        let template = template.map_err(|e| fault(path, "is refused", &e))?;
        Ok(Self { template, path: path.to_owned() })
    }

    /// Renders these messages and the beginning of an answer to the last one.
    pub(crate) fn render(&self, messages: &[Message], bos_token: &str, eos_token: &str) -> Result<RenderedChat, Error> {
        let mark = |at: usize| format!("\u{E000}{at}\u{E001}");
        let messages = messages.iter().enumerate();
        let marked: Vec<Value> =
            messages.map(|(at, message)| context! { role => role_name(message.role), content => mark(at) }).collect();
        let message_count = marked.len();
        let values = context! { messages => marked, add_generation_prompt => true, bos_token, eos_token };
        let text = self.template.render(values).map_err(|e| fault(&self.path, "failed", &e))?;
        let rendered = RenderedChat { text, message_count };
        let repeated = rendered.parts().filter(|part| matches!(part, ChatPart::Message(_))).count();
        if repeated > message_count * MAX_MESSAGE_REPEATS {
            let reason = format!("it repeats its messages more than {MAX_MESSAGE_REPEATS} times");
            return Err(fault(&self.path, "failed", &reason));
        }
        Ok(rendered)
    }
}

impl RenderedChat {
    /// Whether it begins with this text.
    pub(crate) fn starts_with(&self, text: &str) -> bool {
        self.text.starts_with(text)
    }

    /// Its parts in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ChatPart<'_>> {
        let mut rest = Some(self.text.as_str());
        let mut message = None;
        std::iter::from_fn(move || {
            if let Some(at) = message.take() {
                return Some(ChatPart::Message(at));
            }
            let text = rest?;
            let Some((before, at, after)) = next_mark(text, self.message_count) else {
                rest = None;
                return Some(ChatPart::Text(text));
            };
            (rest, message) = (Some(after), Some(at));
            Some(ChatPart::Text(before))
        })
    }
}

/// Checks that a chat template can be rendered for a system message and a question, without a model.
///
/// # Errors
/// It does not parse, fails, exceeds a budget, or leaves one of the messages out.
pub fn check_chat_template(source: &str, path: &Path) -> Result<(), Error> {
    let message = |role| Message { role, text: String::new() };
    let messages = [message(ChatRole::System), message(ChatRole::User)];
    let rendered = ChatTemplate::parse(source, path)?.render(&messages, "", "")?;
    let has = |at: usize| rendered.parts().any(|part| part == ChatPart::Message(at));
    match has(0) && has(1) {
        true => Ok(()),
        false => Err(fault(path, "failed", &"it leaves out the system message or the question")),
    }
}

/// Splits at the next mark: the text before it, the index of its message, the text after it.
fn next_mark(text: &str, count: usize) -> Option<(&str, usize, &str)> {
    let (before, rest) = text.split_once('\u{E000}')?;
    let (number, after) = rest.split_once('\u{E001}')?;
    Some((before, number.parse().ok().filter(|at| *at < count)?, after))
}

fn role_name(role: ChatRole) -> &'static str {
    match role {
        ChatRole::System => "system",
        ChatRole::User => "user",
        ChatRole::Assistant => "assistant",
    }
}

/// What chat templates expect besides Jinja.
fn configure(environment: &mut Environment<'static>) {
    // Transformers sets both options.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("both options are valid"));
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
}

fn fault(path: &Path, what: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Tokenize(format!("{}: the chat template of this model {what}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(source: &str) -> Result<(), Error> {
        check_chat_template(source, Path::new("models/small.gguf"))
    }

    fn conversation() -> Vec<Message> {
        let message = |role, text: &str| Message { role, text: text.to_owned() };
        vec![message(ChatRole::System, "Be brief."), message(ChatRole::User, "Hello")]
    }

    fn rendered(source: &str) -> Result<RenderedChat, Error> {
        ChatTemplate::parse(source, Path::new("models/small.gguf"))?.render(&conversation(), "<s>", "</s>")
    }

    #[test]
    fn a_template_in_common_use_renders_its_messages() {
        let source = "{% set ns = namespace(system='') %}
            {%- for m in messages if m.role == 'system' %}{% set ns.system = ns.system ~ m.content %}{% endfor %}
            {%- macro turn(role, text) %}<|{{ role|upper }}|>{{ text.strip() }}{% endmacro %}
            {{- bos_token + turn('system', ns.system) }}
            {%- for m in messages[1:] %}{{ turn(m['role'], m['content']) + eos_token }}{% endfor %}
            {%- if add_generation_prompt %}<|ASSISTANT|>{% endif %}
            {%- if messages|length > 9 %}{{ raise_exception('too many') }}{% endif %}";
        let rendered = rendered(source).unwrap();
        let parts: Vec<ChatPart<'_>> = rendered.parts().collect();
        let (system, user) = (ChatPart::Text("<s><|SYSTEM|>"), ChatPart::Text("<|USER|>"));
        let end = ChatPart::Text("</s><|ASSISTANT|>");
        assert_eq!(parts, [system, ChatPart::Message(0), user, ChatPart::Message(1), end]);
    }

    #[test]
    fn a_hostile_template_is_refused_with_the_model_and_the_budget() {
        for (source, budget) in [
            ("x".repeat(10 << 20), "262144 characters"),
            (format!("{{{{ {}1 }}}}", "not ".repeat(20_000)), "500 operators"),
            (
                format!("{{% set n = namespace(x=[1]) %}}{}", "{% set n.x = n.x + n.x %}".repeat(60)),
                "1000000 instructions",
            ),
            ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(), "1000000"),
            ("{{ 'x' * 99999999999 }}".to_owned(), "1000000 instructions"),
            ("{{ 'x' * 2000000 }}".to_owned(), "1048576 bytes"),
            ("{% set n = namespace() %}{% set n.n = n %}{{ n }}".to_owned(), "hold a namespace"),
            ("{{ messages[1].content * 100000 }}".to_owned(), "more than 4 times"),
        ] {
            let refused = rendered(&source).unwrap_err().to_string();
            let names_both = refused.starts_with("models/small.gguf: the chat template") && refused.contains(budget);
            assert!(names_both, "{}: {refused}", &source[..source.len().min(60)]);
        }
    }

    const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
                          '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// What the templates of Qwen, Llama, Gemma and Phi need of the language, in as few words as possible.
    const IDIOMS: [&str; 4] = [
        "{%- set ns = namespace(last=messages|length - 1) %}{%- for message in messages[::-1] %}\
         {%- set index = (messages|length - 1) - loop.index0 %}\
         {%- if ns.last == index and message.role == 'user' and message.content is string and not \
         (message.content.startswith('<a>') and message.content.endswith('</a>')) %}{%- set ns.last = index %}{%- endif %}\
         {%- endfor %}{%- for message in messages %}{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\
         {%- if tools %}{{- tools | tojson }}{%- endif %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endfor %}",
        "{{- bos_token }}{%- if not tools is defined %}{%- set tools = none %}{%- endif %}\
         {%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d') %}\
         {%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}\
         {%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}\
         {%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}\
         {{- date_string + system_message }}{%- if tools is not none %}{{- tools | tojson(indent=4) }}{%- endif %}\
         {%- for message in messages %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}",
        "{{ bos_token }}{%- set prefix = messages[0]['content'] + '\\n\\n' -%}{%- set loop_messages = messages[1:] -%}\
         {%- for message in loop_messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\
         {{ raise_exception('roles must alternate') }}{%- endif -%}{{ (prefix if loop.first else \"\") }}\
         {%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}\
         {%- endif -%}{%- endfor -%}",
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<s>' + message['content'] + '<e>'}}\
         {% elif (message['role'] == 'user') %}{{'<u>' + message['content'] + '<e>'}}{% endif %}{% endfor %}",
    ];

    #[test]
    fn the_language_of_common_templates_is_understood() {
        for template in IDIOMS {
            checked(template).unwrap_or_else(|e| panic!("{e}: {template}"));
        }
    }

    #[test]
    fn a_template_is_checked_without_its_model() {
        checked(CHATML).unwrap();
        let fault = |template: &str| checked(template).unwrap_err().to_string();
        assert!(fault("{% for %}").contains("is refused"), "{}", fault("{% for %}"));
        assert!(fault("{{ raise_exception('no system message') }}").contains("no system message"));
        let last = "{{ messages[-1].content }}";
        assert!(fault(last).contains("leaves out"), "{}", fault(last));
    }
}
