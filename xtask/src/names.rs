//! `cargo xtask names`: the rules of the glossary that a program can check.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::sources::{self, SourceFile};

/// Type names that several modules may share: the path says whose they are.
const SHARED: [&str; 4] = ["Error", "Message", "Options", "State"];
/// Pronouns for people, and how often they may stand in the code, where a sequence, a request or a client is meant
/// nearly always.
const PRONOUNS: [&str; 5] = ["who", "whoever", "whom", "nobody", "somebody"];
const MAX_PRONOUNS: usize = 30;
/// The last word of a constant that is a number: its unit, or what it counts or identifies.
const UNITS: &str = include_str!("../units.txt");
/// The last word of a constant that is a `Duration`, which carries its own unit.
const SPANS: [&str; 16] = [
    "TIMEOUT", "INTERVAL", "DELAY", "DEADLINE", "PERIOD", "GRACE", "AGE", "WINDOW", "BACKOFF", "LIFETIME", "DURATION",
    "ITL", "LATENCY", "SECOND", "DAY", "WEEK",
];

/// Checks every Rust file; prints the three figures.
pub(crate) fn run() -> Result<()> {
    let files = sources::read()?;
    let shared = shared_types(&files);
    let bare = constants_without_unit(&files);
    let pronouns: usize = files.iter().map(|file| pronouns(&file.text)).sum();
    for (name, paths) in &shared {
        println!("type {name} is declared {} times: {}", paths.len(), paths.join(", "));
    }
    for line in &bare {
        println!("{line}: a constant ends in its unit");
    }
    println!(
        "{} type names are shared (at most 0 beside {}), {} constants lack a unit (at most 0), \
         {pronouns} pronouns for people (at most {MAX_PRONOUNS})",
        shared.len(),
        SHARED.join(", "),
        bare.len()
    );
    if !shared.is_empty() || !bare.is_empty() || pronouns > MAX_PRONOUNS {
        bail!("the names break a rule of docs/book/src/glossary.md");
    }
    Ok(())
}

/// The type names that are declared more than once, with their files.
fn shared_types(files: &[SourceFile]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        for name in file.text.lines().filter_map(declared_type) {
            places.entry(name.to_owned()).or_default().push(file.path.clone());
        }
    }
    places.retain(|name, paths| paths.len() > 1 && !SHARED.contains(&name.as_str()));
    places
}

/// The name of the type that a line declares. An associated type is indented and not public, as no alias of ours is.
fn declared_type(line: &str) -> Option<&str> {
    let item = item(line)?;
    let (keyword, rest) = item.split_once(' ')?;
    let declares = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !line.starts_with(' ') || line.trim_start().starts_with("pub"),
        _ => false,
    };
    declares.then(|| identifier(rest)).filter(|name| !name.is_empty())
}

/// The constants whose names do not end in a unit, as `path: NAME`.
fn constants_without_unit(files: &[SourceFile]) -> Vec<String> {
    let bare = |file: &SourceFile| -> Vec<String> {
        let lines = file.text.lines().filter_map(item);
        let constants = lines.filter_map(|item| item.strip_prefix("const ").or_else(|| item.strip_prefix("static ")));
        let typed = constants.filter_map(|item| item.split_once(": "));
        let bare = typed.filter(|(name, rest)| !has_unit(name, rest));
        bare.map(|(name, _)| format!("{}: {name}", file.path)).collect()
    };
    files.iter().flat_map(bare).collect()
}

fn has_unit(name: &str, rest: &str) -> bool {
    let kind = identifier(rest);
    let last = name.rsplit('_').next().unwrap_or(name);
    match kind {
        "Duration" => SPANS.contains(&last),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" | "f32" | "f64" => {
            UNITS.lines().any(|unit| unit == last)
        }
        _ => true,
    }
}

/// A line's item without its visibility.
fn item(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else { return Some(line) };
    match rest.strip_prefix('(') {
        Some(scoped) => scoped.split_once(") ").map(|(_, item)| item),
        None => rest.strip_prefix(' '),
    }
}

/// The identifier at the beginning of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// As `grep -oiwE` counts them.
fn pronouns(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| PRONOUNS.iter().any(|pronoun| word.eq_ignore_ascii_case(pronoun))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile { path: "a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn declarations_are_found_and_associated_types_are_not() {
        let text = "pub struct Slot(u32);\nenum Phase<T> {\npub(super) trait Text: Send {\n    type Item = u8;\ntype Alias = u8;\n";
        let names: Vec<&str> = text.lines().filter_map(declared_type).collect();
        assert_eq!(names, ["Slot", "Phase", "Text", "Alias"]);
    }

    #[test]
    fn a_name_that_is_declared_twice_is_shared_unless_the_rule_allows_it() {
        let shared = shared_types(&[file("struct Slot;\nenum Error {\n"), file("    struct Slot;\nenum Error {\n")]);
        assert_eq!(shared.keys().collect::<Vec<_>>(), ["Slot"]);
    }

    #[test]
    fn a_number_ends_in_its_unit_and_a_duration_in_a_noun_of_time() {
        let text = "const MAX: usize = 3;\npub const MAX_TEXT_BYTES: usize = 3;\nconst PATIENCE: Duration = X;\n\
                    const IDLE_TIMEOUT: Duration = X;\nconst NAME: &str = \"\";\n    const FEW: u64 = 1;\n";
        assert_eq!(constants_without_unit(&[file(text)]), ["a.rs: MAX", "a.rs: PATIENCE", "a.rs: FEW"]);
    }

    #[test]
    fn pronouns_are_whole_words_of_either_case() {
        assert_eq!(pronouns("Who waits for whom? whose, anybody; nobody_in"), 2);
    }
}
