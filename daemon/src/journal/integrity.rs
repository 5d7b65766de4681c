//! The report of a check.

use anyhow::Result;
use artel_journal::IntegrityReport;
use artel_terminal::{BAD, CommandOutput, GOOD, StyledText};
use serde_json::json;

pub(super) fn print(report: Option<&IntegrityReport>, output: &mut CommandOutput) -> Result<()> {
    let Some(report) = report else {
        let empty = json!({"valid": true, "tasks": 0, "events": 0, "damaged": []});
        return Ok(output.show(&empty, render_missing)?);
    };
    if output.is_json() {
        for problem in &report.problems {
            output.object(&json!({"message": problem}))?;
        }
    }
    let damaged: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    let valid = report.problems.is_empty();
    let summary = json!({"valid": valid, "tasks": report.tasks, "events": report.events, "damaged": damaged});
    Ok(output.show(&summary, |out| render(report, out))?)
}

pub(super) fn render_missing(out: &mut StyledText) {
    out.push(
        "there is no journal of the current format: the first start of a daemon creates one, or upgrades an older one",
    )
    .newline();
}

fn render(report: &IntegrityReport, out: &mut StyledText) {
    for problem in &report.problems {
        out.push(problem).newline();
    }
    let counts = format!("{} tasks, {} events", report.tasks, report.events);
    if report.problems.is_empty() {
        out.push_styled(GOOD, "intact").push(": ").push(counts).newline();
    } else {
        out.push_styled(BAD, "damaged").push(": ").push(report.damaged.len()).push(" of ").push(counts).newline();
        let help = "stop the daemon and restore a backup, or keep the readable tasks with `artel journal repair`";
        out.push("  help: ").push(help).newline();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(report: &IntegrityReport) -> String {
        let mut out = StyledText::new(false);
        render(report, &mut out);
        out.take()
    }

    #[test]
    fn the_content_of_an_intact_journal_is_counted() {
        let report = IntegrityReport { tasks: 3, events: 30, ..IntegrityReport::default() };
        assert_eq!(rendered(&report), "intact: 3 tasks, 30 events\n");
    }

    #[test]
    fn damage_is_listed() {
        let problems = vec!["task 7: it has no event 2".to_owned()];
        let text = rendered(&IntegrityReport { tasks: 3, events: 30, problems, damaged: Vec::new() });
        assert!(text.starts_with("task 7: it has no event 2\ndamaged: 0 of 3 tasks, 30 events\n"), "{text}");
    }
}
