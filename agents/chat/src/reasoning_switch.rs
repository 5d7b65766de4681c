//! How a template is told that its model shall not reason.

use serde_json::{Map, Value, json};

use crate::reasoning_marks::{ReasoningMarks, ReasoningPhase, TemplateProbe};

/// What switches the reasoning of a template off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReasoningSwitch {
    /// Variables of the template.
    pub kwargs: Map<String, Value>,
    /// A word in the system message.
    pub system_word: Option<&'static str>,
    /// Whether the prompt then tells the model that its reasoning is over. If not, it may reason all the same.
    pub is_certain: bool,
}

/// Variables that templates read, each with the value for no reasoning or, if there is none, for the least.
fn candidates() -> Vec<Value> {
    vec![
        json!({"enable_thinking": false}),
        json!({"thinking": false}),
        json!({"thinking_mode": "disabled"}),
        json!({"thinking_option": "off"}),
        json!({"thinking_budget": 0}),
        json!({"reasoning": false}),
        json!({"reasoning_effort": "no_think"}),
        json!({"reasoning_effort": "none"}),
        json!({"reasoning_effort": "low"}),
        json!({"reasoning_strength": "low"}),
    ]
}
/// Words in the system message that do the same.
const SYSTEM_WORDS: [&str; 2] = ["/no_think", "/nothink"];
/// Efforts that templates know and models may not.
const UNTRAINED_EFFORTS: [&str; 2] = ["no_think", "none"];

impl ReasoningSwitch {
    /// The switch of a template with these marks. `render` renders a conversation with it.
    pub fn find(source: &str, marks: &ReasoningMarks, render: &dyn Fn(&TemplateProbe) -> Option<String>) -> Self {
        let is_over = |text: &str| matches!(marks.phase_after(text), ReasoningPhase::After | ReasoningPhase::Answer);
        let none = json!({});
        let known = candidates().into_iter().filter(|kwargs| {
            kwargs.as_object().is_some_and(|kwargs| kwargs.keys().all(|name| source.contains(name.as_str())))
        });
        let known: Vec<Value> = known.collect();
        // A template may begin the answer anyway.
        for kwargs in known.iter().chain([&none]) {
            if render(&TemplateProbe::question(kwargs, None)).is_some_and(|text| is_over(&text)) {
                return Self { kwargs: object(kwargs), system_word: None, is_certain: true };
            }
        }
        let words = SYSTEM_WORDS.iter().filter(|word| source.contains(**word));
        for word in words {
            if render(&TemplateProbe::question(&none, Some(word))).is_some_and(|text| is_over(&text)) {
                return Self { kwargs: Map::new(), system_word: Some(word), is_certain: true };
            }
        }
        let unchanged = render(&TemplateProbe::question(&none, None));
        let is_trained =
            |kwargs: &&Value| kwargs["reasoning_effort"].as_str().is_none_or(|word| !UNTRAINED_EFFORTS.contains(&word));
        let texts =
            known.iter().filter(is_trained).map(|kwargs| (kwargs, render(&TemplateProbe::question(kwargs, None))));
        let mut usable = texts.filter(|(_, text)| text.is_some());
        let first = usable.next();
        let told = first.iter().cloned().chain(usable).find(|(_, text)| *text != unchanged);
        // One that changes nothing may be off already, and says so over a role that has it on.
        let off = told.or(first).map(|(kwargs, _)| object(kwargs));
        Self { kwargs: off.unwrap_or_default(), system_word: None, is_certain: false }
    }
}

fn object(kwargs: &Value) -> Map<String, Value> {
    kwargs.as_object().cloned().unwrap_or_default()
}
