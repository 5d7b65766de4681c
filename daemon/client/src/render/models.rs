//! Embeddings and rankings.

use artel_proto::v1::{Embedding, RankedDocument};
use artel_terminal::{StyledText, brief};

/// Numbers of a vector that are shown: enough to tell two apart. All of them are in the JSON.
const SHOWN_VALUES: usize = 6;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 60;

/// An embedding in one line.
pub(crate) fn embedding(text: &str, embedding: &Embedding, out: &mut StyledText) {
    let Embedding { values, tokens } = embedding;
    let shown: Vec<String> = values.iter().take(SHOWN_VALUES).map(|value| format!("{value:.4}")).collect();
    let rest = if values.len() > SHOWN_VALUES { " ..." } else { "" };
    out.push(format_args!("{} numbers, {tokens} tokens: {}{rest}", values.len(), shown.join(" ")));
    out.push(format_args!("  {}", brief(text, SHOWN_CHARS))).newline();
}

/// Documents in the order of their relevance.
pub(crate) fn ranking(documents: &[String], results: &[RankedDocument], out: &mut StyledText) {
    for RankedDocument { index, score, relevance, .. } in results {
        let text = documents.get(*index as usize).map_or("", String::as_str);
        out.push(format_args!("{relevance:.3}  score {score:.3}  {index}: {}", brief(text, SHOWN_CHARS))).newline();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_shown_by_its_first_numbers_and_a_ranking_by_its_documents() {
        let mut out = StyledText::new(false);
        embedding("a text", &Embedding { values: vec![0.125; 8], tokens: 4 }, &mut out);
        let documents = ["a".to_owned(), "b".to_owned()];
        let results = [RankedDocument { index: 1, score: 2.0, relevance: 0.88, tokens: 5 }];
        ranking(&documents, &results, &mut out);
        let lines =
            "8 numbers, 4 tokens: 0.1250 0.1250 0.1250 0.1250 0.1250 0.1250 ...  a text\n0.880  score 2.000  1: b\n";
        assert_eq!(out.take(), lines);
    }
}
