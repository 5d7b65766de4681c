//! How far a training is, from what its trainer says.

use std::collections::VecDeque;
use std::time::Duration;

use artel_trainer::{TrainerEvent, TrainerVersions};

use crate::curve::{LossCurve, LossPoint};

/// Steps whose speed is told: enough to be steady, and few enough to show that it slows down.
const SPEED_STEPS: usize = 16;

/// What a run will take, as the trainer tried it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunForecast {
    /// The whole training.
    pub time: Duration,
    /// The most memory of the trainer.
    pub peak_bytes: u64,
}

/// The last step of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingStep {
    /// Its number, from 1.
    pub step: u64,
    /// All steps.
    pub steps: u64,
    /// Passes over the samples.
    pub epoch: f64,
    /// Its loss, in nats per token.
    pub loss: f64,
    /// Tokens per second, of the last steps.
    pub tokens_per_second: f64,
    /// Samples per second, of the last steps.
    pub samples_per_second: f64,
    /// What is left.
    pub time_left: Duration,
}

/// How far a training is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunProgress {
    /// The versions of the libraries.
    pub libraries: TrainerVersions,
    /// What it will take.
    pub forecast: Option<RunForecast>,
    /// The last step.
    pub last: Option<TrainingStep>,
    /// The loss on what is held out before the first step.
    pub loss_before: Option<f64>,
    /// The loss on what is held out after the last step.
    pub loss_after: Option<f64>,
    /// How often it was begun again.
    pub resumes: u32,
    /// Whether a trainer has started.
    has_started: bool,
    /// The step of the last checkpoint.
    pub(crate) checkpoint: u64,
    curve: LossCurve,
    /// Tokens, samples and seconds of the last steps.
    recent: VecDeque<(u64, u64, f64)>,
}

impl RunProgress {
    /// The loss of its steps, thinned.
    pub fn curve(&self) -> &[LossPoint] {
        self.curve.points()
    }

    pub(crate) fn apply(&mut self, event: TrainerEvent) {
        match event {
            TrainerEvent::Started { versions, .. } => {
                self.resumes += u32::from(self.has_started);
                self.has_started = true;
                self.libraries = versions;
                self.recent.clear();
            }
            TrainerEvent::Forecast { step_seconds, evaluation_seconds, steps, peak_bytes } => {
                let seconds = step_seconds * steps as f64 + 2.0 * evaluation_seconds;
                self.forecast = Some(RunForecast { time: duration(seconds), peak_bytes });
            }
            TrainerEvent::Evaluated { step: 0, loss, .. } => {
                self.loss_before = Some(loss).filter(|loss| loss.is_finite());
            }
            TrainerEvent::Evaluated { loss, .. } => self.loss_after = Some(loss).filter(|loss| loss.is_finite()),
            TrainerEvent::Step { step, steps, epoch, loss, tokens, seconds, samples, .. } => {
                self.curve.push(step, loss);
                self.recent.push_back((tokens, samples, seconds));
                if self.recent.len() > SPEED_STEPS {
                    self.recent.pop_front();
                }
                let seconds = self.recent.iter().map(|(.., seconds)| seconds).sum::<f64>().max(1e-9);
                let (tokens, samples) =
                    self.recent.iter().fold((0, 0), |(t, s), (tokens, samples, _)| (t + tokens, s + samples));
                let per_step = seconds / self.recent.len() as f64;
                self.last = Some(TrainingStep {
                    step,
                    steps,
                    epoch,
                    loss,
                    tokens_per_second: tokens as f64 / seconds,
                    samples_per_second: samples as f64 / seconds,
                    time_left: duration(per_step * steps.saturating_sub(step) as f64),
                });
            }
            TrainerEvent::Checkpoint { step } | TrainerEvent::Paused { step } => self.checkpoint = step,
            TrainerEvent::Checked { .. }
            | TrainerEvent::Finished { .. }
            | TrainerEvent::Failed(_)
            | TrainerEvent::Unknown => {}
        }
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, seconds: f64) -> TrainerEvent {
        let (loss, learning_rate, epoch) = (1.0 / step as f64, 0.0, step as f64 / 10.0);
        TrainerEvent::Step { step, steps: 30, epoch, loss, learning_rate, tokens: 100, seconds, samples: 4 }
    }

    fn started() -> TrainerEvent {
        let (versions, device) = (TrainerVersions::new(), "cpu".to_owned());
        TrainerEvent::Started { versions, device, parameters: 1, trainable: 1, resumed_step: 0 }
    }

    #[test]
    fn speed_and_time_left_are_those_of_the_last_steps() {
        let mut progress = RunProgress::default();
        progress.apply(started());
        progress.apply(TrainerEvent::Evaluated { step: 0, loss: 3.0, samples: 2, tokens: 9 });
        (1..=4).for_each(|n| progress.apply(step(n, 10.0)));
        (5..=20).for_each(|n| progress.apply(step(n, 2.0)));
        let last = progress.last.unwrap();
        assert_eq!((last.step, last.tokens_per_second, last.samples_per_second), (20, 50.0, 2.0));
        assert_eq!(last.time_left, Duration::from_secs(20));
        progress.apply(TrainerEvent::Evaluated { step: 30, loss: 1.0, samples: 2, tokens: 9 });
        assert_eq!((progress.loss_before, progress.loss_after), (Some(3.0), Some(1.0)));
        assert_eq!((progress.curve().len(), progress.resumes), (20, 0));
        progress.apply(started());
        assert_eq!(progress.resumes, 1);
    }

    #[test]
    fn a_forecast_counts_the_evaluations_before_and_after() {
        let mut progress = RunProgress::default();
        let (step_seconds, evaluation_seconds) = (2.0, 5.0);
        progress.apply(TrainerEvent::Forecast { step_seconds, evaluation_seconds, steps: 10, peak_bytes: 7 });
        assert_eq!(progress.forecast, Some(RunForecast { time: Duration::from_secs(30), peak_bytes: 7 }));
        progress.apply(TrainerEvent::Evaluated { step: 0, loss: f64::NAN, samples: 1, tokens: 1 });
        assert_eq!(progress.loss_before, None);
    }
}
