//! Reads the sources of a training and makes samples of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use artel_feedback::{AnswerRating, RatingRecord};
use artel_model::open_regular_file;
use artel_roles::template::TemplateContext;
use artel_roles::{DataSource, HeldOutSetting, Role, Training};

use crate::chat_line::{ChatLine, json_fault};
use crate::sample::{LeftOutSample, Sample, SampleMessage, SampleOrigin};
use crate::secrets::secret_in;
use crate::split;

/// The longest line: as much as a task takes as its input, and an answer.
const MAX_LINE_BYTES: usize = 2 << 20;
/// The most samples: an adapter learns from thousands.
const MAX_SAMPLES: usize = 200_000;
/// The most text of all samples, which is in memory while they are looked at.
const MAX_TEXT_BYTES: usize = 256 << 20;
/// The most of what was left out that is told one by one; more are counted.
const MAX_LISTED_ITEMS: usize = 10_000;

/// The samples of a training.
#[derive(Debug, Default)]
pub struct TrainingData {
    /// In the order of the sources; those of a file of held-out samples come last.
    pub samples: Vec<Sample>,
    /// What did not become a sample, up to some thousands, with the reason.
    pub left_out: Vec<LeftOutSample>,
    /// All that did not become a sample.
    pub left_out_count: usize,
    /// Keys in lines of files that mean nothing here, and how many lines have them.
    pub(crate) unread_keys: BTreeMap<String, usize>,
    /// The role's own prompt, if it is the same for every task.
    pub(crate) prompt: Option<String>,
    /// Whether the role reads passages of a knowledge when it serves.
    pub(crate) reads_passages: bool,
    pub(crate) text_bytes: usize,
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A file cannot be read.
    #[error("failed to read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The ratings cannot be read.
    #[error(transparent)]
    Ratings(#[from] artel_feedback::Error),
    /// There are too many samples.
    #[error("the training has more than {MAX_SAMPLES} samples; take a part of them")]
    TooManySamples,
    /// There is too much text.
    #[error("the samples have more than {} MiB of text; take a part of them", MAX_TEXT_BYTES >> 20)]
    TooMuchText,
    /// They are not wanted any more.
    #[error("the reading of the samples was cancelled")]
    Cancelled,
}

/// Reads the files of a training, and the ratings of its role, and makes samples of them for this role. Blocks on the disk. Ends soon
/// after `is_wanted` is false.
///
/// # Errors
/// [`CollectError`].
pub fn collect(
    training: &Training,
    role: &Role,
    ratings: impl IntoIterator<Item = Result<RatingRecord, artel_feedback::Error>>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<TrainingData, CollectError> {
    let reads_passages = !role.knowledge.is_empty();
    let mut data = TrainingData { prompt: fixed_prompt(role), reads_passages, ..TrainingData::default() };
    let mut ratings = Some(ratings);
    for source in &training.data {
        match source {
            DataSource::File(path) => data.read_file(path, role, is_wanted)?,
            DataSource::Ratings => {
                for record in ratings.take().into_iter().flatten() {
                    let record = record?;
                    if !is_wanted() {
                        return Err(CollectError::Cancelled);
                    }
                    if record.role == role.name {
                        data.take_rating(record, role)?;
                    }
                }
            }
        }
    }
    match &training.held_out {
        HeldOutSetting::Share(share) => {
            for sample in &mut data.samples {
                sample.is_held_out = split::is_held_out(sample, *share, training.seed);
            }
        }
        HeldOutSetting::File(path) => {
            let trained = data.samples.len();
            data.read_file(path, role, is_wanted)?;
            data.samples[trained..].iter_mut().for_each(|sample| sample.is_held_out = true);
        }
    }
    data.leave_out_repeated();
    Ok(data)
}

/// The prompt of a role that is the same for every task.
fn fixed_prompt(role: &Role) -> Option<String> {
    let context = TemplateContext { role: Some(role.template_value()), ..TemplateContext::default() };
    let rendered = role.prompt.is_fixed().then(|| role.prompt.render(&context).ok()).flatten();
    rendered.map(|prompt| prompt.trim().to_owned())
}

impl TrainingData {
    fn read_file(&mut self, path: &Path, role: &Role, is_wanted: &dyn Fn() -> bool) -> Result<(), CollectError> {
        let failed = |source| CollectError::File { path: path.to_owned(), source };
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut lines = Lines::open(path).map_err(failed)?;
        while let Some(read) = lines.next().map_err(failed)? {
            if !is_wanted() {
                return Err(CollectError::Cancelled);
            }
            let origin = SampleOrigin::Line { file: file.clone(), line: lines.number };
            match read {
                ReadLine::TooLong => {
                    self.leave_out(origin, format!("the line has more than {} MiB", MAX_LINE_BYTES >> 20));
                }
                ReadLine::Text(line) if line.trim_ascii().is_empty() => {}
                ReadLine::Text(line) => match ChatLine::parse(&line, role) {
                    Ok(ChatLine { messages, answer, unread_keys }) => {
                        for key in unread_keys {
                            *self.unread_keys.entry(key).or_default() += 1;
                        }
                        self.add(Sample { origin, messages, answer, is_held_out: false }, role)?;
                    }
                    Err(fault) => self.leave_out(origin, fault.to_string()),
                },
            }
        }
        Ok(())
    }

    /// An answer that was good, or what it should have been.
    fn take_rating(&mut self, record: RatingRecord, role: &Role) -> Result<(), CollectError> {
        let origin = SampleOrigin::Rating { task: record.task, step: record.step };
        let answer = match (record.rating, record.correction) {
            (_, Some(correction)) => correction,
            (AnswerRating::Good, None) => record.answer,
            (AnswerRating::Bad, None) => {
                self.leave_out(origin, "the answer is bad, and there is no better one".to_owned());
                return Ok(());
            }
        };
        let Some(messages) = record.messages else {
            let reason = "what its model read is not kept: passages of a knowledge, tools, instructions of a caller, a copied step, or too much text";
            self.leave_out(origin, reason.to_owned());
            return Ok(());
        };
        let known = |role: &str| ["system", "user", "assistant"].into_iter().find(|known| *known == role);
        let messages = messages.iter().map(|message| Some(SampleMessage::new(known(&message.role)?, &message.content)));
        let Some(mut messages) = messages.collect::<Option<Vec<_>>>() else {
            self.leave_out(origin, "its model read more than texts".to_owned());
            return Ok(());
        };
        // The role serves with the prompt that it has now.
        if let (Some(prompt), Some(first)) = (&self.prompt, messages.first_mut().filter(|first| first.role == "system"))
        {
            first.content.clone_from(prompt);
        }
        self.add(Sample { origin, messages, answer: answer.trim().to_owned(), is_held_out: false }, role)
    }

    fn add(&mut self, sample: Sample, role: &Role) -> Result<(), CollectError> {
        if let Some(reason) = unusable(&sample, role) {
            self.leave_out(sample.origin, reason);
            return Ok(());
        }
        self.text_bytes += sample.text_bytes();
        if self.samples.len() >= MAX_SAMPLES {
            return Err(CollectError::TooManySamples);
        }
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(CollectError::TooMuchText);
        }
        self.samples.push(sample);
        Ok(())
    }

    fn leave_out(&mut self, origin: SampleOrigin, reason: String) {
        self.left_out_count += 1;
        if self.left_out.len() < MAX_LISTED_ITEMS {
            self.left_out.push(LeftOutSample { origin, reason });
        }
    }

    /// Leaves out samples that are there before, and those of which the prompt is held out elsewhere.
    fn leave_out_repeated(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let held_out = samples.iter().filter(|sample| sample.is_held_out);
        let held_out: HashMap<[u8; 32], String> =
            held_out.map(|sample| (sample.prompt_hash(), sample.origin.to_string())).collect();
        let mut seen: HashMap<([u8; 32], String), SampleOrigin> = HashMap::new();
        for sample in samples {
            let hash = sample.prompt_hash();
            if let Some(other) = held_out.get(&hash).filter(|_| !sample.is_held_out) {
                self.leave_out(sample.origin, format!("its prompt is that of {other}, which is held out"));
                continue;
            }
            match seen.get(&(hash, sample.answer.clone())) {
                Some(first) => {
                    let reason = format!("it is the same as {first}");
                    self.leave_out(sample.origin, reason);
                }
                None => {
                    seen.insert((hash, sample.answer.clone()), sample.origin.clone());
                    self.samples.push(sample);
                }
            }
        }
    }
}

/// Why nothing should be learned from a sample.
fn unusable(sample: &Sample, role: &Role) -> Option<String> {
    if let Some(schema) = &role.output {
        let mismatch = match serde_json::from_str(&sample.answer) {
            Ok(value) => schema.check(&value).err().map(|mismatch| mismatch.to_string()),
            Err(error) => Some(format!("it is no JSON: {}", json_fault(&error))),
        };
        if let Some(mismatch) = mismatch {
            return Some(format!("the answer is not what `output` of role `{}` asks for: {mismatch}", role.name));
        }
    }
    let texts = sample.messages.iter().map(|message| message.content.as_str()).chain([sample.answer.as_str()]);
    let secret = texts.filter_map(secret_in).next();
    secret.map(|what| format!("it has {what}, which a model that learns it would tell"))
}

/// A line of a file.
enum ReadLine {
    Text(Vec<u8>),
    TooLong,
}

/// The lines of a file, which may be of any length.
struct Lines {
    reader: BufReader<File>,
    /// The number of the last line, from 1.
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { reader: BufReader::new(open_regular_file(path)?), number: 0 })
    }

    fn next(&mut self) -> std::io::Result<Option<ReadLine>> {
        let mut line = Vec::new();
        let taken = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if taken == 0 {
            return Ok(None);
        }
        self.number += 1;
        if taken <= MAX_LINE_BYTES {
            return Ok(Some(ReadLine::Text(line)));
        }
        if line.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(ReadLine::TooLong))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use artel_feedback::RatedMessage;
    use artel_roles::{Catalog, YamlSource};
    use artel_task::event::Timestamp;
    use artel_task::{CallerName, CatalogVersion, TaskId};
    use tempfile::TempDir;

    use super::*;

    /// A catalog with this document behind a role, which has more keys.
    fn catalog(keys: &str, more: &str, dir: &Path) -> Catalog {
        let text = format!(
            "{{model: m, file: m.gguf}}\n---\nrole: sorter\ndescription: D.\nmodel: m\nprompt: You sort.\n{keys}\n---\n{more}"
        );
        let source = YamlSource { path: "x.yaml".to_owned(), dir: Some(dir.to_owned()), text };
        Catalog::parse(vec![vec![source]]).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// A role with the prompt `You sort.` and these further keys.
    pub(crate) fn role(keys: &str) -> Arc<Role> {
        catalog(keys, "{knowledge: k, search: {mode: keyword}}", Path::new("/crew")).role("sorter").unwrap().clone()
    }

    struct SampleFiles {
        dir: TempDir,
    }

    impl SampleFiles {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = TempDir::new().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            Self { dir }
        }

        fn collect(
            &self,
            role: &str,
            training: &str,
            ratings: Vec<RatingRecord>,
        ) -> Result<TrainingData, CollectError> {
            let catalog = catalog(role, &format!("training: t\nrole: sorter\n{training}\n"), self.dir.path());
            let (training, role) = (catalog.training("t").unwrap(), catalog.role("sorter").unwrap());
            collect(training, role, ratings.into_iter().map(Ok), &|| true)
        }
    }

    fn line(input: &str, output: &str) -> String {
        format!("{}\n", serde_json::json!({"input": input, "output": output}))
    }

    fn reasons(data: &TrainingData) -> Vec<String> {
        data.left_out.iter().map(|out| format!("{}: {}", out.origin, out.reason)).collect()
    }

    fn rating(step: &str, rating: AnswerRating, correction: Option<&str>) -> RatingRecord {
        let message = |role: &str, content: &str| RatedMessage { role: role.to_owned(), content: content.to_owned() };
        RatingRecord {
            task: TaskId::new(5, [0; 10]),
            step: step.to_owned(),
            role: artel_task::RoleName::parse("sorter").unwrap(),
            messages: Some(vec![message("system", "An older prompt."), message("user", step)]),
            answer: "no".to_owned(),
            rating,
            correction: correction.map(str::to_owned),
            comment: String::new(),
            catalog: CatalogVersion::new("x"),
            rated_at: Timestamp(7),
            owner: CallerName::owner(),
            caller: CallerName::owner(),
        }
    }

    #[test]
    fn what_is_no_sample_is_left_out_with_its_line_and_the_reason() {
        let secret = format!("ghp_{}", "0123456789".repeat(4));
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        let text =
            [&line("a", "yes"), "\n", "{\n", &long, "\n", &line("b", "maybe"), &line("c", &secret), &line("a", "yes")]
                .concat();
        let case = SampleFiles::new(&[("a.jsonl", &text)]);
        let data = case.collect("", "data: a.jsonl", Vec::new()).unwrap();
        assert_eq!(data.samples.len(), 2);
        assert_eq!(
            reasons(&data),
            [
                "a.jsonl:3: it is no JSON: EOF while parsing an object, at column 1",
                "a.jsonl:4: the line has more than 2 MiB",
                "a.jsonl:6: it has a token of GitHub, which a model that learns it would tell",
                "a.jsonl:7: it is the same as a.jsonl:1",
            ]
        );
        let data = case.collect("output: {enum: ['yes', 'no']}", "data: a.jsonl", Vec::new()).unwrap();
        let answers: Vec<&str> = data.samples.iter().map(|sample| sample.answer.as_str()).collect();
        assert_eq!(answers, ["\"yes\""], "the answers of a role with a schema are JSON");
        assert!(reasons(&data).iter().any(|reason| reason.contains("is not what `output`")), "{:?}", reasons(&data));
    }

    #[test]
    fn a_rating_is_a_sample_if_it_says_what_is_right() {
        let ratings = vec![
            rating("good", AnswerRating::Good, None),
            rating("corrected", AnswerRating::Bad, Some(" yes\n")),
            rating("bad", AnswerRating::Bad, None),
            RatingRecord { messages: None, ..rating("unknown", AnswerRating::Good, None) },
            RatingRecord {
                role: artel_task::RoleName::parse("other").unwrap(),
                ..rating("other", AnswerRating::Good, None)
            },
        ];
        let data = SampleFiles::new(&[]).collect("", "data: ratings", ratings).unwrap();
        let learned: Vec<_> = data.samples.iter().map(|sample| (sample.user_text(), sample.answer.clone())).collect();
        assert_eq!(learned, [("good".to_owned(), "no".to_owned()), ("corrected".to_owned(), "yes".to_owned())]);
        assert_eq!(data.samples[0].messages[0].content, "You sort.", "the prompt is the one that serves now");
        assert_eq!(data.left_out_count, 2);
        assert!(reasons(&data)[0].ends_with("the answer is bad, and there is no better one"), "{:?}", reasons(&data));
    }

    #[test]
    fn what_is_held_out_in_a_file_is_not_trained_on() {
        let case = SampleFiles::new(&[
            ("train.jsonl", &[line("a", "1"), line("b", "1")].concat()),
            ("test.jsonl", &[line("b", "2"), line("c", "2")].concat()),
        ]);
        let data = case.collect("", "data: [train.jsonl]\nheld_out: test.jsonl", Vec::new()).unwrap();
        let kept: Vec<_> = data.samples.iter().map(|sample| (sample.user_text(), sample.is_held_out)).collect();
        assert_eq!(kept, [("a".to_owned(), false), ("b".to_owned(), true), ("c".to_owned(), true)]);
        assert_eq!(reasons(&data), ["train.jsonl:2: its prompt is that of test.jsonl:1, which is held out"]);
    }

    #[test]
    fn a_missing_file_and_a_cancelled_reading_are_errors() {
        let case = SampleFiles::new(&[("a.jsonl", &line("a", "1"))]);
        let error = case.collect("", "data: [a.jsonl, b.jsonl]", Vec::new()).unwrap_err();
        assert!(error.to_string().contains("b.jsonl"), "{error}");
        let catalog = catalog("", "{training: t, role: sorter, data: a.jsonl}", case.dir.path());
        let cancelled = collect(catalog.training("t").unwrap(), catalog.role("sorter").unwrap(), Vec::new(), &|| false);
        assert!(matches!(cancelled, Err(CollectError::Cancelled)));
    }
}
