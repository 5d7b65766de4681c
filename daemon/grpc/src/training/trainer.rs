//! The environment of the trainer.

use std::pin::Pin;

use artel_proto::v1;
use artel_proto::v1::ErrorReason;
use artel_trainer::{Environment, EnvironmentState, SetupError, SetupProgress};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::status::status;

/// How far a setup is, as it is sent.
pub(crate) type SetupStream = Pin<Box<dyn Stream<Item = Result<v1::TrainerSetup, Status>> + Send>>;

/// Packages that decide what a training gives.
const TOLD_PACKAGES: [&str; 7] = ["accelerate", "datasets", "peft", "safetensors", "torch", "transformers", "trl"];

/// What there is of the environment.
pub(crate) async fn inspect(environment: &Environment) -> v1::Trainer {
    let needed_bytes = environment.options().needed_bytes;
    let unready = |state: v1::TrainerState| v1::Trainer { state: state.into(), needed_bytes, ..v1::Trainer::default() };
    match environment.inspect().await {
        EnvironmentState::Missing => unready(v1::TrainerState::Missing),
        EnvironmentState::Incomplete { .. } => unready(v1::TrainerState::Incomplete),
        EnvironmentState::Outdated { .. } => unready(v1::TrainerState::Outdated),
        EnvironmentState::Ready(ready) => {
            let told = ready.packages.into_iter().filter(|package| TOLD_PACKAGES.contains(&package.name.as_str()));
            v1::Trainer {
                state: v1::TrainerState::Ready.into(),
                python: ready.python.to_string(),
                packages: told.map(|p| v1::InstalledPackage { name: p.name, version: p.version }).collect(),
                disk_bytes: ready.bytes,
                needed_bytes: 0,
            }
        }
    }
}

/// Makes the environment ready. Dropping the stream ends that.
pub(crate) fn set_up(environment: Environment) -> SetupStream {
    let (sender, receiver) = mpsc::unbounded_channel();
    let cancelled = CancellationToken::new();
    let guard = cancelled.clone().drop_guard();
    tokio::spawn(async move {
        // A reader that has gone cancels.
        let progress = |told: SetupProgress| {
            let message = v1::TrainerSetup { step: told.step, disk_bytes: told.bytes_on_disk, trainer: None };
            let _ = sender.send(Ok(message));
        };
        let made = environment.setup(progress, &cancelled).await;
        let last = match made {
            Ok(_) => {
                let trainer = inspect(&environment).await;
                let disk_bytes = trainer.disk_bytes;
                Ok(v1::TrainerSetup { step: "ready".to_owned(), disk_bytes, trainer: Some(trainer) })
            }
            Err(error) => Err(setup_status(&error)),
        };
        let _ = sender.send(last);
    });
    let stream = UnboundedReceiverStream::new(receiver);
    Box::pin(futures::StreamExt::map(stream, move |message| {
        // The setup goes on for as long as the stream, which holds this closure.
        let _ = &guard;
        message
    }))
}

fn setup_status(error: &SetupError) -> Status {
    tracing::warn!(%error, "the trainer could not be installed");
    status(Code::FailedPrecondition, ErrorReason::TrainerUnavailable, format!("failed to {error}"))
}
