//! The files of a first catalog: templates that ship, with the names of the models filled in.

use artel_model::PieceHashes;
use serde_json::json;

/// The context of a request in the catalog, in tokens: long enough for a question of several pages, short enough that the cache
/// takes less memory than the weights.
pub(crate) const CONTEXT_TOKENS: u32 = 4096;
/// The requests that are computed at once: as many as a small household sends.
pub(crate) const SEQUENCES: u32 = 4;

const CHAT_MODEL: &str = include_str!("../starter/chat-model.yaml");
const EMBEDDING_MODEL: &str = include_str!("../starter/embedding-model.yaml");
const ROLES: &str = include_str!("../starter/roles.yaml");
const ROUTER: &str = include_str!("../starter/router.yaml");
const WORD_ROUTER: &str = include_str!("../starter/word-router.yaml");
const GRAPH: &str = include_str!("../starter/graph.yaml");

/// A model as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogModel {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// Its file: an `hf:` URI or a path.
    pub file: String,
    /// The hash of the file, or of each piece, if known.
    pub sha256: Option<PieceHashes>,
    /// The tokens that it was trained for.
    pub context_tokens: u32,
}

/// A catalog of three roles, a router and a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StarterCatalog {
    /// The model of all roles.
    pub chat: CatalogModel,
    /// The model with which the router compares texts. Without one it counts words and asks the chat model.
    pub embedding: Option<CatalogModel>,
}

/// A file of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StarterFile {
    /// Its name in the directory.
    pub name: &'static str,
    /// Its content.
    pub text: String,
}

impl StarterCatalog {
    /// The files, in the order in which a reader should open them.
    pub fn files(&self) -> Vec<StarterFile> {
        let models =
            [Some(self.chat.document(CHAT_MODEL)), self.embedding.as_ref().map(|m| m.document(EMBEDDING_MODEL))];
        let models: Vec<String> = models.into_iter().flatten().collect();
        let router = if self.embedding.is_some() { ROUTER } else { WORD_ROUTER };
        let named = |text: &str| text.replace("@chat@", &self.chat.name);
        vec![
            StarterFile { name: "models.yaml", text: models.join("---\n") },
            StarterFile { name: "roles.yaml", text: named(ROLES) },
            StarterFile { name: "router.yaml", text: named(router) },
            StarterFile { name: "graph.yaml", text: named(GRAPH) },
        ]
    }
}

impl CatalogModel {
    /// Under another name.
    #[must_use]
    pub fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Its YAML document. Texts are quoted as JSON, which is YAML.
    fn document(&self, template: &str) -> String {
        let sha256 = self.sha256.as_ref().map(|sha256| match (sha256.get(0), sha256.count()) {
            (Some(hash), 1) => format!("sha256: {hash}\n"),
            _ => format!("sha256: {}\n", json!(sha256)),
        });
        let sha256 = sha256.unwrap_or_default();
        template
            .replace("@name@", &self.name)
            .replace("@description@", &json!(self.description).to_string())
            .replace("@file@", &json!(self.file).to_string())
            .replace("@sha256@\n", &sha256)
            .replace("@context@", &CONTEXT_TOKENS.min(self.context_tokens).to_string())
            .replace("@sequences@", &SEQUENCES.to_string())
    }
}

#[cfg(test)]
mod tests {
    use artel_roles::{Catalog, YamlSource, shipped};

    use super::*;

    fn starter(embedding: bool) -> StarterCatalog {
        let model = |name: &str, file: &str| CatalogModel {
            name: name.to_owned(),
            description: format!("{name} \"in\" 4 bits: small"),
            file: file.to_owned(),
            sha256: None,
            context_tokens: 32_768,
        };
        StarterCatalog {
            chat: model("tiny", "hf:org/tiny/tiny.gguf"),
            embedding: embedding.then(|| model("mini", "hf:org/mini/mini.gguf")),
        }
    }

    fn parsed(catalog: &StarterCatalog) -> Catalog {
        let source = |file: StarterFile| YamlSource { path: file.name.to_owned(), dir: None, text: file.text };
        let own = catalog.files().into_iter().map(source).collect();
        Catalog::parse(vec![shipped::sources(), own]).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn the_catalog_is_as_recorded() {
        let text = |file: StarterFile| format!("=== {}\n{}", file.name, file.text);
        let all: Vec<String> = starter(true).files().into_iter().map(text).collect();
        insta::assert_snapshot!("starter_catalog", all.concat());
        let words = starter(false).files().into_iter().find(|file| file.name == "router.yaml").unwrap();
        insta::assert_snapshot!("starter_catalog_without_embedding", words.text);
    }

    #[test]
    fn both_forms_are_valid_catalogs_without_a_warning() {
        for embedding in [true, false] {
            let catalog = parsed(&starter(embedding));
            assert_eq!(catalog.warnings().iter().count(), 0);
            let own: Vec<&str> = catalog
                .roles()
                .values()
                .filter(|role| role.model.as_str() == "tiny")
                .map(|r| r.name.as_str())
                .collect();
            assert_eq!(own, ["explainer", "organizer", "writer"]);
            assert!(catalog.graphs().contains_key("crew"));
            assert_eq!(catalog.model("mini").is_some(), embedding);
        }
    }

    #[test]
    fn a_path_with_its_hash_is_named_as_it_is() {
        let mut catalog = starter(true);
        catalog.chat.file = "demo \"file\".gguf".to_owned();
        catalog.chat.sha256 = Some("ab".repeat(32).into());
        catalog.chat.context_tokens = 2048;
        let model = parsed(&catalog).model("tiny").unwrap().clone();
        assert_eq!((model.sha256.clone(), model.context), (Some("ab".repeat(32).into()), Some(2048)));
        assert_eq!(model.candidates(std::path::Path::new("m")), [std::path::Path::new("m/demo \"file\".gguf")]);
    }

    #[test]
    fn no_mark_of_a_template_is_left() {
        for file in [starter(true), starter(false)].iter().flat_map(StarterCatalog::files) {
            assert!(!file.text.contains('@'), "{}: {}", file.name, file.text);
        }
    }
}
