//! `artel task`.

use artel_proto::v1::{
    AnswerRequest, CancelRequest, FeedbackRequest, ForkCatalog, ForkRequest, GetTaskRequest, ListTasksRequest, Task,
    TaskState, answer_request,
};

use super::connect::{MAX_MESSAGE, prompt};
use super::error::{Error, Exit};
use super::json::{Json, Word, to_proto};
use super::render::task as render;
use super::{Session, run as follow, submit};
use crate::args::{self, State, TaskList};

/// The most tasks of one page.
const PAGE: u32 = 1000;

/// Does what a verb says.
pub(super) async fn run(session: &mut Session, verb: args::Task) -> Result<Exit, Error> {
    match verb {
        args::Task::Submit(submit) => {
            let request = prompt(submit::request(submit));
            let task = session.daemon.tasks().submit(request).await?.into_inner();
            id(session, &task)
        }
        args::Task::Get { id } => {
            let task = get(session, id).await?;
            session.output.show(&task.json(), |page| render::get(&task, page))?;
            Ok(Exit::Done)
        }
        args::Task::Show { id } => {
            let task = get(session, id).await?;
            session.output.show(&task.json(), |page| render::show(&task, page))?;
            Ok(Exit::Done)
        }
        args::Task::List(filters) => list(session, filters).await,
        args::Task::Watch { id, after, no_tokens } => follow::watch(session, id, after, !no_tokens).await,
        args::Task::Cancel { id, step, reason } => cancel(session, id, step, reason).await,
        args::Task::Answer(answer) => self::answer(session, answer).await,
        args::Task::Fork(fork) => self::fork(session, fork).await,
        args::Task::Feedback(word) => feedback(session, word).await,
    }
}

/// Shows a new task: its id alone, so that a shell can take it.
fn id(session: &mut Session, task: &Task) -> Result<Exit, Error> {
    session.output.show(&task.json(), |page| {
        page.put(&task.id).end();
    })?;
    Ok(Exit::Done)
}

/// Shows where a task stands after something was done to it.
fn state(session: &mut Session, task: &Task) -> Result<Exit, Error> {
    session.output.show(&task.json(), |page| {
        page.put(format_args!("{}: {}", task.id, task.state().word())).end();
    })?;
    Ok(Exit::Done)
}

async fn get(session: &Session, task_id: String) -> Result<Task, Error> {
    let request = GetTaskRequest { task_id, read_mask: None, max_bytes: MAX_MESSAGE as u64 };
    Ok(session.daemon.tasks().get(prompt(request)).await?.into_inner())
}

async fn list(session: &mut Session, filters: TaskList) -> Result<Exit, Error> {
    let TaskList { states, graph, role, labels, limit } = filters;
    let mut request = ListTasksRequest {
        states: states.into_iter().map(|state| proto_state(state).into()).collect(),
        graph: graph.unwrap_or_default(),
        role: role.unwrap_or_default(),
        labels: submit::pairs(labels),
        ..Default::default()
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut tasks: Vec<Task> = Vec::new();
    while tasks.len() < limit {
        let missing = u32::try_from(limit - tasks.len()).unwrap_or(PAGE);
        request.page_size = i32::try_from(missing.min(PAGE)).expect("a page is small");
        let page = session.daemon.tasks().list(prompt(request.clone())).await?.into_inner();
        tasks.extend(page.tasks);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    tasks.truncate(limit);
    if session.output.is_json() {
        tasks.iter().try_for_each(|task| session.output.object(&task.json()))?;
    } else {
        session.output.render(|page| render::list(&tasks, page))?;
    }
    Ok(Exit::Done)
}

async fn feedback(session: &mut Session, word: args::Feedback) -> Result<Exit, Error> {
    let args::Feedback { id: task_id, role, step, comment } = word;
    let role = if role == "none" { String::new() } else { role };
    let request = FeedbackRequest { task_id, step_id: step.unwrap_or_default(), role, comment };
    session.daemon.tasks().feedback(prompt(request)).await?;
    session.output.show(&serde_json::json!({"kept": true}), |page| {
        page.put("kept").end();
    })?;
    Ok(Exit::Done)
}

fn proto_state(state: State) -> TaskState {
    match state {
        State::Queued => TaskState::Queued,
        State::Running => TaskState::Running,
        State::Waiting => TaskState::Waiting,
        State::Completed => TaskState::Completed,
        State::Failed => TaskState::Failed,
        State::Cancelled => TaskState::Cancelled,
    }
}

async fn cancel(session: &mut Session, id: String, step: Option<String>, reason: String) -> Result<Exit, Error> {
    let request = CancelRequest { task_id: id, reason, step_id: step.unwrap_or_default() };
    let task = session.daemon.tasks().cancel(prompt(request)).await?.into_inner();
    state(session, &task)
}

async fn answer(session: &mut Session, answer: args::Answer) -> Result<Exit, Error> {
    let args::Answer { id, step, value, text } = answer;
    let json = value.map(|value| answer_request::Answer::Json(to_proto(&value)));
    let answer = json.or(text.map(answer_request::Answer::Text));
    let request = AnswerRequest { task_id: id, step_id: step.unwrap_or_default(), answer };
    let task = session.daemon.tasks().answer(prompt(request)).await?.into_inner();
    state(session, &task)
}

async fn fork(session: &mut Session, fork: args::Fork) -> Result<Exit, Error> {
    let args::Fork { id: task_id, from, current, labels, request_id } = fork;
    let request = ForkRequest {
        task_id,
        from_step_id: from.unwrap_or_default(),
        catalog: if current { ForkCatalog::Current } else { ForkCatalog::Pinned }.into(),
        request_id: request_id.unwrap_or_default(),
        labels: submit::pairs(labels),
    };
    let task = session.daemon.tasks().fork(prompt(request)).await?.into_inner();
    id(session, &task)
}
