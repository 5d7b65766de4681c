//! How well a router does on labelled cases: each signal alone, and all of them together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artel_roles::LabelledQuestion;
use artel_task::event::Signal;
use serde_json::{Value, json};

use super::super::error::Error;
use super::ask::{Asker, Heard};

/// Bins of the expected calibration error (Guo et al., 2017, "On Calibration of Modern Neural Networks").
pub(super) const BINS: usize = 10;
/// What stands for nobody among roles.
pub(super) const NONE: &str = "none";

/// What was found.
pub(super) struct Report {
    pub(super) threshold: f64,
    pub(super) cases: usize,
    /// Every role that is right for a case or was chosen, and [`NONE`] last.
    pub(super) roles: Vec<String>,
    /// Each signal alone; all together last.
    pub(super) methods: Vec<Method>,
}

/// How one signal, or all together, did.
pub(super) struct Method {
    pub(super) name: String,
    /// The share of roles' own questions whose likeliest candidate is right, whatever the threshold.
    pub(super) accuracy: f64,
    /// The same by tag; cases without one are `untagged`.
    pub(super) by_tag: BTreeMap<String, (usize, f64)>,
    /// The share of all questions that are not turned away.
    pub(super) coverage: f64,
    /// The share of those that went to the right role.
    pub(super) precision: f64,
    /// The share of nobody's questions that were turned away.
    pub(super) caught: f64,
    /// The share of the roles' own questions that were turned away.
    pub(super) false_alarms: f64,
    /// Expected calibration error.
    pub(super) ece: f64,
    /// By bin of confidence: cases, mean confidence, share that is right.
    pub(super) bins: Vec<(usize, f64, f64)>,
    pub(super) p50: Duration,
    pub(super) p95: Duration,
    /// Tokens that the median decision computed.
    pub(super) tokens: u32,
    /// Cases by right role and by chosen role, in the order of [`Report::roles`].
    pub(super) confusion: Vec<Vec<usize>>,
}

/// A case and what was decided.
struct Outcome<'c> {
    case: &'c LabelledQuestion,
    heard: Heard,
}

pub(super) async fn measure(asker: &mut Asker<'_>, cases: &[LabelledQuestion], threshold: f64) -> Result<Report, Error> {
    let first = cases.first().ok_or_else(|| Error::Usage("there are no cases".to_owned()))?;
    // The first question pays for loading models and for learning the roles.
    let known = asker.hear(&first.text, &[]).await?;
    let signals: BTreeSet<Signal> = known.nobody.keys().copied().filter(|signal| *signal != Signal::Rule).collect();
    let mut runs: Vec<(String, Vec<Outcome<'_>>)> = Vec::new();
    let ways =
        signals.iter().map(|signal| (signal.to_string(), vec![*signal])).chain([("combined".to_owned(), vec![])]);
    for (name, signals) in ways {
        let mut outcomes = Vec::new();
        for case in cases {
            outcomes.push(Outcome { case, heard: asker.hear(&case.text, &signals).await? });
        }
        runs.push((name, outcomes));
    }
    let roles: BTreeSet<String> = cases.iter().filter_map(|case| Some(case.role.as_ref()?.to_string())).collect();
    let chosen = runs.iter().flat_map(|(_, outcomes)| outcomes.iter().map(|outcome| outcome.best().to_owned()));
    let roles: BTreeSet<String> = roles.into_iter().chain(chosen).collect();
    let roles: Vec<String> = roles.into_iter().chain([NONE.to_owned()]).collect();
    let methods = runs.iter().map(|(name, outcomes)| method(name, outcomes, &roles, threshold)).collect();
    Ok(Report { threshold, cases: cases.len(), roles, methods })
}

impl Outcome<'_> {
    fn best(&self) -> &str {
        self.heard.names.first().map_or("", String::as_str)
    }

    fn is_own(&self) -> bool {
        self.case.role.is_some()
    }

    fn is_right(&self) -> bool {
        self.case.role.as_ref().is_some_and(|role| role.as_str() == self.best())
    }

    fn is_sure(&self, threshold: f64) -> bool {
        self.heard.confidence >= threshold
    }
}

fn method(name: &str, outcomes: &[Outcome<'_>], roles: &[String], threshold: f64) -> Method {
    let own = || outcomes.iter().filter(|outcome| outcome.is_own());
    let sure = || outcomes.iter().filter(|outcome| outcome.is_sure(threshold));
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.heard.took).collect();
    let mut tokens: Vec<u32> = outcomes.iter().map(|outcome| outcome.heard.tokens).collect();
    times.sort();
    tokens.sort_unstable();
    let (ece, bins) = calibration(outcomes);
    Method {
        name: name.to_owned(),
        accuracy: share(own(), |outcome| outcome.is_right()),
        by_tag: by_tag(outcomes),
        coverage: share(outcomes.iter(), |outcome| outcome.is_sure(threshold)),
        precision: share(sure(), |outcome| outcome.is_right()),
        caught: share(outcomes.iter().filter(|outcome| !outcome.is_own()), |outcome| !outcome.is_sure(threshold)),
        false_alarms: share(own(), |outcome| !outcome.is_sure(threshold)),
        ece,
        bins,
        p50: quantile(&times, 0.5),
        p95: quantile(&times, 0.95),
        tokens: quantile(&tokens, 0.5),
        confusion: confusion(outcomes, roles, threshold),
    }
}

fn by_tag(outcomes: &[Outcome<'_>]) -> BTreeMap<String, (usize, f64)> {
    let mut groups: BTreeMap<String, Vec<&Outcome<'_>>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.is_own()) {
        let untagged = outcome.case.tags.is_empty().then(|| "untagged".to_owned());
        for tag in outcome.case.tags.iter().cloned().chain(untagged) {
            groups.entry(tag).or_default().push(outcome);
        }
    }
    let figure = |(tag, group): (String, Vec<&Outcome<'_>>)| {
        (tag, (group.len(), share(group.iter().copied(), |outcome| outcome.is_right())))
    };
    groups.into_iter().map(figure).collect()
}

/// The share of items of which something holds; 0 of none.
fn share<T>(items: impl Iterator<Item = T>, holds: impl Fn(&T) -> bool) -> f64 {
    let (mut count, mut held) = (0usize, 0usize);
    for item in items {
        count += 1;
        held += usize::from(holds(&item));
    }
    if count == 0 { 0.0 } else { held as f64 / count as f64 }
}

/// Of sorted items.
fn quantile<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    let at = ((sorted.len() as f64 * q).ceil() as usize).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn calibration(outcomes: &[Outcome<'_>]) -> (f64, Vec<(usize, f64, f64)>) {
    let mut bins = vec![(0usize, 0.0, 0.0); BINS];
    for outcome in outcomes {
        let confidence = outcome.heard.confidence;
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + f64::from(u8::from(outcome.is_right())));
    }
    let mean = |(count, sure, right): (usize, f64, f64)| {
        let n = count.max(1) as f64;
        (count, sure / n, right / n)
    };
    let bins: Vec<(usize, f64, f64)> = bins.into_iter().map(mean).collect();
    let weight = |count: usize| count as f64 / outcomes.len().max(1) as f64;
    let ece = bins.iter().map(|(count, sure, right)| weight(*count) * (sure - right).abs()).sum();
    (ece, bins)
}

fn confusion(outcomes: &[Outcome<'_>], roles: &[String], threshold: f64) -> Vec<Vec<usize>> {
    let mut cells = vec![vec![0; roles.len()]; roles.len()];
    let place = |name: &str| roles.iter().position(|role| role == name);
    for outcome in outcomes {
        let right = outcome.case.role.as_ref().map_or(NONE, |role| role.as_str());
        let chosen = if outcome.is_sure(threshold) { outcome.best() } else { NONE };
        if let (Some(right), Some(chosen)) = (place(right), place(chosen)) {
            cells[right][chosen] += 1;
        }
    }
    cells
}

impl Report {
    pub(super) fn json(&self) -> Value {
        let methods: Vec<Value> = self.methods.iter().map(Method::json).collect();
        json!({"cases": self.cases, "threshold": self.threshold, "roles": self.roles, "methods": methods})
    }
}

impl Method {
    fn json(&self) -> Value {
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
            "accuracy_of_covered": self.precision,
            "out_of_scope_caught": self.caught,
            "false_alarms": self.false_alarms,
            "ece": self.ece,
            "bins": self.bins,
            "p50_ms": ms(self.p50),
            "p95_ms": ms(self.p95),
            "computed_tokens": self.tokens,
            "confusion": self.confusion,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use artel_task::RoleName;

    use super::*;

    /// Three of four own questions right, one of two of nobody's turned away.
    pub(in super::super) fn report() -> Report {
        let said = [
            (Some("gpu"), "gpu", 0.9),
            (Some("gpu"), "gpu", 0.8),
            (Some("rag"), "rag", 0.3),
            (Some("rag"), "gpu", 0.7),
            (None, "gpu", 0.2),
            (None, "rag", 0.6),
        ];
        let cases: Vec<LabelledQuestion> = said
            .iter()
            .enumerate()
            .map(|(at, (role, ..))| LabelledQuestion {
                text: "?".to_owned(),
                role: role.and_then(|role| RoleName::parse(role).ok()),
                tags: if at == 0 { vec!["ru".to_owned()] } else { Vec::new() },
            })
            .collect();
        let heard = |(at, (_, best, confidence)): (usize, &(Option<&str>, &str, f64))| Heard {
            names: vec![(*best).to_owned()],
            numbers: Vec::new(),
            nobody: Default::default(),
            confidence: *confidence,
            took: Duration::from_millis(at as u64 + 1),
            tokens: 10,
        };
        let outcomes: Vec<Outcome<'_>> =
            cases.iter().zip(said.iter().enumerate().map(heard)).map(|(case, heard)| Outcome { case, heard }).collect();
        let roles = ["gpu", "rag", NONE].map(str::to_owned).to_vec();
        let methods = ["keyword", "combined"].map(|name| method(name, &outcomes, &roles, 0.4));
        Report { threshold: 0.4, cases: cases.len(), roles, methods: methods.into() }
    }

    #[test]
    fn figures_count_what_they_say() {
        let report = report();
        let method = &report.methods[1];
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(method.accuracy, 0.75) && near(method.caught, 0.5) && near(method.false_alarms, 0.25));
        assert!(near(method.coverage, 4.0 / 6.0) && near(method.precision, 0.5));
        assert_eq!(method.by_tag["ru"], (1, 1.0));
        assert!(near(method.by_tag["untagged"].1, 2.0 / 3.0));
        assert_eq!((method.p50, method.p95), (Duration::from_millis(3), Duration::from_millis(6)));
        assert_eq!(method.confusion, [[2, 0, 0], [1, 0, 1], [0, 1, 1]]);
        // Each of six bins holds one case.
        let ece = [0.1, 0.2, 0.7, 0.7, 0.2, 0.6].iter().sum::<f64>() / 6.0;
        assert!(near(method.ece, ece), "{}", method.ece);
    }
}
