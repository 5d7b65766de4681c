//! Labelled questions, to fit and to evaluate routers with.

use std::path::Path;

use artel_task::RoleName;
use artel_yaml::{Diagnostics, Problems, YamlNode, YamlSource, YamlValue};

use crate::decode::{MapReader, items, name, text, texts};
use crate::keys;

/// The most questions of one file: more than a person labels, and few enough to fit into memory several times.
const MAX_QUESTIONS: usize = 100_000;

/// A question and the role that should get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledQuestion {
    /// The question.
    pub text: String,
    /// The right role; `None` for a question that belongs to no role.
    pub role: Option<RoleName>,
    /// Tags by which the evaluation is broken down.
    pub tags: Vec<String>,
}

impl LabelledQuestion {
    /// Reads a file: YAML, a list of `{text, role, tags}`; or, if its name ends with `.jsonl`, such an object per line. A
    /// `role` of null or `none` means that the question belongs to no role.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<Vec<Self>, Problems> {
        let mut source = YamlSource::read(path, None)?;
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
    pub fn parse(source: &YamlSource) -> Result<Vec<Self>, Problems> {
        let mut report = Diagnostics::new(source);
        let documents = artel_yaml::parse(&mut report).documents;
        let nodes = documents.first().and_then(|node| items(node, "the file", MAX_QUESTIONS, &mut report));
        let questions = nodes.unwrap_or_default().iter().filter_map(|node| decode(node, &mut report)).collect();
        Problems::warnings([report]).map(|_| questions)
    }
}

fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<LabelledQuestion> {
    let mut f = MapReader::open(node, "a labelled question", &keys::LABELLED_QUESTION, report)?.at(node.span);
    let question = f.need("text", report).and_then(|n| text(n, "`text`", 1..=1_000_000, report));
    let role = f.get("role").map(|n| match &n.value {
        YamlValue::Null => Some(None),
        YamlValue::Str(word, _) if word == "none" => Some(None),
        _ => name(n, "a role", RoleName::parse, report).map(Some),
    });
    let tags = f.get("tags").map(|n| texts(n, "`tags`", 16, 63, report)).unwrap_or_default();
    f.finish(&[], report);
    Some(LabelledQuestion { text: question?, role: role.unwrap_or(Some(None))?, tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_json_and_a_list_of_yaml_read_the_same() {
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
        let questions = LabelledQuestion::load(&json).unwrap();
        assert_eq!(questions, LabelledQuestion::load(&yaml).unwrap());
        assert_eq!((questions[0].role.as_ref().map(RoleName::as_str), &questions[1].role), (Some("gpu"), &None));
        let wrong = write("b.jsonl", "{\"text\": \"a\", \"role\": \"gpu\"}\n{\"txt\": \"b\", \"role\": 3}\n");
        let problems = LabelledQuestion::load(&wrong).unwrap_err().to_string();
        assert!(problems.contains("b.jsonl:2") && problems.contains("txt"), "{problems}");
    }
}
