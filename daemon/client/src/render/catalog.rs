//! Definitions and their problems.

use artel_proto::v1::{ApplyResponse, Definition, DefinitionRef, Location, Problem, Severity, ValidateResponse};
use artel_terminal::{BAD, BOLD, DIM, GOOD, StyledText, TextTable, WARN, brief, cell};

use crate::json::EnumName;

/// The definitions of a catalog, and the problems of the daemon's directory.
pub(crate) fn list(definitions: &[Definition], directory_problems: &[Problem], out: &mut StyledText) {
    let mut table = TextTable::new(&["KIND", "NAME", "LAYER", "DESCRIPTION"]);
    for definition in definitions {
        let summary = match definition.problems.first() {
            Some(problem) => (BAD, format!("unavailable: {}", problem.message)),
            None => (DIM, brief(&definition.description, 100)),
        };
        let (kind, layer) = (definition.kind().enum_name(), definition.layer().enum_name());
        table.row(vec![cell(kind), (BOLD, definition.name.clone()), cell(layer), summary]);
    }
    table.render(out);
    if !directory_problems.is_empty() {
        out.newline().push("the daemon serves an earlier catalog, because its directory has problems:").newline();
        problems(directory_problems, out);
    }
}

/// A definition as it was written; additions are comments, so that the output is valid YAML.
pub(crate) fn show(definition: &Definition, out: &mut StyledText) {
    let location = definition.location.as_ref().map(location_label).unwrap_or_default();
    out.push_styled(DIM, format_args!("# {} layer, {location}", definition.layer().enum_name())).newline();
    for used in &definition.uses {
        out.push_styled(DIM, format_args!("# uses {}", name(used))).newline();
    }
    for problem in &definition.problems {
        out.push_styled(BAD, format_args!("# unavailable: {}", brief(&problem.message, 500))).newline();
    }
    out.push(definition.yaml.trim_end()).newline();
}

fn location_label(location: &Location) -> String {
    let Location { file, line, column } = location;
    match (line, column) {
        (0, _) => file.clone(),
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    }
}

fn name(reference: &DefinitionRef) -> String {
    format!("{} {}", reference.kind().enum_name(), reference.name)
}

/// The result of a validation.
pub(crate) fn validated(answer: &ValidateResponse, out: &mut StyledText) {
    problems(&answer.problems, out);
    if answer.valid {
        out.push_styled(GOOD, "valid").push(format_args!(": version {}", answer.catalog_version)).newline();
    } else {
        out.push_styled(BAD, "invalid").push(format_args!(": {}", error_count(&answer.problems))).newline();
    }
}

/// The result of applying a catalog.
pub(crate) fn applied(answer: &ApplyResponse, out: &mut StyledText) {
    problems(&answer.problems, out);
    for (sign, style, list) in [("+", GOOD, &answer.added), ("~", WARN, &answer.changed), ("-", BAD, &answer.removed)] {
        for reference in list {
            out.push_styled(style, sign).push(format_args!(" {}", name(reference))).newline();
        }
    }
    if answer.applied {
        out.push_styled(GOOD, "applied").push(format_args!(": version {}", answer.catalog_version)).newline();
    } else {
        out.push_styled(BAD, "invalid")
            .push(format_args!(", nothing changed: {}", error_count(&answer.problems)))
            .newline();
    }
}

fn error_count(problems: &[Problem]) -> String {
    match problems.iter().filter(|problem| problem.severity() != Severity::Warning).count() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

fn problems(problems: &[Problem], out: &mut StyledText) {
    for problem in problems {
        if let Some(location) = &problem.location {
            out.push_styled(BOLD, location_label(location)).push(": ");
        }
        if problem.severity() == Severity::Warning {
            out.push_styled(WARN, "warning: ");
        }
        out.push(&problem.message).newline();
        for line in problem.snippet.lines() {
            out.push_styled(DIM, "  | ").push(line).newline();
        }
        if !problem.hint.is_empty() {
            out.push(format_args!("  help: {}", problem.hint)).newline();
        }
        for related in &problem.related {
            out.push(format_args!("  see: {}", location_label(related))).newline();
        }
        out.newline();
    }
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::DefinitionKind;

    use super::*;

    #[test]
    fn problems_come_before_the_result() {
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
        let mut out = StyledText::new(false);
        validated(&ValidateResponse { problems: vec![error, warning.clone()], ..Default::default() }, &mut out);
        let added = vec![DefinitionRef { kind: DefinitionKind::Role.into(), name: "poet".into() }];
        let (applied, catalog_version) = (true, "c0ffee".into());
        let answer = ApplyResponse { applied, catalog_version, problems: vec![warning], added, ..Default::default() };
        super::applied(&answer, &mut out);
        insta::assert_snapshot!(out.take());
    }
}
