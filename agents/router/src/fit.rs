//! Weights and temperature from labelled cases.
//!
//! A multinomial logistic regression (McFadden's conditional logit) whose weights all candidates share. The features of a
//! candidate are its standardised signal values; those of "no match" are the values of the background and a bias. The problem
//! is convex, so Newton's method finds the global optimum. The temperature is fitted to held-out cases (five folds), because
//! the weights are overconfident on the cases that they were fitted to.

mod logit;

use std::collections::BTreeMap;

use artel_task::ModelName;
use artel_task::event::Signal;

use crate::probabilities::softmax;
use crate::settings::{RouterSettings, SignalWeight};
use crate::signal_scores::SignalValues;
use logit::{CaseFeatures, LogitProblem};

/// Fewer cases than this do not determine half a dozen parameters.
pub const MIN_CASES: usize = 20;
/// The proposed threshold may reject this fraction of in-scope questions.
pub const FALSE_REJECTION_RATIO: f64 = 0.07;
/// Folds of the cross-validation.
const FOLDS: usize = 5;

/// A fitted router.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedRouter {
    /// The settings with the fitted weights.
    pub settings: RouterSettings,
    /// The proposed minimum confidence.
    pub threshold: f64,
    /// How many cases it was fitted to.
    pub cases: usize,
    /// The signals that do not improve the fit.
    pub excluded: Vec<Signal>,
}

/// A labelled question with its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledCase {
    /// By candidate.
    pub candidates: Vec<SignalValues>,
    /// Those of "no match".
    pub no_match: SignalValues,
    /// The index of the right candidate; `None` for a question that belongs to none.
    pub correct: Option<usize>,
}

impl FittedRouter {
    /// Fits weights and temperature to cases. The background and the chat model for labels are taken over.
    ///
    /// # Panics
    /// The index of a right candidate is not below the number of candidates.
    pub fn fit(cases: &[LabelledCase], background: Vec<String>, label_model: Option<ModelName>) -> Self {
        let scales = scales(cases);
        let mut used: Vec<Signal> = scales.keys().copied().collect();
        let mut excluded = Vec::new();
        let weights = loop {
            let weights = problem(cases, &scales, &used, |_| true).solve();
            // A signal with a negative weight is noise beside the others.
            let negative = (0..used.len()).filter(|index| weights[*index] <= 0.0);
            let worst = negative.min_by(|a, b| weights[*a].total_cmp(&weights[*b]));
            match worst {
                Some(index) if used.len() > 1 => excluded.push(used.remove(index)),
                _ => break weights,
            }
        };
        let (temperature, confidences) = cross_validate(cases, &scales, &used);
        let signals = used.iter().enumerate().map(|(at, signal)| {
            let alone = problem(cases, &scales, &[*signal], |_| true).solve();
            let (mean, deviation) = scales[signal];
            (*signal, SignalWeight { weight: weights[at], mean, deviation, alone: (alone[0], alone[1]) })
        });
        let signals: BTreeMap<Signal, SignalWeight> = signals.collect();
        let label_model = label_model.filter(|_| signals.contains_key(&Signal::Label));
        let settings = RouterSettings { signals, bias: weights[used.len()], temperature, background, label_model };
        Self { settings, threshold: threshold(confidences), cases: cases.len(), excluded }
    }
}

/// Mean and standard deviation of each signal that varies, over all candidates of all cases.
fn scales(cases: &[LabelledCase]) -> BTreeMap<Signal, (f64, f64)> {
    let scale = |signal: Signal| {
        let values: Vec<f64> =
            cases.iter().flat_map(|case| &case.candidates).filter_map(|v| v.get(&signal).copied()).collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64;
        (variance > 1e-12).then(|| (signal, (mean, variance.sqrt())))
    };
    Signal::ALL.into_iter().filter(|signal| *signal != Signal::Rule).filter_map(scale).collect()
}

/// The selected cases as features: one per signal, and the bias of "no match".
fn problem(
    cases: &[LabelledCase],
    scales: &BTreeMap<Signal, (f64, f64)>,
    used: &[Signal],
    is_selected: impl Fn(usize) -> bool,
) -> LogitProblem {
    let selected = cases.iter().enumerate().filter(|(index, _)| is_selected(*index));
    LogitProblem { parameters: used.len() + 1, cases: selected.map(|(_, case)| features(case, scales, used)).collect() }
}

fn features(case: &LabelledCase, scales: &BTreeMap<Signal, (f64, f64)>, used: &[Signal]) -> CaseFeatures {
    let row = |values: &SignalValues, bias: f64| -> Vec<f64> {
        let z = |signal: &Signal| {
            let (mean, deviation) = scales[signal];
            values.get(signal).map_or(0.0, |value| (value - mean) / deviation)
        };
        used.iter().map(z).chain([bias]).collect()
    };
    let rows = case.candidates.iter().map(|values| row(values, 0.0)).chain([row(&case.no_match, 1.0)]);
    CaseFeatures { rows: rows.collect(), correct: case.correct.unwrap_or(case.candidates.len()) }
}

/// The temperature with the lowest loss on held-out cases, and the confidence in the winner of each in-scope case.
fn cross_validate(cases: &[LabelledCase], scales: &BTreeMap<Signal, (f64, f64)>, used: &[Signal]) -> (f64, Vec<f64>) {
    let mut held_out = Vec::new();
    for fold in 0..FOLDS {
        let weights = problem(cases, scales, used, |at| at % FOLDS != fold).solve();
        let fold_cases = problem(cases, scales, used, |at| at % FOLDS == fold);
        held_out.extend(fold_cases.cases.into_iter().map(|case| (case.logits(&weights), case.correct)));
    }
    let loss = |temperature: f64| -> f64 {
        held_out.iter().map(|(logits, correct)| -softmax(logits, temperature)[*correct].max(1e-300).ln()).sum()
    };
    let steps = (0..=120).map(|step| 0.25 * 16f64.powf(f64::from(step) / 120.0));
    let best = steps.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0);
    let in_scope = held_out.iter().filter(|(logits, correct)| *correct + 1 < logits.len());
    let confidence = |(logits, _): &(Vec<f64>, usize)| {
        let probabilities = softmax(logits, best);
        probabilities[..probabilities.len() - 1].iter().copied().fold(0.0, f64::max)
    };
    (best, in_scope.map(confidence).collect())
}

/// The confidence that all but a few in-scope questions reach.
fn threshold(mut confidences: Vec<f64>) -> f64 {
    confidences.sort_by(f64::total_cmp);
    let rank = (confidences.len() as f64 * FALSE_REJECTION_RATIO) as usize;
    confidences.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keyword favours the correct candidate, the embedding the wrong one; both are low for cases without a match.
    fn labelled(n: usize) -> LabelledCase {
        let x = 0.1 * (n % 7) as f64;
        let values = |keyword: f64, embedding: f64| {
            SignalValues::from([(Signal::Keyword, keyword), (Signal::Embedding, embedding)])
        };
        let no_match = values(0.0, 0.0);
        match n % 3 {
            0 => LabelledCase { candidates: vec![values(2.0 + x, 0.2), values(x, 0.3)], no_match, correct: Some(0) },
            1 => LabelledCase { candidates: vec![values(x, 0.3), values(2.0 - x, 0.2)], no_match, correct: Some(1) },
            _ => LabelledCase { candidates: vec![values(0.1, 0.2), values(x, 0.2)], no_match, correct: None },
        }
    }

    #[test]
    fn useful_signals_are_weighed_and_misleading_ones_excluded() {
        let cases: Vec<LabelledCase> = (0..90).map(labelled).collect();
        let fitted = FittedRouter::fit(&cases, Vec::new(), None);
        assert_eq!(fitted.excluded, [Signal::Embedding]);
        assert_eq!(fitted.settings.signals.keys().copied().collect::<Vec<_>>(), [Signal::Keyword]);
        let correct = cases.iter().filter(|case| {
            let (probabilities, no_match) =
                fitted.settings.probabilities(&[Signal::Keyword], &case.candidates, &case.no_match);
            let probabilities: Vec<f64> = probabilities.into_iter().chain([no_match]).collect();
            (0..3).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b])) == Some(case.correct.unwrap_or(2))
        });
        assert_eq!(correct.count(), 90);
        assert!(fitted.threshold > 0.3 && fitted.threshold < 1.0, "{}", fitted.threshold);
    }
    #[test]
    fn the_chat_model_stays_only_with_the_signal_that_needs_it() {
        let model = || ModelName::parse("judge").ok();
        let by_keyword: Vec<LabelledCase> = (0..30).map(labelled).collect();
        let background = vec!["Rice?".to_owned()];
        let fitted = FittedRouter::fit(&by_keyword, background.clone(), model());
        assert_eq!((&fitted.settings.background, fitted.settings.label_model), (&background, None));
        let relabelled = |values: &SignalValues| SignalValues::from([(Signal::Label, values[&Signal::Keyword])]);
        let by_label = by_keyword.iter().map(|case| LabelledCase {
            candidates: case.candidates.iter().map(relabelled).collect(),
            no_match: relabelled(&case.no_match),
            correct: case.correct,
        });
        let fitted = FittedRouter::fit(&by_label.collect::<Vec<_>>(), background, model());
        assert_eq!(fitted.settings.label_model, model());
    }

    #[test]
    fn without_cases_nothing_is_weighed() {
        let fitted = FittedRouter::fit(&[], Vec::new(), None);
        assert!(fitted.settings.signals.is_empty() && fitted.excluded.is_empty());
        assert_eq!(fitted.cases, 0);
    }
}
