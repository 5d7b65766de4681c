//! The environment of the trainer.

use std::pin::Pin;

use artel_proto::v1;
use artel_proto::v1::ErrorReason;
use artel_trainer::{EnvironmentState, SetupError, SetupProgress};
use futures::Stream;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::newest;
use crate::state::ServiceState;
use crate::status::status;

/// How far a setup is, as it is sent.
pub(crate) type SetupStream = Pin<Box<dyn Stream<Item = Result<v1::TrainerSetup, Status>> + Send>>;

/// Packages that decide what a training gives.
const TOLD_PACKAGES: [&str; 7] = ["accelerate", "datasets", "peft", "safetensors", "torch", "transformers", "trl"];

impl ServiceState {
    /// What there is of the environment.
    pub(super) async fn trainer(&self) -> v1::Trainer {
        let environment = self.training_runs.environment();
        let options = environment.options();
        let unready = |state: v1::TrainerState, problem: &str| v1::Trainer {
            state: state.into(),
            // One that was made elsewhere is not installed here.
            needed_bytes: if options.existing.is_some() { 0 } else { options.needed_bytes },
            problem: self.paths.hide(problem),
            ..v1::Trainer::default()
        };
        match environment.inspect().await {
            EnvironmentState::Missing => unready(v1::TrainerState::Missing, "it is not installed"),
            EnvironmentState::Incomplete { reason } => unready(v1::TrainerState::Incomplete, &reason),
            EnvironmentState::Outdated { needs_packages: false } => {
                v1::Trainer { state: v1::TrainerState::Outdated.into(), ..v1::Trainer::default() }
            }
            EnvironmentState::Outdated { needs_packages: true } => {
                unready(v1::TrainerState::Outdated, "it was installed by another version of the daemon")
            }
            EnvironmentState::Ready(ready) => {
                let told = ready.packages.into_iter().filter(|package| TOLD_PACKAGES.contains(&package.name.as_str()));
                v1::Trainer {
                    state: v1::TrainerState::Ready.into(),
                    python: ready.python.to_string(),
                    packages: told.map(|p| v1::InstalledPackage { name: p.name, version: p.version }).collect(),
                    disk_bytes: ready.bytes,
                    ..v1::Trainer::default()
                }
            }
        }
    }

    /// Makes the environment ready. Dropping the stream ends that, and so does the end of the daemon.
    pub(super) fn set_up_trainer_stream(&self) -> SetupStream {
        let this = self.clone();
        Box::pin(newest::progress(|sender: watch::Sender<v1::TrainerSetup>| async move {
            let progress = |told: SetupProgress| {
                let message = v1::TrainerSetup { step: told.step, disk_bytes: told.bytes_on_disk, trainer: None };
                sender.send_replace(message);
            };
            this.training_runs.set_up(progress).await.map_err(|error| this.setup_status(&error))?;
            let trainer = this.trainer().await;
            let disk_bytes = trainer.disk_bytes;
            Ok(v1::TrainerSetup { step: "ready".to_owned(), disk_bytes, trainer: Some(trainer) })
        }))
    }

    fn setup_status(&self, error: &SetupError) -> Status {
        tracing::warn!(%error, "the trainer could not be installed");
        let (code, reason) = match error {
            SetupError::Registry { .. } | SetupError::Stalled { .. } => {
                (Code::Unavailable, ErrorReason::TrainerUnavailable)
            }
            SetupError::Cancelled => (Code::Unavailable, ErrorReason::ShuttingDown),
            _ => (Code::FailedPrecondition, ErrorReason::TrainerUnavailable),
        };
        status(code, reason, self.paths.hide(&format!("failed to {error}")))
    }
}
