//! The settings as a list: every key that there is, and those that a file has, with their lines.

use std::path::Path;

use artel_yaml::{Diagnostics, Problems, YamlNode, YamlSource, YamlValue};
use serde_json::Value;

use crate::keys::{DocumentKey, KeySet, SETTINGS};

/// A key of the settings file, which may be inside of a map.
#[derive(Debug, Clone)]
pub struct SettingKey {
    /// The way to it, as in `retention.age`.
    pub path: String,
    /// Its entry in the table of keys.
    pub key: &'static DocumentKey,
}

/// A key that a settings file has.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenSetting {
    /// The way to the key under its present name, as in `retention.age`.
    pub path: String,
    /// Its line, from 1.
    pub line: u32,
    /// Its value, as it is written.
    pub value: Value,
}

/// Every key of the settings file, in the order of the table; a map whose keys are in the table is not a key itself.
pub fn setting_keys() -> Vec<SettingKey> {
    let mut keys = Vec::new();
    add_keys(&SETTINGS, "", &mut keys);
    keys
}

fn add_keys(set: &KeySet, prefix: &str, keys: &mut Vec<SettingKey>) {
    for key in set.keys {
        let path = format!("{prefix}{}", key.name);
        match set.below(key.name) {
            Some(inner) => add_keys(inner, &format!("{path}."), keys),
            None => keys.push(SettingKey { path, key }),
        }
    }
}

impl WrittenSetting {
    /// The keys that a settings file has. Whether their values are valid is not looked at.
    ///
    /// # Errors
    /// The file cannot be read, or is no YAML.
    pub fn load(path: &Path) -> Result<Vec<Self>, Problems> {
        Self::parse(&YamlSource::read(path, None)?)
    }

    fn parse(source: &YamlSource) -> Result<Vec<Self>, Problems> {
        let mut report = Diagnostics::new(source);
        let documents = artel_yaml::parse(&mut report).documents;
        Problems::warnings([report])?;
        let mut written = Vec::new();
        if let Some(document) = documents.first() {
            add_written(document, &SETTINGS, "", &mut written);
        }
        Ok(written)
    }
}

fn add_written(node: &YamlNode, set: &KeySet, prefix: &str, written: &mut Vec<WrittenSetting>) {
    let YamlValue::Map(entries) = &node.value else { return };
    for entry in entries {
        // Another key is a problem of the settings, which is reported where they are read.
        let Some(key) = set.find(&entry.key) else { continue };
        let path = format!("{prefix}{}", key.name);
        match set.below(key.name) {
            Some(inner) => add_written(&entry.value, inner, &format!("{path}."), written),
            None => written.push(WrittenSetting { path, line: entry.key_span.line, value: entry.value.json() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys;

    #[test]
    fn every_key_of_the_settings_is_listed_once() {
        let listed: Vec<String> = setting_keys().into_iter().map(|key| key.path).collect();
        let sets = keys().iter().filter(|set| set.page == "settings");
        let is_map = |path: &str| keys().iter().any(|set| set.name == format!("settings.{path}"));
        let paths = sets.flat_map(|set| {
            let prefix = set.name.strip_prefix("settings").unwrap().trim_start_matches('.');
            set.names().map(move |name| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") })
        });
        let expected: BTreeSet<String> = paths.filter(|path| !is_map(path)).collect();
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(listed.len(), expected.len());
        assert!(expected.contains("data") && expected.contains("retention.age") && !expected.contains("retention"));
    }

    #[test]
    fn written_keys_have_their_lines_values_and_present_names() {
        let text = "# mine\ntasks: 5\ngap: 50ms\nretention:\n  age: 30d\n  tasks: 7\nnonsense: 1\nrpc: [a:1]\n";
        let source = YamlSource { path: "artel.yaml".to_owned(), dir: None, text: text.to_owned() };
        let written = WrittenSetting::parse(&source).unwrap();
        let written: Vec<_> = written.iter().map(|w| (w.path.as_str(), w.line, w.value.to_string())).collect();
        let expected = [
            ("tasks", 2, "5"),
            ("target_itl", 3, "\"50ms\""),
            ("retention.age", 5, "\"30d\""),
            ("retention.tasks", 6, "7"),
            ("rpc", 8, "[\"a:1\"]"),
        ];
        assert_eq!(written, expected.map(|(path, line, value)| (path, line, value.to_owned())));
    }
}
