//! The book's reference lists every key of YAML that the decoder reads, with its default.

use std::collections::BTreeMap;
use std::fs;

use artel_roles::{KeyDefault, keys};
use artel_tests::repository;

/// The cells of a row of a Markdown table, in which a bar is escaped; `None` for another line.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\0");
    Some(row.split('|').map(|cell| cell.trim().replace('\0', "|")).collect())
}

/// Whether a row describes a key with its default.
fn describes(row: &[String], key: &str, default: KeyDefault) -> bool {
    let Some((name, rest)) = row.split_first() else { return false };
    let has_default = |cell: &String| match default {
        KeyDefault::Value(value) => cell == value || cell.contains(&format!("`{value}`")),
        KeyDefault::Required | KeyDefault::Described(_) => cell.contains(default.text()),
    };
    name.contains(&format!("`{key}`")) && rest.iter().any(has_default)
}

#[test]
fn every_key_stands_with_its_default_on_the_page_of_its_document() {
    let mut tables = BTreeMap::new();
    let mut missing = Vec::new();
    for set in keys() {
        let page = format!("docs/book/src/reference/{}.md", set.page);
        let text = tables.entry(page.clone()).or_insert_with(|| {
            fs::read_to_string(repository().join(&page)).unwrap_or_else(|e| panic!("failed to read {page}: {e}"))
        });
        let rows: Vec<Vec<String>> = text.lines().filter_map(cells).collect();
        let undescribed = set.keys.iter().filter(|key| !rows.iter().any(|row| describes(row, key.name, key.default)));
        missing
            .extend(undescribed.map(|key| format!("{page}: `{}` of {}: {}", key.name, set.name, key.default.text())));
    }
    assert!(missing.is_empty(), "no row of a table has the key and its default:\n{}", missing.join("\n"));
}

#[test]
fn a_row_needs_the_key_in_its_first_cell_and_the_default_in_another() {
    let row = |line| cells(line).unwrap();
    assert_eq!(row("| `a` | one \\| two | 3 |"), ["`a`", "one | two", "3"]);
    assert!(describes(&row("| `a` | `1` |"), "a", KeyDefault::Value("1")));
    assert!(!describes(&row("| `a` | `10` |"), "a", KeyDefault::Value("1")));
    assert!(!describes(&row("| `b` | `1` of `a` |"), "a", KeyDefault::Value("1")));
    assert!(describes(&row("| `a` | required |"), "a", KeyDefault::Required));
    assert_eq!(cells("`a` | `1`"), None);
}
