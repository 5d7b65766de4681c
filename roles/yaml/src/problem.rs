//! Diagnostics for people: what is wrong in a YAML file, where, and what to do about it.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::Serialize;

use crate::deadline::CheckDeadline;
use crate::key_rules::KeyRules;
use crate::node::{Span, line_of};
use crate::yaml_source::YamlSource;

/// How many problems are listed: more are not fixed in one go, and a broken file can hold a hundred thousand.
pub const MAX_PROBLEMS: usize = 100;
/// The widest piece of a line that a problem shows: it fits beside the line number in a terminal.
const MAX_SNIPPET_CHARS: usize = 100;
/// The longest name or value that a message repeats: a message stays on one line of a terminal.
const MAX_SHOWN_CHARS: usize = 60;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// What was read is refused.
    Error,
    /// It holds as it was read.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as its source names it.
    pub file: String,
    /// The line from 1; 0 if the whole file is meant.
    pub line: u32,
    /// The column from 1, in characters; 0 if the whole file is meant.
    pub column: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do, in one line.
    pub hint: Option<String>,
    /// The line itself.
    pub snippet: Option<Snippet>,
    /// Whether the document may only not come from a client: it names what a client may not name.
    #[serde(skip)]
    pub is_refusal: bool,
}

/// A piece of a line, with control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// The piece.
    pub text: String,
    /// Where in it the problem begins, from 0, in characters.
    pub start: usize,
    /// How many characters it covers, at least 1.
    pub width: usize,
}

impl Problem {
    /// An error of a file as a whole.
    pub fn file(file: impl Into<String>, message: impl Into<String>) -> Self {
        let (file, message, severity) = (file.into(), message.into(), Severity::Error);
        Self { severity, file, line: 0, column: 0, message, hint: None, snippet: None, is_refusal: false }
    }

    /// A problem at a place in a source.
    fn at(source: &YamlSource, span: Span, severity: Severity, message: String, hint: Option<String>) -> Self {
        let snippet = line_of(&source.text, span.line).map(|line| Snippet::of(line, span));
        let (line, column) = (span.line, span.column);
        Self { severity, file: source.path.clone(), line, column, message, hint, snippet, is_refusal: false }
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Snippet {
    fn of(line: &str, span: Span) -> Self {
        let column = span.column.saturating_sub(1) as usize;
        let end = if span.end_line == span.line { (span.end_column as usize).saturating_sub(1) } else { usize::MAX };
        // A long line is cut to a window around the span.
        let skip = if column > MAX_SNIPPET_CHARS / 2 && line.chars().count() > MAX_SNIPPET_CHARS {
            column - MAX_SNIPPET_CHARS / 3
        } else {
            0
        };
        let mut text = String::from(if skip > 0 { "…" } else { "" });
        let (mut start, mut width) = (None, 0);
        let mut rest = line.trim_end().chars().enumerate().skip(skip);
        for (at, c) in rest.by_ref().take(MAX_SNIPPET_CHARS) {
            let before = text.chars().count();
            if at == column {
                start = Some(before);
            }
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
            if at >= column && at < end {
                width += text.chars().count() - before;
            }
        }
        if rest.next().is_some() {
            text.push('…');
        }
        let start = start.unwrap_or_else(|| text.chars().count());
        Self { text, start, width: width.max(1) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        let label = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, ": {label}{}", self.message)?;
        if let Some(Snippet { text, start, width }) = &self.snippet {
            let line = self.line.to_string();
            let gap = line.len();
            write!(f, "\n  {line} | {text}\n  {:gap$} | {:start$}{}", "", "", "^".repeat(*width))?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  help: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with what was read, by file, line and column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    /// These, so many of them as are listed, and more that are counted alone.
    pub fn new(mut list: Vec<Problem>, omitted: usize) -> Self {
        let place = |p: &Problem| (p.file.clone(), p.line, p.column);
        // Warnings must not displace errors.
        list.sort_by_cached_key(|p| (p.severity, place(p)));
        list.dedup();
        let omitted = omitted + list.len().saturating_sub(MAX_PROBLEMS);
        list.truncate(MAX_PROBLEMS);
        list.sort_by_cached_key(place);
        Self { list, omitted }
    }

    /// The warnings of these sources.
    ///
    /// # Errors
    /// There are errors; the warnings are among them.
    pub fn warnings<'s>(sources: impl IntoIterator<Item = Diagnostics<'s>>) -> Result<Self, Self> {
        let (mut list, mut omitted, mut is_valid) = (Vec::new(), 0, true);
        for source in sources {
            is_valid &= source.errors.is_empty();
            list.extend(source.errors.into_iter().chain(source.warnings));
            omitted += source.omitted;
        }
        let problems = Self::new(list, omitted);
        if is_valid { Ok(problems) } else { Err(problems) }
    }

    /// How many more there are than are listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem], 0)
    }
}

impl Deref for Problems {
    type Target = [Problem];
    fn deref(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.list.iter().enumerate() {
            write!(f, "{}{problem}", if at > 0 { "\n\n" } else { "" })?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\n\n... and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// The problems of one source while it is read.
pub struct Diagnostics<'s> {
    /// The source.
    pub source: &'s YamlSource,
    /// What the source may name, if it comes from a client.
    pub rules: Option<&'s dyn KeyRules>,
    /// When its check must end, if a client waits for it.
    deadline: Option<&'s CheckDeadline>,
    is_ended: bool,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    omitted: usize,
}

impl<'s> Diagnostics<'s> {
    /// Of this source, without problems.
    pub fn new(source: &'s YamlSource) -> Self {
        Self {
            source,
            rules: None,
            deadline: None,
            is_ended: false,
            errors: Vec::new(),
            warnings: Vec::new(),
            omitted: 0,
        }
    }

    /// Of a source that comes from a client, with what it may name.
    pub fn with_rules(self, rules: Option<&'s dyn KeyRules>) -> Self {
        Self { rules, ..self }
    }

    /// With the time at which its check must end.
    pub fn with_deadline(self, deadline: Option<&'s CheckDeadline>) -> Self {
        Self { deadline, ..self }
    }

    /// The time that is left for the check, if a client waits for it.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(CheckDeadline::time_left)
    }

    /// Whether the check must end here; that is an error, once.
    pub fn is_over_time(&mut self, span: Span) -> bool {
        let Some(deadline) = self.deadline.filter(|deadline| deadline.is_over()) else { return false };
        if !std::mem::replace(&mut self.is_ended, true) {
            let message = format!("the check was ended here: a client's catalog may take {:?}", deadline.timeout());
            self.error_with_hint(
                span,
                message,
                "apply fewer or simpler documents, or put them into the catalog's directory",
            );
        }
        true
    }

    /// Adds an error.
    pub fn error(&mut self, span: Span, message: impl Into<String>) {
        self.push_error(span, message.into(), None);
    }

    /// Adds an error, and what to do about it.
    pub fn error_with_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push_error(span, message.into(), Some(hint.into()));
    }

    /// Adds an error, with a hint if there is one.
    pub fn push_error(&mut self, span: Span, message: String, hint: Option<String>) {
        let problem = Problem::at(self.source, span, Severity::Error, message, hint);
        Self::push(&mut self.errors, problem, &mut self.omitted);
    }

    /// Adds an error that a document from the daemon's own disk would not have.
    pub fn refuse(&mut self, span: Span, message: String, hint: &str) {
        let problem = Problem::at(self.source, span, Severity::Error, message, Some(hint.to_owned()));
        Self::push(&mut self.errors, Problem { is_refusal: true, ..problem }, &mut self.omitted);
    }

    /// Adds a warning.
    pub fn warn(&mut self, span: Span, message: String, hint: String) {
        let problem = Problem::at(self.source, span, Severity::Warning, message, Some(hint));
        Self::push(&mut self.warnings, problem, &mut self.omitted);
    }

    /// The errors so far, those that are not listed included.
    pub fn error_count(&self) -> usize {
        self.errors.len() + self.omitted
    }

    fn push(list: &mut Vec<Problem>, problem: Problem, omitted: &mut usize) {
        if list.len() < MAX_PROBLEMS {
            list.push(problem);
        } else {
            *omitted += 1;
        }
    }
}

/// A name or value as messages repeat it: on one line, cut, without control characters.
pub fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX_SHOWN_CHARS)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// `did you mean ...`, if a candidate is near.
pub fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate that is nearest to what was given, if it is near enough to be a slip.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > 2 * MAX_SHOWN_CHARS {
        return None;
    }
    let given = given.to_lowercase();
    let slips = (given.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name));
    near.filter(|(distance, _)| *distance <= slips).min().map(|(_, name)| name)
}
