//! What changed between the index and the file system, decided from what both tell, without reading a file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::entry::{EntryKey, EntryMeta, FileStat, StoredEntry};
use crate::source::{FoundFile, Source, WalkResult};

/// The entries of a generation by their keys.
pub(crate) type StoredEntries = BTreeMap<EntryKey, StoredEntry>;

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReconcilePlan {
    /// Entries whose files are gone.
    pub(crate) remove: Vec<EntryKey>,
    /// Files that were moved as they are.
    pub(crate) rename: Vec<RenamedFile>,
    /// Files whose source changed its labels or its owner, or that another source has now.
    pub(crate) touch: Vec<(EntryKey, EntryMeta)>,
    /// Files that may have another content than the index.
    pub(crate) check: Vec<(EntryKey, FoundFile)>,
    /// The number of files that are as they were.
    pub(crate) unchanged: u64,
}

/// A file at another place with the content of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RenamedFile {
    pub(crate) from: EntryKey,
    pub(crate) to: EntryKey,
    /// What is known of it at its new place.
    pub(crate) meta: EntryMeta,
    pub(crate) file: FoundFile,
}

/// Compares the entries at or below `scopes` with the files that a walk of them found.
pub(crate) fn plan(
    stored: &StoredEntries,
    sources: &[Source],
    scopes: &[PathBuf],
    walked: WalkResult,
) -> ReconcilePlan {
    let unreadable: Vec<PathBuf> = walked.unreadable.into_iter().map(|(path, _)| path).collect();
    let found: HashSet<&Path> = walked.files.iter().map(|file| file.path.as_path()).collect();
    let mut vanished: Vec<&StoredEntry> = Vec::new();
    let mut seen = HashSet::new();
    for scope in scopes {
        for entry in below(stored, scope) {
            let path = entry.key.path().expect("entries below a path are files");
            let is_kept = found.contains(path) || unreadable.iter().any(|dir| path.starts_with(dir));
            if !is_kept && seen.insert(&entry.key) {
                vanished.push(entry);
            }
        }
    }
    // What was read while it changed may be another content than its size and times tell.
    let moved = vanished.iter().filter(|entry| !entry.meta.is_fresh && entry.reason.is_none());
    let mut moved: HashMap<FileStat, &EntryKey> = moved.map(|entry| (entry.meta.stat, &entry.key)).collect();
    let mut plan = ReconcilePlan::default();
    let mut renamed = HashSet::new();
    for file in walked.files {
        let Some(key) = EntryKey::file(&file.path) else { continue };
        let source = &sources[file.source];
        let known = stored.get(&key);
        match known {
            Some(entry) if entry.meta.stat == file.stat && !entry.meta.is_fresh => {
                let meta = meta_in(source, &entry.meta);
                if meta == entry.meta {
                    plan.unchanged += 1;
                } else {
                    plan.touch.push((key, meta));
                }
            }
            _ => match moved.remove(&file.stat) {
                Some(from) => {
                    renamed.insert(from.clone());
                    let meta = meta_in(source, &stored[from].meta);
                    plan.rename.push(RenamedFile { from: from.clone(), to: key, meta, file });
                }
                None => plan.check.push((key, file)),
            },
        }
    }
    plan.remove = vanished.into_iter().map(|entry| entry.key.clone()).filter(|key| !renamed.contains(key)).collect();
    plan
}

/// The stored files at or below a path.
pub(crate) fn below<'a>(stored: &'a StoredEntries, scope: &Path) -> impl Iterator<Item = &'a StoredEntry> {
    let exact = EntryKey::file(scope);
    let own = exact.as_ref().and_then(|key| stored.get(key));
    let prefix = exact.map(|key| format!("{}/", key.as_str().trim_end_matches('/')));
    let inside = prefix.into_iter().flat_map(|prefix| {
        let begin = EntryKey::stored(prefix.clone());
        stored.range(begin..).map(|(_, entry)| entry).take_while(move |entry| entry.key.as_str().starts_with(&prefix))
    });
    own.into_iter().chain(inside)
}

/// What is known of an entry, in this source.
pub(crate) fn meta_in(source: &Source, meta: &EntryMeta) -> EntryMeta {
    EntryMeta {
        source: source.name.clone(),
        owner: source.owner.clone(),
        labels: source.labels.clone(),
        ..meta.clone()
    }
}

#[cfg(test)]
mod tests {
    use artel_task::CallerName;

    use super::*;
    use crate::entry::{ContentHash, EntryLabels};
    use crate::source::SourceSpec;

    fn source(name: &str) -> Source {
        let spec = SourceSpec {
            name: name.into(),
            path: "/docs".into(),
            exclude: Vec::new(),
            includes_hidden: false,
            owner: CallerName::owner(),
            labels: EntryLabels::new(),
        };
        Source::new(spec).unwrap()
    }

    fn stat(inode: u64) -> FileStat {
        FileStat { bytes: 10, mtime_ns: 5, inode }
    }

    fn stored(files: &[(&str, u64)]) -> StoredEntries {
        let entry = |(path, inode): &(&str, u64)| {
            let key = EntryKey::file(Path::new(path)).unwrap();
            let meta = EntryMeta {
                source: "docs".into(),
                owner: CallerName::owner(),
                labels: EntryLabels::new(),
                hash: ContentHash::of(path.as_bytes()),
                stat: stat(*inode),
                is_fresh: false,
            };
            (key.clone(), StoredEntry { key, meta, reason: None, chunks: 1 })
        };
        files.iter().map(entry).collect()
    }

    fn walked(files: &[(&str, u64)]) -> WalkResult {
        let file = |(path, inode): &(&str, u64)| FoundFile { path: path.into(), stat: stat(*inode), source: 0 };
        WalkResult { files: files.iter().map(file).collect(), unreadable: Vec::new() }
    }

    fn key(path: &str) -> EntryKey {
        EntryKey::file(Path::new(path)).unwrap()
    }

    fn planned(before: &StoredEntries, scope: &str, after: WalkResult) -> ReconcilePlan {
        plan(before, &[source("docs")], &[scope.into()], after)
    }

    #[test]
    fn what_is_as_it_was_is_left_alone() {
        let before = stored(&[("/docs/a", 1), ("/docs/b", 2)]);
        let plan = planned(&before, "/docs", walked(&[("/docs/a", 1), ("/docs/b", 2)]));
        assert_eq!(plan, ReconcilePlan { unchanged: 2, ..ReconcilePlan::default() });
    }

    #[test]
    fn changes_are_told_apart() {
        let before = stored(&[("/docs/a", 1), ("/docs/b", 2), ("/docs/c", 3), ("/docs-of-others/d", 9)]);
        let plan = planned(&before, "/docs", walked(&[("/docs/a", 7), ("/docs/new", 2)]));
        assert_eq!(plan.remove, [key("/docs/c")], "and nothing beside the scope");
        let moved: Vec<_> = plan.rename.iter().map(|renamed| (renamed.from.clone(), renamed.to.clone())).collect();
        assert_eq!(moved, [(key("/docs/b"), key("/docs/new"))]);
        assert_eq!(plan.check.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key("/docs/a")]);
    }

    #[test]
    fn a_file_that_replaces_another_is_moved() {
        let before = stored(&[("/docs/a", 1), ("/docs/b", 2)]);
        let plan = planned(&before, "/docs", walked(&[("/docs/b", 1)]));
        assert_eq!(plan.rename.len(), 1);
        assert_eq!(plan.remove, []);
    }

    #[test]
    fn what_cannot_be_looked_at_is_kept() {
        let before = stored(&[("/docs/a/b", 1)]);
        let unreadable = vec![(PathBuf::from("/docs/a"), "denied".to_owned())];
        assert_eq!(planned(&before, "/docs", WalkResult { files: vec![], unreadable }), ReconcilePlan::default());
    }

    #[test]
    fn fresh_files_are_read_again() {
        let mut before = stored(&[("/docs/a", 1), ("/docs/b", 2)]);
        before.values_mut().for_each(|entry| entry.meta.is_fresh = true);
        let plan = planned(&before, "/docs", walked(&[("/docs/a", 1), ("/docs/c", 2)]));
        assert_eq!((plan.check.len(), plan.remove, plan.rename.len()), (2, vec![key("/docs/b")], 0));
    }

    #[test]
    fn other_labels_need_no_reading() {
        let before = stored(&[("/docs/a", 1)]);
        let plan = plan(&before, &[source("papers")], &["/docs".into()], walked(&[("/docs/a", 1)]));
        assert_eq!(plan.touch[0].1.source, "papers");
    }
}
