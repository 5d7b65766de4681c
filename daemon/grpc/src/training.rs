//! `artel.v1.Training`.

mod newest;
mod run_message;
mod runs;
mod trainer;

use std::pin::Pin;
use std::sync::Arc;

use artel_feedback::RatingStore;
use artel_proto::v1;
use artel_proto::v1::ErrorReason;
use artel_proto::v1::training_server::Training;
use artel_roles::{DefinitionKind, Role};
use artel_training::{CollectError, DataReport, LengthSpread, Sample, TrainingData, collect};
use futures::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use self::run_message::RunDetail;
use crate::state::ServiceState;
use crate::status::{RpcResponse, internal, invalid_field, no_definition, status};

/// Ratings that are read at once: each may have some MiB.
const RATINGS_PAGE_ITEMS: usize = 16;
/// What was left out, as far as an answer lists it: it fits into the 4 MiB that clients take.
const MAX_LEFT_OUT_ITEMS: usize = 1000;

/// Samples, as they are sent.
type SampleStream = Pin<Box<dyn Stream<Item = Result<v1::TrainingSample, Status>> + Send>>;

#[tonic::async_trait]
impl Training for ServiceState {
    type ListSamplesStream = SampleStream;
    type SetUpTrainerStream = trainer::SetupStream;
    type WatchRunStream = runs::RunStream;
    type ExportRunStream = runs::AdapterStream;

    async fn list_samples(&self, request: Request<v1::ListSamplesRequest>) -> RpcResponse<SampleStream> {
        let v1::ListSamplesRequest { training, part, limit } = request.into_inner();
        let is_held_out = match v1::SamplePart::try_from(part) {
            Ok(v1::SamplePart::Unspecified) => None,
            Ok(v1::SamplePart::Train) => Some(false),
            Ok(v1::SamplePart::HeldOut) => Some(true),
            Err(_) => return Err(invalid_field("part", format!("unknown part {part}"))),
        };
        let limit = if limit == 0 { usize::MAX } else { limit as usize };
        let data = self.training_data(&training, |data| data).await?;
        let is_wanted = move |sample: &Sample| is_held_out.is_none_or(|held_out| sample.is_held_out == held_out);
        let samples = data.samples.into_iter().filter(is_wanted).take(limit).map(|sample| Ok(message(sample)));
        Ok(Response::new(Box::pin(stream::iter(samples))))
    }

    async fn lint_data(&self, request: Request<v1::LintDataRequest>) -> RpcResponse<v1::LintDataResponse> {
        let training = request.into_inner().training;
        let (report, data) = self.training_data(&training, |data| (DataReport::of(&data), data)).await?;
        Ok(Response::new(lint_response(report, data)))
    }

    async fn get_trainer(&self, _: Request<v1::GetTrainerRequest>) -> RpcResponse<v1::Trainer> {
        Ok(Response::new(self.trainer().await))
    }

    async fn set_up_trainer(&self, _: Request<v1::SetUpTrainerRequest>) -> RpcResponse<trainer::SetupStream> {
        Ok(Response::new(self.set_up_trainer_stream()))
    }

    async fn start_run(&self, request: Request<v1::StartRunRequest>) -> RpcResponse<v1::TrainingRun> {
        self.start_training_run(&request.into_inner().training).await.map(Response::new)
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> RpcResponse<v1::ListRunsResponse> {
        let training = request.into_inner().training;
        let runs = self.training_runs.list(Some(training.as_str()).filter(|name| !name.is_empty()));
        let runs = runs.iter().map(|view| self.run_message(view, RunDetail::Brief)).collect();
        Ok(Response::new(v1::ListRunsResponse { runs }))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> RpcResponse<v1::TrainingRun> {
        let view = self.training_runs.get(&request.into_inner().run).map_err(|error| self.run_status(&error))?;
        Ok(Response::new(self.run_message(&view, RunDetail::Full)))
    }

    async fn watch_run(&self, request: Request<v1::WatchRunRequest>) -> RpcResponse<runs::RunStream> {
        self.watch_training_run(&request.into_inner().run).map(Response::new)
    }

    async fn stop_run(&self, request: Request<v1::StopRunRequest>) -> RpcResponse<v1::TrainingRun> {
        let view = self.training_runs.stop(&request.into_inner().run).await.map_err(|error| self.run_status(&error))?;
        Ok(Response::new(self.run_message(&view, RunDetail::Brief)))
    }

    async fn export_run(&self, request: Request<v1::ExportRunRequest>) -> RpcResponse<runs::AdapterStream> {
        self.export_training_run(&request.into_inner()).map(Response::new)
    }

    async fn delete_run(&self, request: Request<v1::DeleteRunRequest>) -> RpcResponse<v1::DeleteRunResponse> {
        let deleted = self.training_runs.delete(&request.into_inner().run).await;
        deleted.map_err(|error| self.run_status(&error))?;
        Ok(Response::new(v1::DeleteRunResponse {}))
    }
}

impl ServiceState {
    /// Reads the samples of a training and does something with them, in a thread of its own; those of one training at a time. The
    /// reading ends soon after the call is cancelled.
    async fn training_data<T: Send + 'static>(
        &self,
        name: &str,
        then: impl FnOnce(TrainingData) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (training, role) = self.training_of(name)?;
        let lock = self.training_lock.clone().lock_owned().await;
        let (ratings, cancelled) = (self.ratings.clone(), CancellationToken::new());
        let _cancel = cancelled.clone().drop_guard();
        let collected = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            collect(&training, &role, all_ratings(&ratings), &|| !cancelled.is_cancelled()).map(then)
        });
        collected.await.map_err(|_| internal())?.map_err(|error| self.collect_status(&error))
    }

    /// A training of the catalog, and its role.
    fn training_of(&self, name: &str) -> Result<(Arc<artel_roles::Training>, Arc<Role>), Status> {
        let catalog = self.runtime.catalog();
        let training = catalog.training(name).cloned();
        let training = training.ok_or_else(|| no_definition(&catalog, DefinitionKind::Training, name))?;
        let role = catalog.role(training.role.as_str()).cloned().ok_or_else(internal)?;
        Ok((training, role))
    }

    fn collect_status(&self, error: &CollectError) -> Status {
        if let CollectError::Ratings(error) = error {
            tracing::error!(%error, "failed to read the ratings");
            return internal();
        }
        status(Code::FailedPrecondition, ErrorReason::TrainingData, self.paths.hide(&error.to_string()))
    }
}

/// All ratings, a page at a time.
fn all_ratings(
    ratings: &RatingStore,
) -> impl Iterator<Item = Result<artel_feedback::RatingRecord, artel_feedback::Error>> {
    let mut from = 0;
    let pages = std::iter::from_fn(move || match ratings.records(None, from, RATINGS_PAGE_ITEMS) {
        Ok(page) if page.is_empty() => None,
        Ok(page) => {
            from += page.len();
            Some(page.into_iter().map(Ok).collect::<Vec<_>>())
        }
        // The reader stops at the first error.
        Err(error) => Some(vec![Err(error)]),
    });
    pages.flatten()
}

fn message(sample: Sample) -> v1::TrainingSample {
    let role = |role: &str| match role {
        "system" => v1::ChatRole::System,
        "assistant" => v1::ChatRole::Assistant,
        _ => v1::ChatRole::User,
    };
    let messages = sample.messages.into_iter().map(|message| v1::ChatMessage {
        role: role(message.role).into(),
        text: message.content,
        ..v1::ChatMessage::default()
    });
    v1::TrainingSample {
        origin: sample.origin.to_string(),
        messages: messages.collect(),
        answer: sample.answer,
        held_out: sample.is_held_out,
    }
}

fn lint_response(report: DataReport, data: TrainingData) -> v1::LintDataResponse {
    let DataReport { sources, train, held_out, findings, prompt_chars, answer_chars, languages } = report;
    let spread = |LengthSpread { median, p95, max }: LengthSpread| {
        Some(v1::LengthSpread { median: median as u64, p95: p95 as u64, max: max as u64 })
    };
    let left_out = data.left_out.into_iter().take(MAX_LEFT_OUT_ITEMS);
    v1::LintDataResponse {
        sources: sources
            .into_iter()
            .map(|(name, samples)| v1::SampleSource { name, samples: samples as u64 })
            .collect(),
        train: train as u64,
        held_out: held_out as u64,
        findings: findings.into_iter().map(|f| v1::DataFinding { text: f.text, places: f.places }).collect(),
        prompt_chars: spread(prompt_chars),
        answer_chars: spread(answer_chars),
        languages: languages
            .into_iter()
            .map(|(language, samples)| v1::LanguageSamples { language: language.to_owned(), samples: samples as u64 })
            .collect(),
        left_out: left_out
            .map(|out| v1::LeftOutSample { origin: out.origin.to_string(), reason: out.reason })
            .collect(),
        left_out_count: data.left_out_count as u64,
    }
}
