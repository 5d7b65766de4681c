//! `artel check`: is a catalog valid, without a daemon?

use std::io;
use std::path::Path;
use std::process::ExitCode;

use artel_roles::{Catalog, Problem, Problems, Severity};
use serde_json::json;

use crate::args::{Check, Global};
use crate::client::error::{Error, Exit};
use crate::client::output::{Output, complain};
use crate::client::render::page::{BAD, BOLD, DIM, GOOD, Page};
use crate::serve::files::Found;

/// Looks at the files that a valid catalog names, below a directory of models.
pub(crate) type Files = fn(&Catalog, &Path) -> Found;

/// Checks a catalog, and with `--models` the files that it names too; says all that is wrong with it.
pub(crate) fn run(check: &Check, global: &Global, files: Files) -> ExitCode {
    let verdict = Verdict::of(check, files);
    let exit = match verdict.tell(&mut Output::new(global)) {
        Ok(()) if verdict.is_valid() => Exit::Done,
        Ok(()) => Exit::Failed,
        Err(error) => {
            let error = Error::from(error);
            complain(global.color, |page| error.render(page));
            error.exit()
        }
    };
    exit.into()
}

/// What came of a check.
#[derive(Debug)]
enum Verdict {
    /// The YAML is no catalog.
    Broken(Problems),
    /// The YAML is a catalog, and this is what there is to say of the files that it names.
    Read(Box<Catalog>, Found),
}

impl Verdict {
    fn of(check: &Check, files: Files) -> Self {
        match Catalog::load(check.dir.as_deref()) {
            Err(problems) => Self::Broken(problems),
            Ok(catalog) => {
                let found = check.models.as_deref().map(|models| files(&catalog, models)).unwrap_or_default();
                Self::Read(Box::new(catalog), found)
            }
        }
    }

    fn is_valid(&self) -> bool {
        matches!(self, Self::Read(_, found) if found.problems.is_empty())
    }

    fn count(&self) -> usize {
        match self {
            Self::Broken(problems) => errors(problems) + problems.omitted(),
            Self::Read(_, found) => found.problems.len(),
        }
    }

    fn tell(&self, output: &mut Output) -> io::Result<()> {
        if !output.is_json() {
            return output.render(|page| self.render(page));
        }
        self.objects().iter().try_for_each(|object| output.object(object))
    }

    /// One object for each problem, and one for the whole.
    fn objects(&self) -> Vec<serde_json::Value> {
        let mut objects: Vec<_> = match self {
            Self::Broken(problems) => problems.iter().map(|problem| json!(problem)).collect(),
            Self::Read(catalog, Found { problems, awaited }) => {
                let warnings = catalog.warnings().iter().map(|problem| json!(problem));
                let awaited = awaited.iter().map(|what| json!({"awaited": what}));
                let messages = problems.iter().map(|message| json!({"message": message}));
                warnings.chain(messages).chain(awaited).collect()
            }
        };
        let mut whole = json!({"valid": self.is_valid(), "problems": self.count()});
        if let Self::Read(catalog, _) = self {
            whole["roles"] = catalog.roles().len().into();
            whole["graphs"] = catalog.graphs().len().into();
            whole["models"] = catalog.models().len().into();
            whole["catalog_version"] = catalog.version().as_str().into();
        }
        objects.push(whole);
        objects
    }

    fn render(&self, page: &mut Page) {
        match self {
            Self::Broken(problems) => {
                problems.iter().for_each(|problem| self::problem(problem, page));
                if problems.omitted() > 0 {
                    page.put(format_args!("... and {} more", problems.omitted())).end().end();
                }
            }
            Self::Read(catalog, Found { problems, awaited }) => {
                catalog.warnings().iter().for_each(|problem| self::problem(problem, page));
                for message in problems.iter().chain(awaited) {
                    page.put(message).end();
                }
            }
        }
        match self {
            Self::Read(catalog, found) if found.problems.is_empty() => valid(catalog, page),
            _ => {
                page.paint(BAD, "broken").put(": ").put(count(self.count(), "problem")).end();
            }
        }
    }
}

fn valid(catalog: &Catalog, page: &mut Page) {
    page.paint(GOOD, "valid").put(": ");
    page.put(count(catalog.roles().len(), "role")).put(", ");
    page.put(count(catalog.graphs().len(), "graph")).put(", ");
    page.put(count(catalog.models().len(), "model")).end();
}

/// The number of listed problems that are no warnings.
fn errors(problems: &Problems) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A problem as it shows itself, with its place and its advice set off.
fn problem(problem: &Problem, page: &mut Page) {
    let shown = problem.to_string();
    let mut lines = shown.lines();
    let first = lines.next().unwrap_or_default();
    match first.strip_suffix(problem.message.as_str()) {
        Some(place) => page.paint(BOLD, place).put(&problem.message),
        None => page.put(first),
    };
    page.end();
    for line in lines {
        page.paint(if line.trim_start().starts_with("help:") { GOOD } else { DIM }, line).end();
    }
    page.end();
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(yaml: &str, files: Files) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("poet.yaml"), yaml).unwrap();
        let check = Check { dir: Some(dir.path().to_owned()), models: Some(dir.path().to_owned()) };
        let verdict = Verdict::of(&check, files);
        drop(dir);
        verdict
    }

    fn shown(verdict: &Verdict) -> String {
        let mut page = Page::new(false);
        verdict.render(&mut page);
        page.take()
    }

    const POET: &str = "role: poet\ndescription: Writes verse.\nmodel: smollm2\nprompt: You rhyme.\n";

    #[test]
    fn a_valid_catalog_is_counted() {
        let verdict = check(POET, |_, _| Found::default());
        let shipped = Catalog::shipped();
        let (roles, graphs, models) = (shipped.roles().len() + 1, shipped.graphs().len(), shipped.models().len());
        assert_eq!(shown(&verdict), format!("valid: {roles} roles, {graphs} graphs, {models} models\n"));
        assert_eq!(verdict.objects()[0]["valid"], true);
        assert_eq!(verdict.objects()[0]["problems"], 0);
        assert_eq!(verdict.objects()[0]["roles"], roles);
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let verdict = check(&format!("{}sampling: {{temperatur: 1}}\n", POET.replace("smollm2", "smollm")), |_, _| {
            Found::default()
        });
        let text = shown(&verdict);
        assert!(text.contains("poet.yaml:3:8: there is no model `smollm`\n  3 | model: smollm\n"), "{text}");
        assert!(text.ends_with("broken: 2 problems\n"), "{text}");
        let objects = verdict.objects();
        assert_eq!((objects.len(), &objects[2]), (3, &json!({"valid": false, "problems": 2})));
        assert_eq!(objects[0]["line"], 3);
    }

    #[test]
    fn a_warning_breaks_nothing() {
        let verdict = check(&format!("{POET}class: batch\n"), |_, _| Found::default());
        assert!(verdict.is_valid());
        let text = shown(&verdict);
        assert!(text.contains("poet.yaml:5:1: warning: the key `class` is now `priority`\n  5 | class: batch\n"), "{text}");
        assert!(text.contains("\nvalid: "), "{text}");
        let objects = verdict.objects();
        assert_eq!((&objects[0]["severity"], &objects[0]["line"]), (&serde_json::json!("warning"), &serde_json::json!(5)));
        assert_eq!((&objects[1]["valid"], &objects[1]["problems"]), (&serde_json::json!(true), &serde_json::json!(0)));
    }

    #[test]
    fn a_file_that_is_missing_breaks_it_too() {
        let verdict = check(POET, |_, _| Found {
            problems: vec!["model `smollm2`: there is no file".to_owned()],
            awaited: Vec::new(),
        });
        assert!(!verdict.is_valid());
        assert_eq!(shown(&verdict), "model `smollm2`: there is no file\nbroken: 1 problem\n");
    }

    #[test]
    fn a_file_that_is_still_to_be_fetched_is_told_and_breaks_nothing() {
        let awaited = vec!["model `phi`: hf:org/phi/phi.gguf is not fetched yet".to_owned()];
        let verdict = Verdict::Read(Box::new(Catalog::shipped()), Found { problems: Vec::new(), awaited });
        assert!(verdict.is_valid());
        assert!(shown(&verdict).starts_with("model `phi`: hf:org/phi/phi.gguf is not fetched yet\nvalid: "));
        assert_eq!(
            (&verdict.objects()[0]["awaited"], &verdict.objects()[1]["valid"]),
            (&json!("model `phi`: hf:org/phi/phi.gguf is not fetched yet"), &json!(true))
        );
    }
}
