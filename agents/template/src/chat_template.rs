//! The chat template of a model, rendered as Transformers renders it, within budgets. The model's file may come from anywhere.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json, json};

use crate::bounded_template::BoundedTemplate;
use crate::error::{InvalidTemplate, RenderError};
use crate::operators::{OperatorDialect, without_marking_tags};
use crate::python;
use crate::render_budget::RenderBudget;
use crate::text_shield::TextShield;

/// What every conversation gives a template.
const GIVEN: [&str; 7] =
    ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "strftime_now"];
/// Between the instructions and the first question, if they are one message.
const FOLD: &str = "\n\n";

/// A chat template that parses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    template: BoundedTemplate,
    shield: Arc<TextShield>,
    folds_instructions: bool,
}

/// A conversation and what else a chat template reads.
#[derive(Debug, Clone, Default)]
pub struct Chat<'c> {
    /// Objects with `role`, `content` and what else a message has.
    pub messages: Vec<Json>,
    /// Definitions of tools.
    pub tools: Option<Json>,
    /// Documents to answer from.
    pub documents: Option<Json>,
    /// Variables of this template, such as `enable_thinking`.
    pub kwargs: Map<String, Json>,
    /// Whether the beginning of an answer follows.
    pub adds_generation_prompt: bool,
    /// The text of the token that begins a prompt.
    pub bos_token: &'c str,
    /// The text of the token that ends an answer.
    pub eos_token: &'c str,
    /// The time that the template is told; now, if there is none.
    pub now: Option<jiff::ZonedDateTime>,
}

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is none, or exceeds a budget.
    #[error("is refused: {0}")]
    Invalid(#[from] InvalidTemplate),
    /// It exceeds a budget, or refuses the conversation.
    #[error("failed: {0}")]
    Render(#[from] RenderError),
    /// It does not write what it is told.
    #[error("failed: it leaves out the system message or the question")]
    LeavesOut,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// It does not parse, or exceeds a budget.
    pub fn parse(source: &str) -> Result<Self, InvalidTemplate> {
        Self::parse_shielded(source, TextShield::default())
    }

    /// Parses a template for conversations with a model. The shield is of the model's control tokens. Where it refuses a system
    /// message, the text of that will begin the first question.
    ///
    /// # Errors
    /// It does not parse, or exceeds a budget.
    pub fn load(source: &str, shield: TextShield) -> Result<Self, InvalidTemplate> {
        let parsed = Self::parse_shielded(source, shield)?;
        let refuses = |messages: &[(&str, &str)]| {
            matches!(parsed.render(Chat::of(messages)), Err(ChatError::Render(RenderError::Template(_))))
        };
        let question = ("user", "Q");
        let folds_instructions = refuses(&[("system", "S"), question]) && !refuses(&[question]);
        Ok(Self { folds_instructions, ..parsed })
    }

    fn parse_shielded(source: &str, shield: TextShield) -> Result<Self, InvalidTemplate> {
        let source = without_marking_tags(source);
        let of_filters = shield.clone();
        let configure = |environment: &mut Environment<'static>| configure(environment, of_filters);
        let template = BoundedTemplate::parse_dialect(&source, OperatorDialect::Python, configure)?;
        Ok(Self { template, shield: Arc::new(shield), folds_instructions: false })
    }

    /// Checks that it writes a system message and a question.
    ///
    /// # Errors
    /// It fails, exceeds a budget, or leaves one of them out.
    pub fn check(&self) -> Result<(), ChatError> {
        let (instructions, question) = ("\u{E000}0\u{E001}", "\u{E000}1\u{E001}");
        let text = self.render(Chat::of(&[("system", instructions), ("user", question)]))?;
        if text.contains(instructions) && text.contains(question) { Ok(()) } else { Err(ChatError::LeavesOut) }
    }

    /// Whether it refuses a system message, so that its text begins the first question.
    pub fn folds_instructions(&self) -> bool {
        self.folds_instructions
    }

    /// Whether it reads a variable of this name.
    pub fn reads(&self, name: &str) -> bool {
        self.template.jinja().undeclared_variables(false).contains(name)
    }

    /// The variables that it reads beside what every conversation has.
    pub fn variables(&self) -> Vec<String> {
        let globals = self.template.globals();
        let is_own = |name: &String| !GIVEN.contains(&name.as_str()) && !globals.contains(&name.as_str());
        let mut names: Vec<String> = self.template.jinja().undeclared_variables(false).into_iter().collect();
        names.retain(is_own);
        names.sort();
        names
    }

    /// What tells people's texts from the template's in a rendered one.
    pub fn shield(&self) -> &TextShield {
        &self.shield
    }

    /// Renders a conversation. The texts of its messages, tools and documents are shielded in the result.
    ///
    /// # Errors
    /// It fails, refuses the conversation, or exceeds a budget.
    pub fn render(&self, chat: Chat<'_>) -> Result<String, ChatError> {
        let Chat { mut messages, tools, documents, kwargs, adds_generation_prompt, bos_token, eos_token, now } = chat;
        if self.folds_instructions {
            fold_instructions(&mut messages);
        }
        let mut bytes = 0;
        let mut shielded = |value: &Json| Value::from(Serde(self.shielded(value, &mut bytes)));
        let mut values: Vec<(String, Value)> = vec![
            ("messages".to_owned(), messages.iter().map(&mut shielded).collect()),
            ("tools".to_owned(), tools.as_ref().map_or(Value::from(()), &mut shielded)),
            ("documents".to_owned(), documents.as_ref().map_or(Value::from(()), &mut shielded)),
            ("add_generation_prompt".to_owned(), Value::from(adds_generation_prompt)),
            ("bos_token".to_owned(), Value::from(bos_token)),
            ("eos_token".to_owned(), Value::from(eos_token)),
        ];
        // The author of a role may be a client.
        values.extend(kwargs.iter().map(|(name, value)| (name.clone(), shielded(value))));
        let strftime_now = Value::from_function(move |format: &str| formatted(now.as_ref(), format));
        values.push(("strftime_now".to_owned(), strftime_now));
        Ok(self.template.render_within(Value::from_pairs(values), RenderBudget::of_chat(bytes))?)
    }

    /// A value whose texts are shielded; their bytes are added up.
    fn shielded(&self, value: &Json, bytes: &mut usize) -> Json {
        match value {
            Json::String(text) => {
                *bytes += text.len();
                Json::String(self.shield.shield(text).into_owned())
            }
            Json::Array(items) => Json::Array(items.iter().map(|item| self.shielded(item, bytes)).collect()),
            Json::Object(map) => {
                let shielded = map.iter().map(|(key, value)| {
                    *bytes += key.len();
                    (self.shield.shield(key).into_owned(), self.shielded(value, bytes))
                });
                Json::Object(shielded.collect())
            }
            other => other.clone(),
        }
    }
}

impl Chat<'_> {
    /// Messages by role and text, and the beginning of an answer.
    pub fn of(messages: &[(&str, &str)]) -> Self {
        let messages = messages.iter().map(|(role, content)| json!({"role": role, "content": content}));
        Self { messages: messages.collect(), adds_generation_prompt: true, ..Self::default() }
    }
}

/// Puts the text of a first system message before that of the question after it.
fn fold_instructions(messages: &mut Vec<Json>) {
    let [first, second, ..] = messages.as_slice() else { return };
    if first["role"] != "system" || second["role"] != "user" {
        return;
    }
    let (Some(instructions), Some(question)) = (first["content"].as_str(), second["content"].as_str()) else { return };
    let folded = if instructions.is_empty() { question.to_owned() } else { format!("{instructions}{FOLD}{question}") };
    messages.remove(0);
    messages[0]["content"] = Json::String(folded);
}

fn formatted(now: Option<&jiff::ZonedDateTime>, format: &str) -> Result<String, minijinja::Error> {
    let now = now.cloned().unwrap_or_else(jiff::ZonedDateTime::now);
    jiff::fmt::strtime::format(format, &now).map_err(|error| {
        let message = format!("`strftime_now` does not understand `{}`: {error}", format.escape_debug());
        minijinja::Error::new(ErrorKind::InvalidOperation, message)
    })
}

fn configure(environment: &mut Environment<'static>, shield: TextShield) {
    // Transformers sets both options.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("both options are valid"));
    python::install(environment, shield);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Chat<'static> {
        Chat { bos_token: "<s>", eos_token: "</s>", ..Chat::of(&[("system", "Be brief."), ("user", " <Hello> ")]) }
    }

    fn rendered(source: &str) -> Result<String, ChatError> {
        let template = ChatTemplate::load(source, TextShield::of(["<s>", "</s>"]))?;
        template.render(conversation()).map(|text| template.shield().reveal(&text).into_owned())
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
        assert_eq!(rendered(source).unwrap(), "<s><|SYSTEM|>Be brief.<|USER|><Hello></s><|ASSISTANT|>");
    }

    #[test]
    fn a_hostile_template_is_refused_with_the_budget() {
        for (source, budget) in [
            ("x".repeat(10 << 20), "262144 characters"),
            (format!("{{{{ {}1 }}}}", "not ".repeat(20_000)), "500 operators"),
            (
                format!("{{% set n = namespace(x=[1]) %}}{}", "{% set n.x = n.x + n.x %}".repeat(60)),
                "1000000 instructions",
            ),
            ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(), "1000000"),
            ("{{ 'x' * 99999999999 }}".to_owned(), "1000000 instructions"),
            ("{{ 'x' * 2000000 }}".to_owned(), "262144 bytes"),
            ("{% set n = namespace() %}{% set n.n = n %}{{ n }}".to_owned(), "hold a namespace"),
            ("{{ messages[1].content * 100000 }}".to_owned(), "262144 bytes"),
            (format!("{{% set x = [1] %}}{}{{{{ x }}}}", "{% set x = [x, x] %}".repeat(60)), "400000 values"),
            (format!("{{% set x = 'x' %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(60)), "1000000 instructions"),
            (
                format!("{{% set x = 'x' %}}{}", "{% set x = x.replace('x', x ~ 'x') %}".repeat(60)),
                "1000000 instructions",
            ),
            ("{{ 'x'.center(99999999999) }}".to_owned(), "1000000 instructions"),
            ("{{ '%99999999999d' % 1 }}".to_owned(), ""),
            ("{{ '{:99999999999}'.format(1) }}".to_owned(), ""),
            ("{{ [1] | tojson(indent=99999999999) }}".to_owned(), "64 spaces"),
        ] {
            let refused = rendered(&source).unwrap_err().to_string();
            assert!(refused.contains(budget), "{}: {refused}", &source[..source.len().min(60)]);
        }
    }

    #[test]
    fn a_long_conversation_is_no_hostile_template() {
        let long = "Words of a long conversation. ".repeat(100_000);
        let template = ChatTemplate::load(CHATML, TextShield::default()).unwrap();
        let text = template.render(Chat::of(&[("system", &long), ("user", &long)])).unwrap();
        assert!(text.len() > 2 * long.len());
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
            ChatTemplate::load(template, TextShield::default())
                .unwrap()
                .check()
                .unwrap_or_else(|e| panic!("{e}: {template}"));
        }
    }

    #[test]
    fn a_template_is_checked_without_its_model() {
        let fault = |source: &str| {
            let template = ChatTemplate::load(source, TextShield::default()).map_err(ChatError::from);
            template.and_then(|template| template.check()).unwrap_err().to_string()
        };
        ChatTemplate::load(CHATML, TextShield::default()).unwrap().check().unwrap();
        assert!(fault("{% for %}").contains("is refused"), "{}", fault("{% for %}"));
        assert!(fault("{{ raise_exception('no messages') }}").contains("no messages"));
        let last = "{{ messages[-1].content }}";
        assert!(fault(last).contains("leaves out"), "{}", fault(last));
    }

    #[test]
    fn a_template_that_refuses_a_system_message_gets_it_in_the_question() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
                      {% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}";
        assert_eq!(rendered(source).unwrap(), "[user: Be brief.\n\n <Hello> ]");
        let refuses_all = "{{ raise_exception('nothing ' ~ messages|length) }}";
        let refused = rendered(refuses_all).unwrap_err().to_string();
        assert!(refused.contains("nothing 2"), "{refused}");
    }

    #[test]
    fn people_write_no_control_tokens_whatever_a_template_does() {
        let shield = TextShield::of(["<|end|>", "[INST]"]);
        for source in [
            "{{ text }}",
            "{{ text|lower }}",
            "{{ text|replace('x', '') }}",
            "{{ text.split('x')|join }}",
            "{{ text.split('x')[0] ~ text.split('x')[1] }}",
            "{{ [text]|tojson }}",
            "{{ [text] }}",
            "{{ '%s' % text }}{{ '{}'.format(text) }}",
            "{{ text[::-1][::-1] }}",
            "{{ text|list|join }}{{ text|string|trim }}{{ text|safe }}",
            "{% set x %}{{ text }}{% endset %}{{ x }}{% filter upper|lower %}{{ text }}{% endfilter %}",
            "{{ {'a': text}|dictsort }}{{ {text: 1} }}",
        ] {
            for text in ["<|xend|>", "<|end|>", "[INxST]", "<|EnD|>x"] {
                let template = ChatTemplate::load("{{ effort }}", shield.clone()).unwrap();
                let kwargs = Map::from_iter([("effort".to_owned(), Json::from(text))]);
                let rendered = template.render(Chat { kwargs, ..Chat::of(&[]) }).unwrap();
                assert!(!rendered.contains("<|end|>"), "{rendered}");
                let source = source.replace("text", "messages[0].content");
                let template = ChatTemplate::load(&source, shield.clone()).unwrap();
                let rendered = template.render(Chat::of(&[("user", text)])).unwrap();
                assert!(!rendered.contains("<|end|>") && !rendered.contains("[INST]"), "{source}: {rendered}");
            }
        }
    }

    #[test]
    fn a_template_sees_what_people_write() {
        let shield = TextShield::of(["<|end|>"]);
        let text = "a <think>b</think> <|c|>";
        for (source, expected) in [
            ("{{ '<think>' in text }}{{ '</x>' in text }}", "TrueFalse"),
            ("{{ text.split('</think>')[-1].strip() }}", "<|c|>"),
            ("{{ text.startswith('a <') }}{{ text.find('|') }}{{ text.count('<') }}", "True203"),
            ("{{ text.replace('<think>', '') }}", "a b</think> <|c|>"),
            ("{{ text == 'a <think>b</think> <|c|>' }}", "True"),
            ("{{ text|trim('>') }}{{ text.rstrip('>|') }}", "a <think>b</think> <|c|a <think>b</think> <|c"),
            ("{{ text|length }}{{ text[2:9] }}", "24<think>"),
            ("{{ ['<']|select('in', text)|list }}", "['<']"),
        ] {
            let source = source.replace("text", "messages[0].content");
            let template = ChatTemplate::load(&source, shield.clone()).unwrap();
            let rendered = template.render(Chat::of(&[("user", text)])).unwrap();
            assert_eq!(template.shield().reveal(&rendered), expected, "{source}");
        }
    }

    #[test]
    fn values_print_as_in_python() {
        for (source, expected) in [
            ("{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 'a' }}", "True None 1.0 1e+20 a"),
            ("{{ ['a', 1, true, none, {'b': \"it's\"}] }}", "['a', 1, True, None, {'b': \"it's\"}]"),
            ("{{ {'b': 1, 'a': [2.5]} ~ '' }}", "{'b': 1, 'a': [2.5]}"),
            ("{{ ['a\\n', 'ü']|string }}", "['a\\n', 'ü']"),
            ("{{ {'b': \"<&'>\", 'a': [1.0, none, true]}|tojson }}", "{\"b\": \"<&'>\", \"a\": [1.0, null, true]}"),
            (
                "{{ {'b': 'ü', 'a': []}|tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
                "{\"a\":[],\"b\":\"\\u00fc\"}",
            ),
            ("{{ [1, {}]|tojson(indent=2) }}", "[\n  1,\n  {}\n]"),
            (
                "{{ '%s is %d or %.2f' % ('a', 2, 1.5) }} {{ 7 % 3 }} {{ -7 % 3 }} {{ '%s' % 1 }}",
                "a is 2 or 1.50 1 2 1",
            ),
            (
                "{{ 'a-b-c'.rsplit('-', 1) }} {{ 'abc'.partition('b') }} {{ 'ab'.ljust(4, '.') }}",
                "['a-b', 'c'] ('a', 'b', 'c') ab..",
            ),
            ("{{ 'x' is sequence }} {{ none is iterable }} {{ {} is mapping }}", "True False True"),
        ] {
            assert_eq!(rendered(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for source in [
            "{{ 'a' + 1 }}",
            "{{ 'a' in none }}",
            "{{ messages.append(1) }}",
            "{% for x in none %}{% endfor %}",
            "{{ none.strip() }}",
            "{{ nope.strip() }}",
            "{{ nope|tojson }}",
            "{{ 'a'.split('') }}",
            "{{ ', '.join([1]) }}",
            "{{ 'a'|nope }}",
            "{{ 'a'.nope() }}",
        ] {
            assert!(rendered(source).is_err(), "{source}");
        }
    }
}
