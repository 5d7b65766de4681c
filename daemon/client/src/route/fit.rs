//! `artel route --fit`: has labelled questions scored, and fits a router to the scores.

use artel_roles::LabelledQuestion;
use artel_router::fit::{FALSE_REJECTION_RATIO, FittedRouter, LabelledCase, MIN_CASES};
use artel_task::event::Signal;
use artel_task::{ModelName, RoleName};
use serde_json::{Value, json};

use super::preview::{PreviewClient, PreviewScores};
use crate::error::Error;

pub(super) async fn fit(
    client: &mut PreviewClient<'_>,
    cases: &[LabelledQuestion],
    name: &str,
) -> Result<FittedRouter, Error> {
    if cases.len() < MIN_CASES {
        return Err(Error::Usage(format!(
            "{} cases are too few to fit the router; {MIN_CASES} are needed",
            cases.len()
        )));
    }
    let settings = client.settings(name).await?;
    let label_model = settings["signals"]["label"]["model"].as_str().and_then(|name| ModelName::parse(name).ok());
    let mut wanted = vec![Signal::Embedding, Signal::Linear, Signal::Keyword];
    wanted.extend(label_model.as_ref().map(|_| Signal::Label));
    let mut labelled = Vec::new();
    for case in cases {
        labelled.push(label(case, client.signal_scores(&case.text, &wanted).await?)?);
    }
    let background = settings["background"].as_array().map_or(&[][..], Vec::as_slice);
    let background = background.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    Ok(FittedRouter::fit(&labelled, background, label_model))
}

fn label(case: &LabelledQuestion, scores: PreviewScores) -> Result<LabelledCase, Error> {
    let PreviewScores { candidates, values, no_match, .. } = scores;
    let index = |role: &RoleName| {
        candidates.iter().position(|name| name == role.as_str()).ok_or_else(|| {
            Error::Usage(format!(
                "the role `{role}` of the case \"{}\" is not a candidate",
                case.text.chars().take(60).collect::<String>()
            ))
        })
    };
    let correct = case.role.as_ref().map(index).transpose()?;
    Ok(LabelledCase { candidates: values, no_match, correct })
}

/// The summary, one line each.
pub(super) fn summary(fitted: &FittedRouter) -> Vec<String> {
    let mut lines = vec![format!(
        "{} cases; `confidence: {:.2}` rejects about {:.0} % of in-scope questions",
        fitted.cases,
        fitted.threshold,
        FALSE_REJECTION_RATIO * 100.0
    )];
    let excluded = excluded(fitted);
    if !excluded.is_empty() {
        lines.push(format!("excluded signals, which do not improve the fit: {}", excluded.join(", ")));
    }
    lines
}

pub(super) fn to_json(fitted: &FittedRouter, yaml: &str) -> Value {
    json!({
        "yaml": yaml,
        "cases": fitted.cases,
        "confidence": fitted.threshold,
        "excluded": excluded(fitted),
    })
}

fn excluded(fitted: &FittedRouter) -> Vec<&'static str> {
    fitted.excluded.iter().map(|signal| signal.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use artel_router::SignalValues;

    use super::*;

    fn scores(candidates: &[&str]) -> PreviewScores {
        PreviewScores {
            candidates: candidates.iter().map(|name| (*name).to_owned()).collect(),
            values: vec![SignalValues::new(); candidates.len()],
            no_match: SignalValues::new(),
            confidence: 0.5,
            latency: std::time::Duration::ZERO,
            prefill_tokens: 0,
        }
    }

    fn case(role: Option<&str>) -> LabelledQuestion {
        let role = role.and_then(|role| RoleName::parse(role).ok());
        LabelledQuestion { text: "Why?".to_owned(), role, tags: Vec::new() }
    }

    #[test]
    fn the_right_role_is_a_candidate_or_there_is_none() {
        assert_eq!(label(&case(Some("rag")), scores(&["gpu", "rag"])).unwrap().correct, Some(1));
        assert_eq!(label(&case(None), scores(&["gpu", "rag"])).unwrap().correct, None);
        let error = label(&case(Some("lora")), scores(&["gpu", "rag"])).unwrap_err().to_string();
        assert!(error.contains("the role `lora` of the case \"Why?\" is not a candidate"), "{error}");
    }

    #[test]
    fn the_summary_names_the_threshold_and_what_was_excluded() {
        let mut fitted = FittedRouter::fit(&[], Vec::new(), None);
        assert_eq!(summary(&fitted), ["0 cases; `confidence: 0.00` rejects about 7 % of in-scope questions"]);
        fitted.excluded = vec![Signal::Embedding, Signal::Linear];
        assert_eq!(summary(&fitted)[1], "excluded signals, which do not improve the fit: embedding, linear");
        assert_eq!(to_json(&fitted, "y")["excluded"], json!(["embedding", "linear"]));
    }
}
