//! What was measured, for people.

use super::super::render::page::{DIM, Page};
use super::super::render::table::{Table, cell};
use super::super::render::time::span;
use super::measure::Report;

pub(super) fn render(report: &Report, page: &mut Page) {
    let mut table = Table::new(&[
        "METHOD",
        "ACCURACY",
        "COVERAGE",
        "OF COVERED",
        "CAUGHT",
        "FALSE ALARMS",
        "ECE",
        "P50",
        "P95",
        "TOKENS",
        "BY TAG",
    ]);
    for m in &report.methods {
        let tags: Vec<String> =
            m.by_tag.iter().map(|(tag, (cases, accuracy))| format!("{tag} {accuracy:.3} of {cases}")).collect();
        let figure = |x: f64| cell(format!("{x:.3}"));
        table.row(vec![
            cell(m.name.as_str()),
            figure(m.accuracy),
            figure(m.coverage),
            figure(m.precision),
            figure(m.caught),
            figure(m.false_alarms),
            figure(m.ece),
            cell(span(m.p50)),
            cell(span(m.p95)),
            cell(m.tokens.to_string()),
            (DIM, tags.join(", ")),
        ]);
    }
    table.render(page);
    page.end();
    page.paint(
        DIM,
        format_args!("{} cases, threshold {:.2}; right role × chosen role:", report.cases, report.threshold),
    );
    page.end();
    let Some(combined) = report.methods.last() else { return };
    let width = report.roles.iter().map(String::len).max().unwrap_or(0);
    page.put(" ".repeat(width));
    report.roles.iter().for_each(|role| {
        page.put(format_args!("  {role}"));
    });
    page.end();
    for (role, row) in report.roles.iter().zip(&combined.confusion) {
        page.put(format_args!("{role:width$}"));
        for (chosen, count) in report.roles.iter().zip(row) {
            page.put(format_args!("  {count:>width$}", width = chosen.len()));
        }
        page.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_confusion_are_shown() {
        let mut page = Page::new(false);
        render(&super::super::measure::tests::report(), &mut page);
        insta::assert_snapshot!(page.take());
    }
}
