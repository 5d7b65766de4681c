//! Weights and temperature from labelled cases.
//!
//! A multinomial logistic regression (McFadden's conditional logit) whose weights all candidates share: each candidate is its
//! standardised numbers, and nobody is those of the background and a bias. It is convex, so that Newton's method finds the
//! one best answer. The temperature is fitted to cases that the weights have not seen (five folds), since weights are too
//! sure of those that they have.

mod logit;

use std::collections::BTreeMap;

use artel_roles::routing::{RouterSettings, SignalWeight};
use artel_roles::{LabelledQuestion, routing::SignalValues};
use artel_task::ModelName;
use artel_task::event::Signal;
use serde_json::{Value, json};

use super::super::error::Error;
use super::ask::{Asker, Heard};
use logit::{Features, Problem};

/// Folds of the cross-fit.
const FOLDS: usize = 5;
/// The share of questions of the roles themselves that the proposed threshold may turn away.
const FALSE_ALARMS: f64 = 0.07;
/// Fewer cases than this say nothing about half a dozen numbers.
const FEWEST: usize = 20;

/// What was fitted.
pub(super) struct Fitted {
    pub(super) routing: RouterSettings,
    /// A threshold for `confidence`.
    threshold: f64,
    cases: usize,
    left_out: Vec<Signal>,
}

impl Fitted {
    /// In words.
    pub(super) fn summary(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} cases; `confidence: {:.2}` turns away about {:.0} % of the roles' own questions",
            self.cases,
            self.threshold,
            FALSE_ALARMS * 100.0
        )];
        let left: Vec<&str> = self.left_out.iter().map(|signal| signal.as_str()).collect();
        if !left.is_empty() {
            lines.push(format!("left out, since they do not help beside the others: {}", left.join(", ")));
        }
        lines
    }

    pub(super) fn json(&self, yaml: &str) -> Value {
        let left: Vec<&str> = self.left_out.iter().map(|signal| signal.as_str()).collect();
        json!({"yaml": yaml, "cases": self.cases, "confidence": self.threshold, "left_out": left})
    }
}

/// A case as signals see it.
struct Seen {
    candidates: Vec<SignalValues>,
    nobody: SignalValues,
    /// The right candidate; that after the last one is nobody.
    right: usize,
}

pub(super) async fn fit(asker: &mut Asker<'_>, cases: &[LabelledQuestion], name: &str) -> Result<Fitted, Error> {
    if cases.len() < FEWEST {
        return Err(Error::Usage(format!("{} cases are too few to fit to; take {FEWEST} or more", cases.len())));
    }
    let settings = asker.settings(name).await?;
    let label_model = settings["signals"]["label"]["model"].as_str().and_then(|name| ModelName::parse(name).ok());
    let mut wanted = vec![Signal::Embedding, Signal::Linear, Signal::Keyword];
    wanted.extend(label_model.as_ref().map(|_| Signal::Label));
    let mut seen = Vec::new();
    for case in cases {
        seen.push(see(case, asker.hear(&case.text, &wanted).await?)?);
    }
    let background = settings["background"].as_array().map_or(&[][..], Vec::as_slice);
    let background = background.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    Ok(conclude(&seen, background, label_model))
}

fn see(case: &LabelledQuestion, heard: Heard) -> Result<Seen, Error> {
    let Heard { names, numbers, nobody, .. } = heard;
    let right = match &case.role {
        None => names.len(),
        Some(role) => names.iter().position(|name| name == role.as_str()).ok_or_else(|| {
            Error::Usage(format!(
                "`{role}` of the case \"{}\" is no candidate",
                case.text.chars().take(60).collect::<String>()
            ))
        })?,
    };
    Ok(Seen { candidates: numbers, nobody, right })
}

fn conclude(seen: &[Seen], background: Vec<String>, label_model: Option<ModelName>) -> Fitted {
    let scales = scales(seen);
    let mut used: Vec<Signal> = scales.keys().copied().collect();
    let mut left_out = Vec::new();
    let weights = loop {
        let weights = problem(seen, &scales, &used, |_| true).solve();
        // A signal that counts against whom it names is noise beside the others.
        let worst = (0..used.len()).filter(|at| weights[*at] <= 0.0).min_by(|a, b| weights[*a].total_cmp(&weights[*b]));
        match worst {
            Some(at) if used.len() > 1 => left_out.push(used.remove(at)),
            _ => break weights,
        }
    };
    let (temperature, confidences) = cross(seen, &scales, &used);
    let signals = used.iter().enumerate().map(|(at, signal)| {
        let alone = problem(seen, &scales, &[*signal], |_| true).solve();
        let (mean, deviation) = scales[signal];
        (*signal, SignalWeight { weight: weights[at], mean, deviation, alone: (alone[0], alone[1]) })
    });
    let signals: BTreeMap<Signal, SignalWeight> = signals.collect();
    let label_model = label_model.filter(|_| signals.contains_key(&Signal::Label));
    let routing = RouterSettings { signals, bias: weights[used.len()], temperature, background, label_model };
    Fitted { routing, threshold: threshold(confidences), cases: seen.len(), left_out }
}

/// Mean and deviation of each signal that says something, over all candidates of all cases.
fn scales(seen: &[Seen]) -> BTreeMap<Signal, (f64, f64)> {
    let scale = |signal: Signal| {
        let numbers: Vec<f64> =
            seen.iter().flat_map(|s| &s.candidates).filter_map(|n| n.get(&signal).copied()).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        let spread = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len().max(1) as f64;
        (spread > 1e-12).then(|| (signal, (mean, spread.sqrt())))
    };
    Signal::ALL.into_iter().filter(|signal| *signal != Signal::Rule).filter_map(scale).collect()
}

/// The cases of which `which` holds, as features: one per signal, and the bias of nobody.
fn problem(
    seen: &[Seen],
    scales: &BTreeMap<Signal, (f64, f64)>,
    used: &[Signal],
    which: impl Fn(usize) -> bool,
) -> Problem {
    let cases = seen.iter().enumerate().filter(|(at, _)| which(*at));
    Problem { parameters: used.len() + 1, cases: cases.map(|(_, seen)| features(seen, scales, used)).collect() }
}

fn features(seen: &Seen, scales: &BTreeMap<Signal, (f64, f64)>, used: &[Signal]) -> Features {
    let row = |numbers: &SignalValues, bias: f64| -> Vec<f64> {
        let z = |signal: &Signal| {
            let (mean, deviation) = scales[signal];
            numbers.get(signal).map_or(0.0, |number| (number - mean) / deviation)
        };
        used.iter().map(z).chain([bias]).collect()
    };
    let rows = seen.candidates.iter().map(|numbers| row(numbers, 0.0)).chain([row(&seen.nobody, 1.0)]);
    Features { rows: rows.collect(), right: seen.right }
}

/// The temperature that suits unseen cases best, and how sure it makes the winner of each case that belongs to a role.
fn cross(seen: &[Seen], scales: &BTreeMap<Signal, (f64, f64)>, used: &[Signal]) -> (f64, Vec<f64>) {
    let mut unseen = Vec::new();
    for fold in 0..FOLDS {
        let weights = problem(seen, scales, used, |at| at % FOLDS != fold).solve();
        let held = problem(seen, scales, used, |at| at % FOLDS == fold);
        unseen.extend(held.cases.into_iter().map(|case| (case.logits(&weights), case.right)));
    }
    let loss = |temperature: f64| -> f64 {
        unseen.iter().map(|(logits, right)| -logit::softmax(logits, temperature)[*right].max(1e-300).ln()).sum()
    };
    let steps = (0..=120).map(|step| 0.25 * 16f64.powf(f64::from(step) / 120.0));
    let best = steps.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0);
    let own = unseen.iter().filter(|(logits, right)| *right + 1 < logits.len());
    let sure = |(logits, _): &(Vec<f64>, usize)| {
        let chances = logit::softmax(logits, best);
        chances[..chances.len() - 1].iter().copied().fold(0.0, f64::max)
    };
    (best, own.map(sure).collect())
}

/// The confidence that all but a few of the roles' own questions reach.
fn threshold(mut confidences: Vec<f64>) -> f64 {
    confidences.sort_by(f64::total_cmp);
    let at = (confidences.len() as f64 * FALSE_ALARMS) as usize;
    confidences.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidate 0 or 1 is right as the keyword says; the embedding says the opposite; both are low for nobody's cases.
    fn seen(n: usize) -> Seen {
        let x = 0.1 * (n % 7) as f64;
        let numbers =
            |keyword: f64, embedding: f64| SignalValues::from([(Signal::Keyword, keyword), (Signal::Embedding, embedding)]);
        let nobody = numbers(0.0, 0.0);
        match n % 3 {
            0 => Seen { candidates: vec![numbers(2.0 + x, 0.2), numbers(x, 0.3)], nobody, right: 0 },
            1 => Seen { candidates: vec![numbers(x, 0.3), numbers(2.0 - x, 0.2)], nobody, right: 1 },
            _ => Seen { candidates: vec![numbers(0.1, 0.2), numbers(x, 0.2)], nobody, right: 2 },
        }
    }

    #[test]
    fn what_helps_is_weighed_and_what_misleads_is_left_out() {
        let cases: Vec<Seen> = (0..90).map(seen).collect();
        let fitted = conclude(&cases, Vec::new(), None);
        assert_eq!(fitted.left_out, [Signal::Embedding]);
        assert_eq!(fitted.routing.signals.keys().copied().collect::<Vec<_>>(), [Signal::Keyword]);
        let right = cases.iter().filter(|case| {
            let (chances, nobody) = fitted.routing.probabilities(&[Signal::Keyword], &case.candidates, &case.nobody);
            let chances: Vec<f64> = chances.into_iter().chain([nobody]).collect();
            (0..3).max_by(|a, b| chances[*a].total_cmp(&chances[*b])) == Some(case.right)
        });
        assert_eq!(right.count(), 90);
        assert!(fitted.threshold > 0.3 && fitted.threshold < 1.0, "{}", fitted.threshold);
    }
}
