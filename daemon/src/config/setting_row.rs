//! The settings as a table. Its rows are the keys of the settings file, so that none can be missing.

use std::collections::BTreeMap;

use artel_args::{FlagSource, GivenFlags};
use artel_hub::HubTokenSource;
use artel_roles::{KeyDefault, WrittenSetting, setting_keys};
use artel_terminal::{BOLD, DIM, StyledText, TextTable, cell};
use serde_json::{Value, json};

/// The setting whose value is a secret elsewhere.
const TOKEN_KEY: &str = "hf_token_file";

/// A setting with its value.
#[derive(Debug, PartialEq)]
pub(super) struct SettingRow {
    pub(super) key: String,
    pub(super) value: Value,
    /// Of a value that is a number.
    pub(super) unit: Option<&'static str>,
    pub(super) source: SettingSource,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SettingSource {
    Default,
    /// The line of the settings file.
    File {
        file: String,
        line: u32,
    },
    Flag(FlagSource),
    /// A credential of systemd.
    Credential,
}

/// Every setting: from flags and variables, then from the file, then by default. `effective` has the values that a daemon
/// works with, where they are not what is written.
pub(super) fn rows(
    file: &str,
    written: &[WrittenSetting],
    given: &GivenFlags,
    effective: &BTreeMap<&'static str, Value>,
    token: Option<&HubTokenSource>,
) -> Vec<SettingRow> {
    let row = |path: String, unit, default: &str| {
        let line = written.iter().find(|written| written.path == path);
        // A flag has the name of its setting.
        let source = match (given.source(&path.replace('.', "_")), line) {
            (Some(flag), _) => SettingSource::Flag(flag.clone()),
            (None, Some(written)) => SettingSource::File { file: file.to_owned(), line: written.line },
            (None, None) => SettingSource::Default,
        };
        let stated = || line.map_or_else(|| default_value(default), |written| written.value.clone());
        let value = effective.get(path.as_str()).cloned().unwrap_or_else(stated);
        SettingRow { key: path, value, unit, source }
    };
    // A key that its map requires has no value without the map.
    let default = |default: KeyDefault| if default == KeyDefault::Required { "none" } else { default.text() };
    let rows =
        setting_keys().into_iter().map(|setting| row(setting.path, setting.key.unit, default(setting.key.default)));
    rows.map(|row| if row.key == TOKEN_KEY { token_row(row, token) } else { row }).collect()
}

/// The place of the token, never the token.
fn token_row(row: SettingRow, token: Option<&HubTokenSource>) -> SettingRow {
    match token {
        Some(HubTokenSource::File(path)) => SettingRow { value: json!(path), ..row },
        Some(HubTokenSource::Credential(path)) => {
            SettingRow { value: json!(path), source: SettingSource::Credential, ..row }
        }
        Some(HubTokenSource::Environment) => {
            let source = SettingSource::Flag(FlagSource::Environment("HF_TOKEN".to_owned()));
            SettingRow { value: Value::Null, source, ..row }
        }
        None => row,
    }
}

/// A default as the table of keys has it: a value, or a description.
fn default_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

impl SettingRow {
    /// The row as JSON.
    pub(super) fn json(&self) -> Value {
        let Self { key, value, unit, source } = self;
        let mut row = json!({"key": key, "value": value, "unit": unit});
        let place = match source {
            SettingSource::Default => json!({"source": "default"}),
            SettingSource::File { file, line } => json!({"source": "file", "file": file, "line": line}),
            SettingSource::Flag(FlagSource::CommandLine(name)) => json!({"source": "flag", "name": name}),
            SettingSource::Flag(FlagSource::Environment(name)) => json!({"source": "environment", "name": name}),
            SettingSource::Credential => json!({"source": "credential"}),
        };
        if let (Some(row), Value::Object(place)) = (row.as_object_mut(), place) {
            row.extend(place);
        }
        row
    }

    fn value_text(&self) -> String {
        match &self.value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn source_text(&self) -> String {
        match &self.source {
            SettingSource::Default => "default".to_owned(),
            SettingSource::File { file, line } => format!("{file}:{line}"),
            SettingSource::Flag(FlagSource::CommandLine(name)) => format!("flag {name}"),
            SettingSource::Flag(FlagSource::Environment(name)) => format!("environment {name}"),
            SettingSource::Credential => "credential of systemd".to_owned(),
        }
    }
}

/// The rows as text.
pub(super) fn render(rows: &[SettingRow], out: &mut StyledText) {
    let mut table = TextTable::new(&["SETTING", "VALUE", "SOURCE"]);
    for row in rows {
        let unit = row.unit.filter(|_| row.value.is_number()).map(|unit| format!(" {unit}"));
        let value = row.value_text() + &unit.unwrap_or_default();
        let source = row.source_text();
        let source = if row.source == SettingSource::Default { (DIM, source) } else { cell(source) };
        table.row(vec![(BOLD, row.key.clone()), cell(value), source]);
    }
    table.render(out);
}
