//! Where the files of a base come from: a path or a glob, and what is left out of it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use artel_task::CallerName;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::entry::{EntryLabels, FileStat};
use crate::error::Error;

/// A source as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name, by which searches are filtered.
    pub name: String,
    /// An absolute path of a file or a directory, or a glob such as `/docs/**/*.md`.
    pub path: String,
    /// Globs of what is left out, below the directory. One without a slash names files and directories at any depth.
    pub exclude: Vec<String>,
    /// Whether names that begin with a dot are taken; `.git` never is.
    pub includes_hidden: bool,
    /// The caller that its files belong to.
    pub owner: CallerName,
    /// Labels to filter by.
    pub labels: EntryLabels,
}

/// A source with its patterns.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) owner: CallerName,
    pub(crate) labels: EntryLabels,
    /// The directory or the file without symbolic links; the part of a glob before its first wildcard.
    root: PathBuf,
    include: Option<GlobSet>,
    exclude: GlobSet,
    includes_hidden: bool,
}

/// A file that a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    pub(crate) path: PathBuf,
    pub(crate) stat: FileStat,
    /// The place of its source in the list.
    pub(crate) source: usize,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct WalkResult {
    pub(crate) files: Vec<FoundFile>,
    /// Directories that could not be read, and why. What was in them before is kept.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
}

/// The deepest directory below a source: a loop that some file systems can have ends there.
const MAX_WALK_DEPTH: usize = 64;

/// The most files of a base. More would take gigabytes in memory once they are indexed.
pub(crate) const MAX_SOURCE_FILES: usize = 500_000;

const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

impl Source {
    /// Resolves the path and compiles the patterns.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a pattern that cannot be read, or a relative path.
    pub fn new(spec: SourceSpec) -> Result<Self, Error> {
        let pattern = |detail: &str| Error::Pattern { pattern: spec.path.clone(), detail: detail.into() };
        if !spec.path.starts_with('/') {
            return Err(pattern("its path is not absolute"));
        }
        let (literal, glob) = match spec.path.find(WILDCARDS) {
            Some(first) => {
                let slash = spec.path[..first].rfind('/').expect("an absolute path has a slash");
                (&spec.path[..=slash], Some(&spec.path[slash + 1..]))
            }
            None => (&*spec.path, None),
        };
        // A source may itself be reached through a link; links below it are not followed.
        let root = fs::canonicalize(literal).unwrap_or_else(|_| Path::new(literal).components().collect());
        let include = glob.map(|glob| set(&[glob.to_owned()])).transpose()?;
        let anywhere = |glob: &String| {
            let glob = glob.trim_end_matches('/');
            if glob.contains('/') { glob.trim_start_matches('/').to_owned() } else { format!("**/{glob}") }
        };
        let exclude = set(&spec.exclude.iter().map(anywhere).collect::<Vec<_>>())?;
        let SourceSpec { name, owner, labels, includes_hidden, .. } = spec;
        Ok(Self { name, owner, labels, root, include, exclude, includes_hidden })
    }

    /// What is watched.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a file or directory below the root is left out, with all that is in it.
    fn is_excluded(&self, relative: &Path) -> bool {
        let is_left_out = |name: &std::ffi::OsStr| {
            let name = name.as_encoded_bytes();
            name == b".git" || (!self.includes_hidden && name.starts_with(b"."))
        };
        relative.components().any(|part| is_left_out(part.as_os_str()))
            || relative.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| self.exclude.is_match(part))
    }

    /// Adds the files at or below `scope` that this source has.
    pub(crate) fn walk(&self, number: usize, scope: &Path, takes: &dyn Fn(&Path) -> bool, into: &mut WalkResult) {
        let begin = if scope.starts_with(&self.root) {
            scope
        } else if self.root.starts_with(scope) {
            &self.root
        } else {
            return;
        };
        let relative = begin.strip_prefix(&self.root).expect("the scope is at or below the root");
        // A link on the way to the scope would lead out of the source.
        let is_linked = relative.ancestors().any(|part| {
            !part.as_os_str().is_empty() && self.root.join(part).symlink_metadata().is_ok_and(|meta| meta.is_symlink())
        });
        if self.is_excluded(relative) || is_linked {
            return;
        }
        match begin.symlink_metadata() {
            Ok(meta) => self.visit(number, begin, &meta, takes, into, relative.components().count()),
            Err(error) if is_missing(&error) => {}
            Err(error) => into.unreadable.push((begin.to_owned(), error.to_string())),
        }
    }

    fn visit(
        &self,
        number: usize,
        path: &Path,
        meta: &Metadata,
        takes: &dyn Fn(&Path) -> bool,
        into: &mut WalkResult,
        depth: usize,
    ) {
        if meta.is_file() {
            if self.takes_file(path) && takes(path) && into.files.len() < MAX_SOURCE_FILES {
                into.files.push(FoundFile { path: path.to_owned(), stat: file_stat(meta), source: number });
            }
        } else if meta.is_dir()
            && depth < MAX_WALK_DEPTH
            && let Err(error) = self.visit_dir(number, path, takes, into, depth)
        {
            into.unreadable.push((path.to_owned(), error.to_string()));
        }
    }

    fn visit_dir(
        &self,
        number: usize,
        path: &Path,
        takes: &dyn Fn(&Path) -> bool,
        into: &mut WalkResult,
        depth: usize,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            Err(error) if is_missing(&error) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let relative = path.strip_prefix(&self.root).expect("what a directory lists is in it");
            if self.is_excluded(relative) {
                continue;
            }
            match entry.metadata() {
                Ok(meta) => self.visit(number, &path, &meta, takes, into, depth + 1),
                Err(error) if is_missing(&error) => {}
                Err(error) => into.unreadable.push((path, error.to_string())),
            }
        }
        Ok(())
    }

    fn takes_file(&self, path: &Path) -> bool {
        match (&self.include, path.strip_prefix(&self.root)) {
            (Some(include), Ok(relative)) => include.is_match(relative),
            (None, Ok(_)) => true,
            (_, Err(_)) => false,
        }
    }
}

/// Whether a path is no longer there, or a part of it is no directory any more.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What a search of the file system tells without reading.
pub(crate) fn file_stat(meta: &Metadata) -> FileStat {
    let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    FileStat { bytes: meta.size(), mtime_ns, inode: meta.ino() }
}

fn set(globs: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let failed = |e: globset::Error| Error::Pattern { pattern: glob.clone(), detail: e.kind().to_string() };
        set.add(GlobBuilder::new(glob).literal_separator(true).build().map_err(failed)?);
    }
    set.build().map_err(|e| Error::Pattern { pattern: globs.join(", "), detail: e.kind().to_string() })
}

/// The files at or below these paths; one that several sources have belongs to the first.
pub(crate) fn walk(sources: &[Source], scopes: &[PathBuf], takes: &dyn Fn(&Path) -> bool) -> WalkResult {
    let mut found = WalkResult::default();
    for scope in scopes {
        for (number, source) in sources.iter().enumerate() {
            source.walk(number, scope, takes, &mut found);
        }
    }
    found.files.sort_by(|a, b| a.path.cmp(&b.path).then(a.source.cmp(&b.source)));
    found.files.dedup_by(|b, a| a.path == b.path);
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn spec(path: &str) -> SourceSpec {
        SourceSpec {
            name: "docs".into(),
            path: path.into(),
            exclude: Vec::new(),
            includes_hidden: false,
            owner: CallerName::owner(),
            labels: EntryLabels::new(),
        }
    }

    fn tree(files: &[&str]) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), file).unwrap();
        }
        (dir, root)
    }

    fn walked(root: &Path, spec: SourceSpec, scope: &str) -> Vec<String> {
        let source = Source::new(spec).unwrap();
        let found = walk(&[source], &[root.join(scope).components().collect()], &|_| true);
        assert_eq!(found.unreadable, []);
        found.files.iter().map(|file| file.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn globs_and_excludes_choose_files() {
        let files = ["a.md", "b/c.md", "b/c.txt", "b/drafts/d.md", "b/e/f.md", ".git/x.md", "b/.hidden/g.md"];
        let (_dir, root) = tree(&files);
        let at = |pattern: &str| spec(root.join(pattern).to_str().unwrap());
        assert_eq!(walked(&root, at(""), ""), ["a.md", "b/c.md", "b/c.txt", "b/drafts/d.md", "b/e/f.md"]);
        assert_eq!(walked(&root, at("**/*.md"), ""), ["a.md", "b/c.md", "b/drafts/d.md", "b/e/f.md"]);
        assert_eq!(walked(&root, at("*.md"), ""), ["a.md"]);
        assert_eq!(walked(&root, at("b/*.{md,txt}"), ""), ["b/c.md", "b/c.txt"]);
        assert_eq!(walked(&root, at("a.md"), ""), ["a.md"]);
        let without = SourceSpec { exclude: vec!["drafts".into(), "b/e".into(), "*.txt".into()], ..at("") };
        assert_eq!(walked(&root, without, ""), ["a.md", "b/c.md"]);
        let hidden = SourceSpec { includes_hidden: true, ..at("b") };
        assert!(walked(&root, hidden, "").contains(&"b/.hidden/g.md".to_owned()));
        assert!(matches!(Source::new(at("[")), Err(Error::Pattern { .. })));
        assert!(matches!(Source::new(spec("docs")), Err(Error::Pattern { .. })));
    }

    #[test]
    fn a_walk_can_be_of_a_part() {
        let (_dir, root) = tree(&["a.md", "b/c.md", "b/e/f.md"]);
        let all = || spec(root.to_str().unwrap());
        assert_eq!(walked(&root, all(), "b"), ["b/c.md", "b/e/f.md"]);
        assert_eq!(walked(&root, all(), "b/c.md"), ["b/c.md"]);
        assert_eq!(walked(&root, all(), "gone/x"), [] as [String; 0]);
    }

    #[test]
    fn links_are_not_followed() {
        let (_dir, root) = tree(&["a/b.md", "outside/secret.md"]);
        symlink(root.join("outside"), root.join("a/link")).unwrap();
        symlink(root.join("a"), root.join("a/loop")).unwrap();
        symlink(root.join("outside/secret.md"), root.join("a/file.md")).unwrap();
        let source = || spec(root.join("a").to_str().unwrap());
        assert_eq!(walked(&root, source(), ""), ["a/b.md"]);
        assert_eq!(walked(&root, source(), "a/link/secret.md"), [] as [String; 0]);
        symlink(root.join("a"), root.join("entry")).unwrap();
        assert_eq!(
            walked(&root, spec(root.join("entry").to_str().unwrap()), ""),
            ["a/b.md"],
            "the source itself is one"
        );
    }
}
