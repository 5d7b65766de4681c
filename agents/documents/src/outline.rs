//! Named ranges of a text that lie within each other: headings with their sections, functions within classes.

use std::ops::Range;

/// A named range: a section with its heading, a function, a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutlineEntry {
    pub(crate) range: Range<usize>,
    pub(crate) title: String,
}

/// A table within a text: the lines below its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableBody {
    pub(crate) range: Range<usize>,
    pub(crate) header: String,
}

/// A title is shown and embedded with each chunk; a longer one is no title.
const MAX_TITLE_CHARS: usize = 200;

/// A title on one line, of bounded length.
pub(crate) fn title(text: &str) -> String {
    let mut title = String::new();
    for word in text.split_whitespace() {
        if !title.is_empty() {
            title.push(' ');
        }
        title.push_str(word);
        if title.len() > MAX_TITLE_CHARS {
            return title.chars().take(MAX_TITLE_CHARS).collect();
        }
    }
    title
}

/// The titles of the ranges around a position; it moves forward.
#[derive(Debug)]
pub(crate) struct OutlineCursor<'d> {
    entries: &'d [OutlineEntry],
    open: Vec<&'d OutlineEntry>,
}

impl<'d> OutlineCursor<'d> {
    /// `entries` are sorted by their start, and those that overlap lie within each other.
    pub(crate) fn new(entries: &'d [OutlineEntry]) -> Self {
        Self { entries, open: Vec::new() }
    }

    /// The titles around `at`, outermost first; `at` is not before that of the last call.
    pub(crate) fn path(&mut self, at: usize) -> Vec<String> {
        while let Some((entry, rest)) = self.entries.split_first().filter(|(entry, _)| entry.range.start <= at) {
            self.open.retain(|outer| outer.range.end > entry.range.start);
            self.open.push(entry);
            self.entries = rest;
        }
        self.open.retain(|entry| entry.range.end > at);
        self.open.iter().map(|entry| entry.title.clone()).collect()
    }
}

/// Sections from headings: each reaches to the next one of its level or above.
#[derive(Debug, Default)]
pub(crate) struct SectionBuilder {
    entries: Vec<OutlineEntry>,
    /// The open sections, by their index and level.
    open: Vec<(usize, u8)>,
}

impl SectionBuilder {
    /// A heading begins at `start`. One without a title only ends sections.
    pub(crate) fn heading(&mut self, start: usize, level: u8, title: String) {
        while let Some((index, _)) = self.open.pop_if(|(_, outer)| *outer >= level) {
            self.entries[index].range.end = start;
        }
        if !title.is_empty() {
            self.open.push((self.entries.len(), level));
            self.entries.push(OutlineEntry { range: start..usize::MAX, title });
        }
    }

    /// All sections of a text of `end` bytes.
    pub(crate) fn finish(mut self, end: usize) -> Vec<OutlineEntry> {
        for (index, _) in self.open {
            self.entries[index].range.end = end;
        }
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_level_or_above() {
        let mut sections = SectionBuilder::default();
        for (start, level, title) in [(0, 1, "A"), (10, 3, "A.x"), (20, 2, "A.2"), (30, 3, "A.2.1"), (40, 1, "B")] {
            sections.heading(start, level, title.to_owned());
        }
        let entries = sections.finish(50);
        let mut cursor = OutlineCursor::new(&entries);
        let paths: Vec<String> = [5, 15, 25, 35, 35, 45].map(|at| cursor.path(at).join("/")).into();
        assert_eq!(paths, ["A", "A/A.x", "A/A.2", "A/A.2/A.2.1", "A/A.2/A.2.1", "B"]);
    }

    #[test]
    fn ranges_that_were_jumped_over_are_not_open() {
        let entry = |range, title: &str| OutlineEntry { range, title: title.to_owned() };
        let entries = [entry(0..10, "a"), entry(12..20, "b"), entry(14..16, "c"), entry(30..40, "d")];
        let mut cursor = OutlineCursor::new(&entries);
        assert_eq!(cursor.path(17), ["b"]);
        assert_eq!(cursor.path(25), [""; 0]);
        assert_eq!(cursor.path(30), ["d"]);
    }
}
