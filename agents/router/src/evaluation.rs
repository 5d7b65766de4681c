//! The measures of a router on labelled cases: each signal alone, and all of them combined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artel_task::RoleName;

/// Bins of the expected calibration error (Guo et al., 2017, "On Calibration of Modern Neural Networks").
pub const BINS: usize = 10;
/// The label of "no match" among the roles.
pub const NONE: &str = "none";

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalReport {
    /// The confidence below which a decision is rejected.
    pub threshold: f64,
    /// How many cases there are.
    pub cases: usize,
    /// Every role that is correct for a case or was selected, and [`NONE`] last.
    pub roles: Vec<String>,
    /// Each signal alone; the combination last.
    pub methods: Vec<MethodMetrics>,
}

/// The metrics of one signal, or of the combination. Cases with a role are in scope, those without are out of scope.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodMetrics {
    /// The signal, or `combined`.
    pub name: String,
    /// The fraction of in-scope cases whose best candidate is correct, regardless of the threshold.
    pub accuracy: f64,
    /// Cases and accuracy by tag; cases without a tag are `untagged`.
    pub by_tag: BTreeMap<String, (usize, f64)>,
    /// The fraction of all cases that are not rejected.
    pub coverage: f64,
    /// The fraction of the cases that are not rejected whose selected role is correct.
    pub selective_accuracy: f64,
    /// The fraction of out-of-scope cases that are rejected.
    pub out_of_scope_recall: f64,
    /// The fraction of in-scope cases that are rejected.
    pub false_rejections: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// By bin of confidence: cases, mean confidence, accuracy.
    pub bins: Vec<(usize, f64, f64)>,
    /// The median latency.
    pub p50: Duration,
    /// The latency that one decision in twenty exceeds.
    pub p95: Duration,
    /// The median number of prefilled tokens.
    pub prefill_tokens: u32,
    /// Cases by correct role and by selected role, in the order of [`EvalReport::roles`].
    pub confusion: Vec<Vec<usize>>,
}

/// A case and its decision.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseOutcome {
    /// The right role; `None` for a question that belongs to none.
    pub correct: Option<RoleName>,
    /// The case's tags, by which the accuracy is broken down.
    pub tags: Vec<String>,
    /// The best candidate, whether or not its confidence suffices.
    pub best: String,
    /// The confidence in it.
    pub confidence: f64,
    /// How long the decision took.
    pub latency: Duration,
    /// Tokens that it computed.
    pub prefill_tokens: u32,
}

impl EvalReport {
    /// The measures of runs over the same cases, each with the name of its method; the combination last. Decisions below
    /// the threshold are rejected.
    pub fn new(threshold: f64, runs: &[(String, Vec<CaseOutcome>)]) -> Self {
        let outcomes = || runs.iter().flat_map(|(_, outcomes)| outcomes);
        let correct = outcomes().filter_map(|outcome| Some(outcome.correct.as_ref()?.to_string()));
        let roles: BTreeSet<String> = correct.chain(outcomes().map(|outcome| outcome.best.clone())).collect();
        let roles: Vec<String> = roles.into_iter().chain([NONE.to_owned()]).collect();
        let methods = runs.iter().map(|(name, outcomes)| method(name, outcomes, &roles, threshold)).collect();
        let cases = runs.first().map_or(0, |(_, outcomes)| outcomes.len());
        Self { threshold, cases, roles, methods }
    }
}

impl CaseOutcome {
    fn is_in_scope(&self) -> bool {
        self.correct.is_some()
    }

    fn is_correct(&self) -> bool {
        self.correct.as_ref().is_some_and(|role| role.as_str() == self.best)
    }

    fn is_accepted(&self, threshold: f64) -> bool {
        self.confidence >= threshold
    }
}

fn method(name: &str, outcomes: &[CaseOutcome], roles: &[String], threshold: f64) -> MethodMetrics {
    let in_scope = || outcomes.iter().filter(|outcome| outcome.is_in_scope());
    let accepted = || outcomes.iter().filter(|outcome| outcome.is_accepted(threshold));
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.latency).collect();
    let mut tokens: Vec<u32> = outcomes.iter().map(|outcome| outcome.prefill_tokens).collect();
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

fn by_tag(outcomes: &[CaseOutcome]) -> BTreeMap<String, (usize, f64)> {
    let mut groups: BTreeMap<String, Vec<&CaseOutcome>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.is_in_scope()) {
        let untagged = outcome.tags.is_empty().then(|| "untagged".to_owned());
        for tag in outcome.tags.iter().cloned().chain(untagged) {
            groups.entry(tag).or_default().push(outcome);
        }
    }
    let accuracy = |(tag, group): (String, Vec<&CaseOutcome>)| {
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

fn calibration(outcomes: &[CaseOutcome]) -> (f64, Vec<(usize, f64, f64)>) {
    let mut bins = vec![(0usize, 0.0, 0.0); BINS];
    for outcome in outcomes {
        let confidence = outcome.confidence;
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

fn confusion(outcomes: &[CaseOutcome], roles: &[String], threshold: f64) -> Vec<Vec<usize>> {
    let mut cells = vec![vec![0; roles.len()]; roles.len()];
    let index = |name: &str| roles.iter().position(|role| role == name);
    for outcome in outcomes {
        let correct = outcome.correct.as_ref().map_or(NONE, |role| role.as_str());
        let selected = if outcome.is_accepted(threshold) { outcome.best.as_str() } else { NONE };
        if let (Some(correct), Some(selected)) = (index(correct), index(selected)) {
            cells[correct][selected] += 1;
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(correct: Option<&str>, best: &str, confidence: f64) -> CaseOutcome {
        let correct = correct.and_then(|role| RoleName::parse(role).ok());
        let (latency, best) = (Duration::ZERO, best.to_owned());
        CaseOutcome { correct, tags: Vec::new(), best, confidence, latency, prefill_tokens: 10 }
    }

    /// Three of four in-scope cases are correct, one of two out-of-scope cases is rejected.
    fn outcomes() -> Vec<CaseOutcome> {
        let mut outcomes = vec![
            outcome(Some("gpu"), "gpu", 0.9),
            outcome(Some("gpu"), "gpu", 0.8),
            outcome(Some("rag"), "rag", 0.3),
            outcome(Some("rag"), "gpu", 0.7),
            outcome(None, "gpu", 0.2),
            outcome(None, "rag", 0.6),
        ];
        outcomes[0].tags = vec!["ru".to_owned()];
        for (outcome, millis) in outcomes.iter_mut().zip(1..) {
            outcome.latency = Duration::from_millis(millis);
        }
        outcomes
    }

    #[test]
    fn metrics_match_their_definitions() {
        let report = EvalReport::new(0.4, &[("combined".to_owned(), outcomes())]);
        assert_eq!((report.cases, report.roles), (6, ["gpu", "rag", NONE].map(str::to_owned).to_vec()));
        let method = &report.methods[0];
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

    #[test]
    fn without_cases_every_measure_is_zero() {
        let report = EvalReport::new(0.4, &[("combined".to_owned(), Vec::new())]);
        assert_eq!((report.cases, report.roles.as_slice()), (0, &[NONE.to_owned()][..]));
        let method = &report.methods[0];
        assert_eq!((method.accuracy, method.coverage, method.ece, method.p95), (0.0, 0.0, 0.0, Duration::ZERO));
        assert!(EvalReport::new(0.4, &[]).methods.is_empty());
    }

    proptest! {
        #[test]
        fn every_case_is_in_one_bin_and_in_one_cell(
            decisions in prop::collection::vec((0..4usize, 0..3usize, 0.0..=1.0f64), 0..40),
            threshold in 0.0..=1.0f64,
        ) {
            let roles = ["gpu", "lora", "rag"];
            let outcome = |(correct, best, confidence): (usize, usize, f64)| {
                outcome(roles.get(correct).copied(), roles[best], confidence)
            };
            let outcomes: Vec<CaseOutcome> = decisions.into_iter().map(outcome).collect();
            let cases = outcomes.len();
            let report = EvalReport::new(threshold, &[("combined".to_owned(), outcomes)]);
            let method = &report.methods[0];
            prop_assert_eq!(method.bins.iter().map(|bin| bin.0).sum::<usize>(), cases);
            prop_assert_eq!(method.confusion.iter().flatten().sum::<usize>(), cases);
            for fraction in [method.accuracy, method.coverage, method.selective_accuracy, method.ece] {
                prop_assert!((0.0..=1.0 + 1e-9).contains(&fraction), "{}", fraction);
            }
        }
    }
}
