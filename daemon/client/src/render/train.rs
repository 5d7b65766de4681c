//! The trainer and the runs of trainings.

use artel_proto::v1::{HeldOutLosses, RunData, RunSettings, RunState, Trainer, TrainingRun};
use artel_terminal::{BAD, BOLD, DIM, GOOD, StyledText, TextTable, WARN, bytes, cell, span};

use super::loss_curve;
use super::time;
use crate::json::EnumName as _;

/// What was left out that is listed; `--json` lists more.
const MAX_LISTED_ITEMS: usize = 10;

/// What trains.
pub(crate) fn trainer(trainer: &Trainer, out: &mut StyledText) {
    out.push_styled(GOOD, "the trainer is installed").push(format_args!(": Python {}", trainer.python));
    for package in &trainer.packages {
        out.push(format_args!(", {} {}", package.name, package.version));
    }
    if trainer.disk_bytes > 0 {
        out.push(format_args!("; {} on disk", bytes(trainer.disk_bytes)));
    }
    out.newline();
}

/// What its installation begins with, and takes.
pub(crate) fn installation(trainer: &Trainer, out: &mut StyledText) {
    if !trainer.problem.is_empty() {
        out.push(format_args!("the trainer cannot train: {}", trainer.problem)).newline();
    }
    if trainer.needed_bytes > 0 {
        let needed = bytes(trainer.needed_bytes);
        out.push(format_args!("it takes up to {needed} in the daemon's data directory")).newline();
    }
}

/// A run that has just been started.
pub(crate) fn started(run: &TrainingRun, out: &mut StyledText) {
    out.push("started ").push_styled(BOLD, &run.run);
    out.push(format_args!(" for role {} on model {}", run.role, run.model)).newline();
}

/// How far a run is, in one line.
pub(crate) fn progress(run: &TrainingRun) -> String {
    if !run.waiting.is_empty() {
        return format!("waiting, and trying again: {}", run.waiting);
    }
    let data = run.data.clone().unwrap_or_default();
    match (run.state(), &run.progress) {
        (RunState::Preparing, _) => "turning the samples into tokens".to_owned(),
        (RunState::Training, None) => match &run.forecast {
            None => format!("comparing the tokens of {} samples, and trying the longest", data.train + data.held_out),
            Some(forecast) => format!(
                "measuring what is held out; the training will take {} and {}",
                span(time::from_proto(forecast.time.as_ref())),
                bytes(forecast.peak_bytes)
            ),
        },
        (RunState::Training, Some(step)) => format!(
            "step {} of {}, loss {:.3} nats/token, {:.0} tokens/s, {} left",
            step.step,
            step.steps,
            step.loss,
            step.tokens_per_second,
            span(time::from_proto(step.time_left.as_ref()))
        ),
        (RunState::Checking, _) => "comparing the adapter under llama.cpp with the trainer's".to_owned(),
        (state, _) => state.enum_name(),
    }
}

/// How a run ended.
pub(crate) fn end(run: &TrainingRun, out: &mut StyledText) {
    out.push_styled(BOLD, &run.run).push(" ");
    state(run, out);
    let losses = run.losses.unwrap_or_default();
    if let (Some(before), Some(served)) = (losses.served_before, losses.served) {
        out.push(format_args!("; held-out loss {before:.3} before, {served:.3} nats/token with the adapter"));
    }
    out.newline();
    if !run.error.is_empty() {
        out.push_styled(BAD, &run.error).newline();
    }
    if let Some(adapter) = &run.adapter {
        out.push(format_args!("adapter  {} ({})", adapter.file, bytes(adapter.bytes))).newline();
    }
}

fn state(run: &TrainingRun, out: &mut StyledText) {
    let style = match run.state() {
        RunState::Succeeded => GOOD,
        RunState::Failed => BAD,
        RunState::Stopped => WARN,
        _ => DIM,
    };
    out.push_styled(style, run.state().enum_name());
}

/// Runs.
pub(crate) fn list(runs: &[TrainingRun], out: &mut StyledText) {
    if runs.is_empty() {
        out.push("there are no runs: `artel train start` starts one").newline();
        return;
    }
    let mut table = TextTable::new(&["RUN", "STATE", "ROLE", "SAMPLES", "STEPS", "LOSS BEFORE", "LOSS AFTER"]);
    for run in runs {
        let (losses, data) = (run.losses.unwrap_or_default(), run.data.clone().unwrap_or_default());
        let step = run.progress.map(|step| format!("{}/{}", step.step, step.steps)).unwrap_or_default();
        table.row(vec![
            cell(&run.run),
            cell(if run.waiting.is_empty() { run.state().enum_name() } else { "waiting".to_owned() }),
            cell(&run.role),
            cell(data.train.to_string()),
            cell(step),
            cell(nats(losses.served_before.or(losses.before))),
            cell(nats(losses.served.or(losses.after))),
        ]);
    }
    table.render(out);
}

fn nats(loss: Option<f64>) -> String {
    loss.map(|loss| format!("{loss:.3}")).unwrap_or_default()
}

/// All that is known of a run.
pub(crate) fn run(run: &TrainingRun, out: &mut StyledText) {
    out.push_styled(BOLD, &run.run).push(" ");
    state(run, out);
    out.push(format_args!(", role {}, model {}", run.role, run.model)).newline();
    if !run.error.is_empty() {
        out.push_styled(BAD, &run.error).newline();
    }
    if matches!(run.state(), RunState::Preparing | RunState::Training | RunState::Checking) {
        out.push(progress(run)).newline();
    }
    let mut rows = facts(run);
    rows.extend(
        run.adapter.as_ref().map(|adapter| ("adapter", format!("{} ({})", adapter.file, bytes(adapter.bytes)))),
    );
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(format_args!("{name:<16}")).push(value).newline();
    }
    if let Some((least, greatest)) = loss_curve::bounds(&run.curve) {
        let line = loss_curve::line(&run.curve);
        out.push(format_args!("{:<16}{line}  {greatest:.3} to {least:.3}", "loss of steps")).newline();
    }
    left_out(run.data.as_ref(), out);
}

fn left_out(data: Option<&RunData>, out: &mut StyledText) {
    let Some(data) = data.filter(|data| !data.left_out.is_empty()) else { return };
    out.push("left out").newline();
    for sample in data.left_out.iter().take(MAX_LISTED_ITEMS) {
        out.push(format_args!("    {}: {}", sample.origin, sample.reason)).newline();
    }
    let more = data.left_out_count.saturating_sub(MAX_LISTED_ITEMS.min(data.left_out.len()) as u64);
    if more > 0 {
        out.push_styled(DIM, format_args!("    and {more} more; `--json` lists up to 1000")).newline();
    }
}

/// What two runs have, side by side; what is different is marked.
pub(crate) fn comparison(one: &TrainingRun, other: &TrainingRun, out: &mut StyledText) {
    let mut table = TextTable::new(&["", "ONE", "OTHER"]);
    table.row(vec![cell("run"), (BOLD, one.run.clone()), (BOLD, other.run.clone())]);
    for ((name, of_one), (_, of_other)) in facts(one).into_iter().zip(facts(other)) {
        let style = if of_one == of_other { DIM } else { BOLD };
        table.row(vec![cell(name), (style, of_one), (style, of_other)]);
    }
    table.render(out);
}

/// The facts of a run, by name; a fact that is not known is empty.
fn facts(run: &TrainingRun) -> Vec<(&'static str, String)> {
    let data = run.data.clone().unwrap_or_default();
    let losses = run.losses.unwrap_or_default();
    let taken = time::between(run.start_time.as_ref(), run.end_time.as_ref());
    let forecast = run.forecast.as_ref();
    let forecast = forecast.map(|f| format!("{} and {}", span(time::from_proto(f.time.as_ref())), bytes(f.peak_bytes)));
    let erased = match data.erased {
        0 => String::new(),
        tasks => format!("; the ratings of {tasks} tasks among them were erased since"),
    };
    vec![
        (
            "samples",
            format!("{} to train on with {} tokens, {} held out{erased}", data.train, data.train_tokens, data.held_out),
        ),
        ("method", run.settings.as_ref().map(method).unwrap_or_default()),
        ("schedule", run.settings.as_ref().map(schedule).unwrap_or_default()),
        ("forecast", forecast.unwrap_or_default()),
        ("time", taken.map(span).unwrap_or_default()),
        ("held-out loss", trainer_losses(&losses)),
        ("as it serves", served_losses(&losses)),
        ("libraries", run.libraries.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>().join(", ")),
        ("resumed", if run.resumes > 0 { format!("{} times", run.resumes) } else { String::new() }),
        ("samples' hash", short(&data.sha256)),
        ("model's hash", short(&data.base_sha256)),
    ]
}

fn method(settings: &RunSettings) -> String {
    let RunSettings { rank, alpha, dropout, targets, .. } = settings;
    let targets = if targets.is_empty() { "all linear layers".to_owned() } else { targets.join(", ") };
    format!("LoRA of rank {rank}, alpha {alpha}, dropout {dropout}, on {targets}")
}

fn schedule(settings: &RunSettings) -> String {
    let RunSettings { epochs, learning_rate, batch, warmup, weight_decay, seed, .. } = settings;
    format!(
        "{epochs} epochs in steps of {batch} samples, learning rate {learning_rate} behind a warm-up of {:.0} %, weight decay {weight_decay}, seed {seed}",
        warmup * 100.0
    )
}

fn trainer_losses(losses: &HeldOutLosses) -> String {
    match (losses.before, losses.after, losses.checked) {
        (Some(before), Some(after), Some(checked)) => {
            format!("{before:.3} before, {after:.3} after (llama.cpp in 16 bits: {checked:.3}) nats/token")
        }
        (Some(before), Some(after), None) => format!("{before:.3} before, {after:.3} after, in nats/token"),
        (Some(before), None, _) => format!("{before:.3} nats/token before"),
        _ => String::new(),
    }
}

fn served_losses(losses: &HeldOutLosses) -> String {
    match (losses.served_before, losses.served) {
        (Some(before), Some(served)) => format!("{before:.3} before, {served:.3} with the adapter, in nats/token"),
        _ => String::new(),
    }
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{LeftOutSample, LossPoint, RunForecast, RunProgress};

    use super::*;

    fn run_of(state: RunState) -> TrainingRun {
        TrainingRun {
            run: "returns.2".to_owned(),
            training: "returns".to_owned(),
            role: "sorter".to_owned(),
            model: "smollm2".to_owned(),
            state: state.into(),
            data: Some(RunData { train: 240, held_out: 60, train_tokens: 24_000, ..RunData::default() }),
            ..TrainingRun::default()
        }
    }

    fn shown(render: impl FnOnce(&mut StyledText)) -> String {
        let mut out = StyledText::new(false);
        render(&mut out);
        out.take()
    }

    #[test]
    fn one_line_says_how_far_a_run_is() {
        let mut run = run_of(RunState::Training);
        assert_eq!(progress(&run), "comparing the tokens of 300 samples, and trying the longest");
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        run.forecast = Some(RunForecast { time: seconds(90), peak_bytes: 2_000_000_000 });
        assert_eq!(progress(&run), "measuring what is held out; the training will take 1 min 30 s and 2.0 GB");
        run.progress = Some(RunProgress {
            step: 3,
            steps: 90,
            loss: 1.25,
            tokens_per_second: 321.4,
            time_left: seconds(60),
            ..RunProgress::default()
        });
        assert_eq!(progress(&run), "step 3 of 90, loss 1.250 nats/token, 321 tokens/s, 1 min 0 s left");
        run.waiting = "the disk is full".to_owned();
        assert_eq!(progress(&run), "waiting, and trying again: the disk is full");
    }

    #[test]
    fn a_run_that_waits_is_told_from_one_that_goes_on() {
        let mut run = run_of(RunState::Checking);
        assert!(shown(|out| list(std::slice::from_ref(&run), out)).contains("checking"));
        run.waiting = "no engine can be had".to_owned();
        let listed = shown(|out| list(std::slice::from_ref(&run), out));
        assert!(listed.contains("waiting") && !listed.contains("checking"), "{listed}");
        let text = shown(|out| super::run(&run, out));
        assert!(
            text.contains("checking") && text.contains("\nwaiting, and trying again: no engine can be had\n"),
            "{text}"
        );
    }

    #[test]
    fn an_installation_says_why_it_is_one() {
        let missing =
            Trainer { problem: "it is not installed".to_owned(), needed_bytes: 6_200_000_000, ..Trainer::default() };
        let text = shown(|out| installation(&missing, out));
        assert_eq!(
            text,
            "the trainer cannot train: it is not installed\nit takes up to 6.2 GB in the daemon's data directory\n"
        );
        assert_eq!(shown(|out| installation(&Trainer::default(), out)), "");
    }

    #[test]
    fn a_run_shows_its_losses_its_curve_and_what_it_left_out() {
        let mut run = run_of(RunState::Succeeded);
        run.losses = Some(HeldOutLosses {
            before: Some(2.0),
            after: Some(0.5),
            checked: Some(0.501),
            served_before: Some(2.1),
            served: Some(0.55),
        });
        run.curve = vec![LossPoint { step: 1, loss: 2.0 }, LossPoint { step: 2, loss: 0.4 }];
        let data = run.data.as_mut().unwrap();
        (data.left_out_count, data.erased) = (1, 2);
        data.left_out = vec![LeftOutSample { origin: "a.jsonl:3".to_owned(), reason: "it is too long".to_owned() }];
        let text = shown(|out| super::run(&run, out));
        assert_eq!(
            text,
            "returns.2 succeeded, role sorter, model smollm2\n\
             samples         240 to train on with 24000 tokens, 60 held out; the ratings of 2 tasks among them were erased since\n\
             held-out loss   2.000 before, 0.500 after (llama.cpp in 16 bits: 0.501) nats/token\n\
             as it serves    2.100 before, 0.550 with the adapter, in nats/token\n\
             loss of steps   █▁  2.000 to 0.400\n\
             left out\n    a.jsonl:3: it is too long\n"
        );
        assert_eq!(
            shown(|out| end(&run, out)),
            "returns.2 succeeded; held-out loss 2.100 before, 0.550 nats/token with the adapter\n"
        );
    }

    #[test]
    fn a_comparison_has_a_line_for_each_fact() {
        let (one, mut other) = (run_of(RunState::Succeeded), run_of(RunState::Failed));
        other.data.as_mut().unwrap().train = 100;
        let text = shown(|out| comparison(&one, &other, out));
        assert!(text.contains("240 to train on with 24000 tokens, 60 held out  100 to train on"), "{text}");
    }
}
