//! What was found for a question, numbered as an answer cites it.

use artel_knowledge::EntryKey;
use artel_task::CallerName;
use artel_task::event::Citation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The passages that were found for one question, the best first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FoundPassages {
    /// Each with its number, from 1.
    passages: Vec<NumberedPassage>,
    /// Whether they are likely to answer.
    #[serde(rename = "answerable")]
    pub is_answerable: bool,
    /// The tokens of the question that were embedded.
    #[serde(skip)]
    pub query_tokens: u32,
}

/// A file by its path, and a text by the name that its owner gave it.
pub fn shown_source(key: &EntryKey, owner: &CallerName) -> String {
    let name = key.text_id().map(|id| id.strip_prefix(&format!("{owner}/")).unwrap_or(id));
    name.unwrap_or(key.as_str()).to_owned()
}

/// A passage, and how well it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NumberedPassage {
    #[serde(flatten)]
    pub(crate) citation: Citation,
    pub(crate) score: f32,
}

impl FoundPassages {
    pub(crate) fn new(passages: Vec<NumberedPassage>, is_answerable: bool, query_tokens: u32) -> Self {
        Self { passages, is_answerable, query_tokens }
    }

    /// How many there are: they are numbered from 1 to this.
    pub fn count(&self) -> u32 {
        u32::try_from(self.passages.len()).unwrap_or(u32::MAX)
    }

    /// The passages as they are cited, by their numbers.
    pub fn citations(&self) -> impl Iterator<Item = Citation> {
        self.passages.iter().map(|passage| passage.citation.clone())
    }

    /// As the output of a step.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("texts and numbers are JSON")
    }

    /// From the output of a step; `None` for another output.
    pub fn from_json(json: &Value) -> Option<Self> {
        Self::deserialize(json).ok()
    }

    /// As a text: each passage with its number and its place.
    pub fn listing(&self) -> String {
        let entry = |citation: &Citation| {
            let Citation { number, source, page, context, quote, .. } = citation;
            let page = page.map(|page| format!(", page {page}")).unwrap_or_default();
            let place = [&[format!("{source}{page}")], context.as_slice()].concat().join(" > ");
            format!("[{number}] {place}\n{}\n", quote.trim())
        };
        let entries: Vec<String> = self.passages.iter().map(|passage| entry(&passage.citation)).collect();
        entries.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_comes_back_from_the_output_of_a_step() {
        let citation = Citation {
            number: 1,
            knowledge: "handbook".to_owned(),
            source: "refunds.md".to_owned(),
            page: None,
            first_line: 3,
            last_line: 4,
            context: vec!["Refunds".to_owned()],
            quote: "Within 30 days.\n".to_owned(),
        };
        let found = FoundPassages::new(vec![NumberedPassage { citation, score: 0.5 }], true, 0);
        assert_eq!(FoundPassages::from_json(&found.to_json()), Some(found.clone()));
        assert_eq!(found.listing(), "[1] refunds.md > Refunds\nWithin 30 days.\n");
        assert_eq!(FoundPassages::from_json(&serde_json::json!("text")), None);
    }
}
