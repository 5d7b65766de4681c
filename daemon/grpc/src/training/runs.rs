//! Runs: started, watched, exported.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use artel_proto::v1;
use artel_proto::v1::ErrorReason;
use artel_training_runs::{Error, RunPlan};
use futures::{Stream, StreamExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::newest;
use super::run_message::RunDetail;
use crate::state::ServiceState;
use crate::status::{internal, status};

/// A run, as it is sent while it goes on.
pub(crate) type RunStream = Pin<Box<dyn Stream<Item = Result<v1::TrainingRun, Status>> + Send>>;
/// The files of an adapter, as they are sent.
pub(crate) type AdapterStream = Pin<Box<dyn Stream<Item = Result<v1::AdapterChunk, Status>> + Send>>;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of a slow client.
const MAX_AHEAD_CHUNKS: usize = 4;
/// The files of an adapter in PEFT's form.
const PEFT_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// The name of an adapter's GGUF.
const GGUF_FILE: &str = "adapter.gguf";

impl ServiceState {
    pub(super) async fn start_training_run(&self, name: &str) -> Result<v1::TrainingRun, Status> {
        let (training, role) = self.training_of(name)?;
        let catalog = self.runtime.catalog();
        let model = catalog.model(role.model.as_str()).cloned().ok_or_else(internal)?;
        let candidates = model.candidates(&self.models);
        let Some(model_file) = candidates.into_iter().find(|path| path.is_file()) else {
            let message =
                format!("the file of model `{}` is not on this machine: fetch it with `artel fetch {0}`", model.name);
            return Err(status(Code::FailedPrecondition, ErrorReason::ModelUnavailable, message));
        };
        let model_file = std::path::absolute(&model_file).map_err(|_| internal())?;
        let data = self.training_data(name, |data| data).await?;
        let mut template_kwargs = (*model.template_kwargs).clone();
        template_kwargs.extend((*role.template_kwargs).clone());
        // An answer is learned without a reasoning before it. Templates do not look at what they do not know.
        template_kwargs.extend([("enable_thinking".to_owned(), json!(false)), ("thinking".to_owned(), json!(false))]);
        let plan = RunPlan { training, role, model: model.name.to_string(), model_file, data, template_kwargs };
        let view = self.training_runs.start(plan).await.map_err(|error| self.run_status(&error))?;
        Ok(self.run_message(&view, RunDetail::Brief))
    }

    pub(super) fn watch_training_run(&self, id: &str) -> Result<RunStream, Status> {
        let views = self.training_runs.watch(id).map_err(|error| self.run_status(&error))?;
        let (this, closing) = (self.clone(), self.closing.clone());
        let messages = newest::states(views, |view| view.record.state.is_over())
            .map(move |view| Ok(this.run_message(&view, RunDetail::Brief)))
            .take_until(async move { closing.cancelled().await });
        Ok(Box::pin(messages))
    }

    pub(super) fn export_training_run(&self, request: &v1::ExportRunRequest) -> Result<AdapterStream, Status> {
        let paths: Vec<PathBuf> = match v1::AdapterFormat::try_from(request.format) {
            Ok(v1::AdapterFormat::Unspecified | v1::AdapterFormat::Gguf) => {
                self.training_runs.adapter(&request.run).map(|path| vec![path])
            }
            Ok(v1::AdapterFormat::Peft) => {
                let dir = self.training_runs.peft_adapter(&request.run);
                dir.map(|dir| PEFT_FILES.map(|name| dir.join(name)).to_vec())
            }
            Err(_) => return Err(crate::status::invalid_field("format", format!("unknown format {}", request.format))),
        }
        .map_err(|error| self.run_status(&error))?;
        let (sender, receiver) = mpsc::channel(MAX_AHEAD_CHUNKS);
        tokio::task::spawn_blocking(move || {
            for path in paths {
                if let Err(error) = send_file(&path, &sender) {
                    tracing::error!(path = %path.display(), %error, "failed to read an adapter");
                    // A client that has gone needs no error.
                    let _ = sender.blocking_send(Err(internal()));
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) fn run_status(&self, error: &Error) -> Status {
        let (code, reason) = match error {
            Error::NoRun(_) => (Code::NotFound, ErrorReason::TrainingRunNotFound),
            Error::NoTrainer(_) => (Code::FailedPrecondition, ErrorReason::TrainerUnavailable),
            Error::Busy(_) | Error::Unended(_) | Error::NoAdapter(_) => {
                (Code::FailedPrecondition, ErrorReason::TrainingRunState)
            }
            Error::Data(_) | Error::Setting(_) | Error::Base(_) | Error::Space { .. } => {
                (Code::FailedPrecondition, ErrorReason::TrainingData)
            }
            Error::Closing => (Code::Unavailable, ErrorReason::ShuttingDown),
            _ => {
                tracing::error!(%error, "failed to write a training run");
                (Code::Internal, ErrorReason::Internal)
            }
        };
        status(code, reason, self.paths.hide(&error.to_string()))
    }
}

/// Sends a file in chunks, until the client has gone.
fn send_file(path: &Path, sender: &mpsc::Sender<Result<v1::AdapterChunk, Status>>) -> std::io::Result<()> {
    let name = path.file_name().map_or(GGUF_FILE.into(), |name| name.to_string_lossy());
    let mut file = File::open(path)?;
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
        if read == 0 || sender.blocking_send(Ok(v1::AdapterChunk { file: name.clone().into_owned(), data })).is_err() {
            return Ok(());
        }
    }
}
