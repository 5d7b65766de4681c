//! `artel route --eval`: has labelled questions decided by each signal alone and by all of them, and measures the decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use artel_roles::LabelledQuestion;
use artel_router::evaluation::{CaseOutcome, EvalReport, MethodMetrics};
use artel_task::event::Signal;
use serde_json::{Value, json};

use super::preview::{PreviewClient, PreviewScores};
use crate::error::Error;

pub(super) async fn evaluate(
    client: &mut PreviewClient<'_>,
    cases: &[LabelledQuestion],
    threshold: f64,
) -> Result<EvalReport, Error> {
    let first = cases.first().ok_or_else(|| Error::Usage("the file has no cases".to_owned()))?;
    // The first decision includes loading the models and embedding the roles.
    let warm_up = client.signal_scores(&first.text, &[]).await?;
    let signals: BTreeSet<Signal> = warm_up.no_match.keys().copied().filter(|signal| *signal != Signal::Rule).collect();
    let mut runs: Vec<(String, Vec<CaseOutcome>)> = Vec::new();
    let methods =
        signals.iter().map(|signal| (signal.to_string(), vec![*signal])).chain([("combined".to_owned(), vec![])]);
    for (name, signals) in methods {
        let mut outcomes = Vec::new();
        for case in cases {
            outcomes.push(outcome(case, client.signal_scores(&case.text, &signals).await?));
        }
        runs.push((name, outcomes));
    }
    Ok(EvalReport::new(threshold, &runs))
}

fn outcome(case: &LabelledQuestion, scores: PreviewScores) -> CaseOutcome {
    CaseOutcome {
        correct: case.role.clone(),
        tags: case.tags.clone(),
        best: scores.candidates.into_iter().next().unwrap_or_default(),
        confidence: scores.confidence,
        latency: scores.latency,
        prefill_tokens: scores.prefill_tokens,
    }
}

pub(super) fn to_json(report: &EvalReport) -> Value {
    let methods: Vec<Value> = report.methods.iter().map(method_to_json).collect();
    json!({"cases": report.cases, "threshold": report.threshold, "roles": report.roles, "methods": methods})
}

fn method_to_json(method: &MethodMetrics) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let tags: serde_json::Map<String, Value> = method
        .by_tag
        .iter()
        .map(|(tag, (cases, accuracy))| (tag.clone(), json!({"cases": cases, "accuracy": accuracy})))
        .collect();
    json!({
        "method": method.name,
        "accuracy": method.accuracy,
        "by_tag": tags,
        "coverage": method.coverage,
        "selective_accuracy": method.selective_accuracy,
        "out_of_scope_recall": method.out_of_scope_recall,
        "false_rejections": method.false_rejections,
        "ece": method.ece,
        "bins": method.bins,
        "p50_ms": ms(method.p50),
        "p95_ms": ms(method.p95),
        "prefill_tokens": method.prefill_tokens,
        "confusion": method.confusion,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use artel_router::SignalValues;
    use artel_task::RoleName;

    use super::*;

    /// The report of six decisions: three of four in-scope cases are correct, one of two out-of-scope cases is rejected.
    pub(in super::super) fn report() -> EvalReport {
        let decisions = [
            (Some("gpu"), "gpu", 0.9),
            (Some("gpu"), "gpu", 0.8),
            (Some("rag"), "rag", 0.3),
            (Some("rag"), "gpu", 0.7),
            (None, "gpu", 0.2),
            (None, "rag", 0.6),
        ];
        let decided = |(index, (role, best, confidence)): (usize, (Option<&str>, &str, f64))| {
            let case = LabelledQuestion {
                text: "?".to_owned(),
                role: role.and_then(|role| RoleName::parse(role).ok()),
                tags: if index == 0 { vec!["ru".to_owned()] } else { Vec::new() },
            };
            let scores = PreviewScores {
                candidates: vec![best.to_owned(), "other".to_owned()],
                values: Vec::new(),
                no_match: SignalValues::new(),
                confidence,
                latency: Duration::from_millis(index as u64 + 1),
                prefill_tokens: 10,
            };
            outcome(&case, scores)
        };
        let outcomes: Vec<CaseOutcome> = decisions.into_iter().enumerate().map(decided).collect();
        EvalReport::new(0.4, &["keyword", "combined"].map(|name| (name.to_owned(), outcomes.clone())))
    }

    #[test]
    fn a_report_has_the_measures_of_every_method_as_json() {
        let json = to_json(&report());
        assert_eq!((json["cases"].as_u64(), json["roles"].clone()), (Some(6), json!(["gpu", "rag", "none"])));
        let method = &json["methods"][1];
        assert_eq!((method["method"].as_str(), method["accuracy"].as_f64()), (Some("combined"), Some(0.75)));
        assert_eq!(method["by_tag"]["ru"], json!({"cases": 1, "accuracy": 1.0}));
        assert_eq!((method["p50_ms"].as_f64(), method["prefill_tokens"].as_u64()), (Some(3.0), Some(10)));
        assert_eq!(method["confusion"], json!([[2, 0, 0], [1, 0, 1], [0, 1, 1]]));
    }
}
