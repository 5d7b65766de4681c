//! The report in Markdown.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::hardware::Hardware;
use super::run::TrialOutcome;
use super::speed::{SpeedTrial, TokenSpeeds};
use super::trials::{GpuTrial, TrialGroup};

/// A failure has at most so much of its message in the report.
const FAILURE_CHARS: usize = 400;

/// The report as far as it is written.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    /// The answers on the CPU, by model.
    reference: HashMap<String, String>,
    failures: Vec<String>,
}

impl Report {
    /// Begins it with the machine and the program.
    pub(crate) fn new(hardware: &Hardware, facts: &[(&str, String)]) -> Self {
        let mut report = Self::default();
        report.add("# Report on GPUs\n\nMade by `cargo xtask gpu`.\n\n");
        for gpu in &hardware.nvidia {
            report.add(&format!(
                "- GPU: {}, {}, driver {}, architecture {}\n",
                gpu.name, gpu.memory, gpu.driver, gpu.architecture
            ));
        }
        for name in &hardware.vulkan {
            report.add(&format!("- Vulkan: {name}\n"));
        }
        for (name, value) in facts {
            report.add(&format!("- {name}: {value}\n"));
        }
        report
    }

    /// A group of trials, with what came of each. The first group is the reference of the others.
    pub(crate) fn add_group(&mut self, group: &TrialGroup, outcomes: anyhow::Result<Vec<TrialOutcome>>) {
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.add(&format!("\n## {}\n\nfailed\n", group.title));
                return self.fail(&format!("{}: {error:#}", group.title));
            }
        };
        self.add(&format!(
            "\n## {}\n\n| model | placed | answer | tokens/s | plan |\n|---|---|---|---|---|\n",
            group.title
        ));
        for (trial, outcome) in group.trials.iter().zip(&outcomes) {
            let row = self.row(trial, outcome);
            self.add(&row);
        }
    }

    fn row(&mut self, trial: &GpuTrial, outcome: &TrialOutcome) -> String {
        let GpuTrial { model, placed, .. } = trial;
        let answer = match outcome {
            TrialOutcome::Failed(reason) => {
                self.fail(&format!("{model}, {placed}: {reason}"));
                return format!("| {model} | {placed} | failed | | |\n");
            }
            TrialOutcome::Answered(answer) => answer,
        };
        let words = match trial.word {
            Some(word) if answer.text.contains(word) => format!("has {word}"),
            Some(word) => {
                self.fail(&format!("{model}, {placed}: the answer lacks {word}: {}", answer.text));
                format!("lacks {word}")
            }
            None if answer.text.trim().is_empty() => {
                self.fail(&format!("{model}, {placed}: the answer is empty"));
                "empty".to_owned()
            }
            None => self.compare(model, &answer.text),
        };
        let plan: Vec<String> =
            answer.plan.iter().map(|(device, bytes)| format!("{device} {:.0} MB", *bytes as f64 / 1e6)).collect();
        format!("| {model} | {placed} | {words} | {:.1} | {} |\n", answer.tokens_per_second, plan.join(", "))
    }

    /// How far an answer is that of the CPU; the first answer of a model is that.
    fn compare(&mut self, model: &str, text: &str) -> String {
        let Some(reference) = self.reference.get(model) else {
            self.reference.insert(model.to_owned(), text.to_owned());
            return "the reference".to_owned();
        };
        if reference == text {
            return "the same".to_owned();
        }
        let same = reference.split_whitespace().zip(text.split_whitespace()).take_while(|(one, other)| one == other);
        format!("the same for {} of {} words", same.count(), reference.split_whitespace().count())
    }

    /// The rates of the demo model as its layers move. Returns the table, which is empty if nothing was measured.
    pub(crate) fn add_speed(
        &mut self,
        trials: &[SpeedTrial],
        rates: anyhow::Result<Vec<anyhow::Result<TokenSpeeds>>>,
    ) -> String {
        self.add("\n## Speed as layers move\n\n");
        let rates = match rates {
            Ok(rates) => rates,
            Err(error) => {
                self.add("failed\n");
                self.fail(&format!("speed: {error:#}"));
                return String::new();
            }
        };
        let mut table =
            "| devices | layers there, of 31 | prompt, tokens/s | answer, tokens/s |\n|---|---|---|---|\n".to_owned();
        for (SpeedTrial { devices, layers, .. }, rates) in trials.iter().zip(rates) {
            let row = match rates {
                Ok(rates) => format!("| {devices} | {layers} | {:.1} | {:.1} |\n", rates.prompt, rates.decode),
                Err(error) => {
                    self.fail(&format!("speed, {layers} layers on {devices}: {error:#}"));
                    format!("| {devices} | {layers} | failed | |\n")
                }
            };
            table.push_str(&row);
        }
        self.add(&table);
        table
    }

    /// The table of a workload, or why there is none.
    pub(crate) fn add_bench(&mut self, workload: &str, table: anyhow::Result<String>) {
        match table {
            Ok(table) => self.add(&format!("\n## artel bench {workload}\n\n```text\n{}\n```\n", table.trim_end())),
            Err(error) => {
                self.add(&format!("\n## artel bench {workload}\n\nfailed\n"));
                self.fail(&format!("artel bench {workload}: {error:#}"));
            }
        }
    }

    /// A paragraph.
    pub(crate) fn add_words(&mut self, words: &str) {
        self.add(&format!("\n{words}\n"));
    }

    fn fail(&mut self, reason: &str) {
        let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        self.failures.push(line.chars().take(FAILURE_CHARS).collect());
    }

    /// How much failed so far.
    pub(crate) fn failures(&self) -> usize {
        self.failures.len()
    }

    /// The whole text, with what failed at its end.
    pub(crate) fn finish(mut self) -> String {
        let failures = std::mem::take(&mut self.failures);
        self.add("\n## What failed\n\n");
        if failures.is_empty() {
            self.add("Nothing.\n");
        }
        for failure in failures {
            self.add(&format!("- {failure}\n"));
        }
        self.text
    }

    fn add(&mut self, text: &str) {
        // A text takes every text.
        let _ = self.text.write_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::run::TrialAnswer;

    fn group(words: [Option<&'static str>; 2]) -> TrialGroup {
        let trial = |word| GpuTrial {
            name: "n".to_owned(),
            model: "m".to_owned(),
            placed: "CUDA0".to_owned(),
            yaml: String::new(),
            word,
        };
        TrialGroup { title: "Pinned", trials: words.map(trial).into() }
    }

    fn answered(text: &str) -> TrialOutcome {
        let plan = vec![("CUDA0".to_owned(), 12_000_000)];
        TrialOutcome::Answered(TrialAnswer { text: text.to_owned(), tokens_per_second: 7.25, plan })
    }

    #[test]
    fn answers_are_compared_with_those_of_the_cpu_and_failures_stand_at_the_end() {
        let mut report = Report::new(&Hardware::default(), &[("Program", "artel 0.1.0".to_owned())]);
        report.add_group(&group([None, None]), Ok(vec![answered("one two three"), answered("one two four")]));
        let outcomes = vec![answered("Paris"), TrialOutcome::Failed("no\ndevice".to_owned())];
        report.add_group(&group([Some("Velograd"), None]), Ok(outcomes));
        report.add_group(&group([None, None]), Err(anyhow::anyhow!("no such key")));
        report.add_bench("decode", Err(anyhow::anyhow!("exit status: 1")));
        assert_eq!(report.failures(), 4);
        let trials = [0, 31].map(|layers| SpeedTrial {
            name: "n".to_owned(),
            devices: "CUDA0".to_owned(),
            layers,
            yaml: String::new(),
        });
        let table = report.add_speed(
            &trials,
            Ok(vec![Ok(TokenSpeeds { prompt: 512.0, decode: 9.5 }), Err(anyhow::anyhow!("no answer"))]),
        );
        assert!(table.ends_with("| CUDA0 | 0 | 512.0 | 9.5 |\n| CUDA0 | 31 | failed | |\n"), "{table}");
        let text = report.finish();
        for part in [
            "- Program: artel 0.1.0\n",
            "| m | CUDA0 | the reference | 7.2 | CUDA0 12 MB |\n",
            "| m | CUDA0 | the same for 2 of 3 words | 7.2 | CUDA0 12 MB |\n",
            "| m | CUDA0 | lacks Velograd | 7.2 | CUDA0 12 MB |\n",
            "## What failed\n\n- m, CUDA0: the answer lacks Velograd: Paris\n- m, CUDA0: no device\n- Pinned: no such key\n- artel bench decode: exit status: 1\n- speed, 31 layers on CUDA0: no answer\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
