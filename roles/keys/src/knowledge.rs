//! The keys of knowledge.

use super::KeyDefault::{Described, Required, Value};
use super::{KeySet, key};

pub static KNOWLEDGE: KeySet = KeySet {
    name: "knowledge",
    page: "knowledge",
    keys: &[
        key("knowledge", Required, "The name of the knowledge."),
        key("description", Described("none"), "What it is about, for people."),
        key(
            "sources",
            Value("[]"),
            "Its files: paths of files and directories, patterns, or maps with `path`; they are watched.",
        ),
        key("exclude", Value("[]"), "Patterns of files that are left out, relative to their source."),
        key(
            "embedding",
            Described("the embedding model of the routers"),
            "The model that embeds its passages, one with `use: embedding`.",
        ),
        key("chunk", Value("{}"), "How texts are cut into passages."),
        key("search", Value("{}"), "How it is searched."),
        key(
            "store",
            Value("embedded"),
            "Where its vectors are compared: `embedded`, which is in the daemon, or a map with `qdrant`.",
        ),
        key(
            "languages",
            Described("told by each text"),
            "The languages of its texts, whose words are stemmed, as ISO 639-1 codes.",
        ),
    ],
};

pub static SOURCE: KeySet = KeySet {
    name: "knowledge.sources",
    page: "knowledge",
    keys: &[
        key("path", Required, "A file, a directory, or a pattern such as `docs/**/*.md`."),
        key("exclude", Value("[]"), "Patterns of files that are left out, relative to the directory."),
        key("labels", Value("{}"), "Names and texts that a search may ask for."),
    ],
};

pub static CHUNK: KeySet = KeySet {
    name: "knowledge.chunk",
    page: "knowledge",
    keys: &[
        key("tokens", Value("256"), "The most tokens of a passage.").in_unit("tokens"),
        key("overlap", Value("32"), "The tokens that a passage repeats of the one before it.").in_unit("tokens"),
    ],
};

pub static SEARCH: KeySet = KeySet {
    name: "knowledge.search",
    page: "knowledge",
    keys: &[
        key("top", Value("6"), "The passages that a search gives."),
        key("mode", Value("hybrid"), "By what passages are found: `hybrid`, `vector` or `keyword`."),
        key("rerank", Described("no reranking"), "What orders what was found: a model with `use: rerank`, or a role."),
    ],
};

pub static STORE: KeySet = KeySet {
    name: "knowledge.store",
    page: "knowledge",
    keys: &[
        key("qdrant", Required, "The URL of the gRPC port of a Qdrant server, such as `http://127.0.0.1:6334`."),
        key("collection", Described("the name of the knowledge"), "The collection, which is created if it is missing."),
        key("key", Described("no key"), "Its API key, a map with `file`."),
    ],
};

pub static STORE_KEY: KeySet = KeySet {
    name: "knowledge.store.key",
    page: "knowledge",
    keys: &[key("file", Required, "The file that has the key alone.")],
};
