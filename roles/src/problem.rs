//! What is wrong with a catalog, for people: the place, the line and what to do about it.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::node::{Span, line_of};
use crate::source::Source;

/// How many problems a report lists: nobody mends more in one go, and a broken file can hold a hundred thousand.
pub const MAX_PROBLEMS: usize = 100;
/// The widest piece of a line that a report shows, in characters: it fits beside the line number in a terminal.
const MAX_SNIPPET: usize = 100;
/// The longest name or value that a message repeats, in characters.
const MAX_SHOWN: usize = 60;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
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
    /// The place itself.
    pub snippet: Option<Snippet>,
}

/// A piece of a line, with control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// The piece.
    pub text: String,
    /// Where in it the trouble begins, from 0, in characters.
    pub start: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
}

impl Problem {
    /// About a file as a whole.
    pub(crate) fn file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, message: message.into(), hint: None, snippet: None }
    }

    /// About a place in a source.
    pub(crate) fn at(source: &Source, span: Span, message: impl Into<String>) -> Self {
        let snippet = line_of(&source.text, span.line).map(|line| Snippet::of(line, span));
        let (line, column) = (span.line, span.column);
        Self { file: source.path.clone(), line, column, message: message.into(), hint: None, snippet }
    }

    /// With advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Snippet {
    fn of(line: &str, span: Span) -> Self {
        let column = span.column.saturating_sub(1) as usize;
        let end = if span.end_line == span.line { (span.end_column as usize).saturating_sub(1) } else { usize::MAX };
        // A long line is cut to a window around the place.
        let skip =
            if column > MAX_SNIPPET / 2 && line.chars().count() > MAX_SNIPPET { column - MAX_SNIPPET / 3 } else { 0 };
        let mut text = String::from(if skip > 0 { "…" } else { "" });
        let (mut start, mut width) = (None, 0);
        let mut rest = line.trim_end().chars().enumerate().skip(skip);
        for (at, c) in rest.by_ref().take(MAX_SNIPPET) {
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
        write!(f, ": {}", self.message)?;
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

/// Everything that is wrong with a catalog, by file, line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(crate) fn new(mut list: Vec<Problem>, omitted: usize) -> Self {
        list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        list.dedup();
        let omitted = omitted + list.len().saturating_sub(MAX_PROBLEMS);
        list.truncate(MAX_PROBLEMS);
        Self { list, omitted }
    }

    /// How many more there are than the report lists.
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
pub(crate) struct Report<'s> {
    pub(crate) source: &'s Source,
    pub(crate) problems: Vec<Problem>,
    pub(crate) omitted: usize,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Self { source, problems: Vec::new(), omitted: 0 }
    }

    pub(crate) fn add(&mut self, span: Span, message: impl Into<String>) {
        self.push(span, message.into(), None);
    }

    pub(crate) fn add_with(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(span, message.into(), Some(hint.into()));
    }

    /// With a hint if there is one.
    pub(crate) fn push(&mut self, span: Span, message: String, hint: Option<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = Problem::at(self.source, span, message);
            self.problems.push(Problem { hint, ..problem });
        } else {
            self.omitted += 1;
        }
    }
}

/// A name or value as messages repeat it: on one line, cut, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX_SHOWN)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// `did you mean ...`, if a candidate is near.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate that is nearest to what was given, if it is near enough to be a slip.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > 2 * MAX_SHOWN {
        return None;
    }
    let given = given.to_lowercase();
    let slips = (given.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name));
    near.filter(|(distance, _)| *distance <= slips).min().map(|(_, name)| name)
}
