//! Rows in columns.

use anstyle::Style;

use super::page::{BOLD, Page, one_line};
use super::voice::columns;

/// A table that is being filled. The last column is as wide as it likes; the others are padded.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// With the names of its columns.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; each cell is put on one line.
    pub(crate) fn row(&mut self, cells: Vec<(Style, String)>) {
        self.rows.push(cells.into_iter().map(|(style, text)| (style, one_line(&text))).collect());
    }

    /// Draws it.
    pub(crate) fn render(&self, page: &mut Page) {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|at| {
                self.rows.iter().map(|row| columns(&row[at].1)).chain([columns(self.head[at])]).max().unwrap_or(0)
            })
            .collect();
        let head = self.head.iter().map(|name| (BOLD, (*name).to_owned())).collect();
        for row in [head].iter().chain(&self.rows) {
            let filled = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |at| at + 1);
            for (at, (style, text)) in row.iter().take(filled).enumerate() {
                page.paint(*style, text);
                if at + 1 < filled {
                    page.put(" ".repeat(widths[at] - columns(text) + 2));
                }
            }
            page.end();
        }
    }
}

/// A cell without a style.
pub(crate) fn cell(text: impl Into<String>) -> (Style, String) {
    (Style::new(), text.into())
}
