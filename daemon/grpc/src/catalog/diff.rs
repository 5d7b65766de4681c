//! The differences between two catalogs.

use artel_proto::v1;
use artel_roles::{Catalog, Definition};

use super::message::reference;

/// The answer to a change that has these warnings.
pub(super) fn response(before: &Catalog, after: &Catalog, problems: Vec<v1::Problem>) -> v1::ApplyResponse {
    let other = |in_: &Catalog, d: &Definition| in_.definition(d.kind, &d.name).cloned();
    let refer = |d: &Definition| reference(d.kind, &d.name);
    let changed = |d: &&Definition| other(before, d).is_some_and(|old| old.text != d.text);
    v1::ApplyResponse {
        applied: true,
        problems,
        catalog_version: after.version().as_str().to_owned(),
        added: after.definitions().iter().filter(|d| other(before, d).is_none()).map(refer).collect(),
        changed: after.definitions().iter().filter(changed).map(refer).collect(),
        removed: before.definitions().iter().filter(|d| other(after, d).is_none()).map(refer).collect(),
    }
}
