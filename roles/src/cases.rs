//! Labelled questions, to fit routers to and to measure them with.

use std::path::Path;

use artel_task::RoleName;

use crate::decode::{Fields, items, name, text};
use crate::node::{Node, Value};
use crate::problem::{Problem, Problems, Report};
use crate::role::texts;
use crate::source::Source;
use crate::yaml;

/// More than a person labels, and what fits into memory several times.
const MAX_CASES: usize = 100_000;

/// A question and who should get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The question.
    pub text: String,
    /// The right role; `None` for a question that belongs to no role.
    pub role: Option<RoleName>,
    /// Words of the owner, by which figures are taken apart.
    pub tags: Vec<String>,
}

impl Case {
    /// Reads a file: YAML, a list of `{text, role, tags}`; or, if its name ends with `.jsonl`, such an object per line. A
    /// `role` of null or `none` means that the question belongs to nobody.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<Vec<Self>, Problems> {
        let bytes = std::fs::read(path)
            .map_err(|e| Problem::file(path.to_string_lossy(), format!("the cases cannot be read: {e}")))?;
        let mut source = Source::of_bytes(path.to_string_lossy(), None, bytes)?;
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            // JSON is YAML, and a list of lines is a list.
            let lines = source
                .text
                .lines()
                .map(|line| if line.trim().is_empty() { String::new() } else { format!("- {line}") });
            source.text = lines.collect::<Vec<_>>().join("\n");
        }
        Self::parse(&source)
    }

    /// Reads such a list.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source: &Source) -> Result<Vec<Self>, Problems> {
        let mut report = Report::new(source);
        let documents = yaml::parse(&mut report).documents;
        let nodes = documents.first().and_then(|node| items(node, "the file", MAX_CASES, &mut report));
        let cases = nodes.unwrap_or_default().iter().filter_map(|node| case(node, &mut report)).collect();
        if report.problems.is_empty() { Ok(cases) } else { Err(Problems::new(report.problems, report.omitted)) }
    }
}

fn case(node: &Node, report: &mut Report<'_>) -> Option<Case> {
    let mut f = Fields::open(node, "a case", report)?.at(node.span);
    let question = f.need("text", report).and_then(|n| text(n, "`text`", 1..=1_000_000, report));
    let role = f.get("role").map(|n| match &n.value {
        Value::Null => Some(None),
        Value::Str(word, _) if word == "none" => Some(None),
        _ => name(n, "a role", RoleName::parse, report).map(Some),
    });
    let tags = f.get("tags").map(|n| texts(n, "`tags`", 16, 63, report)).unwrap_or_default();
    f.finish(&[], report);
    Some(Case { text: question?, role: role.unwrap_or(Some(None))?, tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_json_and_lists_of_yaml_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let json = write(
            "a.jsonl",
            "{\"text\": \"Где?\", \"role\": \"gpu\", \"tags\": [\"ru\"]}\n\n{\"text\": \"x: y\", \"role\": null}\n",
        );
        let yaml = write("a.yaml", "- {text: Где?, role: gpu, tags: [ru]}\n- {text: 'x: y', role: none}\n");
        let cases = Case::load(&json).unwrap();
        assert_eq!(cases, Case::load(&yaml).unwrap());
        assert_eq!((cases[0].role.as_ref().map(RoleName::as_str), &cases[1].role), (Some("gpu"), &None));
        let wrong = write("b.jsonl", "{\"text\": \"a\", \"role\": \"gpu\"}\n{\"txt\": \"b\", \"role\": 3}\n");
        let problems = Case::load(&wrong).unwrap_err().to_string();
        assert!(problems.contains("b.jsonl:2") && problems.contains("txt"), "{problems}");
    }
}
