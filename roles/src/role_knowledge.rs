//! The knowledge that a role names.

use artel_task::KnowledgeName;
use artel_yaml::{Diagnostics, YamlNode, YamlValue};

use crate::declared_names::DeclaredNames;
use crate::decode::{items, name};
use crate::definition::DefinitionKind;

/// The most knowledge of one role: each is searched for each of its steps.
const MAX_ROLE_KNOWLEDGE_ITEMS: usize = 8;

/// One, or a list.
pub(crate) fn decode(node: &YamlNode, declared: &DeclaredNames, report: &mut Diagnostics<'_>) -> Vec<KnowledgeName> {
    let nodes = match &node.value {
        YamlValue::List(_) => items(node, "`knowledge`", MAX_ROLE_KNOWLEDGE_ITEMS, report).unwrap_or_default(),
        _ => std::slice::from_ref(node),
    };
    let mut named: Vec<KnowledgeName> = Vec::new();
    for node in nodes {
        let Some(found) = name(node, "a knowledge", KnowledgeName::parse, report) else { continue };
        if !declared.has(DefinitionKind::Knowledge, found.as_str()) {
            declared.report_missing(DefinitionKind::Knowledge, found.as_str(), node.span, report);
        } else if named.contains(&found) {
            report.error(node.span, format!("knowledge `{found}` is named twice"));
        } else {
            named.push(found);
        }
    }
    named
}
