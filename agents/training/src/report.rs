//! What an owner should know of the samples before anything is trained on them.

use std::collections::{BTreeMap, HashMap};

use artel_terms::Language;

use crate::collect::TrainingData;
use crate::near_duplicates;
use crate::sample::Sample;

/// Held-out samples with which a comparison can tell a gain of some points from chance.
const MIN_HELD_OUT_SAMPLES: usize = 100;
/// Places that a finding names; more are counted.
const MAX_PLACE_ITEMS: usize = 10;

/// What is in the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct DataReport {
    /// The samples of each source, in the order of the sources.
    pub sources: Vec<(String, usize)>,
    /// Samples to train on.
    pub train: usize,
    /// Samples to measure by.
    pub held_out: usize,
    /// What is wrong with the samples as a whole, or worth a look.
    pub findings: Vec<DataFinding>,
    /// The characters of what models read, the role's prompt included.
    pub prompt_chars: LengthSpread,
    /// The characters of answers.
    pub answer_chars: LengthSpread,
    /// The languages of users' texts as ISO 639-1 codes, `other` for any that is not known here, with the number of samples.
    pub languages: Vec<(&'static str, usize)>,
}

/// Something in the samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFinding {
    /// What, as a sentence without its end.
    pub text: String,
    /// Where, some of it.
    pub places: Vec<String>,
}

/// How long texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LengthSpread {
    /// Half of them are not longer.
    pub median: usize,
    /// Nineteen of twenty are not longer.
    pub p95: usize,
    /// The longest.
    pub max: usize,
}

impl LengthSpread {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let at = |share: usize| lengths.get((lengths.len() * share / 100).min(lengths.len().saturating_sub(1)));
        let [median, p95, max] = [50, 95, 100].map(|share| at(share).copied().unwrap_or(0));
        Self { median, p95, max }
    }
}

impl DataReport {
    /// Looks at all samples. It takes a minute for a hundred thousand.
    pub fn of(data: &TrainingData) -> Self {
        let samples = &data.samples;
        let held_out = samples.iter().filter(|sample| sample.is_held_out).count();
        let mut sources: Vec<(String, usize)> = Vec::new();
        for sample in samples {
            match sources.iter_mut().find(|(name, _)| name == sample.origin.source()) {
                Some((_, count)) => *count += 1,
                None => sources.push((sample.origin.source().to_owned(), 1)),
            }
        }
        let prompt_chars = |sample: &Sample| sample.messages.iter().map(|m| m.content.chars().count()).sum();
        Self {
            sources,
            train: samples.len() - held_out,
            held_out,
            findings: findings(data, held_out),
            prompt_chars: LengthSpread::of(samples.iter().map(prompt_chars).collect()),
            answer_chars: LengthSpread::of(samples.iter().map(|sample| sample.answer.chars().count()).collect()),
            languages: languages(samples),
        }
    }
}

fn languages(samples: &[Sample]) -> Vec<(&'static str, usize)> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for sample in samples {
        let language = Language::of_text(&sample.user_text()).map_or("other", Language::code);
        *counts.entry(language).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
    counts
}

fn findings(data: &TrainingData, held_out: usize) -> Vec<DataFinding> {
    let samples = &data.samples;
    let mut findings = Vec::new();
    let mut find = |text: String, places: Vec<String>| findings.push(DataFinding { text, places });
    match (samples.len() - held_out, held_out) {
        (0, 0) => find("there are no samples".to_owned(), Vec::new()),
        (0, _) => find("there is nothing to train on: all samples are held out".to_owned(), Vec::new()),
        (_, few) if few < MIN_HELD_OUT_SAMPLES => find(
            format!(
                "{} held out: with fewer than {MIN_HELD_OUT_SAMPLES}, a comparison tells large gains from chance, and \
                 no others",
                counted(few, "sample is", "samples are")
            ),
            Vec::new(),
        ),
        _ => {}
    }
    let contradictions = contradictions(samples);
    if !contradictions.is_empty() {
        let text =
            format!("{} samples with different answers", counted(contradictions.len(), "prompt has", "prompts have"));
        find(text, places(&contradictions));
    }
    let leaks = leaks(samples);
    if !leaks.is_empty() {
        let text = format!(
            "{} almost the same text to train on and held out: what is measured by them is remembered, not learned",
            if leaks.len() == 1 {
                "1 pair of samples has".to_owned()
            } else {
                format!("{} pairs of samples have", leaks.len())
            }
        );
        find(text, places(&leaks));
    }
    if data.reads_passages && !samples.is_empty() {
        let text =
            "the role reads passages of its knowledge when it serves, and samples have none unless their `messages` do";
        find(text.to_owned(), Vec::new());
    }
    if let Some(prompt) = &data.prompt {
        let is_other = |sample: &&Sample| sample.messages.first().is_some_and(|first| first.content != *prompt);
        let others: Vec<String> = samples.iter().filter(is_other).map(|sample| sample.origin.to_string()).collect();
        if !others.is_empty() {
            let text = format!(
                "{} with a system message that is not the role's prompt, which the role will read when it serves",
                counted(others.len(), "sample begins", "samples begin")
            );
            find(text, places(&others));
        }
    }
    for (key, lines) in &data.unread_keys {
        find(format!("the key `{key}` of {} is not read", counted(*lines, "line", "lines")), Vec::new());
    }
    findings
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn places(all: &[String]) -> Vec<String> {
    let mut places: Vec<String> = all.iter().take(MAX_PLACE_ITEMS).cloned().collect();
    if all.len() > MAX_PLACE_ITEMS {
        places.push(format!("and {} more", all.len() - MAX_PLACE_ITEMS));
    }
    places
}

/// The places of each prompt to which there are several answers.
fn contradictions(samples: &[Sample]) -> Vec<String> {
    let mut by_prompt: HashMap<[u8; 32], Vec<&Sample>> = HashMap::new();
    for sample in samples {
        by_prompt.entry(sample.prompt_hash()).or_default().push(sample);
    }
    // What is the same in prompt and answer was left out.
    let mut found: Vec<Vec<&Sample>> = by_prompt.into_values().filter(|same| same.len() > 1).collect();
    let place = |sample: &Sample| samples.iter().position(|other| std::ptr::eq(other, sample));
    found.sort_by_cached_key(|same| same.first().and_then(|first| place(first)));
    let joined =
        |same: &Vec<&Sample>| same.iter().map(|sample| sample.origin.to_string()).collect::<Vec<_>>().join(" and ");
    found.iter().map(joined).collect()
}

/// The pairs of a sample to train on and one that is held out that are almost the same.
fn leaks(samples: &[Sample]) -> Vec<String> {
    let texts: Vec<String> = samples.iter().map(Sample::user_text).collect();
    let pairs = near_duplicates::pairs_across(&texts, |index| samples[index].is_held_out);
    pairs
        .into_iter()
        .map(|(first, second)| format!("{} and {}", samples[first].origin, samples[second].origin))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{SampleMessage, SampleOrigin};

    fn sample(line: usize, text: &str, answer: &str, is_held_out: bool) -> Sample {
        Sample {
            origin: SampleOrigin::Line { file: "a.jsonl".to_owned(), line },
            messages: vec![SampleMessage::new("system", "You sort."), SampleMessage::new("user", text)],
            answer: answer.to_owned(),
            is_held_out,
        }
    }

    #[test]
    fn a_report_tells_what_an_owner_should_know() {
        let mut samples = vec![
            sample(1, "The lamp of order 17 came with a crack in its shade.", "returns", false),
            sample(2, "The lamp of order 18 came with a crack in its shade.", "returns", true),
            sample(3, "Когда вы открываетесь в субботу и в воскресенье?", "hours", false),
            sample(4, "Is the shop open on the day before Christmas?", "hours", false),
            sample(5, "Is the shop open on the day before Christmas?", "closed", false),
        ];
        samples[2].messages[0].content = "Ты сортируешь.".to_owned();
        let data = TrainingData {
            samples,
            prompt: Some("You sort.".to_owned()),
            unread_keys: BTreeMap::from([("id".to_owned(), 3)]),
            reads_passages: true,
            ..TrainingData::default()
        };
        let report = DataReport::of(&data);
        assert_eq!((report.train, report.held_out), (4, 1));
        assert_eq!(report.sources, [("a.jsonl".to_owned(), 5)]);
        assert_eq!(report.languages, [("en", 4), ("ru", 1)]);
        assert_eq!(report.answer_chars, LengthSpread { median: 6, p95: 7, max: 7 });
        let findings: Vec<(&str, String)> =
            report.findings.iter().map(|finding| (finding.text.as_str(), finding.places.join(", "))).collect();
        assert_eq!(findings.len(), 6, "{findings:?}");
        assert!(findings[0].0.starts_with("1 sample is held out"), "{findings:?}");
        assert_eq!(findings[1], ("1 prompt has samples with different answers", "a.jsonl:4 and a.jsonl:5".to_owned()));
        assert_eq!(findings[2].1, "a.jsonl:1 and a.jsonl:2");
        assert!(findings[3].0.starts_with("the role reads passages"), "{findings:?}");
        assert_eq!(findings[4].1, "a.jsonl:3");
        assert_eq!(findings[5].0, "the key `id` of 3 lines is not read");
        assert_eq!(DataReport::of(&TrainingData::default()).findings[0].text, "there are no samples");
    }
}
