//! `artel.v1.Tasks`.

mod feedback;
mod list;
mod parse;

use artel_actors::Submission;
use artel_proto::v1;
use artel_proto::v1::tasks_server::Tasks;
use artel_task::{Seq, TaskId};
use tonic::{Request, Response, Status};

use super::Served;
use super::fold::{self, Mask};
use super::size;
use super::status::{self, bad};
use super::watch::{self, CancelOnDrop, Ends, Events};

pub(super) use parse::input_text;

type Answer<T> = Result<Response<T>, Status>;

impl Served {
    pub(super) fn refuse(&self, error: artel_actors::Error) -> Status {
        status::of(error, &self.crew.catalog())
    }

    async fn task(&self, task: TaskId) -> Result<v1::Task, Status> {
        let events = self.crew.history(task).await.map_err(|e| self.refuse(e))?;
        Ok(fold::task(&events))
    }

    /// A task that was just handed in. It is on disk: whatever fails from here on must not make the client submit it again.
    async fn begun(&self, task: TaskId) -> v1::Task {
        match self.crew.published_events(task).await {
            Ok(events) => size::cut(fold::task(&events)),
            Err(_) => v1::Task { id: task.to_string(), state: v1::TaskState::Queued.into(), ..v1::Task::default() },
        }
    }

    async fn watch(
        &self,
        task: TaskId,
        after: Seq,
        tokens: bool,
        guard: Option<CancelOnDrop>,
    ) -> Result<Events, Status> {
        let watch = self.crew.subscribe(task, after, tokens).await.map_err(|e| self.refuse(e))?;
        let mut seen = match after {
            Seq(0) => Vec::new(),
            _ => self.crew.history(task).await.map_err(|e| self.refuse(e))?,
        };
        seen.retain(|event| event.seq <= after);
        let end = Ends { draining: self.draining.clone(), closing: self.closing.clone() };
        Ok(watch::stream(task, watch, &seen, end, guard))
    }

    async fn submit(&self, submission: Submission) -> Result<TaskId, Status> {
        self.crew.submit(submission).await.map_err(|e| self.refuse(e))
    }

    /// Submits, and cancels the task if the client has gone by the time it is on disk.
    async fn submit_guarded(&self, submission: Submission) -> Result<(TaskId, CancelOnDrop), Status> {
        let crew = self.crew.clone();
        let submitted = tokio::spawn(async move {
            let task = crew.submit(submission).await?;
            // If nobody takes the result, the guard in it is dropped, which cancels.
            Ok((task, CancelOnDrop::new(crew, task)))
        });
        submitted.await.map_err(|_| self.refuse(artel_actors::Error::Stopped))?.map_err(|e| self.refuse(e))
    }
}

#[tonic::async_trait]
impl Tasks for Served {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::Task> {
        let task = self.submit(parse::submission(request.into_inner(), "")?).await?;
        Ok(Response::new(self.begun(task).await))
    }

    type RunStream = Events;

    async fn run(&self, request: Request<v1::RunRequest>) -> Answer<Events> {
        let v1::RunRequest { submit, cancel_on_disconnect } = request.into_inner();
        let submit = submit.ok_or_else(|| bad("submit", "it is required"))?;
        let submission = parse::submission(submit, "submit.")?;
        let (task, guard) = match cancel_on_disconnect {
            true => self.submit_guarded(submission).await.map(|(task, guard)| (task, Some(guard)))?,
            false => (self.submit(submission).await?, None),
        };
        Ok(Response::new(self.watch(task, Seq(0), true, guard).await?))
    }

    type WatchStream = Events;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Events> {
        let v1::WatchRequest { task_id, after_seq, tokens } = request.into_inner();
        let task = parse::task_id(&task_id)?;
        Ok(Response::new(self.watch(task, Seq(after_seq), tokens, None).await?))
    }

    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::Task> {
        let request = request.into_inner();
        let task = parse::task_id(&request.task_id)?;
        let mask = Mask::parse(request.read_mask.as_ref(), &[]).map_err(|e| bad("read_mask", e))?;
        let limit = size::limit(request.max_bytes)?;
        Ok(Response::new(size::whole(mask.apply(self.task(task).await?), limit)?))
    }

    async fn list(&self, request: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        Ok(Response::new(list::list(self, request.into_inner()).await?))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Answer<v1::Task> {
        let v1::CancelRequest { task_id, reason, step_id } = request.into_inner();
        let task = parse::task_id(&task_id)?;
        if reason.len() > parse::MAX_REASON {
            return Err(bad("reason", format!("it has {} bytes, the limit is {}", reason.len(), parse::MAX_REASON)));
        }
        let reason = if reason.is_empty() { "a client asked" } else { &reason };
        let cancelled = match step_id.as_str() {
            "" => self.crew.cancel(task, reason).await,
            step => self.crew.cancel_step(task, step, reason).await,
        };
        cancelled.map_err(|e| self.refuse(e))?;
        Ok(Response::new(size::cut(self.task(task).await?)))
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Answer<v1::Task> {
        let v1::AnswerRequest { task_id, step_id, answer } = request.into_inner();
        let task = parse::task_id(&task_id)?;
        let answer = parse::answer(answer)?;
        let step = Some(step_id.as_str()).filter(|step| !step.is_empty());
        self.crew.answer(task, step, answer).await.map_err(|e| self.refuse(e))?;
        Ok(Response::new(size::cut(self.task(task).await?)))
    }

    async fn fork(&self, request: Request<v1::ForkRequest>) -> Answer<v1::Task> {
        let task = self.crew.fork(parse::fork(request.into_inner())?).await.map_err(|e| self.refuse(e))?;
        Ok(Response::new(self.begun(task).await))
    }

    async fn feedback(&self, request: Request<v1::FeedbackRequest>) -> Answer<v1::FeedbackResponse> {
        feedback::keep(self, request.into_inner()).await.map(|()| Response::new(v1::FeedbackResponse {}))
    }
}
