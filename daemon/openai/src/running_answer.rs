//! An answer that is computed: the stream of its task's events, folded into parts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use artel_proto::v1;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::answer::{AnswerHead, AnswerPart, FinishedAnswer};
use crate::answer_fold::AnswerFold;
use crate::api_error::ApiError;
use crate::attachments::AttachedClient;
use crate::field_names::FieldNames;

/// How long the head of a response waits for the first part, so that an early failure has its status: longer than a prompt of
/// the usual size takes, and shorter than clients wait for a head.
const HEAD_DELAY: Duration = Duration::from_secs(1);

/// The events of a task.
pub(crate) type AnswerEvents = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

/// An answer. It is dropped when its client goes away, which cancels the task or not, as its options say.
pub(crate) struct RunningAnswer {
    head: AnswerHead,
    events: AnswerEvents,
    fold: AnswerFold,
    ready: VecDeque<AnswerPart>,
    /// Whether the last part was given or is ready.
    is_complete: bool,
    names: FieldNames,
    client: Option<AttachedClient>,
}

impl RunningAnswer {
    /// The answer of the task with this head, from the events after the first one.
    pub(crate) fn new(
        head: AnswerHead,
        events: AnswerEvents,
        fold: AnswerFold,
        names: FieldNames,
        client: Option<AttachedClient>,
    ) -> Self {
        Self { head, events, fold, ready: VecDeque::new(), is_complete: false, names, client }
    }

    pub(crate) fn head(&self) -> &AnswerHead {
        &self.head
    }

    /// Takes an event without a client that waits for it.
    pub(crate) fn push(&mut self, event: v1::Event) {
        let parts = self.fold.push(event);
        self.take(parts);
    }

    /// Waits until the head of the response may be sent: for the first part of the answer, but not for long.
    ///
    /// # Errors
    /// The task failed by then.
    pub(crate) async fn hold_head(&mut self) -> Result<(), ApiError> {
        let deadline = Instant::now() + HEAD_DELAY;
        while !self.is_complete && !self.ready.iter().any(is_content) {
            match timeout_at(deadline, self.events.next()).await {
                Ok(next) => self.take_next(next),
                Err(_) => break,
            }
        }
        match self.ready.iter().find_map(|part| if let AnswerPart::Failed(error) = part { Some(error) } else { None }) {
            // What was streamed before it shows where the answer ended.
            Some(error) if !self.ready.iter().any(is_content) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The next part; `None` after the last one. Nothing is lost if it is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<AnswerPart> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(part);
            }
            if self.is_complete {
                return None;
            }
            let next = self.events.next().await;
            self.take_next(next);
        }
    }

    /// The parts as a stream.
    pub(crate) fn into_parts(self) -> impl Stream<Item = AnswerPart> + Send + 'static {
        stream::unfold(self, |mut answer| async move { Some((answer.next().await?, answer)) })
    }

    /// The whole answer.
    ///
    /// # Errors
    /// The task failed, or its stream did.
    pub(crate) async fn whole(mut self) -> Result<(AnswerHead, FinishedAnswer), ApiError> {
        while let Some(part) = self.next().await {
            match part {
                AnswerPart::Finished(finished) => return Ok((self.head.clone(), *finished)),
                AnswerPart::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Err(ApiError::interrupted(&self.head.task))
    }

    fn take_next(&mut self, next: Option<Result<v1::Event, Status>>) {
        match next {
            Some(Ok(event)) => self.push(event),
            Some(Err(status)) => {
                let error = ApiError::from_status(&status, &self.names);
                let part = self.fold.interrupt(Some(error));
                self.take(vec![part]);
            }
            None => {
                let part = self.fold.interrupt(None);
                self.take(vec![part]);
            }
        }
    }

    fn take(&mut self, parts: Vec<AnswerPart>) {
        self.is_complete |= parts.iter().any(AnswerPart::is_last);
        self.ready.extend(parts);
        if let Some(client) = self.client.take_if(|_| self.fold.has_stopped()) {
            client.task_ended();
        }
    }
}

/// Whether the client sees a beginning of its answer by this part.
fn is_content(part: &AnswerPart) -> bool {
    !matches!(part, AnswerPart::Step(_) | AnswerPart::StepThought(_) | AnswerPart::Failed(_))
}
