//! The results of an evaluation as a table.

use artel_router::evaluation::EvalReport;
use artel_terminal::{DIM, StyledText, TextTable, cell, span};

pub(super) fn render(report: &EvalReport, out: &mut StyledText) {
    let mut table = TextTable::new(&[
        "METHOD",
        "ACCURACY",
        "COVERAGE",
        "SELECTIVE ACCURACY",
        "OUT-OF-SCOPE RECALL",
        "FALSE REJECTIONS",
        "ECE",
        "P50",
        "P95",
        "TOKENS",
        "BY TAG",
    ]);
    for m in &report.methods {
        let tags: Vec<String> =
            m.by_tag.iter().map(|(tag, (cases, accuracy))| format!("{tag} {accuracy:.3} of {cases}")).collect();
        let number = |x: f64| cell(format!("{x:.3}"));
        table.row(vec![
            cell(m.name.as_str()),
            number(m.accuracy),
            number(m.coverage),
            number(m.selective_accuracy),
            number(m.out_of_scope_recall),
            number(m.false_rejections),
            number(m.ece),
            cell(span(m.p50)),
            cell(span(m.p95)),
            cell(m.prefill_tokens.to_string()),
            (DIM, tags.join(", ")),
        ]);
    }
    table.render(out);
    out.newline();
    out.push_styled(
        DIM,
        format_args!(
            "{} cases, threshold {:.2}; rows: correct role, columns: selected role",
            report.cases, report.threshold
        ),
    );
    out.newline();
    let Some(combined) = report.methods.last() else { return };
    let width = report.roles.iter().map(String::len).max().unwrap_or(0);
    out.push(" ".repeat(width));
    report.roles.iter().for_each(|role| {
        out.push(format_args!("  {role}"));
    });
    out.newline();
    for (role, row) in report.roles.iter().zip(&combined.confusion) {
        out.push(format_args!("{role:width$}"));
        for (selected, count) in report.roles.iter().zip(row) {
            out.push(format_args!("  {count:>width$}", width = selected.len()));
        }
        out.newline();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_the_confusion_matrix_are_shown() {
        let mut out = StyledText::new(false);
        render(&super::super::evaluate::tests::report(), &mut out);
        insta::assert_snapshot!(out.take());
    }
}
