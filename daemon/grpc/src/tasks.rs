//! `artel.v1.Tasks`.

mod erase;
mod feedback;
mod keep_record;
mod list;
mod messages;
mod parse;
mod rate;
mod response;
mod sampling;
mod tools;

use artel_actors::{Error, Fork, Submission};
use artel_journal::{Damage, DamagedTask, TaskSummary};
use artel_proto::v1;
use artel_proto::v1::tasks_server::Tasks;
use artel_task::{Seq, TaskId};
use tonic::{Request, Response, Status};

use crate::audit::CallObject;
use crate::call_tracer::trace_of;
use crate::field_error::FieldError;
use crate::size;
use crate::state::ServiceState;
use crate::status::{RpcResponse, invalid_field};
use crate::task_view::{self, TaskFieldMask};
use crate::unreadable_task;
use crate::viewer::viewer_of;
use crate::watch::{self, CancelOnDrop, EventTranslator, StreamShutdown, TaskEventStream};

pub(crate) use parse::{MAX_INPUT_BYTES, input_text, task_priority};

impl ServiceState {
    async fn task(&self, id: TaskId) -> Result<v1::Task, Status> {
        let entry = self.runtime.summary(id).await.map_err(|e| self.status_of(e))?;
        self.task_of(&entry).await?.ok_or_else(|| self.status_of(Error::NoTask(id)))
    }

    /// The task of an entry of the journal; `None` if it was deleted in the meantime.
    async fn task_of(&self, entry: &Result<TaskSummary, DamagedTask>) -> Result<Option<v1::Task>, Status> {
        let summary = match entry {
            Ok(summary) => summary,
            Err(damaged) => return Ok(Some(unreadable_task::of_row(damaged))),
        };
        let task = summary.task;
        match self.runtime.history(task).await {
            Ok(events) => Ok(Some(task_view::task(&events, &self.paths))),
            Err(Error::NoTask(_)) if summary.status.has_ended() => Ok(None),
            Err(Error::NoTask(_)) => {
                Ok(Some(unreadable_task::of_events(summary, &Damage::MissingEvent { task, seq: 1 })))
            }
            Err(Error::Journal(artel_journal::Error::Corrupt { detail, .. })) => {
                Ok(Some(unreadable_task::of_events(summary, &detail)))
            }
            Err(error) => Err(self.status_of(error)),
        }
    }

    /// A task that was just submitted. It is on disk: a later failure must not make the client submit it again.
    async fn submitted(&self, task: TaskId) -> v1::Task {
        match self.runtime.published_events(task).await {
            Ok(events) => size::shortened(task_view::task(&events, &self.paths)),
            Err(_) => v1::Task { id: task.to_string(), state: v1::TaskState::Queued.into(), ..v1::Task::default() },
        }
    }

    async fn watch(
        &self,
        task: TaskId,
        after: Seq,
        tokens: bool,
        guard: Option<CancelOnDrop>,
    ) -> Result<TaskEventStream, Status> {
        let watch = self.runtime.subscribe(task, after, tokens).await.map_err(|e| self.status_of(e))?;
        let mut skipped = match after {
            Seq(0) => Vec::new(),
            _ => self.runtime.history(task).await.map_err(|e| self.status_of(e))?,
        };
        skipped.retain(|event| event.seq <= after);
        let shutdown = StreamShutdown { draining: self.draining.clone(), closing: self.closing.clone() };
        let mut translator = EventTranslator::new(task, self.runtime.clock().clone(), self.paths.clone());
        skipped.iter().for_each(|event| translator.observe(event));
        Ok(watch::stream(watch, translator, shutdown, guard))
    }

    async fn submit(&self, submission: Submission) -> Result<TaskId, Status> {
        self.runtime.submit(submission).await.map_err(|e| self.status_of(e))
    }

    /// Submits a task, and cancels it if the client has disconnected before the task is on disk.
    async fn submit_guarded(&self, submission: Submission) -> Result<(TaskId, CancelOnDrop), Status> {
        let runtime = self.runtime.clone();
        let submitted = tokio::spawn(async move {
            let task = runtime.submit(submission).await?;
            // If the caller is dropped, so is the result with its guard, which cancels the task.
            Ok((task, CancelOnDrop::new(runtime, task)))
        });
        submitted.await.map_err(|_| self.status_of(Error::Stopped))?.map_err(|e| self.status_of(e))
    }
}

#[tonic::async_trait]
impl Tasks for ServiceState {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> RpcResponse<v1::Task> {
        let (viewer, trace) = (viewer_of(&request), trace_of(&request));
        let submission = parse::submission(request.into_inner(), "", viewer)?;
        let task = self.submit(Submission { trace, ..submission }).await?;
        Ok(Response::new(self.submitted(task).await))
    }

    type RunStream = TaskEventStream;

    async fn run(&self, request: Request<v1::RunRequest>) -> RpcResponse<TaskEventStream> {
        let (viewer, trace) = (viewer_of(&request), trace_of(&request));
        let v1::RunRequest { submit, cancel_on_disconnect } = request.into_inner();
        let submit = submit.ok_or_else(|| invalid_field("submit", "is required"))?;
        let submission = Submission { trace, ..parse::submission(submit, "submit.", viewer)? };
        let (task, guard) = match cancel_on_disconnect {
            true => self.submit_guarded(submission).await.map(|(task, guard)| (task, Some(guard)))?,
            false => (self.submit(submission).await?, None),
        };
        Ok(Response::new(self.watch(task, Seq(0), true, guard).await?))
    }

    type WatchStream = TaskEventStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> RpcResponse<TaskEventStream> {
        let viewer = viewer_of(&request);
        let v1::WatchRequest { task_id, after_seq, tokens } = request.into_inner();
        let task = self.visible_task(&viewer, &task_id).await?;
        Ok(Response::new(self.watch(task, Seq(after_seq), tokens, None).await?))
    }

    async fn get(&self, request: Request<v1::GetTaskRequest>) -> RpcResponse<v1::Task> {
        let viewer = viewer_of(&request);
        let request = request.into_inner();
        let mask = TaskFieldMask::parse(request.read_mask.as_ref(), &[]).map_err(|e| invalid_field("read_mask", e))?;
        let limit = size::limit(request.max_bytes)?;
        let task = self.visible_task(&viewer, &request.task_id).await?;
        Ok(Response::new(size::within_limit(mask.apply(self.task(task).await?), limit)?))
    }

    async fn list(&self, request: Request<v1::ListTasksRequest>) -> RpcResponse<v1::ListTasksResponse> {
        let viewer = viewer_of(&request);
        Ok(Response::new(list::list(self, &viewer, request.into_inner()).await?))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> RpcResponse<v1::Task> {
        let (viewer, object) = (viewer_of(&request), CallObject::of(&request));
        let v1::CancelRequest { task_id, reason, step_id } = request.into_inner();
        if reason.len() > parse::MAX_REASON_BYTES {
            let error = FieldError::TooLong { bytes: reason.len(), limit: parse::MAX_REASON_BYTES };
            return Err(invalid_field("reason", error));
        }
        let task = self.controlled_task(&viewer, &task_id).await?;
        object.name_step(task, &step_id);
        let reason = if reason.is_empty() { "requested by a client" } else { &reason };
        let cancelled = match step_id.as_str() {
            "" => self.runtime.cancel(task, reason).await,
            step => self.runtime.cancel_step(task, step, reason).await,
        };
        cancelled.map_err(|e| self.status_of(e))?;
        Ok(Response::new(size::shortened(self.task(task).await?)))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> RpcResponse<v1::Task> {
        let (viewer, object) = (viewer_of(&request), CallObject::of(&request));
        let task = self.controlled_task(&viewer, &request.into_inner().task_id).await?;
        object.name(task);
        self.runtime.resume(&viewer, task).await.map_err(|e| self.status_of(e))?;
        Ok(Response::new(size::shortened(self.task(task).await?)))
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> RpcResponse<v1::Task> {
        let (viewer, object) = (viewer_of(&request), CallObject::of(&request));
        let v1::AnswerRequest { task_id, step_id, answer } = request.into_inner();
        let answer = parse::answer(answer)?;
        // Questions are put to people, who need not be those who submitted the task.
        let task = self.visible_task(&viewer, &task_id).await?;
        object.name_step(task, &step_id);
        let step = Some(step_id.as_str()).filter(|step| !step.is_empty());
        self.runtime.answer(task, step, answer).await.map_err(|e| self.status_of(e))?;
        Ok(Response::new(size::shortened(self.task(task).await?)))
    }

    async fn fork(&self, request: Request<v1::ForkRequest>) -> RpcResponse<v1::Task> {
        let (viewer, trace) = (viewer_of(&request), trace_of(&request));
        let fork = Fork { trace, ..parse::fork(request.into_inner(), &viewer)? };
        self.runtime.check_visible(&viewer, fork.task).await.map_err(|e| self.status_of(e))?;
        let task = self.runtime.fork(fork).await.map_err(|e| self.status_of(e))?;
        Ok(Response::new(self.submitted(task).await))
    }

    async fn feedback(&self, request: Request<v1::FeedbackRequest>) -> RpcResponse<v1::FeedbackResponse> {
        let viewer = viewer_of(&request);
        feedback::store(self, viewer, request.into_inner()).await.map(|()| Response::new(v1::FeedbackResponse {}))
    }

    async fn rate(&self, request: Request<v1::RateRequest>) -> RpcResponse<v1::RateResponse> {
        let viewer = viewer_of(&request);
        rate::store(self, viewer, request.into_inner()).await.map(Response::new)
    }

    async fn erase(&self, request: Request<v1::EraseRequest>) -> RpcResponse<v1::EraseResponse> {
        let (viewer, object) = (viewer_of(&request), CallObject::of(&request));
        erase::erase(self, &viewer, &object, request.into_inner()).await.map(Response::new)
    }
}
