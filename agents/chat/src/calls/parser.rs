//! Finds calls in what a model writes, in whatever pieces it comes.

use artel_model::{Tool, is_name_byte};

use super::elements::{ElementReader, ElementStep};
use super::format::{ArgumentFormat, CallFormat, CallPart};
use super::literal::{self, Match};
use super::trigger::{Found, find};

/// What follows from a piece of what a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallDelta {
    /// Text of the answer; it may end within a character.
    Text(Vec<u8>),
    /// A call of this tool begins; calls are numbered from 0.
    Begin {
        /// Its number.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of its arguments, the text of a JSON object.
    Arguments {
        /// The number of the call.
        index: usize,
        /// What follows.
        text: String,
    },
    /// The call is complete.
    End {
        /// Its number.
        index: usize,
    },
    /// It was no call after all: what was written of it follows as text, and its number is given to the next.
    Withdrawn {
        /// Its number.
        index: usize,
    },
}

/// Tells calls from text. The same calls and the same text come out, whatever the pieces that it is given.
#[derive(Debug, Clone)]
pub struct CallParser {
    format: CallFormat,
    openings: Vec<(String, bool)>,
    tools: Vec<Tool>,
    state: State,
    /// What is not told yet. Behind the state's place in it, nothing is known.
    bytes: Vec<u8>,
    /// Which of these bytes are those of control tokens, which are no text.
    marks: Vec<bool>,
    /// What the call took so far, should it be none.
    taken: Vec<u8>,
    taken_marks: Vec<bool>,
    /// Whether text was told.
    is_after_text: bool,
    /// How many calls are complete.
    calls: usize,
    /// How many calls an answer may have.
    most_calls: usize,
}

#[derive(Debug, Clone)]
enum State {
    Text,
    /// A call begins here.
    Begin,
    /// Behind what a call begins with.
    Name,
    /// Behind the name.
    NameEnd(String),
    Json(JsonReader),
    Elements(ElementReader),
    /// Behind the arguments.
    End,
    /// Behind a call.
    Between,
}

/// What a step of the parser leads to.
enum Step {
    /// More is needed.
    Wait,
    Next(State),
    /// It is no call.
    Withdraw,
}

/// Where the reading of a JSON object is.
#[derive(Debug, Clone, Default)]
struct JsonReader {
    depth: usize,
    is_string: bool,
    is_escaped: bool,
    text: Vec<u8>,
}

impl CallParser {
    /// For calls of these tools in this form; `single` allows one call only.
    pub fn new(format: CallFormat, tools: Vec<Tool>, single: bool) -> Self {
        let most_calls = if single || format.separator.is_none() { 1 } else { usize::MAX };
        let openings = if tools.is_empty() { Vec::new() } else { format.openings() };
        Self {
            openings,
            format,
            tools,
            state: State::Text,
            bytes: Vec::new(),
            marks: Vec::new(),
            taken: Vec::new(),
            taken_marks: Vec::new(),
            is_after_text: false,
            calls: 0,
            most_calls,
        }
    }

    /// How many calls are complete.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether what comes next is text, of which nothing is held back: not part of a call.
    pub fn is_in_text(&self) -> bool {
        matches!(self.state, State::Text) && self.bytes.is_empty()
    }

    /// Takes a piece of plain text.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<CallDelta> {
        self.take(bytes, false)
    }

    /// Takes the text of a control token, which is no text of the answer.
    pub fn push_mark(&mut self, bytes: &[u8]) -> Vec<CallDelta> {
        self.take(bytes, true)
    }

    /// What is left at the end. A call whose arguments are complete is one, even if its last mark is missing: that may be the token
    /// that ended the answer.
    pub fn finish(&mut self) -> Vec<CallDelta> {
        let mut deltas = Vec::new();
        if matches!(self.state, State::End) && self.is_beginning_of_end() {
            self.bytes.clear();
            self.marks.clear();
            self.end_call(&mut deltas);
        }
        match self.state {
            State::Between => {
                let rest = self.bytes.len();
                let is_section_end = self.format.section_end.as_bytes().starts_with(self.bytes.trim_ascii());
                if is_section_end {
                    self.consume(rest);
                    self.taken.clear();
                    self.taken_marks.clear();
                }
            }
            State::Text => {}
            _ => self.withdraw(&mut deltas),
        }
        self.state = State::Text;
        let rest = self.bytes.len();
        self.tell_text(rest, &mut deltas);
        deltas
    }

    fn take(&mut self, bytes: &[u8], is_mark: bool) -> Vec<CallDelta> {
        self.bytes.extend_from_slice(bytes);
        self.marks.extend(std::iter::repeat_n(is_mark, bytes.len()));
        let mut deltas = Vec::new();
        while !self.bytes.is_empty() || matches!(self.state, State::End) {
            match self.step(&mut deltas) {
                Step::Wait => break,
                Step::Next(state) => self.state = state,
                Step::Withdraw => self.withdraw(&mut deltas),
            }
        }
        joined(deltas)
    }

    fn step(&mut self, deltas: &mut Vec<CallDelta>) -> Step {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(deltas),
            State::Begin => {
                self.state = State::Begin;
                let matched = self.match_begin(&self.format.section_begin.clone());
                self.after(matched, |_| State::Name)
            }
            State::Name => {
                self.state = State::Name;
                let count = self.bytes.iter().take_while(|byte| is_name_byte(**byte)).count();
                if count == self.bytes.len() {
                    return self.wait_for_name(count);
                }
                let name = String::from_utf8_lossy(&self.bytes[..count]).into_owned();
                if self.tool(&name).is_none() {
                    return Step::Withdraw;
                }
                self.consume(count);
                Step::Next(State::NameEnd(name))
            }
            State::NameEnd(name) => {
                let ends = self.format.name_ends.iter().map(Vec::as_slice);
                let matched = literal::any(ends, &self.bytes);
                // A longer one may still come.
                let may_be_longer =
                    self.format.name_ends.iter().any(|end| literal::parts(end, &self.bytes) == Match::Partial);
                let matched = if may_be_longer { Match::Partial } else { matched };
                self.state = State::NameEnd(name.clone());
                if matches!(matched, Match::Full(_)) {
                    deltas.push(CallDelta::Begin { index: self.calls, name: name.clone() });
                }
                let arguments = match &self.format.arguments {
                    ArgumentFormat::Json => State::Json(JsonReader::default()),
                    ArgumentFormat::Elements(_) => State::Elements(ElementReader::new(self.tool(&name).cloned())),
                };
                self.after(matched, |_| arguments)
            }
            State::Json(reader) => self.json(reader, deltas),
            State::Elements(reader) => self.elements(reader, deltas),
            State::End => {
                self.state = State::End;
                match literal::parts(&self.format.end, &self.bytes) {
                    Match::Full(count) => {
                        self.consume(count);
                        self.end_call(deltas);
                        Step::Next(State::Between)
                    }
                    Match::Partial => Step::Wait,
                    Match::No => Step::Withdraw,
                }
            }
            State::Between => self.between(),
        }
    }

    fn text(&mut self, deltas: &mut Vec<CallDelta>) -> Step {
        let openings = if self.calls < self.most_calls { self.openings.as_slice() } else { &[] };
        match find(openings, &self.bytes, self.is_after_text || self.calls > 0) {
            Found::Call(at) => {
                self.tell_text(at, deltas);
                Step::Next(State::Begin)
            }
            Found::Text(count) => {
                self.tell_text(count, deltas);
                Step::Wait
            }
        }
    }

    /// Behind a call: the next one, the end of all, or text.
    fn between(&mut self) -> Step {
        self.state = State::Between;
        let end = &self.format.section_end;
        let ended = if end.trim().is_empty() { Match::No } else { literal::literal(end, &self.bytes) };
        if let Match::Full(count) = ended {
            self.consume(count);
            self.taken.clear();
            self.taken_marks.clear();
            return Step::Next(State::Text);
        }
        let separator = self.format.separator.clone().filter(|_| self.calls < self.most_calls);
        let next = separator.map_or(Match::No, |separator| self.match_begin(&separator));
        match (next, ended) {
            (Match::Full(count), _) => {
                self.consume(count);
                Step::Next(State::Name)
            }
            (Match::Partial, _) | (_, Match::Partial) => Step::Wait,
            _ => Step::Next(State::Text),
        }
    }

    fn json(&mut self, mut reader: JsonReader, deltas: &mut Vec<CallDelta>) -> Step {
        let spaces =
            if reader.depth == 0 { self.bytes.iter().take_while(|b| b.is_ascii_whitespace()).count() } else { 0 };
        self.consume(spaces);
        if self.bytes.is_empty() {
            self.state = State::Json(reader);
            return Step::Wait;
        }
        if reader.depth == 0 && self.bytes[0] != b'{' {
            self.state = State::Json(reader);
            return Step::Withdraw;
        }
        let end = reader.read(&self.bytes);
        let count = end.unwrap_or(self.bytes.len());
        let before = reader.told_bytes();
        reader.text.extend_from_slice(&self.bytes[..count]);
        let told = reader.told_bytes();
        if told > before {
            let text = String::from_utf8_lossy(&reader.text[before..told]).into_owned();
            deltas.push(CallDelta::Arguments { index: self.calls, text });
        }
        self.consume(count);
        if end.is_none() {
            self.state = State::Json(reader);
            return Step::Wait;
        }
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&reader.text).is_ok();
        self.state = State::Json(reader);
        if is_object { Step::Next(State::End) } else { Step::Withdraw }
    }

    fn elements(&mut self, mut reader: ElementReader, deltas: &mut Vec<CallDelta>) -> Step {
        let ArgumentFormat::Elements(format) = &self.format.arguments else { return Step::Withdraw };
        let step = reader.step(format, &self.format.end, &self.bytes);
        self.state = State::Elements(reader);
        let tell =
            |text: String, deltas: &mut Vec<CallDelta>| deltas.push(CallDelta::Arguments { index: self.calls, text });
        match step {
            ElementStep::Wait => Step::Wait,
            ElementStep::Invalid => Step::Withdraw,
            ElementStep::Element(count, text) => {
                tell(text, deltas);
                self.consume(count);
                let State::Elements(reader) = std::mem::replace(&mut self.state, State::Text) else {
                    return Step::Withdraw;
                };
                Step::Next(State::Elements(reader))
            }
            ElementStep::Complete(text) => {
                tell(text, deltas);
                Step::Next(State::End)
            }
        }
    }

    /// Whether the bytes begin with `before` and what a call begins with.
    fn match_begin(&self, before: &str) -> Match {
        let mut best = Match::No;
        let before = CallPart::Text(before.to_owned());
        for begin in &self.format.begins {
            let wanted: Vec<CallPart> = std::iter::once(before.clone()).chain(begin.iter().cloned()).collect();
            match (literal::parts(&wanted, &self.bytes), best) {
                (full @ Match::Full(_), _) => return full,
                (Match::Partial, Match::No) => best = Match::Partial,
                _ => {}
            }
        }
        best
    }

    fn after(&mut self, matched: Match, next: impl FnOnce(usize) -> State) -> Step {
        match matched {
            Match::Full(count) => {
                self.consume(count);
                Step::Next(next(count))
            }
            Match::Partial => Step::Wait,
            Match::No => Step::Withdraw,
        }
    }

    fn wait_for_name(&self, count: usize) -> Step {
        let written = &self.bytes[..count];
        let may_come = self.tools.iter().any(|tool| tool.name.as_bytes().starts_with(written));
        if may_come { Step::Wait } else { Step::Withdraw }
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Whether what is left may be the end of a call that is cut.
    fn is_beginning_of_end(&self) -> bool {
        matches!(literal::parts(&self.format.end, &self.bytes), Match::Full(_) | Match::Partial)
    }

    fn end_call(&mut self, deltas: &mut Vec<CallDelta>) {
        deltas.push(CallDelta::End { index: self.calls });
        self.calls += 1;
        self.taken.clear();
        self.taken_marks.clear();
        self.state = State::Between;
    }

    /// Moves bytes to what the call took.
    fn consume(&mut self, count: usize) {
        self.taken.extend(self.bytes.drain(..count));
        self.taken_marks.extend(self.marks.drain(..count));
    }

    /// Tells what the call took as text. What follows is read again.
    fn withdraw(&mut self, deltas: &mut Vec<CallDelta>) {
        if matches!(self.state, State::Json(_) | State::Elements(_) | State::End) {
            deltas.push(CallDelta::Withdrawn { index: self.calls });
        }
        self.state = State::Text;
        // Its first byte at least is text; the others may be the beginning of another call.
        let (mut bytes, mut marks) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.taken_marks));
        bytes.append(&mut self.bytes);
        marks.append(&mut self.marks);
        (self.bytes, self.marks) = (bytes, marks);
        let spaces = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.tell_text((spaces + 1).min(self.bytes.len()), deltas);
    }

    /// Tells so many bytes as text, without control tokens.
    fn tell_text(&mut self, count: usize, deltas: &mut Vec<CallDelta>) {
        let bytes: Vec<u8> = self.bytes.drain(..count).collect();
        let marks: Vec<bool> = self.marks.drain(..count).collect();
        let text: Vec<u8> =
            bytes.into_iter().zip(marks).filter(|(_, is_mark)| !is_mark).map(|(byte, _)| byte).collect();
        self.is_after_text |= text.iter().any(|byte| !byte.is_ascii_whitespace());
        if !text.is_empty() {
            deltas.push(CallDelta::Text(text));
        }
    }
}

impl JsonReader {
    /// Reads on; the end of the object, if it is there.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_string => self.is_escaped = true,
                b'"' => self.is_string = !self.is_string,
                b'{' | b'[' if !self.is_string => self.depth += 1,
                b'}' | b']' if !self.is_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// How many bytes of its text end with a whole character.
    fn told_bytes(&self) -> usize {
        match std::str::from_utf8(&self.text) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.text.len(),
        }
    }
}

/// Texts and arguments that follow each other, as one.
fn joined(deltas: Vec<CallDelta>) -> Vec<CallDelta> {
    let mut joined: Vec<CallDelta> = Vec::new();
    for delta in deltas {
        match (joined.last_mut(), delta) {
            (Some(CallDelta::Text(before)), CallDelta::Text(text)) => before.extend(text),
            (Some(CallDelta::Arguments { index: of, text: before }), CallDelta::Arguments { index, text })
                if *of == index =>
            {
                before.push_str(&text);
            }
            (_, delta) => joined.push(delta),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
