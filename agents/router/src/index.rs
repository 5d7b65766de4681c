//! The index of a set of candidates: everything that is computed about them before a question is asked.

use std::collections::HashMap;

use artel_task::event::Signal;

use crate::candidate::CandidateDocument;
use crate::embedding::Embedding;
use crate::keyword::KeywordIndex;
use crate::label::LabelPrompt;
use crate::linear::LinearClassifier;
use crate::nearest::CandidateEmbeddings;
use crate::signal_scores::SignalScores;

/// Characters of a question that are read: about what the context of an embedding model holds.
const MAX_QUESTION_CHARS: usize = 4_000;

/// The index of one set of candidates, which scores questions.
pub struct RoutingIndex {
    candidates: usize,
    keywords: KeywordIndex,
    embeddings: Option<IndexedEmbeddings>,
    labels: LabelPrompt,
}

struct IndexedEmbeddings {
    nearest: CandidateEmbeddings,
    linear: Option<LinearClassifier>,
}

/// What engines computed about a question. A signal whose evidence is missing has no score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuestionEvidence {
    /// Its embedding, a unit vector; for the signals `embedding` and `linear`.
    pub embedding: Option<Vec<f32>>,
    /// The calibrated score of each of [`LabelPrompt::labels`]; for the signal `label`.
    pub labels: Option<Vec<f64>>,
}

impl RoutingIndex {
    /// Indexes candidates. `embeddings` has those of all their texts and of the background, by text; without them the
    /// signals that compare embeddings have no scores. With them a classifier is fitted, which may take long enough to
    /// hold up the other tasks of an async thread.
    pub fn new(
        candidates: &[CandidateDocument<'_>],
        background: &[String],
        embeddings: Option<&HashMap<String, Embedding>>,
    ) -> Self {
        Self {
            candidates: candidates.len(),
            keywords: KeywordIndex::new(candidates),
            embeddings: embeddings.map(|embeddings| IndexedEmbeddings::new(candidates, background, embeddings)),
            labels: LabelPrompt::new(candidates),
        }
    }

    /// Whether it was made with embeddings.
    pub fn has_embeddings(&self) -> bool {
        self.embeddings.is_some()
    }

    /// The prompt after which a chat model scores the candidates' names.
    pub fn label_prompt(&self) -> &LabelPrompt {
        &self.labels
    }

    /// The score of each of these signals, apart from rules, for every candidate.
    pub fn scores(&self, question: &str, signals: &[Signal], evidence: &QuestionEvidence) -> SignalScores {
        let mut scores = SignalScores::new(self.candidates);
        if signals.contains(&Signal::Keyword) {
            scores.insert(Signal::Keyword, &self.keywords.scores(question), 0.0);
        }
        if let (Some(embeddings), Some(question)) = (&self.embeddings, &evidence.embedding) {
            if signals.contains(&Signal::Embedding) {
                let (candidates, no_match) = embeddings.nearest.similarities(question);
                scores.insert(Signal::Embedding, &candidates, no_match);
            }
            if signals.contains(&Signal::Linear)
                && let Some(linear) = &embeddings.linear
            {
                insert_with_no_match(&mut scores, Signal::Linear, &linear.scores(question));
            }
        }
        if signals.contains(&Signal::Label)
            && let Some(labels) = &evidence.labels
        {
            insert_with_no_match(&mut scores, Signal::Label, labels);
        }
        scores
    }
}

impl IndexedEmbeddings {
    /// Groups embeddings by candidate and fits the classifier.
    fn new(
        candidates: &[CandidateDocument<'_>],
        background: &[String],
        embeddings: &HashMap<String, Embedding>,
    ) -> Self {
        let of = |text: &str| embeddings.get(text).cloned();
        let background: Vec<Embedding> = background.iter().filter_map(|text| of(text)).collect();
        let candidates: Vec<Vec<Embedding>> = candidates.iter().map(|c| c.texts().filter_map(of).collect()).collect();
        let classes: Vec<&[Embedding]> = candidates.iter().chain([&background]).map(Vec::as_slice).collect();
        let linear = LinearClassifier::fit(&classes);
        Self { nearest: CandidateEmbeddings { candidates, background }, linear }
    }
}

/// Inserts the scores of a signal, of which the last is that of "no match".
fn insert_with_no_match(scores: &mut SignalScores, signal: Signal, all: &[f64]) {
    if let Some((no_match, candidates)) = all.split_last() {
        scores.insert(signal, candidates, *no_match);
    }
}

/// The part of a question that is read.
pub fn truncate_question(text: &str) -> &str {
    text.char_indices().nth(MAX_QUESTION_CHARS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use artel_task::RoleName;
    use proptest::prelude::*;

    use super::*;

    const SIGNALS: [Signal; 4] = [Signal::Embedding, Signal::Linear, Signal::Keyword, Signal::Label];

    /// The index of a sailor, whose texts are on one axis, and a writer, whose texts are on another; the background is on
    /// a third.
    fn index(with_embeddings: bool) -> RoutingIndex {
        let (sailor, writer) = (RoleName::parse("sailor").unwrap(), RoleName::parse("writer").unwrap());
        let (sails, writes) = (["Which sail?".to_owned()], ["Which pen?".to_owned()]);
        let documents = [
            CandidateDocument { name: &sailor, description: "Sails.", examples: &sails, keywords: &[] },
            CandidateDocument { name: &writer, description: "Writes.", examples: &writes, keywords: &[] },
        ];
        let axes = [("Sails.", 0), ("Which sail?", 0), ("Writes.", 1), ("Which pen?", 1), ("Rice?", 2)];
        let embedded = axes.map(|(text, axis)| (text.to_owned(), Embedding::from(unit(axis))));
        let embeddings: HashMap<String, Embedding> = embedded.into();
        RoutingIndex::new(&documents, &["Rice?".to_owned()], with_embeddings.then_some(&embeddings))
    }

    fn unit(axis: usize) -> [f32; 3] {
        let mut vector = [0.0; 3];
        vector[axis] = 1.0;
        vector
    }

    fn about(axis: usize) -> QuestionEvidence {
        QuestionEvidence { embedding: Some(unit(axis).to_vec()), labels: Some(vec![0.5, -0.5, 0.25]) }
    }

    #[test]
    fn each_signal_prefers_the_candidate_whose_texts_are_near() {
        let scores = index(true).scores("Which sail?", &SIGNALS, &about(0));
        for signal in SIGNALS {
            let of = |values: &crate::SignalValues| values[&signal];
            assert!(of(&scores.candidates[0]) > of(&scores.candidates[1]), "{signal}: {scores:?}");
            assert!(of(&scores.candidates[0]) > of(&scores.no_match), "{signal}: {scores:?}");
        }
        assert_eq!((scores.candidates[1][&Signal::Label], scores.no_match[&Signal::Label]), (-0.5, 0.25));
    }

    #[test]
    fn a_question_of_the_background_belongs_to_no_candidate() {
        let scores = index(true).scores("Rice?", &SIGNALS, &about(2));
        for signal in [Signal::Embedding, Signal::Linear] {
            assert!(scores.no_match[&signal] > scores.candidates[0][&signal], "{signal}: {scores:?}");
            assert!(scores.no_match[&signal] > scores.candidates[1][&signal], "{signal}: {scores:?}");
        }
    }

    #[test]
    fn a_signal_without_evidence_has_no_score() {
        let signals = |scores: &SignalScores| scores.no_match.keys().copied().collect::<Vec<_>>();
        let without_index = index(false).scores("Which sail?", &SIGNALS, &about(0));
        assert_eq!(signals(&without_index), [Signal::Keyword, Signal::Label]);
        let without_evidence = index(true).scores("Which sail?", &SIGNALS, &QuestionEvidence::default());
        assert_eq!(signals(&without_evidence), [Signal::Keyword]);
        assert_eq!(signals(&index(true).scores("Which sail?", &[Signal::Linear], &about(0))), [Signal::Linear]);
    }

    #[test]
    fn a_question_is_cut_between_two_characters() {
        let long = "ы".repeat(MAX_QUESTION_CHARS + 1);
        assert_eq!(truncate_question(&long).chars().count(), MAX_QUESTION_CHARS);
        assert_eq!(truncate_question("short"), "short");
        assert_eq!(truncate_question(""), "");
    }

    proptest! {
        #[test]
        fn any_question_and_any_embedding_give_finite_scores(
            question in any::<String>(),
            embedding in prop::collection::vec(any::<f32>(), 0..6),
        ) {
            let evidence = QuestionEvidence { embedding: Some(embedding), labels: Some(vec![f64::NAN]) };
            let scores = index(true).scores(truncate_question(&question), &SIGNALS, &evidence);
            let mut all = scores.candidates.iter().chain([&scores.no_match]).flat_map(|values| values.values());
            prop_assert!(all.all(|score| score.is_finite()));
        }
    }
}
