//! `artel knowledge eval`: how well the passages of labelled questions are found.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use artel_proto::v1::{Passage, SearchKnowledgeRequest, SearchMode};
use serde::Deserialize;
use serde_json::json;

use super::mean_interval::MeanInterval;
use super::search_quality::{HybridGain, SearchQuality};
use crate::error::Error;
use crate::render::knowledge as render;
use crate::session::ClientSession;

/// The passages that are looked at: nDCG counts ten.
const SEARCHED_PASSAGES: u32 = 10;
/// The passages among which recall looks for the answers.
const RECALL_PASSAGES: usize = 5;
/// The ways to search.
const MODES: [(&str, SearchMode); 3] =
    [("keyword", SearchMode::Keyword), ("vector", SearchMode::Vector), ("hybrid", SearchMode::Hybrid)];
/// The largest file of questions: thousands of them.
const MAX_QUESTIONS_BYTES: u64 = 16 * 1024 * 1024;

/// A question with the passages that answer it.
#[derive(Debug, Deserialize)]
struct KnowledgeQuestion {
    question: String,
    /// None if the texts do not answer it: such a question is not counted.
    answers: Vec<LabelledAnswer>,
    /// The part of the questions to which it belongs, such as `fit` or `held-out`.
    #[serde(default)]
    split: String,
    /// Its language.
    #[serde(default)]
    language: String,
}

impl KnowledgeQuestion {
    /// The sets of questions whose figures it is a part of, from all of them to those of its part and language.
    fn subsets(&self) -> BTreeSet<String> {
        let named = [&self.split, &self.language].into_iter().filter(|name| !name.is_empty());
        let named: Vec<&str> = named.map(String::as_str).collect();
        BTreeSet::from([String::new(), self.split.clone(), named.join(", ")])
    }
}

/// A passage that answers a question.
#[derive(Debug, Deserialize)]
struct LabelledAnswer {
    /// The end of the path of its file.
    source: String,
    /// A part of it, spaces aside.
    quote: String,
}

/// How well a question's answers were found in one way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct QuestionScore {
    ndcg: f64,
    recall: f64,
}

pub(super) async fn run(session: &mut ClientSession, knowledge: String, file: &Path) -> Result<(), Error> {
    let questions = read(file)?;
    let mut scores = Vec::new();
    session.output.start_status_line();
    for (name, mode) in MODES {
        let mut found = Vec::new();
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
            found.push(score(question, &answer.passages));
        }
        scores.push(found);
    }
    session.output.finish_status_line()?;
    let (found, gains) = figures(&questions, &scores);
    if session.output.is_json() {
        let numbers = |mean: &MeanInterval| json!([mean.low, mean.high]);
        for SearchQuality { subset, questions, mode, ndcg, recall } in &found {
            session.output.object(&json!({
                "subset": subset, "questions": questions, "mode": mode,
                "ndcg_at_10": ndcg.mean, "ndcg_at_10_interval": numbers(ndcg),
                "recall_at_5": recall.mean, "recall_at_5_interval": numbers(recall),
            }))?;
        }
        for HybridGain { subset, other, ndcg } in &gains {
            session.output.object(&json!({
                "subset": subset, "hybrid_against": other, "ndcg_at_10_gain": ndcg.mean, "interval": numbers(ndcg),
            }))?;
        }
        return Ok(());
    }
    session.output.render(|out| render::quality(&found, &gains, out))?;
    Ok(())
}

fn score(question: &KnowledgeQuestion, passages: &[Passage]) -> QuestionScore {
    let relevant = first_hits(question, passages);
    let early = relevant.iter().filter(|rank| **rank < RECALL_PASSAGES).count();
    QuestionScore {
        ndcg: discounted_gain(&relevant, question.answers.len()),
        recall: early as f64 / question.answers.len() as f64,
    }
}

/// The figures of each set of questions, from the scores of the questions in each way.
fn figures(questions: &[KnowledgeQuestion], scores: &[Vec<QuestionScore>]) -> (Vec<SearchQuality>, Vec<HybridGain>) {
    let (mut found, mut gains) = (Vec::new(), Vec::new());
    let subsets: BTreeSet<String> = questions.iter().flat_map(KnowledgeQuestion::subsets).collect();
    for subset in subsets {
        let is_in = |question: &KnowledgeQuestion| question.subsets().contains(&subset);
        let of_mode = |scores: &Vec<QuestionScore>| -> Vec<QuestionScore> {
            let pairs = questions.iter().zip(scores).filter(|(question, _)| is_in(question));
            pairs.map(|(_, score)| *score).collect()
        };
        let scores: Vec<Vec<QuestionScore>> = scores.iter().map(of_mode).collect();
        let of_subset = MODES.iter().zip(&scores).map(|((mode, _), scores)| SearchQuality {
            subset: subset.clone(),
            questions: scores.len(),
            mode,
            ndcg: MeanInterval::of(&scores.iter().map(|score| score.ndcg).collect::<Vec<_>>()),
            recall: MeanInterval::of(&scores.iter().map(|score| score.recall).collect::<Vec<_>>()),
        });
        let of_subset: Vec<SearchQuality> = of_subset.collect();
        let ([_, _, hybrid], [keyword, vector, _]) = (&scores[..], &of_subset[..]) else { continue };
        let (other, others) = match keyword.ndcg.mean > vector.ndcg.mean {
            true => (keyword.mode, &scores[0]),
            false => (vector.mode, &scores[1]),
        };
        let differences = hybrid.iter().zip(others).map(|(hybrid, other)| hybrid.ndcg - other.ndcg);
        let ndcg = MeanInterval::of(&differences.collect::<Vec<_>>());
        gains.push(HybridGain { subset: subset.clone(), other, ndcg });
        found.extend(of_subset);
    }
    (found, gains)
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
            split: String::new(),
            language: String::new(),
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

    #[test]
    fn figures_are_those_of_all_questions_and_of_each_part_and_language() {
        let question = |split: &str, language: &str| KnowledgeQuestion {
            question: "q".to_owned(),
            answers: Vec::new(),
            split: split.to_owned(),
            language: language.to_owned(),
        };
        let questions = [question("fit", "en"), question("fit", "ru"), question("held-out", "en")];
        let scores = |ndcg: [f64; 3]| ndcg.map(|ndcg| QuestionScore { ndcg, recall: 1.0 }).to_vec();
        let (found, gains) = figures(&questions, &[scores([0.0; 3]), scores([0.5; 3]), scores([1.0, 1.0, 0.5])]);
        let subsets: Vec<(&str, usize)> =
            found.iter().step_by(3).map(|quality| (quality.subset.as_str(), quality.questions)).collect();
        let expected = [("", 3), ("fit", 2), ("fit, en", 1), ("fit, ru", 1), ("held-out", 1), ("held-out, en", 1)];
        assert_eq!(subsets, expected);
        assert_eq!((gains[1].other, gains[1].ndcg.mean), ("vector", 0.5));
        assert_eq!(gains[4].ndcg.mean, 0.0);
    }
}
