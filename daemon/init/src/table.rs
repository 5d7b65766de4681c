//! The table of models to offer.

use std::collections::BTreeSet;
use std::path::Path;

use artel_roles::hf_uri::{HfUri, InvalidHfUri};
use artel_roles::{ModelPurpose, Problems, YamlSource, documents};
use artel_task::ModelName;
use artel_task::id::InvalidName;
use serde::Deserialize;
use serde_json::Value;

/// The table that ships, and the name by which problems call it.
const SHIPPED: (&str, &str) = ("shipped/models.yaml", include_str!("../models.yaml"));
/// The most rows: more than a person looks through.
const MAX_TABLE_ENTRIES: usize = 1000;
/// The most layers of a model: some times those of the largest ones.
const MAX_LAYERS: u32 = 1024;
/// The most elements of keys and values per token and layer: some times those of the largest models.
const MAX_KV_ELEMENTS: u64 = 1 << 20;
/// The largest file: more than any machine has of memory.
const MAX_FILE_BYTES: u64 = 1 << 50;

/// The models to offer, the best first.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTable {
    models: Vec<TableModel>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableModel {
    /// How the catalog calls it.
    pub name: ModelName,
    /// Whether it answers, or embeds texts for routers.
    pub purpose: ModelPurpose,
    /// Where it is downloaded from.
    pub address: HfUri,
    /// Of its file, for people.
    pub quantisation: String,
    /// The size of its file in bytes, as the table says or as the hub has stated since.
    pub file_bytes: u64,
    /// How many parameters it has, for people.
    pub parameters: String,
    /// Layers.
    pub layers: u32,
    /// Elements of keys and values that one token takes in one layer.
    pub kv_elements: u64,
    /// The tokens that it was trained for.
    pub context_tokens: u32,
    /// Of its weights.
    pub licence: String,
    /// When a person last fetched this file and ran it, as `2026-11-29`.
    pub fetched: Option<String>,
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not YAML, or cannot be read.
    #[error("the table of models is invalid:\n{0}")]
    Yaml(Problems),
    /// It is something else.
    #[error("{0}: a table of models is one list, with an item for each model")]
    NoList(String),
    /// It offers nothing.
    #[error("{0}: the table has no model for chat")]
    NoChatModel(String),
    /// It is too long.
    #[error("{file}: the table has {count} models, the limit is {MAX_TABLE_ENTRIES}")]
    TooLong {
        /// The table.
        file: String,
        /// How many it has.
        count: usize,
    },
    /// A row has a wrong key or value.
    #[error("{file}: row {row}: {cause}")]
    Row {
        /// The table.
        file: String,
        /// The row, from 1.
        row: usize,
        /// What is wrong with it.
        cause: RowError,
    },
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// A key is unknown, missing or of the wrong type.
    #[error(transparent)]
    Keys(#[from] serde_json::Error),
    /// The name cannot be that of a model.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Repository and file make no address.
    #[error("`{address}`: {cause}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        cause: InvalidHfUri,
    },
    /// The same name stands above.
    #[error("there is a second `{0}`")]
    Duplicate(ModelName),
    /// No model is so small or so large.
    #[error("`{key}` is a number from {least} to {most}, not {value}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// Neither a date nor `never`.
    #[error("`fetched` is `never` or a date such as `2026-11-29`, not `{0}`")]
    Fetched(String),
}

/// A row as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRow {
    name: String,
    #[serde(default, rename = "use")]
    purpose: WrittenPurpose,
    #[serde(default)]
    hub: WrittenHub,
    repository: String,
    revision: Option<String>,
    file: String,
    quantisation: String,
    bytes: u64,
    parameters: String,
    layers: u32,
    kv: u64,
    context: u32,
    licence: String,
    fetched: String,
}

/// The words of `use`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPurpose {
    #[default]
    Chat,
    Embedding,
}

/// The words of `hub`. There is one hub so far.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenHub {
    #[default]
    Hf,
}

impl ModelTable {
    /// The table that ships.
    pub fn shipped() -> Self {
        let (path, text) = SHIPPED;
        let source = YamlSource { path: path.to_owned(), dir: None, text: text.to_owned() };
        Self::parse(&source).expect("a test reads the table that ships")
    }

    /// Reads a table of the user's.
    ///
    /// # Errors
    /// The file cannot be read, or is no such table.
    pub fn load(path: &Path) -> Result<Self, TableError> {
        Self::parse(&YamlSource::read(path, None).map_err(TableError::Yaml)?)
    }

    fn parse(source: &YamlSource) -> Result<Self, TableError> {
        let file = || source.path.clone();
        let mut documents = documents(source).map_err(TableError::Yaml)?;
        let (Some(Value::Array(rows)), true) = (documents.pop(), documents.is_empty()) else {
            return Err(TableError::NoList(file()));
        };
        if rows.len() > MAX_TABLE_ENTRIES {
            return Err(TableError::TooLong { file: file(), count: rows.len() });
        }
        let mut names = BTreeSet::new();
        let read = |(at, row): (usize, Value)| {
            let model = TableModel::read(row).and_then(|model| match names.insert(model.name.clone()) {
                true => Ok(model),
                false => Err(RowError::Duplicate(model.name)),
            });
            model.map_err(|cause| TableError::Row { file: file(), row: at + 1, cause })
        };
        let models: Vec<TableModel> = rows.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        match models.iter().any(|model| model.purpose == ModelPurpose::Chat) {
            true => Ok(Self { models }),
            false => Err(TableError::NoChatModel(file())),
        }
    }

    /// The models for a purpose, the best first.
    pub fn models(&self, purpose: ModelPurpose) -> impl Iterator<Item = &TableModel> {
        self.models.iter().filter(move |model| model.purpose == purpose)
    }

    /// The chat model of this name.
    pub fn chat_model(&self, name: &str) -> Option<&TableModel> {
        self.models(ModelPurpose::Chat).find(|model| model.name.as_str() == name)
    }

    /// Replaces the size of a file by what the hub states.
    pub fn set_file_bytes(&mut self, name: &ModelName, file_bytes: u64) {
        for model in self.models.iter_mut().filter(|model| model.name == *name) {
            model.file_bytes = file_bytes;
        }
    }
}

impl TableModel {
    fn read(row: Value) -> Result<Self, RowError> {
        let row: WrittenRow = serde_json::from_value(row)?;
        let WrittenHub::Hf = row.hub;
        let revision = row.revision.map(|revision| format!("@{revision}")).unwrap_or_default();
        let address = format!("hf:{}{revision}/{}", row.repository, row.file);
        let address = HfUri::parse(&address).map_err(|cause| RowError::Address { address, cause })?;
        let name = ModelName::parse(&row.name)?;
        for (key, value, least, most) in [
            ("bytes", row.bytes, 1, MAX_FILE_BYTES),
            ("layers", row.layers.into(), 1, MAX_LAYERS.into()),
            ("kv", row.kv, 0, MAX_KV_ELEMENTS),
        ] {
            if !(least..=most).contains(&value) {
                return Err(RowError::OutOfRange { key, value, least, most });
            }
        }
        let fetched = match row.fetched.as_str() {
            "never" => None,
            date if is_date(date) => Some(row.fetched),
            _ => return Err(RowError::Fetched(row.fetched)),
        };
        Ok(Self {
            name,
            purpose: match row.purpose {
                WrittenPurpose::Chat => ModelPurpose::Chat,
                WrittenPurpose::Embedding => ModelPurpose::Embedding,
            },
            address,
            quantisation: row.quantisation,
            file_bytes: row.bytes,
            parameters: row.parameters,
            layers: row.layers,
            kv_elements: row.kv,
            context_tokens: row.context,
            licence: row.licence,
            fetched,
        })
    }
}

/// Whether a text has the form of a date.
fn is_date(text: &str) -> bool {
    let form = "0000-00-00";
    let fits = |(c, wanted): (char, char)| if wanted == '0' { c.is_ascii_digit() } else { c == wanted };
    text.len() == form.len() && text.chars().zip(form.chars()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "- {name: tiny, repository: org/tiny, file: q4/tiny.gguf, quantisation: Q4_0, bytes: 1000, \
                       parameters: 1M, layers: 2, kv: 8, context: 512, licence: MIT, fetched: never}\n";

    fn parse(text: &str) -> Result<ModelTable, TableError> {
        ModelTable::parse(&YamlSource { path: "own.yaml".to_owned(), dir: None, text: text.to_owned() })
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_table_that_ships_is_valid_and_admits_that_nothing_was_fetched() {
        let table = ModelTable::shipped();
        assert!(table.models(ModelPurpose::Chat).count() >= 10);
        assert_eq!(table.models(ModelPurpose::Embedding).count(), 1);
        assert!(table.models.iter().all(|model| model.fetched.is_none()));
        assert!(table.models.iter().all(|model| !model.licence.is_empty() && model.kv_elements % 32 == 0));
    }

    #[test]
    fn a_row_becomes_an_address() {
        let table = parse(&ROW.replace("org/tiny,", "org/tiny, revision: v1,")).unwrap();
        let tiny = table.chat_model("tiny").unwrap();
        assert_eq!(tiny.address.to_string(), "hf:org/tiny@v1/q4/tiny.gguf");
        assert_eq!((tiny.file_bytes, tiny.fetched.as_deref()), (1000, None));
        let fetched = parse(&ROW.replace("never", "2026-11-29")).unwrap();
        assert_eq!(fetched.chat_model("tiny").unwrap().fetched.as_deref(), Some("2026-11-29"));
        assert!(table.chat_model("huge").is_none());
    }

    #[test]
    fn a_wrong_row_is_named_with_what_is_wrong() {
        assert_eq!(error("a: 1\n"), "own.yaml: a table of models is one list, with an item for each model");
        assert_eq!(error("[]\n"), "own.yaml: the table has no model for chat");
        assert_eq!(error(&format!("{ROW}{ROW}")), "own.yaml: row 2: there is a second `tiny`");
        assert!(error(&ROW.replace("kv: 8, ", "")).starts_with("own.yaml: row 1: missing field `kv`"));
        assert!(error(&ROW.replace("kv", "kvs")).contains("unknown field `kvs`"));
        assert!(error(&ROW.replace("tiny.gguf", "tiny.bin")).contains("ends with `.gguf`"));
        assert!(error(&ROW.replace("never", "once")).contains("`never` or a date"));
        assert!(error(&ROW.replace("name: tiny", "name: Tiny Model")).contains("`Tiny Model` is not a name"));
        for (key, value) in
            [("layers: 2", "layers: 0"), ("layers: 2", "layers: 4294967295"), ("bytes: 1000", "bytes: 0")]
        {
            assert!(error(&ROW.replace(key, value)).contains("is a number from 1 to"), "{value}");
        }
        let kv = error(&ROW.replace("kv: 8", "kv: 9223372036854775807"));
        assert_eq!(kv, "own.yaml: row 1: `kv` is a number from 0 to 1048576, not 9223372036854775807");
        assert!(error("- {a\n").contains("own.yaml:"), "{}", error("- {a\n"));
    }
}
