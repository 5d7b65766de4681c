//! A tree of files that changes at random, in the ways in which programs and people change files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;

/// The files and directories of the tree at most; beyond it, more is deleted than created.
const MAX_TREE_FILES: usize = 120;

/// The words that were removed and are looked for at most.
const MAX_REMOVED_WORDS: usize = 200;

pub(crate) struct TestTree {
    root: PathBuf,
    /// Outside the tree: where directories are moved to and come back from.
    aside: PathBuf,
    next: u32,
    /// Files that are written in two parts, with the part that is missing.
    half_written: Vec<(File, String)>,
    /// All words that were ever written.
    words: BTreeSet<String>,
}

impl TestTree {
    pub(crate) fn new(root: &Path, aside: &Path) -> Self {
        fs::create_dir(aside).unwrap();
        Self {
            root: root.to_owned(),
            aside: aside.to_owned(),
            next: 0,
            half_written: Vec::new(),
            words: BTreeSet::new(),
        }
    }

    /// The files with their texts, by path.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let files =
            list(&self.root).into_iter().filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "md"));
        files.map(|path| (path.to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())).collect()
    }

    /// Words that were written once and are in no file now.
    pub(crate) fn removed_words(&self) -> Vec<String> {
        let files = self.files();
        let now: BTreeSet<&str> = files.values().flat_map(|text| text.split_whitespace()).collect();
        self.words.iter().filter(|word| !now.contains(word.as_str())).rev().take(MAX_REMOVED_WORDS).cloned().collect()
    }

    /// Completes what was written by half.
    pub(crate) fn finish(&mut self) {
        for (mut file, rest) in self.half_written.drain(..) {
            file.write_all(rest.as_bytes()).unwrap();
        }
    }

    pub(crate) fn write_sentinel(&mut self, number: u32) -> PathBuf {
        let path = self.root.join(format!("sentinel-{number}.md"));
        let text = self.text(2);
        fs::write(&path, text).unwrap();
        path
    }

    /// One change.
    pub(crate) fn change(&mut self, random: &mut StdRng) {
        let (files, dirs): (Vec<PathBuf>, Vec<PathBuf>) = list(&self.root).into_iter().partition(|path| path.is_file());
        let is_full = files.len() > MAX_TREE_FILES;
        let pick = |random: &mut StdRng, from: &[PathBuf]| {
            (!from.is_empty()).then(|| from[random.random_range(0..from.len())].clone())
        };
        let dir = if random.random_bool(0.3) { None } else { pick(random, &dirs) }.unwrap_or(self.root.clone());
        let paragraphs = random.random_range(0..4);
        match random.random_range(0..17) {
            0..=2 if !is_full => self.write(&self.new_name(&dir), paragraphs),
            3 => {
                if let Some(file) = pick(random, &files) {
                    self.write(&file, paragraphs);
                }
            }
            4 => self.append(pick(random, &files)),
            5 => {
                // As editors save: another file takes the place.
                if let Some(file) = pick(random, &files) {
                    let temporary = file.with_extension("tmp");
                    self.write(&temporary, paragraphs);
                    fs::rename(temporary, file).unwrap();
                }
            }
            6 | 7 => {
                if let Some(file) = pick(random, &files) {
                    fs::remove_file(file).unwrap();
                }
            }
            8 => {
                if let Some(file) = pick(random, &files) {
                    fs::rename(file, self.new_name(&dir)).unwrap();
                }
            }
            9 => {
                if let (Some(from), Some(to)) = (pick(random, &files), pick(random, &files)) {
                    fs::rename(from, to).unwrap();
                }
            }
            10 if !is_full => self.new_dir(&dir),
            11 => {
                if let Some(from) = pick(random, &dirs) {
                    self.move_dir(&from, &dir);
                }
            }
            12 => {
                if let Some(gone) = pick(random, &dirs) {
                    fs::remove_dir_all(gone).unwrap();
                }
            }
            13 => self.half_write(&dir),
            14 if !is_full => {
                if let Some(from) = pick(random, &files) {
                    fs::copy(from, self.new_name(&dir)).unwrap();
                }
            }
            15 => self.move_aside_or_back(pick(random, &dirs), &dir),
            16 => {
                // Another time and the same content.
                if let Some(file) = pick(random, &files) {
                    let file = OpenOptions::new().write(true).open(file).unwrap();
                    file.set_modified(std::time::SystemTime::now()).unwrap();
                }
            }
            _ => self.finish(),
        }
        self.next += 1;
    }

    fn new_name(&self, dir: &Path) -> PathBuf {
        // Names return after a while, with other contents.
        dir.join(format!("f{}.md", self.next % 90))
    }

    /// A text with words of its own, and paragraphs that other files have too.
    fn text(&mut self, paragraphs: u32) -> String {
        let mut text = String::new();
        for part in 0..paragraphs {
            let word = format!("word{}x{part}", self.next);
            text += &match part {
                1 => format!("a paragraph that many files have, number {}\n\n", self.next % 5),
                _ => format!("the {word} is here\nand on this line\n\n"),
            };
            if part != 1 {
                self.words.insert(word);
            }
        }
        text
    }

    fn write(&mut self, path: &Path, paragraphs: u32) {
        let text = self.text(paragraphs);
        fs::write(path, text).unwrap();
    }

    fn append(&mut self, file: Option<PathBuf>) {
        if let Some(file) = file {
            let text = self.text(1);
            OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    fn new_dir(&mut self, dir: &Path) {
        let new = dir.join(format!("d{}/e", self.next % 40));
        fs::create_dir_all(&new).unwrap();
        for name in ["x.md", "y.md", "z.txt"] {
            self.write(&new.join(name), 2);
        }
    }

    fn move_dir(&mut self, from: &Path, dir: &Path) {
        let to = dir.join(format!("m{}", self.next % 40));
        if !dir.starts_with(from) && !to.exists() {
            fs::rename(from, to).unwrap();
        }
    }

    fn half_write(&mut self, dir: &Path) {
        let path = self.new_name(dir);
        let text = self.text(3);
        let (first, rest) = text.split_at(text.len() / 2);
        let mut file = File::create(path).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        self.half_written.push((file, rest.to_owned()));
    }

    fn move_aside_or_back(&mut self, gone: Option<PathBuf>, dir: &Path) {
        let waiting = fs::read_dir(&self.aside).unwrap().next().map(|entry| entry.unwrap().path());
        match (waiting, gone) {
            (Some(waiting), _) => fs::rename(waiting, dir.join(format!("back{}", self.next))).unwrap(),
            (None, Some(gone)) => fs::rename(gone, self.aside.join("moved")).unwrap(),
            (None, None) => {}
        }
    }
}

/// All files and directories below a directory.
fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(list(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
