//! Calls of tools as a grammar of llguidance: the text around arguments, and the arguments in their schemas.

use artel_chat::CallGrammar;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::TokTrie;

use crate::emptiness::Emptiness;
use crate::error::{Error, shown};
use crate::grammar;
use crate::matcher::{begun, start};

/// Compiles a grammar for the vocabulary of a factory.
pub(crate) fn compile(factory: &ParserFactory, grammar: &CallGrammar) -> Result<Matcher, Error> {
    let env = factory.tok_env().clone();
    let mut lark = LarkGrammar::of(env.tok_trie());
    let start_rule = lark.expression(grammar);
    let source = format!("start: {start_rule}\n{}", lark.rules);
    let mut grammars = vec![GrammarWithLexer { lark_grammar: Some(source), ..GrammarWithLexer::default() }];
    for (index, schema) in lark.schemas.iter().enumerate() {
        let name = Some(schema_name(index));
        let json_schema = Some(decodable(factory, schema)?);
        grammars.push(GrammarWithLexer { name, json_schema, ..GrammarWithLexer::default() });
    }
    let parser = factory.create_parser(TopLevelGrammar { grammars, max_tokens: None });
    let parser = parser.map_err(|error| Error::Unsupported(shown(&format!("{error:#}"))))?;
    begun(Matcher::new(Ok(parser)))
}

/// The form of a schema that llguidance takes, written with the spaces that chat templates write.
fn decodable(factory: &ParserFactory, schema: &Value) -> Result<Value, Error> {
    let emptiness = Emptiness::of(schema);
    if let Some(refusal) = emptiness.refusal(schema) {
        return Err(refusal);
    }
    grammar::check_divisors(schema)?;
    let mut refusal = None;
    for mut form in grammar::forms(schema, &emptiness) {
        form.schema["x-guidance"] = json!({
            "whitespace_flexible": false, "coerce_one_of": true, "item_separator": ", ", "key_separator": ": ",
        });
        match start(factory, &form) {
            Ok(_) => return Ok(form.schema),
            Err(error @ Error::Costly(_)) => return Err(error),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.expect("a schema has a form"))
}

fn schema_name(index: usize) -> String {
    format!("arguments{index}")
}

/// A grammar in Lark's notation.
struct LarkGrammar<'t> {
    trie: &'t TokTrie,
    /// The control tokens with their texts, the longest first.
    control: Vec<(String, u32)>,
    schemas: Vec<Value>,
    rules: String,
    rule_count: usize,
}

impl<'t> LarkGrammar<'t> {
    fn of(trie: &'t TokTrie) -> Self {
        let text = |token: u32| {
            let bytes = trie.token(token);
            let bytes = bytes.strip_prefix(&[TokTrie::SPECIAL_TOKEN_MARKER]).unwrap_or(bytes);
            Some((String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.is_empty())?, token))
        };
        let mut control: Vec<(String, u32)> = trie.get_special_tokens().into_iter().filter_map(text).collect();
        control.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { trie, control, schemas: Vec::new(), rules: String::new(), rule_count: 0 }
    }

    fn expression(&mut self, grammar: &CallGrammar) -> String {
        match grammar {
            CallGrammar::Text(text) => self.text(text),
            CallGrammar::Pattern(pattern) => format!("/{pattern}/"),
            CallGrammar::Json(schema) => {
                let known = self.schemas.iter().position(|known| known == schema);
                let index = known.unwrap_or_else(|| {
                    self.schemas.push(schema.clone());
                    self.schemas.len() - 1
                });
                format!("@{}", schema_name(index))
            }
            CallGrammar::Through(end) => self.through(end),
            CallGrammar::Sequence(all) => {
                let all: Vec<String> =
                    all.iter().map(|one| self.expression(one)).filter(|one| !one.is_empty()).collect();
                group(&all, " ")
            }
            CallGrammar::Choice(all) => {
                let all: Vec<String> = all.iter().map(|one| self.expression(one)).collect();
                // One that may be empty is the same as none.
                let is_optional = all.iter().any(String::is_empty);
                let all: Vec<String> = all.into_iter().filter(|one| !one.is_empty()).collect();
                let choice = group(&all, " | ");
                if is_optional && !choice.is_empty() { format!("{choice}?") } else { choice }
            }
            CallGrammar::Optional(one) => self.repeated(one, '?'),
            CallGrammar::Repeat(one) => self.repeated(one, '*'),
        }
    }

    fn repeated(&mut self, one: &CallGrammar, operator: char) -> String {
        let one = self.expression(one);
        if one.is_empty() { one } else { format!("({one}){operator}") }
    }

    /// A text; its control tokens are tokens. Those that end an answer are left out: the model ends it with any of them.
    fn text(&self, text: &str) -> String {
        let parts = self.parts(text).into_iter().filter_map(|part| match part {
            Part::Plain(text) => Some(serde_json::to_string(text).expect("a text is JSON")),
            Part::Control(token) => (!self.trie.eos_tokens().contains(&token)).then(|| format!("<[{token}]>")),
        });
        group(&parts.collect::<Vec<_>>(), " ")
    }

    fn through(&mut self, end: &str) -> String {
        self.rule_count += 1;
        let name = format!("text{}", self.rule_count);
        let parts = self.parts(end);
        let plain = match parts.first() {
            Some(Part::Plain(text)) => *text,
            _ => "",
        };
        // What a control token ends need not end as soon as it can.
        let lazy = if parts.len() > 1 || plain.is_empty() { "" } else { "[lazy]" };
        let rest = &end[plain.len()..];
        self.rules += &format!("{name}{lazy}: /(.|\\n)*{}/\n", escaped(plain));
        let rest = self.text(rest);
        if rest.is_empty() { name } else { format!("({name} {rest})") }
    }

    fn parts<'s>(&self, text: &'s str) -> Vec<Part<'s>> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let found = self.control.iter().filter_map(|(of, token)| Some((rest.find(of.as_str())?, of.len(), *token)));
            let Some((at, bytes, token)) = found.min_by_key(|(at, bytes, _)| (*at, std::cmp::Reverse(*bytes))) else {
                parts.push(Part::Plain(rest));
                break;
            };
            if at > 0 {
                parts.push(Part::Plain(&rest[..at]));
            }
            parts.push(Part::Control(token));
            rest = &rest[at + bytes..];
        }
        parts
    }
}

/// A part of a text.
enum Part<'t> {
    Plain(&'t str),
    Control(u32),
}

fn group(all: &[String], between: &str) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        all => format!("({})", all.join(between)),
    }
}

/// A text as a regular expression.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            // Before `<` and `>` a backslash would make them boundaries of words.
            c if c.is_ascii_punctuation() && !matches!(c, '<' | '>') => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use artel_chat::{CallFormat, CallParser, calls_grammar};
    use artel_model::{Tool, ToolChoice, ToolSet};

    use super::*;
    use crate::{Compiler, byte_vocabulary};

    fn tools(choice: ToolChoice) -> ToolSet {
        let city = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 0}},
            "required": ["city"]});
        let tool = |name: &str| Tool { name: name.to_owned(), description: String::new(), parameters: city.clone() };
        ToolSet { tools: vec![tool("get"), tool("put")], choice, single: false }
    }

    /// How many bytes of a text are allowed, and whether it may end there.
    fn accepted(grammar: &CallGrammar, text: &str) -> (usize, bool) {
        let compiler = Compiler::new(&byte_vocabulary()).unwrap();
        let mut constraint = compiler.compile_calls(grammar).unwrap();
        for (at, byte) in text.bytes().enumerate() {
            let allowed = constraint.mask().unwrap().is_some_and(|mask| mask.is_allowed(byte.into()));
            if !allowed {
                return (at, constraint.may_end());
            }
            constraint.accept(byte.into()).unwrap();
        }
        (text.len(), constraint.may_end())
    }

    #[test]
    fn arguments_fit_the_schema_of_their_tool() {
        let grammar = calls_grammar(&CallFormat::generic(), &tools(ToolChoice::Required), None).unwrap();
        let call =
            |arguments: &str| format!("<tool_call>\n{{\"name\": \"get\", \"arguments\": {arguments}}}\n</tool_call>");
        let whole = call("{\"city\": \"Köln\", \"days\": 2}");
        assert_eq!(accepted(&grammar, &whole), (whole.len(), true));
        let two = format!("{whole}\n{whole}");
        assert_eq!(accepted(&grammar, &two), (two.len(), true));
        for refused in [
            "no call",
            &call("{\"days\": 2}"),
            &call("{\"city\": \"K\", \"days\": -1}"),
            &call("{\"city\": \"K\", \"x\": 1}"),
        ] {
            assert!(accepted(&grammar, refused).0 < refused.len(), "{refused}");
        }
        let named = calls_grammar(&CallFormat::generic(), &tools(ToolChoice::Named("put".to_owned())), None).unwrap();
        assert!(accepted(&named, &whole).0 < whole.len());
        let single = ToolSet { single: true, ..tools(ToolChoice::Auto) };
        let single = calls_grammar(&CallFormat::generic(), &single, None).unwrap();
        assert_eq!(accepted(&single, &two).0, whole.len());
    }

    #[test]
    fn an_answer_in_its_schema_or_a_call_is_allowed() {
        let answer = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
        let grammar = calls_grammar(&CallFormat::generic(), &tools(ToolChoice::Auto), Some(&answer)).unwrap();
        for text in
            ["{\"ok\": true}", "<tool_call>\n{\"name\": \"put\", \"arguments\": {\"city\": \"\"}}\n</tool_call>"]
        {
            assert_eq!(accepted(&grammar, text), (text.len(), true), "{text}");
        }
    }

    #[test]
    fn arguments_as_elements_are_held_to_their_types_and_read_back() {
        use artel_chat::{ArgumentFormat, CallPart, ElementFormat};
        let text = |text: &str| CallPart::Text(text.to_owned());
        let element = ElementFormat {
            begin: "\n<parameter=".to_owned(),
            string_name_end: ">\n".to_owned(),
            json_name_end: ">\n".to_owned(),
            end: "\n</parameter>".to_owned(),
        };
        let format = CallFormat {
            begins: vec![vec![text("<tool_call>\n<function=")]],
            name_ends: vec![vec![text(">")]],
            arguments: ArgumentFormat::Elements(element),
            end: vec![text("\n</function>\n</tool_call>")],
            ..CallFormat::generic()
        };
        let set = tools(ToolChoice::Required);
        let grammar = calls_grammar(&format, &set, None).unwrap();
        let whole = format.write(&[("get", &json!({"city": "a <b>\n</c>", "days": 12}))]);
        assert_eq!(accepted(&grammar, &whole), (whole.len(), true), "{whole}");
        let wrong = format.write(&[("get", &json!({"city": "a", "days": "b"}))]);
        assert!(accepted(&grammar, &wrong).0 < wrong.len(), "{wrong}");
        let mut parser = CallParser::new(format, set.tools, false);
        drop([parser.push(whole.as_bytes()), parser.finish()]);
        assert_eq!(parser.calls(), 1);
    }

    #[test]
    fn a_call_that_has_begun_is_gone_on_with() {
        let grammar = calls_grammar(&CallFormat::generic(), &tools(ToolChoice::Auto), None).unwrap();
        let compiler = Compiler::new(&byte_vocabulary()).unwrap();
        let mut constraint = compiler.compile_calls(&grammar).unwrap();
        constraint.accept_bytes(b"<tool_call>\n{\"name\": \"g").unwrap();
        assert!(constraint.mask().unwrap().unwrap().is_allowed(u32::from(b'e')));
        assert!(constraint.accept_bytes(b"x").is_err());
    }
}
