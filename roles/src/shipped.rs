//! The shipped catalog, embedded in the program.

use artel_yaml::YamlSource;

macro_rules! definitions {
    ($($path:literal),* $(,)?) => {
        /// The path below `definitions`, and the text.
        const FILES: &[(&str, &str)] = &[$(($path, include_str!(concat!("../definitions/", $path)))),*];
    };
}

definitions![
    "graphs/council.yaml",
    "graphs/library.yaml",
    "graphs/mentor.yaml",
    "graphs/path.yaml",
    "knowledge/library.yaml",
    "models/minilm.yaml",
    "models/smollm2.yaml",
    "roles/critic.yaml",
    "roles/deepspeed.yaml",
    "roles/gguf.yaml",
    "roles/gpu.yaml",
    "roles/librarian.yaml",
    "roles/lora.yaml",
    "roles/pathfinder.yaml",
    "roles/planner.yaml",
    "roles/rag.yaml",
    "roles/transformers.yaml",
    "routers/default.yaml",
];

/// The shipped layer.
pub fn sources() -> Vec<YamlSource> {
    let source = |(path, text): &(&str, &str)| YamlSource {
        path: format!("shipped/{path}"),
        dir: None,
        text: (*text).to_owned(),
    };
    FILES.iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_definition_is_embedded() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions");
        let on_disk = artel_yaml::source::read_dir(&dir).unwrap();
        let embedded = super::sources();
        let texts = |sources: &[crate::YamlSource]| sources.iter().map(|s| s.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&on_disk), texts(&embedded));
    }
}
