//! A table of text.

use anstyle::Style;

use crate::styled_text::{BOLD, StyledText, column_width, one_line};

/// A table. All columns but the last are padded.
#[derive(Debug)]
pub struct TextTable {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl TextTable {
    /// A table with these column names.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; each cell is reduced to one line.
    pub fn row(&mut self, cells: Vec<(Style, String)>) {
        self.rows.push(cells.into_iter().map(|(style, text)| (style, one_line(&text))).collect());
    }

    /// Renders the table.
    pub fn render(&self, out: &mut StyledText) {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|at| {
                self.rows
                    .iter()
                    .map(|row| column_width(&row[at].1))
                    .chain([column_width(self.head[at])])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let head = self.head.iter().map(|name| (BOLD, (*name).to_owned())).collect();
        for row in [head].iter().chain(&self.rows) {
            let filled = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |at| at + 1);
            for (at, (style, text)) in row.iter().take(filled).enumerate() {
                out.push_styled(*style, text);
                if at + 1 < filled {
                    out.push(" ".repeat(widths[at] - column_width(text) + 2));
                }
            }
            out.newline();
        }
    }
}

/// A cell without a style.
pub fn cell(text: impl Into<String>) -> (Style, String) {
    (Style::new(), text.into())
}
