//! Definitions and what is wrong with them.

use artel_proto::v1::{ApplyResponse, Definition, DefinitionRef, Location, Problem, Severity, ValidateResponse};

use super::page::{BAD, BOLD, DIM, GOOD, Page, WARN, brief};
use super::table::{Table, cell};
use crate::client::json::Word;

/// What a catalog defines.
pub(crate) fn list(definitions: &[Definition], wrong: &[Problem], page: &mut Page) {
    let mut table = Table::new(&["KIND", "NAME", "LAYER", "DESCRIPTION"]);
    for definition in definitions {
        let about = match definition.problems.first() {
            Some(problem) => (BAD, format!("cannot serve: {}", problem.message)),
            None => (DIM, brief(&definition.description, 100)),
        };
        let (kind, layer) = (definition.kind().word(), definition.layer().word());
        table.row(vec![cell(kind), (BOLD, definition.name.clone()), cell(layer), about]);
    }
    table.render(page);
    if !wrong.is_empty() {
        page.end().put("an earlier catalog serves, since this is wrong with the daemon's directory:").end();
        problems(wrong, page);
    }
}

/// One definition as it was written, with comments around it, so that it is YAML still.
pub(crate) fn show(definition: &Definition, page: &mut Page) {
    let place = definition.location.as_ref().map(place).unwrap_or_default();
    page.paint(DIM, format_args!("# {} layer, {place}", definition.layer().word())).end();
    for used in &definition.uses {
        page.paint(DIM, format_args!("# uses {}", name(used))).end();
    }
    for problem in &definition.problems {
        page.paint(BAD, format_args!("# cannot serve: {}", brief(&problem.message, 500))).end();
    }
    page.put(definition.yaml.trim_end()).end();
}

fn place(location: &Location) -> String {
    let Location { file, line, column } = location;
    match (line, column) {
        (0, _) => file.clone(),
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    }
}

fn name(reference: &DefinitionRef) -> String {
    format!("{} {}", reference.kind().word(), reference.name)
}

/// What would be wrong with a catalog.
pub(crate) fn validated(answer: &ValidateResponse, page: &mut Page) {
    problems(&answer.problems, page);
    if answer.valid {
        page.paint(GOOD, "valid").put(format_args!(": version {}", answer.catalog_version)).end();
    } else {
        page.paint(BAD, "broken").put(format_args!(": {}", count(&answer.problems))).end();
    }
}

/// What became of a new catalog.
pub(crate) fn applied(answer: &ApplyResponse, page: &mut Page) {
    problems(&answer.problems, page);
    for (sign, style, list) in [("+", GOOD, &answer.added), ("~", WARN, &answer.changed), ("-", BAD, &answer.removed)] {
        for reference in list {
            page.paint(style, sign).put(format_args!(" {}", name(reference))).end();
        }
    }
    if answer.applied {
        page.paint(GOOD, "applied").put(format_args!(": version {}", answer.catalog_version)).end();
    } else {
        page.paint(BAD, "broken").put(format_args!(", nothing changed: {}", count(&answer.problems))).end();
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.iter().filter(|problem| problem.severity() != Severity::Warning).count() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

fn problems(problems: &[Problem], page: &mut Page) {
    for problem in problems {
        if let Some(location) = &problem.location {
            page.paint(BOLD, place(location)).put(": ");
        }
        if problem.severity() == Severity::Warning {
            page.paint(WARN, "warning: ");
        }
        page.put(&problem.message).end();
        for line in problem.snippet.lines() {
            page.paint(DIM, "  | ").put(line).end();
        }
        if !problem.hint.is_empty() {
            page.put(format_args!("  help: {}", problem.hint)).end();
        }
        for related in &problem.related {
            page.put(format_args!("  see: {}", place(related))).end();
        }
        page.end();
    }
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::DefinitionKind;

    use super::*;

    #[test]
    fn problems_come_before_the_verdict() {
        let location = Location { file: "roles/a.yaml".into(), line: 3, column: 8 };
        let error = Problem {
            severity: Severity::Error.into(),
            location: Some(location.clone()),
            message: "there is no model `smollm`".into(),
            snippet: "model: smollm".into(),
            hint: "did you mean `smollm2`?".into(),
            related: vec![Location { line: 0, ..location }],
        };
        let warning =
            Problem { severity: Severity::Warning.into(), message: "it is slow".into(), ..Default::default() };
        let mut page = Page::new(false);
        validated(&ValidateResponse { problems: vec![error, warning.clone()], ..Default::default() }, &mut page);
        let added = vec![DefinitionRef { kind: DefinitionKind::Role.into(), name: "poet".into() }];
        let (applied, catalog_version) = (true, "c0ffee".into());
        let answer = ApplyResponse { applied, catalog_version, problems: vec![warning], added, ..Default::default() };
        super::applied(&answer, &mut page);
        insta::assert_snapshot!(page.take());
    }
}
