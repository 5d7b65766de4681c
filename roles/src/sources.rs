//! The layers of files that a catalog is built from.

use std::path::Path;

use artel_task::CatalogVersion;
use artel_yaml::YamlSource;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The files that a catalog was built from, layer over layer; they can be stored, and the catalog built again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The lowest layer first.
    pub layers: Vec<Vec<YamlSource>>,
    /// Whether a client sent the files over the shipped ones: what they may name is up to the settings whenever the catalog is built.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_client: bool,
}

impl Sources {
    /// In the form that [`Catalog::restore`](crate::Catalog::restore) reads.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("paths that are not UTF-8 were refused when they were read")
    }

    /// The content hash: the directories, names and contents of the files. Line ends don't count.
    pub(crate) fn version(&self) -> CatalogVersion {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for layer in &self.layers {
            field(&(layer.len() as u64).to_le_bytes());
            for source in layer {
                // The form of the path (relative or not) does not matter; the directory for relative files does.
                let dir = source.dir.as_deref().map(Path::as_os_str).unwrap_or_default();
                let file = Path::new(&source.path).file_name().unwrap_or_default();
                field(dir.as_encoded_bytes());
                field(file.as_encoded_bytes());
                field(source.text.replace("\r\n", "\n").as_bytes());
            }
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        CatalogVersion::new(hex)
    }
}
