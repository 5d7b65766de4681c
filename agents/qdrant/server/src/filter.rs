//! Filters: all of some conditions on keywords. Others are refused, since a filter that lets too much pass is no filter.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, Value};
use tonic::Status;

use crate::path;
use crate::payload::Payload;

pub(crate) fn matches(filter: &Filter, payload: &Payload) -> Result<bool, Status> {
    if !filter.should.is_empty() || !filter.must_not.is_empty() || filter.min_should.is_some() {
        return Err(unsupported());
    }
    for condition in &filter.must {
        if !holds(condition, payload)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(condition: &Condition, payload: &Payload) -> Result<bool, Status> {
    let Some(ConditionOneOf::Field(field)) = &condition.condition_one_of else { return Err(unsupported()) };
    let wanted = keywords(field)?;
    let value = path::value(payload, &path::keys(&field.key)?);
    Ok(value.is_some_and(|value| is_any_of(value, &wanted)))
}

fn keywords(field: &FieldCondition) -> Result<Vec<&str>, Status> {
    match field.r#match.as_ref().and_then(|value| value.match_value.as_ref()) {
        Some(MatchValue::Keyword(keyword)) => Ok(vec![keyword]),
        Some(MatchValue::Keywords(keywords)) => Ok(keywords.strings.iter().map(String::as_str).collect()),
        _ => Err(unsupported()),
    }
}

/// A list matches if any of its values does.
fn is_any_of(value: &Value, wanted: &[&str]) -> bool {
    match &value.kind {
        Some(Kind::StringValue(text)) => wanted.contains(&text.as_str()),
        Some(Kind::ListValue(list)) => list.values.iter().any(|value| is_any_of(value, wanted)),
        _ => false,
    }
}

fn unsupported() -> Status {
    Status::unimplemented("only filters for all of some keywords are served here")
}
