//! `artel journal`: looking after the journal without a daemon.

use std::process::ExitCode;

use anyhow::Result;
use artel_journal::Report;
use serde_json::json;

use crate::args::{Global, Journal};
use crate::client::error::Exit;
use crate::client::output::{Output, complain};
use crate::client::render::page::{BAD, BOLD, GOOD, Page};
use crate::serve::config::Config;

mod repair;

/// Does what the verb says; exit code 1 if the journal is damaged and stays so, or cannot be read.
pub(crate) fn run(verb: &Journal, global: &Global) -> ExitCode {
    let output = &mut Output::new(global);
    let done = match verb {
        Journal::Check(place) => Config::at(place).and_then(|config| {
            let report = blocking(artel_journal::check(&config.data))??;
            tell(report.as_ref(), output)?;
            Ok(report.is_none_or(|report| report.problems.is_empty()))
        }),
        Journal::Repair(place) => Config::at(place).and_then(|config| {
            let repair = blocking(artel_journal::repair(&config.data))??;
            repair::tell(repair.as_ref(), output).map(|()| true)
        }),
    };
    exit(done, global)
}

/// What an answer means for the exit code; an error is told.
pub(crate) fn exit(answer: Result<bool>, global: &Global) -> ExitCode {
    let exit = match answer {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Failed,
        Err(error) => {
            complain(global.color, |page| {
                page.paint(BAD, "error").put(": ").paint(BOLD, format_args!("{error:#}")).end();
            });
            Exit::Failed
        }
    };
    exit.into()
}

/// Waits for what the journal says.
pub(crate) fn blocking<T>(answer: impl Future<Output = Result<T, artel_journal::Error>>) -> Result<Result<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(answer).map_err(|error| anyhow::anyhow!("failed to {error}")))
}

fn tell(report: Option<&Report>, output: &mut Output) -> Result<()> {
    let Some(report) = report else {
        let nothing = json!({"valid": true, "tasks": 0, "events": 0, "damaged": []});
        return Ok(output.show(&nothing, none)?);
    };
    if output.is_json() {
        for problem in &report.problems {
            output.object(&json!({"message": problem}))?;
        }
    }
    let damaged: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    let valid = report.problems.is_empty();
    let whole = json!({"valid": valid, "tasks": report.tasks, "events": report.events, "damaged": damaged});
    Ok(output.show(&whole, |page| render(report, page))?)
}

fn none(page: &mut Page) {
    page.put("there is no journal of this format; a daemon makes one, or brings an older one forward").end();
}

fn render(report: &Report, page: &mut Page) {
    for problem in &report.problems {
        page.put(problem).end();
    }
    let counted = format!("{} tasks, {} events", report.tasks, report.events);
    if report.problems.is_empty() {
        page.paint(GOOD, "whole").put(": ").put(counted).end();
    } else {
        page.paint(BAD, "damaged").put(": ").put(report.damaged.len()).put(" of ").put(counted).end();
        let help = "stop the daemon and restore a backup, or keep what can be read with `artel journal repair`";
        page.put("  help: ").put(help).end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(report: &Report) -> String {
        let mut page = Page::new(false);
        render(report, &mut page);
        page.take()
    }

    #[test]
    fn a_whole_journal_is_counted() {
        let report = Report { tasks: 3, events: 30, ..Report::default() };
        assert_eq!(shown(&report), "whole: 3 tasks, 30 events\n");
    }

    #[test]
    fn what_is_damaged_is_named() {
        let problems = vec!["task 7: it has no event 2".to_owned()];
        let text = shown(&Report { tasks: 3, events: 30, problems, damaged: Vec::new() });
        assert!(text.starts_with("task 7: it has no event 2\ndamaged: 0 of 3 tasks, 30 events\n"), "{text}");
    }
}
