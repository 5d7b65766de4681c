//! The chat templates that real models carry; `ARTEL_TEST_CHAT_TEMPLATES` names their directory, and `cargo xtask test` sets it.
//!
//! For each that has marks, an output is written as its model would, and parsed at every split.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use artel_chat::{
    MarkPatterns, ParsedOutput, ReasoningMarks, ReasoningParser, ReasoningPhase, ReasoningSwitch, TemplateProbe,
    append_control, append_text,
};
use artel_template::{Chat, ChatTemplate};
use serde_json::{Map, Value, json};

/// What a model may write: half a mark, another's mark, characters of several bytes.
const REASONING: &str = "Is 1 < 2? </ Größe [x] <|y| — 日本語";
const ANSWER: &str = "Yes: <b>1 < 2</b>, naïve \u{1F600} [END";
/// Templates with marks in the pinned package.
const MARKED_FILES: usize = 45;

struct RealTemplate {
    name: String,
    source: String,
    template: ChatTemplate,
}

impl RealTemplate {
    fn render(&self, probe: &TemplateProbe) -> Option<String> {
        let chat = Chat {
            messages: probe.messages.clone(),
            kwargs: probe.kwargs.clone(),
            adds_generation_prompt: probe.adds_generation_prompt,
            bos_token: "<s>",
            eos_token: "</s>",
            ..Chat::default()
        };
        self.template.render(chat).ok()
    }

    fn marks(&self) -> Option<ReasoningMarks> {
        ReasoningMarks::find(&self.source, &|probe| self.render(probe))
    }

    fn switch(&self, marks: &ReasoningMarks) -> ReasoningSwitch {
        ReasoningSwitch::find(&self.source, marks, &|probe| self.render(probe))
    }

    fn prompt(&self, kwargs: Map<String, Value>, system: Option<&str>) -> Option<String> {
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let messages = system.into_iter().chain([json!({"role": "user", "content": "Q"})]).collect();
        self.render(&TemplateProbe { messages, kwargs, adds_generation_prompt: true })
    }
}

fn templates() -> Vec<RealTemplate> {
    let directory = std::env::var_os("ARTEL_TEST_CHAT_TEMPLATES").expect("run `cargo xtask test`");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut templates: Vec<RealTemplate> = paths
        .filter_map(|path| {
            let source = fs::read_to_string(&path).unwrap();
            let template = ChatTemplate::load(&source, Default::default()).ok()?;
            Some(RealTemplate { name: path.file_stem().unwrap().to_string_lossy().into_owned(), source, template })
        })
        .collect();
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    templates
}

/// The control tokens of a text, as most vocabularies have them: `<|...|>` and its like.
fn pieces(text: &str) -> Vec<(bool, &str)> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("<|") {
        let Some(end) = rest[start..].find("|>").or_else(|| rest[start..].find('>').map(|end| end - 1)) else { break };
        let end = start + end + 2;
        pieces.push((false, &rest[..start]));
        pieces.push((true, &rest[start..end]));
        rest = &rest[end..];
    }
    pieces.push((false, rest));
    pieces
}

fn encode(text: &str, has_control: bool, out: &mut Vec<u8>) {
    if !has_control {
        return append_text(text.as_bytes(), out);
    }
    for (is_control, piece) in pieces(text) {
        let append = if is_control { append_control } else { append_text };
        append(piece.as_bytes(), out);
    }
}

/// An output with a reasoning, from where the prompt ends.
fn script(marks: &ReasoningMarks, phase: ReasoningPhase, has_control: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if phase == ReasoningPhase::Before {
        encode(&marks.open, has_control, &mut out);
    }
    append_text(REASONING.as_bytes(), &mut out);
    encode(&marks.end, has_control, &mut out);
    append_text(ANSWER.as_bytes(), &mut out);
    if let Some(close) = marks.answer_close.first() {
        encode(close, has_control, &mut out);
    }
    out
}

/// Where the bytes may be cut: control tokens come whole.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    let mut is_control = false;
    let mut cuts = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        if !is_control {
            cuts.push(at);
        }
        is_control = match byte {
            0xFF => true,
            0xFE => false,
            _ => is_control,
        };
    }
    cuts
}

fn parsed(parser: &ReasoningParser, pieces: &[&[u8]]) -> (String, String) {
    let (mut parser, mut out) = (parser.clone(), ParsedOutput::default());
    pieces.iter().for_each(|piece| parser.push(piece, &mut out));
    parser.finish(&mut out);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    (text(out.reasoning), text(out.answer))
}

#[test]
fn the_outputs_of_real_templates_are_told_apart_at_every_split() {
    let (mut with_marks, mut table) = (0, String::new());
    for template in templates() {
        let Some(marks) = template.marks() else { continue };
        with_marks += 1;
        let switch = template.switch(&marks);
        let on = json!({"enable_thinking": true, "thinking": true}).as_object().cloned().unwrap();
        let prompts = [template.prompt(Map::new(), None), template.prompt(on, None)];
        let phases: Vec<ReasoningPhase> = prompts.iter().flatten().map(|text| marks.phase_after(text)).collect();
        writeln!(
            table,
            "{:46} {:?} {:?} {:?} {:?} | {:?} | off: {} {:?} {}",
            template.name,
            marks.open,
            marks.end,
            marks.answer_open,
            marks.answer_close,
            phases,
            Value::Object(switch.kwargs.clone()),
            switch.system_word,
            if switch.is_certain { "certain" } else { "" }
        )
        .unwrap();
        assert!(marks.end.contains(&marks.close), "{}: {marks:?}", template.name);
        if switch.is_certain {
            let prompt = template.prompt(switch.kwargs.clone(), switch.system_word).unwrap();
            let phase = marks.phase_after(&prompt);
            assert!(matches!(phase, ReasoningPhase::After | ReasoningPhase::Answer), "{}: {prompt}", template.name);
        }
        for has_control in [false, true] {
            for phase in [ReasoningPhase::Before, ReasoningPhase::Inside] {
                let patterns = Arc::new(MarkPatterns::new(&marks, |text, out| encode(text, has_control, out)));
                let parser = ReasoningParser::new(patterns, phase);
                let bytes = script(&marks, phase, has_control);
                let expected = (REASONING.trim().to_owned(), ANSWER.trim().to_owned());
                let name = format!("{} {phase:?} {has_control}", template.name);
                assert_eq!(parsed(&parser, &[&bytes]), expected, "{name}");
                let cuts = cuts(&bytes);
                for cut in &cuts {
                    assert_eq!(parsed(&parser, &[&bytes[..*cut], &bytes[*cut..]]), expected, "{name} at {cut}");
                }
                let ends = cuts.iter().skip(1).copied().chain([bytes.len()]);
                let single: Vec<&[u8]> = cuts.iter().zip(ends).map(|(from, to)| &bytes[*from..to]).collect();
                assert_eq!(parsed(&parser, &single), expected, "{name} byte by byte");
            }
        }
    }
    println!("{table}{with_marks} templates have marks");
    assert_eq!(with_marks, MARKED_FILES, "templates with marks");
}
