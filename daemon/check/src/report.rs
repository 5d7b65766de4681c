//! The result of a check, as text and as JSON.

use std::io;
use std::path::Path;

use artel_args::CheckArgs;
use artel_roles::{Catalog, Problem, Problems, Severity};
use artel_terminal::{BAD, BOLD, CommandOutput, DIM, GOOD, StyledText};
use serde_json::json;

use crate::files::FileReport;

/// Checks the files that a valid catalog names, below a directory of models.
type FileCheck = fn(&Catalog, &Path) -> FileReport;

/// The result of a check.
#[derive(Debug)]
pub(crate) enum CheckReport {
    /// The YAML is not a valid catalog.
    Invalid(Problems),
    /// The YAML is a valid catalog; the report is about the files that it names.
    Parsed(Box<Catalog>, FileReport),
}

impl CheckReport {
    pub(crate) fn new(args: &CheckArgs, check_files: FileCheck) -> Self {
        match Catalog::load(args.dir.as_deref()) {
            Err(problems) => Self::Invalid(problems),
            Ok(catalog) => {
                let files = args.models.as_deref().map(|models| check_files(&catalog, models)).unwrap_or_default();
                Self::Parsed(Box::new(catalog), files)
            }
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        matches!(self, Self::Parsed(_, files) if files.problems.is_empty())
    }

    fn problem_count(&self) -> usize {
        match self {
            Self::Invalid(problems) => errors(problems) + problems.omitted(),
            Self::Parsed(_, files) => files.problems.len(),
        }
    }

    pub(crate) fn print(&self, output: &mut CommandOutput) -> io::Result<()> {
        if !output.is_json() {
            return output.render(|out| self.render(out));
        }
        self.objects().iter().try_for_each(|object| output.object(object))
    }

    /// One object for each problem, then a summary.
    fn objects(&self) -> Vec<serde_json::Value> {
        let mut objects: Vec<_> = match self {
            Self::Invalid(problems) => problems.iter().map(|problem| json!(problem)).collect(),
            Self::Parsed(catalog, FileReport { problems, not_fetched, warnings: hints, notes }) => {
                let warnings = catalog.warnings().iter().map(|problem| json!(problem));
                let messages = problems.iter().map(|message| json!({"message": message}));
                let not_fetched = not_fetched.iter().map(|message| json!({"not_fetched": message}));
                let hints = hints.iter().map(|message| json!({"severity": "warning", "message": message}));
                let notes = notes.iter().map(|message| json!({"severity": "note", "message": message}));
                warnings.chain(messages).chain(not_fetched).chain(hints).chain(notes).collect()
            }
        };
        let mut summary = json!({"valid": self.is_valid(), "problems": self.problem_count()});
        if let Self::Parsed(catalog, _) = self {
            summary["roles"] = catalog.roles().len().into();
            summary["graphs"] = catalog.graphs().len().into();
            summary["models"] = catalog.models().len().into();
            summary["adapters"] = catalog.adapters().len().into();
            summary["catalog_version"] = catalog.version().as_str().into();
        }
        objects.push(summary);
        objects
    }

    fn render(&self, out: &mut StyledText) {
        match self {
            Self::Invalid(problems) => {
                problems.iter().for_each(|problem| render_problem(problem, out));
                if problems.omitted() > 0 {
                    out.push(format_args!("... and {} more", problems.omitted())).newline().newline();
                }
            }
            Self::Parsed(catalog, FileReport { problems, not_fetched, warnings: hints, notes }) => {
                catalog.warnings().iter().for_each(|problem| render_problem(problem, out));
                for message in problems.iter().chain(not_fetched) {
                    out.push(message).newline();
                }
                for message in hints {
                    out.push("warning: ").push(message).newline();
                }
                for message in notes {
                    out.push("note: ").push(message).newline();
                }
            }
        }
        match self {
            Self::Parsed(catalog, files) if files.problems.is_empty() => render_counts(catalog, out),
            _ => {
                out.push_styled(BAD, "invalid").push(": ").push(count(self.problem_count(), "problem")).newline();
            }
        }
    }
}

fn render_counts(catalog: &Catalog, out: &mut StyledText) {
    out.push_styled(GOOD, "valid").push(": ");
    out.push(count(catalog.roles().len(), "role")).push(", ");
    out.push(count(catalog.graphs().len(), "graph")).push(", ");
    out.push(count(catalog.models().len(), "model"));
    if !catalog.adapters().is_empty() {
        out.push(", ").push(count(catalog.adapters().len(), "adapter"));
    }
    out.newline();
}

/// The number of listed problems that are no warnings.
fn errors(problems: &Problems) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A problem, with its location and its advice highlighted.
fn render_problem(problem: &Problem, out: &mut StyledText) {
    let text = problem.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match first.strip_suffix(problem.message.as_str()) {
        Some(location) => out.push_styled(BOLD, location).push(&problem.message),
        None => out.push(first),
    };
    out.newline();
    for line in lines {
        out.push_styled(if line.trim_start().starts_with("help:") { GOOD } else { DIM }, line).newline();
    }
    out.newline();
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(yaml: &str, check_files: FileCheck) -> CheckReport {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("poet.yaml"), yaml).unwrap();
        let args = CheckArgs { dir: Some(dir.path().to_owned()), models: Some(dir.path().to_owned()) };
        let report = CheckReport::new(&args, check_files);
        drop(dir);
        report
    }

    fn rendered(report: &CheckReport) -> String {
        let mut out = StyledText::new(false);
        report.render(&mut out);
        out.take()
    }

    const POET: &str = "role: poet\ndescription: Writes verse.\nmodel: smollm2\nprompt: You rhyme.\n";

    #[test]
    fn a_valid_catalog_is_counted() {
        let report = check(POET, |_, _| FileReport::default());
        let shipped = Catalog::shipped();
        let (roles, graphs, models) = (shipped.roles().len() + 1, shipped.graphs().len(), shipped.models().len());
        assert_eq!(rendered(&report), format!("valid: {roles} roles, {graphs} graphs, {models} models\n"));
        assert_eq!(report.objects()[0]["valid"], true);
        assert_eq!(report.objects()[0]["problems"], 0);
        assert_eq!(report.objects()[0]["roles"], roles);
    }

    #[test]
    fn every_problem_is_shown_with_its_location() {
        let report = check(&format!("{}sampling: {{temperatur: 1}}\n", POET.replace("smollm2", "smollm")), |_, _| {
            FileReport::default()
        });
        let text = rendered(&report);
        assert!(text.contains("poet.yaml:3:8: there is no model `smollm`\n  3 | model: smollm\n"), "{text}");
        assert!(text.ends_with("invalid: 2 problems\n"), "{text}");
        let objects = report.objects();
        assert_eq!((objects.len(), &objects[2]), (3, &json!({"valid": false, "problems": 2})));
        assert_eq!(objects[0]["line"], 3);
    }

    #[test]
    fn a_warning_is_shown_and_the_check_passes() {
        let report = check(&format!("{POET}class: batch\n"), |_, _| FileReport::default());
        assert!(report.is_valid());
        let text = rendered(&report);
        assert!(
            text.contains("poet.yaml:5:1: warning: the key `class` is now `priority`\n  5 | class: batch\n"),
            "{text}"
        );
        assert!(text.contains("\nvalid: "), "{text}");
        let objects = report.objects();
        assert_eq!((&objects[0]["severity"], &objects[0]["line"]), (&json!("warning"), &json!(5)));
        assert_eq!((&objects[1]["valid"], &objects[1]["problems"]), (&json!(true), &json!(0)));
    }

    #[test]
    fn a_missing_file_makes_the_check_fail() {
        let report = check(POET, |_, _| FileReport {
            problems: vec!["model `smollm2`: there is no file".to_owned()],
            ..FileReport::default()
        });
        assert!(!report.is_valid());
        assert_eq!(rendered(&report), "model `smollm2`: there is no file\ninvalid: 1 problem\n");
    }

    #[test]
    fn what_a_file_states_is_noted() {
        let notes = vec!["model `m`: its file states temperature 0.6; it holds where a role says nothing".to_owned()];
        let report = CheckReport::Parsed(Box::new(Catalog::shipped()), FileReport { notes, ..FileReport::default() });
        assert!(report.is_valid());
        assert!(rendered(&report).starts_with("note: model `m`: its file states temperature 0.6; "));
        assert_eq!(report.objects()[0]["severity"], "note");
    }

    #[test]
    fn a_file_that_is_not_fetched_yet_is_shown_and_the_check_passes() {
        let not_fetched = vec!["model `phi`: hf:org/phi/phi.gguf is not fetched yet".to_owned()];
        let report =
            CheckReport::Parsed(Box::new(Catalog::shipped()), FileReport { not_fetched, ..FileReport::default() });
        assert!(report.is_valid());
        assert!(rendered(&report).starts_with("model `phi`: hf:org/phi/phi.gguf is not fetched yet\nvalid: "));
        assert_eq!(
            (&report.objects()[0]["not_fetched"], &report.objects()[1]["valid"]),
            (&json!("model `phi`: hf:org/phi/phi.gguf is not fetched yet"), &json!(true))
        );
    }
}
