//! Evaluation of the router on labelled cases: each signal alone, and all of them combined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artel_roles::LabelledQuestion;
use artel_task::event::Signal;
use serde_json::{Value, json};

use super::super::error::Error;
use super::preview::{PreviewClient, PreviewScores};

/// Bins of the expected calibration error (Guo et al., 2017, "On Calibration of Modern Neural Networks").
pub(super) const BINS: usize = 10;
/// The label of "no match" among the roles.
pub(super) const NONE: &str = "none";

/// The result of an evaluation.
pub(super) struct EvalReport {
    pub(super) threshold: f64,
    pub(super) cases: usize,
    /// Every role that is correct for a case or was selected, and [`NONE`] last.
    pub(super) roles: Vec<String>,
    /// Each signal alone; the combination last.
    pub(super) methods: Vec<MethodMetrics>,
}

/// The metrics of one signal, or of the combination. Cases with a role are in scope, those without are out of scope.
pub(super) struct MethodMetrics {
    pub(super) name: String,
    /// The fraction of in-scope cases whose best candidate is correct, regardless of the threshold.
    pub(super) accuracy: f64,
    /// Cases and accuracy by tag; cases without a tag are `untagged`.
    pub(super) by_tag: BTreeMap<String, (usize, f64)>,
    /// The fraction of all cases that are not rejected.
    pub(super) coverage: f64,
    /// The fraction of the cases that are not rejected whose selected role is correct.
    pub(super) selective_accuracy: f64,
    /// The fraction of out-of-scope cases that are rejected.
    pub(super) out_of_scope_recall: f64,
    /// The fraction of in-scope cases that are rejected.
    pub(super) false_rejections: f64,
    /// Expected calibration error.
    pub(super) ece: f64,
    /// By bin of confidence: cases, mean confidence, accuracy.
    pub(super) bins: Vec<(usize, f64, f64)>,
    pub(super) p50: Duration,
    pub(super) p95: Duration,
    /// The median number of prefilled tokens.
    pub(super) prefill_tokens: u32,
    /// Cases by correct role and by selected role, in the order of [`EvalReport::roles`].
    pub(super) confusion: Vec<Vec<usize>>,
}

/// A case and its decision.
struct CaseOutcome<'c> {
    case: &'c LabelledQuestion,
    scores: PreviewScores,
}

pub(super) async fn evaluate(
    client: &mut PreviewClient<'_>,
    cases: &[LabelledQuestion],
    threshold: f64,
) -> Result<EvalReport, Error> {
    let first = cases.first().ok_or_else(|| Error::Usage("the file has no cases".to_owned()))?;
    // The first decision includes loading the models and embedding the roles.
    let warm_up = client.signal_scores(&first.text, &[]).await?;
    let signals: BTreeSet<Signal> = warm_up.no_match.keys().copied().filter(|signal| *signal != Signal::Rule).collect();
    let mut runs: Vec<(String, Vec<CaseOutcome<'_>>)> = Vec::new();
    let methods =
        signals.iter().map(|signal| (signal.to_string(), vec![*signal])).chain([("combined".to_owned(), vec![])]);
    for (name, signals) in methods {
        let mut outcomes = Vec::new();
        for case in cases {
            outcomes.push(CaseOutcome { case, scores: client.signal_scores(&case.text, &signals).await? });
        }
        runs.push((name, outcomes));
    }
    let correct: BTreeSet<String> = cases.iter().filter_map(|case| Some(case.role.as_ref()?.to_string())).collect();
    let selected = runs.iter().flat_map(|(_, outcomes)| outcomes.iter().map(|outcome| outcome.best().to_owned()));
    let roles: BTreeSet<String> = correct.into_iter().chain(selected).collect();
    let roles: Vec<String> = roles.into_iter().chain([NONE.to_owned()]).collect();
    let methods = runs.iter().map(|(name, outcomes)| method(name, outcomes, &roles, threshold)).collect();
    Ok(EvalReport { threshold, cases: cases.len(), roles, methods })
}

impl CaseOutcome<'_> {
    fn best(&self) -> &str {
        self.scores.candidates.first().map_or("", String::as_str)
    }

    fn is_in_scope(&self) -> bool {
        self.case.role.is_some()
    }

    fn is_correct(&self) -> bool {
        self.case.role.as_ref().is_some_and(|role| role.as_str() == self.best())
    }

    fn is_accepted(&self, threshold: f64) -> bool {
        self.scores.confidence >= threshold
    }
}

fn method(name: &str, outcomes: &[CaseOutcome<'_>], roles: &[String], threshold: f64) -> MethodMetrics {
    let in_scope = || outcomes.iter().filter(|outcome| outcome.is_in_scope());
    let accepted = || outcomes.iter().filter(|outcome| outcome.is_accepted(threshold));
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.scores.latency).collect();
    let mut tokens: Vec<u32> = outcomes.iter().map(|outcome| outcome.scores.prefill_tokens).collect();
    times.sort();
    tokens.sort_unstable();
    let (ece, bins) = calibration(outcomes);
    MethodMetrics {
        name: name.to_owned(),
        accuracy: fraction(in_scope(), |outcome| outcome.is_correct()),
        by_tag: by_tag(outcomes),
        coverage: fraction(outcomes.iter(), |outcome| outcome.is_accepted(threshold)),
        selective_accuracy: fraction(accepted(), |outcome| outcome.is_correct()),
        out_of_scope_recall: fraction(outcomes.iter().filter(|outcome| !outcome.is_in_scope()), |outcome| {
            !outcome.is_accepted(threshold)
        }),
        false_rejections: fraction(in_scope(), |outcome| !outcome.is_accepted(threshold)),
        ece,
        bins,
        p50: quantile(&times, 0.5),
        p95: quantile(&times, 0.95),
        prefill_tokens: quantile(&tokens, 0.5),
        confusion: confusion(outcomes, roles, threshold),
    }
}

fn by_tag(outcomes: &[CaseOutcome<'_>]) -> BTreeMap<String, (usize, f64)> {
    let mut groups: BTreeMap<String, Vec<&CaseOutcome<'_>>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.is_in_scope()) {
        let untagged = outcome.case.tags.is_empty().then(|| "untagged".to_owned());
        for tag in outcome.case.tags.iter().cloned().chain(untagged) {
            groups.entry(tag).or_default().push(outcome);
        }
    }
    let accuracy = |(tag, group): (String, Vec<&CaseOutcome<'_>>)| {
        (tag, (group.len(), fraction(group.iter().copied(), |outcome| outcome.is_correct())))
    };
    groups.into_iter().map(accuracy).collect()
}

/// The fraction of items for which the predicate holds; 0 if there are none.
fn fraction<T>(items: impl Iterator<Item = T>, holds: impl Fn(&T) -> bool) -> f64 {
    let (mut count, mut matches) = (0usize, 0usize);
    for item in items {
        count += 1;
        matches += usize::from(holds(&item));
    }
    if count == 0 { 0.0 } else { matches as f64 / count as f64 }
}

/// The quantile of sorted items.
fn quantile<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    let rank = ((sorted.len() as f64 * q).ceil() as usize).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

fn calibration(outcomes: &[CaseOutcome<'_>]) -> (f64, Vec<(usize, f64, f64)>) {
    let mut bins = vec![(0usize, 0.0, 0.0); BINS];
    for outcome in outcomes {
        let confidence = outcome.scores.confidence;
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + f64::from(u8::from(outcome.is_correct())));
    }
    let mean = |(count, confidence, correct): (usize, f64, f64)| {
        let n = count.max(1) as f64;
        (count, confidence / n, correct / n)
    };
    let bins: Vec<(usize, f64, f64)> = bins.into_iter().map(mean).collect();
    let weight = |count: usize| count as f64 / outcomes.len().max(1) as f64;
    let ece = bins.iter().map(|(count, confidence, accuracy)| weight(*count) * (confidence - accuracy).abs()).sum();
    (ece, bins)
}

fn confusion(outcomes: &[CaseOutcome<'_>], roles: &[String], threshold: f64) -> Vec<Vec<usize>> {
    let mut cells = vec![vec![0; roles.len()]; roles.len()];
    let index = |name: &str| roles.iter().position(|role| role == name);
    for outcome in outcomes {
        let correct = outcome.case.role.as_ref().map_or(NONE, |role| role.as_str());
        let selected = if outcome.is_accepted(threshold) { outcome.best() } else { NONE };
        if let (Some(correct), Some(selected)) = (index(correct), index(selected)) {
            cells[correct][selected] += 1;
        }
    }
    cells
}

impl EvalReport {
    pub(super) fn to_json(&self) -> Value {
        let methods: Vec<Value> = self.methods.iter().map(MethodMetrics::to_json).collect();
        json!({"cases": self.cases, "threshold": self.threshold, "roles": self.roles, "methods": methods})
    }
}

impl MethodMetrics {
    fn to_json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let tags: serde_json::Map<String, Value> = self
            .by_tag
            .iter()
            .map(|(tag, (cases, accuracy))| (tag.clone(), json!({"cases": cases, "accuracy": accuracy})))
            .collect();
        json!({
            "method": self.name,
            "accuracy": self.accuracy,
            "by_tag": tags,
            "coverage": self.coverage,
            "selective_accuracy": self.selective_accuracy,
            "out_of_scope_recall": self.out_of_scope_recall,
            "false_rejections": self.false_rejections,
            "ece": self.ece,
            "bins": self.bins,
            "p50_ms": ms(self.p50),
            "p95_ms": ms(self.p95),
            "prefill_tokens": self.prefill_tokens,
            "confusion": self.confusion,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use artel_task::RoleName;

    use super::*;

    /// Three of four in-scope cases are correct, one of two out-of-scope cases is rejected.
    pub(in super::super) fn report() -> EvalReport {
        let decisions = [
            (Some("gpu"), "gpu", 0.9),
            (Some("gpu"), "gpu", 0.8),
            (Some("rag"), "rag", 0.3),
            (Some("rag"), "gpu", 0.7),
            (None, "gpu", 0.2),
            (None, "rag", 0.6),
        ];
        let cases: Vec<LabelledQuestion> = decisions
            .iter()
            .enumerate()
            .map(|(index, (role, ..))| LabelledQuestion {
                text: "?".to_owned(),
                role: role.and_then(|role| RoleName::parse(role).ok()),
                tags: if index == 0 { vec!["ru".to_owned()] } else { Vec::new() },
            })
            .collect();
        let scores = |(index, (_, best, confidence)): (usize, &(Option<&str>, &str, f64))| PreviewScores {
            candidates: vec![(*best).to_owned()],
            values: Vec::new(),
            no_match: Default::default(),
            confidence: *confidence,
            latency: Duration::from_millis(index as u64 + 1),
            prefill_tokens: 10,
        };
        let outcomes: Vec<CaseOutcome<'_>> = cases
            .iter()
            .zip(decisions.iter().enumerate().map(scores))
            .map(|(case, scores)| CaseOutcome { case, scores })
            .collect();
        let roles = ["gpu", "rag", NONE].map(str::to_owned).to_vec();
        let methods = ["keyword", "combined"].map(|name| method(name, &outcomes, &roles, 0.4));
        EvalReport { threshold: 0.4, cases: cases.len(), roles, methods: methods.into() }
    }

    #[test]
    fn metrics_match_their_definitions() {
        let report = report();
        let method = &report.methods[1];
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(
            near(method.accuracy, 0.75) && near(method.out_of_scope_recall, 0.5) && near(method.false_rejections, 0.25)
        );
        assert!(near(method.coverage, 4.0 / 6.0) && near(method.selective_accuracy, 0.5));
        assert_eq!(method.by_tag["ru"], (1, 1.0));
        assert!(near(method.by_tag["untagged"].1, 2.0 / 3.0));
        assert_eq!((method.p50, method.p95), (Duration::from_millis(3), Duration::from_millis(6)));
        assert_eq!(method.confusion, [[2, 0, 0], [1, 0, 1], [0, 1, 1]]);
        // Each of six bins holds one case.
        let ece = [0.1, 0.2, 0.7, 0.7, 0.2, 0.6].iter().sum::<f64>() / 6.0;
        assert!(near(method.ece, ece), "{}", method.ece);
    }
}
