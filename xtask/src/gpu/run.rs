//! Runs the trials: a daemon for each group, one task for each trial.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::speed::{self, SpeedTrial, TokenSpeeds};
use super::trials::{GpuTrial, TrialGroup};
use crate::local_daemon::LocalDaemon;

/// What every model is asked.
const QUESTION: &str = "What is the capital of France?";
/// Runs of which the fastest counts.
const SPEED_RUNS: u32 = 2;
/// The router's model, which would take a GPU.
const EMBEDDING_MODEL: &str = "model: minilm\nfile: all-MiniLM-L6-v2.F16.gguf\nuse: embedding\ndevices: [CPU]\n";

/// The program, and where its daemons have their files.
pub(crate) struct Bed {
    pub(crate) artel: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) models: PathBuf,
    /// RPC servers whose devices are taken.
    pub(crate) rpc: Vec<String>,
    /// Variables of its daemons, which show them devices.
    pub(crate) env: Vec<(String, String)>,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TrialOutcome {
    Answered(TrialAnswer),
    /// Why there is no answer.
    Failed(String),
}

/// An answer, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrialAnswer {
    pub(crate) text: String,
    pub(crate) tokens_per_second: f64,
    /// Devices and bytes, as planned after the model was loaded once.
    pub(crate) plan: Vec<(String, u64)>,
}

impl Bed {
    /// Removes what an earlier run left behind, and gives the devices that a daemon lists, as JSON.
    pub(crate) fn devices(&self) -> Result<Vec<Value>> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("failed to remove {}", data.display()))?;
        }
        let mut daemon = self.daemon("")?;
        let lines = output(daemon.command("devices").arg("--json"))?;
        daemon.stop()?;
        Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Runs the trials of a group, in turn; a model is unloaded before the next one is loaded. Fails if the daemon refuses the
    /// catalog, as for a key that its version does not know.
    pub(crate) fn run(&self, group: &TrialGroup) -> Result<Vec<TrialOutcome>> {
        let yaml: String = group.trials.iter().map(|trial| trial.yaml.as_str()).collect();
        let mut daemon = self.daemon(&yaml)?;
        let outcome =
            |trial| run_trial(&daemon, trial).unwrap_or_else(|error| TrialOutcome::Failed(format!("{error:#}")));
        let outcomes = group.trials.iter().map(outcome).collect();
        daemon.stop()?;
        Ok(outcomes)
    }

    /// Measures the trials in turn, each with a model of its own.
    pub(crate) fn measure(&self, trials: &[SpeedTrial]) -> Result<Vec<Result<TokenSpeeds>>> {
        let yaml: String = trials.iter().map(|trial| trial.yaml.as_str()).collect();
        let mut daemon = self.daemon(&yaml)?;
        let rates = trials.iter().map(|trial| measure_trial(&daemon, &trial.name)).collect();
        daemon.stop()?;
        Ok(rates)
    }

    /// A daemon with these documents over the shipped catalog. All have one data directory, which keeps the embeddings of the
    /// router: each daemon would compute them for some ten seconds, beside the trials.
    fn daemon(&self, yaml: &str) -> Result<LocalDaemon> {
        let (catalog, settings) = (self.dir.join("catalog"), self.dir.join("settings.yaml"));
        fs::create_dir_all(&catalog).with_context(|| format!("failed to create {}", catalog.display()))?;
        fs::write(catalog.join("trials.yaml"), format!("{EMBEDDING_MODEL}{yaml}"))
            .context("failed to write the catalog")?;
        let servers: Vec<String> = self.rpc.iter().map(|address| format!("'{address}'")).collect();
        fs::write(&settings, format!("rpc: [{}]\n", servers.join(", "))).context("failed to write the settings")?;
        let args = [("--catalog", &catalog), ("--config", &settings), ("--models", &self.models)];
        let args: Vec<&OsStr> = args.iter().flat_map(|(flag, path)| [OsStr::new(*flag), path.as_os_str()]).collect();
        LocalDaemon::start(&self.artel, &self.data(), &args, &self.env)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The table of a workload of `artel bench`.
    pub(crate) fn bench(&self, workload: &str, model: &Path, repeats: u32, args: &[&OsStr]) -> Result<String> {
        let mut command = Command::new(&self.artel);
        command.args(["bench", workload, "--repeats", &repeats.to_string(), "--model"]).arg(model).args(args);
        output(&mut command)
    }
}

fn run_trial(daemon: &LocalDaemon, trial: &GpuTrial) -> Result<TrialOutcome> {
    let task = daemon.command("run").args(["--json", "--role", &trial.name, QUESTION]).output();
    let task = task.context("failed to start a task")?;
    let mut outcome = read_events(&String::from_utf8_lossy(&task.stdout));
    if let TrialOutcome::Answered(answer) = &mut outcome {
        let plan = output(daemon.command("plan").args(["--json", &trial.name]))?;
        answer.plan = read_plan(&plan, &trial.name);
    }
    // One that was not loaded cannot be unloaded.
    let _ = daemon.command("unload").arg(&trial.name).output();
    Ok(outcome)
}

/// The best of some runs, after one that loads the model and compiles kernels.
fn measure_trial(daemon: &LocalDaemon, name: &str) -> Result<TokenSpeeds> {
    let run = |number| {
        let task = daemon.command("run").args(["--json", "--role", name, &speed::prompt(number)]).output();
        read_rates(&String::from_utf8_lossy(&task.context("failed to start a task")?.stdout))
    };
    run(0)?;
    let rates = (1..=SPEED_RUNS).map(run).reduce(|best, rates| Ok(best?.max(rates?)));
    // It is loaded: it answered.
    output(daemon.command("unload").arg(name))?;
    rates.context("there is no run")?
}

/// The rates of the last step among the events of a task.
fn read_rates(lines: &str) -> Result<TokenSpeeds> {
    let mut events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let finished = events.rfind(|event| event["event"] == "step_finished");
    let Some(event) = finished else {
        let TrialOutcome::Failed(reason) = read_events(lines) else { bail!("the task has no answer") };
        bail!("{reason}");
    };
    let per_second = |tokens: f64, ms: &str| {
        let ms = event["timings"][ms].as_f64().filter(|ms| *ms > 0.0);
        ms.map(|ms| 1e3 * tokens / ms).with_context(|| format!("no time in {event}"))
    };
    let tokens = |count: &str| event["usage"][count].as_f64().unwrap_or_default();
    // The first token of an answer comes of the prompt.
    let decoded = tokens("output_tokens") - 1.0;
    Ok(TokenSpeeds {
        prompt: per_second(tokens("prefill_tokens"), "prefill_ms")?,
        decode: per_second(decoded, "decode_ms")?,
    })
}

/// The last step among the events of a task, as `artel run --json` prints them.
fn read_events(lines: &str) -> TrialOutcome {
    let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut outcome = TrialOutcome::Failed("the task printed no event".to_owned());
    for event in events {
        match event["event"].as_str() {
            Some("step_finished") => {
                let tokens = event["usage"]["output_tokens"].as_f64().unwrap_or_default();
                let seconds = event["timings"]["decode_ms"].as_f64().unwrap_or_default() / 1e3;
                outcome = TrialOutcome::Answered(TrialAnswer {
                    text: event["output"]["text"].as_str().unwrap_or_default().to_owned(),
                    tokens_per_second: if seconds > 0.0 { tokens / seconds } else { 0.0 },
                    plan: Vec::new(),
                });
            }
            Some("step_failed" | "failed") => {
                let message = event["failure"]["message"].as_str().unwrap_or("without a word");
                outcome = TrialOutcome::Failed(message.to_owned());
            }
            _ => {}
        }
    }
    outcome
}

/// Devices and bytes of a model in what `artel plan --json` prints.
fn read_plan(text: &str, model: &str) -> Vec<(String, u64)> {
    let plan: Value = serde_json::from_str(text).unwrap_or_default();
    let placed = plan["placed"].as_array().into_iter().flatten().find(|placed| placed["model"] == model);
    let parts = placed.and_then(|placed| placed["parts"].as_array()).into_iter().flatten();
    parts.filter_map(|part| Some((part["device"].as_str()?.to_owned(), part["bytes"].as_u64()?))).collect()
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_of_a_task_counts() {
        let finished = r#"{"event":"step_finished","output":{"text":"Paris."},"usage":{"output_tokens":3},"timings":{"decode_ms":1500.0}}"#;
        let failed = r#"{"event":"step_failed","failure":{"message":"no such device"}}"#;
        let answer = TrialAnswer { text: "Paris.".to_owned(), tokens_per_second: 2.0, plan: Vec::new() };
        assert_eq!(read_events(&format!("{{\"event\":\"token\"}}\n{finished}\n")), TrialOutcome::Answered(answer));
        assert_eq!(read_events(failed), TrialOutcome::Failed("no such device".to_owned()));
        assert!(matches!(read_events(""), TrialOutcome::Failed(_)));
    }

    #[test]
    fn rates_are_of_computed_tokens() {
        let finished = r#"{"event":"step_finished","usage":{"prompt_tokens":90,"prefill_tokens":80,"output_tokens":11},"timings":{"prefill_ms":400,"decode_ms":500}}"#;
        assert_eq!(read_rates(finished).unwrap(), TokenSpeeds { prompt: 200.0, decode: 20.0 });
        let failed = read_rates(r#"{"event":"step_failed","failure":{"message":"no such device"}}"#).unwrap_err();
        assert_eq!(failed.to_string(), "no such device");
    }

    #[test]
    fn the_parts_of_a_plan_are_those_of_the_model() {
        let text = r#"{"placed":[{"model":"a","parts":[]},{"model":"b","parts":[{"device":"CUDA0","bytes":7}]}]}"#;
        assert_eq!(read_plan(text, "b"), [("CUDA0".to_owned(), 7)]);
        assert!(read_plan(text, "c").is_empty() && read_plan("", "b").is_empty());
    }
}
