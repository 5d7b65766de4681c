//! The form in which a model writes calls.

/// How a model writes calls of tools: `section_begin`, then each call as one of `begins`, the tool's name, one of `name_ends`, the
/// arguments and `end`, with `separator` between two calls, then `section_end`. White space may be more or less in what models write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFormat {
    /// Before the first call; may be empty.
    pub section_begin: String,
    /// What a call begins with; the first is the template's own.
    pub begins: Vec<Vec<CallPart>>,
    /// What stands between the name and the arguments; the first is the template's own.
    pub name_ends: Vec<Vec<CallPart>>,
    /// How the arguments are written.
    pub arguments: ArgumentFormat,
    /// What stands behind the arguments.
    pub end: Vec<CallPart>,
    /// What stands between two calls; none if an answer has one call only.
    pub separator: Option<String>,
    /// Behind the last call; may be empty.
    pub section_end: String,
}

/// A part of the text around a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallPart {
    /// This text.
    Text(String),
    /// An id of letters and digits, which the model makes up.
    Id,
    /// The number of the call.
    Index,
}

/// How the arguments of a call are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentFormat {
    /// As a JSON object.
    Json,
    /// Each as an element of its own.
    Elements(ElementFormat),
}

/// An argument as an element: `begin`, its name, what ends that, its value and `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementFormat {
    /// Before the name.
    pub begin: String,
    /// Between the name and a value that is a string, which is written as it is.
    pub string_name_end: String,
    /// Between the name and any other value, which is written as JSON.
    pub json_name_end: String,
    /// Behind the value.
    pub end: String,
}

impl CallFormat {
    /// The form of Hermes and Qwen, which is that of models whose template has none.
    pub fn generic() -> Self {
        let text = |text: &str| CallPart::Text(text.to_owned());
        Self {
            section_begin: String::new(),
            begins: vec![vec![text("<tool_call>\n{\"name\": \"")]],
            name_ends: vec![vec![text("\", \"arguments\": ")]],
            arguments: ArgumentFormat::Json,
            end: vec![text("}\n</tool_call>")],
            separator: Some("\n".to_owned()),
            section_end: String::new(),
        }
    }

    /// The form of gpt-oss. Its template renders calls in another order than the model writes them.
    pub(crate) fn harmony() -> Self {
        let ends = [
            " <|constrain|>json<|message|>",
            "<|channel|>commentary <|constrain|>json<|message|>",
            "<|channel|>commentary json<|message|>",
            "<|message|>",
        ];
        let one = |text: &str| vec![CallPart::Text(text.to_owned())];
        Self {
            section_begin: String::new(),
            begins: ["<|channel|>commentary to=functions.", " to=functions."].map(one).to_vec(),
            name_ends: ends.map(one).to_vec(),
            arguments: ArgumentFormat::Json,
            end: vec![CallPart::Text("<|call|>".to_owned())],
            separator: None,
            section_end: String::new(),
        }
    }

    /// What the first call may begin with, and whether it stands at the start of an answer only, being no mark.
    pub(crate) fn openings(&self) -> Vec<(String, bool)> {
        let opening = |begin: &Vec<CallPart>| {
            let begin = match begin.first() {
                Some(CallPart::Text(text)) => text.as_str(),
                _ => "",
            };
            let text = format!("{}{begin}", self.section_begin);
            let text = text.trim_start();
            let close = match text.chars().next() {
                Some('<') => text.find('>'),
                Some('[') if text[1..].starts_with(|c: char| c.is_ascii_uppercase()) => text.find(']'),
                _ => return (text.to_owned(), true),
            };
            // A mark with a word behind it may begin other things too, as `<|channel|>` of gpt-oss does.
            let close = close.filter(|close| !text[close + 1..].starts_with(|c: char| c.is_ascii_alphabetic()));
            (close.map_or(text, |close| &text[..=close]).to_owned(), false)
        };
        let mut openings: Vec<(String, bool)> = Vec::new();
        for opening in self.begins.iter().map(opening) {
            if !openings.contains(&opening) {
                openings.push(opening);
            }
        }
        openings
    }
}

/// Stand for an id and for the number of a call in a text.
pub(crate) const ID_MARK: char = '\u{E010}';
pub(crate) const INDEX_MARK: char = '\u{E011}';

impl CallPart {
    /// The parts of a text with marks for ids and numbers.
    pub(crate) fn parts(marked: &str) -> Vec<Self> {
        let mut parts = Vec::new();
        for piece in marked.split_inclusive([ID_MARK, INDEX_MARK]) {
            let text = piece.trim_end_matches([ID_MARK, INDEX_MARK]);
            if !text.is_empty() {
                parts.push(Self::Text(text.to_owned()));
            }
            match piece.chars().next_back() {
                Some(ID_MARK) => parts.push(Self::Id),
                Some(INDEX_MARK) => parts.push(Self::Index),
                _ => {}
            }
        }
        parts
    }

    fn example(parts: &[Self], id: &str, index: usize) -> String {
        let part = |part: &Self| match part {
            Self::Text(text) => text.clone(),
            Self::Id => id.to_owned(),
            Self::Index => index.to_string(),
        };
        parts.iter().map(part).collect()
    }
}

impl CallFormat {
    /// Calls as a model writes them: names and arguments, which are JSON objects.
    pub fn write(&self, calls: &[(&str, &serde_json::Value)]) -> String {
        let mut text = self.section_begin.clone();
        for (index, (name, arguments)) in calls.iter().enumerate() {
            if index > 0 {
                text.push_str(self.separator.as_deref().unwrap_or("\n"));
            }
            let id = format!("call{index:05}");
            let part = |parts: &[CallPart]| CallPart::example(parts, &id, index);
            text.push_str(&part(self.begins.first().map_or(&[], Vec::as_slice)));
            text.push_str(name);
            text.push_str(&part(self.name_ends.first().map_or(&[], Vec::as_slice)));
            match &self.arguments {
                ArgumentFormat::Json => text.push_str(&arguments.to_string()),
                ArgumentFormat::Elements(format) => {
                    for (name, value) in arguments.as_object().into_iter().flatten() {
                        let (name_end, value) = match value.as_str() {
                            Some(value) => (&format.string_name_end, value.to_owned()),
                            None => (&format.json_name_end, value.to_string()),
                        };
                        text.extend([format.begin.as_str(), name, name_end, &value, &format.end]);
                    }
                }
            }
            text.push_str(&part(&self.end));
        }
        text + &self.section_end
    }
}
