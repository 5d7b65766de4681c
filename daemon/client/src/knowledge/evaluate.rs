//! `artel knowledge eval`: how well the passages of labelled questions are found.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use artel_proto::v1::{Passage, SearchKnowledgeRequest, SearchMode};
use serde::Deserialize;
use serde_json::json;

use crate::error::Error;
use crate::render::knowledge as render;
use crate::session::ClientSession;

/// The passages that are looked at: nDCG counts ten.
const SEARCHED_PASSAGES: u32 = 10;
/// The passages among which recall looks for the answers.
const RECALL_PASSAGES: usize = 5;
/// The largest file of questions: thousands of them.
const MAX_QUESTIONS_BYTES: u64 = 16 * 1024 * 1024;

/// A question with the passages that answer it.
#[derive(Debug, Deserialize)]
struct KnowledgeQuestion {
    question: String,
    /// None if the texts do not answer it: such a question is not counted.
    answers: Vec<LabelledAnswer>,
}

/// A passage that answers a question.
#[derive(Debug, Deserialize)]
struct LabelledAnswer {
    /// The end of the path of its file.
    source: String,
    /// A part of it, spaces aside.
    quote: String,
}

/// What one way to search found.
pub(crate) struct SearchQuality {
    pub(crate) mode: &'static str,
    pub(crate) ndcg: f64,
    pub(crate) recall: f64,
}

pub(super) async fn run(session: &mut ClientSession, knowledge: String, file: &Path) -> Result<(), Error> {
    let questions = read(file)?;
    let modes = [("keyword", SearchMode::Keyword), ("vector", SearchMode::Vector), ("hybrid", SearchMode::Hybrid)];
    let mut found = Vec::new();
    session.output.start_status_line();
    for (name, mode) in modes {
        let (mut ndcg, mut recall) = (0.0, 0.0);
        for (at, question) in questions.iter().enumerate() {
            session.output.set_status(format!("{name}: question {} of {}", at + 1, questions.len()));
            let request = SearchKnowledgeRequest {
                knowledge: knowledge.clone(),
                query: question.question.clone(),
                top: SEARCHED_PASSAGES,
                mode: mode.into(),
                ..SearchKnowledgeRequest::default()
            };
            let answer = session.daemon.knowledge().search(request).await?.into_inner();
            let relevant = first_hits(question, &answer.passages);
            ndcg += discounted_gain(&relevant, question.answers.len());
            let early = relevant.iter().filter(|rank| **rank < RECALL_PASSAGES).count();
            recall += early as f64 / question.answers.len() as f64;
        }
        let count = questions.len() as f64;
        found.push(SearchQuality { mode: name, ndcg: ndcg / count, recall: recall / count });
    }
    session.output.finish_status_line()?;
    if session.output.is_json() {
        for SearchQuality { mode, ndcg, recall } in &found {
            let json = json!({"mode": mode, "questions": questions.len(), "ndcg_at_10": ndcg, "recall_at_5": recall});
            session.output.object(&json)?;
        }
        return Ok(());
    }
    session.output.render(|out| render::quality(questions.len(), &found, out))?;
    Ok(())
}

/// The questions that have an answer.
fn read(file: &Path) -> Result<Vec<KnowledgeQuestion>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Usage(format!("failed to read {}: {e}", file.display()));
    let bytes = fs::metadata(file).map_err(|e| failed(&e))?.len();
    if bytes > MAX_QUESTIONS_BYTES {
        return Err(failed(&format!("it has {bytes} bytes, the limit is {MAX_QUESTIONS_BYTES}")));
    }
    let text = fs::read_to_string(file).map_err(|e| failed(&e))?;
    let mut questions = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let question: KnowledgeQuestion =
            serde_json::from_str(line).map_err(|e| failed(&format!("line {}: {e}", at + 1)))?;
        questions.extend(Some(question).filter(|question| !question.answers.is_empty()));
    }
    if questions.is_empty() {
        return Err(failed(&"it has no question with an answer"));
    }
    Ok(questions)
}

/// For each answer that was found, the place of the first passage that has it, from 0; each passage counts once.
fn first_hits(question: &KnowledgeQuestion, passages: &[Passage]) -> BTreeSet<usize> {
    let mut hits = BTreeSet::new();
    for answer in &question.answers {
        let quote = normalized(&answer.quote);
        let has =
            |passage: &Passage| passage.source.ends_with(&answer.source) && normalized(&passage.text).contains(&quote);
        hits.extend(passages.iter().position(has));
    }
    hits
}

/// nDCG: what was found at these places, against all answers at the first places.
fn discounted_gain(places: &BTreeSet<usize>, answers: usize) -> f64 {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let best: f64 = (0..answers.min(SEARCHED_PASSAGES as usize)).map(gain).sum();
    places.iter().map(|place| gain(*place)).sum::<f64>() / best
}

/// With one space where there are several, in lower case.
fn normalized(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gain_is_one_where_all_answers_come_first() {
        assert_eq!(discounted_gain(&BTreeSet::from([0]), 1), 1.0);
        assert_eq!(discounted_gain(&BTreeSet::from([0, 1]), 2), 1.0);
        assert_eq!(discounted_gain(&BTreeSet::new(), 1), 0.0);
        let second = discounted_gain(&BTreeSet::from([1]), 1);
        assert!((second - 0.6309).abs() < 1e-4, "{second}");
    }

    #[test]
    fn an_answer_is_found_by_its_source_and_quote_spaces_aside() {
        let answer = |source: &str, quote: &str| LabelledAnswer { source: source.to_owned(), quote: quote.to_owned() };
        let question = KnowledgeQuestion {
            question: "q".to_owned(),
            answers: vec![answer("a.md", "two words"), answer("b.md", "none")],
        };
        let passage = |source: &str, text: &str| Passage {
            source: source.to_owned(),
            text: text.to_owned(),
            ..Passage::default()
        };
        let passages =
            [passage("/x/b.md", "two words"), passage("/x/a.md", "one"), passage("/x/a.md", "with Two\n words")];
        assert_eq!(first_hits(&question, &passages), BTreeSet::from([2]));
    }
}
