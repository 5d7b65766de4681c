//! Which points are listed or searched, in the form of Qdrant's messages.

use std::collections::BTreeMap;

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, Match, RepeatedStrings};

use crate::error::Error;

/// The fields that searches filter by, and that have an index each. Labels have none: their names are of the owner's choice.
pub(crate) const INDEXED_FIELDS: [&str; 3] = [KNOWLEDGE_FIELD, SOURCE_FIELD, OWNER_FIELD];

const KNOWLEDGE_FIELD: &str = "metadata.knowledge";
const SOURCE_FIELD: &str = "metadata.source";
const OWNER_FIELD: &str = "metadata.owner";
const LABELS_FIELD: &str = "metadata.labels";

/// The points of a knowledge.
pub(crate) fn of_knowledge(knowledge: &str) -> Filter {
    Filter { must: vec![equals(KNOWLEDGE_FIELD, knowledge)], ..Filter::default() }
}

/// Those of them that are of any of these sources, of any of these owners, and have all of these labels. An empty list lets
/// all pass.
pub(crate) fn of_search(
    knowledge: &str,
    sources: &[String],
    owners: &[String],
    labels: &BTreeMap<String, String>,
) -> Result<Filter, Error> {
    let mut filter = of_knowledge(knowledge);
    filter.must.extend(any_of(SOURCE_FIELD, sources));
    filter.must.extend(any_of(OWNER_FIELD, owners));
    for (label, value) in labels {
        filter.must.push(equals(&label_field(label)?, value));
    }
    Ok(filter)
}

/// A name of a field may be quoted in a path, but nothing can be escaped in it.
fn label_field(label: &str) -> Result<String, Error> {
    if label.contains(['"', '\\']) {
        return Err(Error::LabelName { label: label.to_owned() });
    }
    Ok(format!("{LABELS_FIELD}.\"{label}\""))
}

fn equals(field: &str, value: &str) -> Condition {
    condition(field, MatchValue::Keyword(value.to_owned()))
}

fn any_of(field: &str, values: &[String]) -> Option<Condition> {
    let strings = values.to_vec();
    (!strings.is_empty()).then(|| condition(field, MatchValue::Keywords(RepeatedStrings { strings })))
}

fn condition(field: &str, value: MatchValue) -> Condition {
    let r#match = Some(Match { match_value: Some(value) });
    let field = FieldCondition { key: field.to_owned(), r#match, ..FieldCondition::default() };
    Condition { condition_one_of: Some(ConditionOneOf::Field(field)) }
}
