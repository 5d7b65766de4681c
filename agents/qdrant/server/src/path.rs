//! Paths into payloads: `metadata.labels."a name"`.

use qdrant_client::qdrant::Value;
use qdrant_client::qdrant::value::Kind;
use tonic::Status;

use crate::payload::Payload;

/// The keys of a path. Qdrant's paths into lists are not served here.
pub(crate) fn keys(path: &str) -> Result<Vec<&str>, Status> {
    let mut keys = Vec::new();
    let mut rest = path;
    loop {
        let (key, after) =
            first_key(rest).ok_or_else(|| Status::invalid_argument(format!("Invalid json path: {path}")))?;
        keys.push(key);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(keys),
            None => return Err(Status::unimplemented(format!("the path `{path}` is not served here"))),
        }
    }
}

fn first_key(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (key, after) = quoted.split_once('"')?;
        return (!key.contains('\\')).then_some((key, after));
    }
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let end = text.find(|c| !is_plain(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// What is at the place of these keys.
pub(crate) fn value<'p>(payload: &'p Payload, keys: &[&str]) -> Option<&'p Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(payload.get(*first)?, |value, key| match value.kind.as_ref()? {
        Kind::StructValue(structure) => structure.fields.get(*key),
        _ => None,
    })
}
