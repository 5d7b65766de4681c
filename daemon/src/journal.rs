//! `artel journal`: checks and repairs the journal without a daemon.

use std::process::ExitCode;

use anyhow::Result;
use artel_journal::IntegrityReport;
use serde_json::json;

use crate::args::{GlobalArgs, JournalCommand};
use crate::client::error::CommandOutcome;
use crate::client::output::{CommandOutput, print_to_stderr};
use crate::client::render::styled_text::{BAD, BOLD, GOOD, StyledText};
use crate::serve::config::Config;

mod repair;

/// Runs a command; exit code 1 if the journal is damaged and not repaired, or cannot be read.
pub(crate) fn run(command: &JournalCommand, global: &GlobalArgs) -> ExitCode {
    let output = &mut CommandOutput::new(global);
    let result = match command {
        JournalCommand::Check(args) => Config::at(args).and_then(|config| {
            let report = block_on(artel_journal::check(&config.data))??;
            print_report(report.as_ref(), output)?;
            Ok(report.is_none_or(|report| report.problems.is_empty()))
        }),
        JournalCommand::Repair(args) => Config::at(args).and_then(|config| {
            let repair = block_on(artel_journal::repair(&config.data))??;
            repair::print(repair.as_ref(), output).map(|()| true)
        }),
    };
    exit_code(result, global)
}

/// The exit code of a result, `Ok(false)` being a failed check; prints an error to standard error.
pub(crate) fn exit_code(result: Result<bool>, global: &GlobalArgs) -> ExitCode {
    let outcome = match result {
        Ok(true) => CommandOutcome::Done,
        Ok(false) => CommandOutcome::Failed,
        Err(error) => {
            print_to_stderr(global.color, |out| {
                out.push_styled(BAD, "error").push(": ").push_styled(BOLD, format_args!("{error:#}")).newline();
            });
            CommandOutcome::Failed
        }
    };
    outcome.into()
}

/// Runs an operation of the journal to its end.
pub(crate) fn block_on<T>(operation: impl Future<Output = Result<T, artel_journal::Error>>) -> Result<Result<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(operation).map_err(|error| anyhow::anyhow!("{error}")))
}

fn print_report(report: Option<&IntegrityReport>, output: &mut CommandOutput) -> Result<()> {
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

fn render_missing(out: &mut StyledText) {
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
