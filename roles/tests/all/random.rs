//! No input makes the decoder panic.

use artel_roles::template::TemplateContext;
use artel_roles::{Catalog, Template, YamlSource, shipped};
use proptest::prelude::*;

fn parse(text: String) {
    let source = YamlSource { path: "random.yaml".to_owned(), dir: None, text };
    // A panic is the failure; both results are fine.
    if let Err(problems) = Catalog::parse(vec![shipped::sources(), vec![source]]) {
        assert!(!problems.is_empty());
        assert!(!problems.to_string().is_empty());
    }
}

/// A shipped file with some places overwritten, cut out or repeated.
fn mutated() -> impl Strategy<Value = String> {
    let files: Vec<String> = shipped::sources().into_iter().map(|s| s.text).collect();
    let piece = prop::sample::select(vec![
        "",
        "\n",
        "  ",
        "\t",
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "---\n",
        "|",
        ">",
        "\"",
        "'",
        "#",
        "!!x ",
        "? ",
        "<<: ",
        "{{",
        "}}",
        "{%",
        "null",
        "1e999",
        "\u{feff}",
        "é",
        "\u{2028}",
        "\r",
        "done",
        "all",
        "%YAML 9\n",
        ",",
    ]);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..8usize, piece), 1..12);
    (prop::sample::select(files), edits).prop_map(|(mut text, edits)| {
        for (at, cut, piece) in edits {
            let places: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let from = at.index(places.len());
            let to = (from + cut).min(places.len() - 1);
            text.replace_range(places[from]..places[to], piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn mutated_definitions_never_panic(text in mutated()) {
        parse(text);
    }

    #[test]
    fn random_text_never_panics(text in "(?s)(role|graph|model): a\n.{0,200}") {
        parse(text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("random.yaml"), bytes).unwrap();
        let _either_is_fine = Catalog::load(Some(dir.path()));
    }

    #[test]
    fn random_templates_never_panic(source in "(?s)(\\{\\{|\\}\\}|\\{%|%\\}|if|for|nodes|task|\\.|\\||[a-z ()\\[\\]+*é\n]){0,40}") {
        if let Ok(template) = Template::parse(&source) {
            let _either_is_fine = template.render(&TemplateContext::default());
        }
    }
}
