//! `artel task`.

use artel_args::{
    AnswerArgs, AnswerRatingArg, FeedbackArgs, ForkArgs, RateArgs, TaskCommand, TaskListArgs, TaskStateFilter,
};
use artel_proto::v1::{
    AnswerRating, AnswerRequest, CancelRequest, FeedbackRequest, ForkCatalog, ForkRequest, GetTaskRequest,
    ListTasksRequest, RateRequest, ResumeRequest, Task, TaskState, answer_request,
};
use artel_terminal::{CommandOutcome, DIM};

use crate::connect::{MAX_MESSAGE_BYTES, with_deadline};
use crate::error::Error;
use crate::json::{EnumName, ToJson, to_proto};
use crate::render::task as render;
use crate::session::ClientSession;
use crate::{erase, run as follow, submit};

/// Tasks of one page, the maximum that the daemon allows.
const MAX_PAGE_ITEMS: u32 = 1000;

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: TaskCommand) -> Result<CommandOutcome, Error> {
    match command {
        TaskCommand::Submit(submit) => {
            let request = with_deadline(submit::request(submit)?);
            let task = session.daemon.tasks().submit(request).await?.into_inner();
            print_id(session, &task)
        }
        TaskCommand::Get { id } => {
            let task = get(session, id).await?;
            session.output.show(&task.to_json(), |out| render::get(&task, out))?;
            Ok(CommandOutcome::Done)
        }
        TaskCommand::Show { id } => {
            let task = get(session, id).await?;
            session.output.show(&task.to_json(), |out| render::show(&task, out))?;
            Ok(CommandOutcome::Done)
        }
        TaskCommand::List(filters) => list(session, filters).await,
        TaskCommand::Watch { id, after, no_tokens } => follow::watch(session, id, after, !no_tokens).await,
        TaskCommand::Cancel { id, step, reason } => cancel(session, id, step, reason).await,
        TaskCommand::Resume { id } => resume(session, id).await,
        TaskCommand::Answer(answer) => self::answer(session, answer).await,
        TaskCommand::Fork(fork) => self::fork(session, fork).await,
        TaskCommand::Feedback(feedback) => self::feedback(session, feedback).await,
        TaskCommand::Rate(args) => rate(session, args).await,
        TaskCommand::Erase(erase) => erase::run(session, erase).await,
    }
}

/// Prints a new task: only its id, for use in a shell.
fn print_id(session: &mut ClientSession, task: &Task) -> Result<CommandOutcome, Error> {
    session.output.show(&task.to_json(), |out| {
        out.push(&task.id).newline();
    })?;
    Ok(CommandOutcome::Done)
}

/// Prints the state of a task after a change.
fn print_state(session: &mut ClientSession, task: &Task) -> Result<CommandOutcome, Error> {
    session.output.show(&task.to_json(), |out| {
        out.push(format_args!("{}: {}", task.id, task.state().enum_name())).newline();
    })?;
    Ok(CommandOutcome::Done)
}

async fn get(session: &ClientSession, task_id: String) -> Result<Task, Error> {
    let request = GetTaskRequest { task_id, read_mask: None, max_bytes: MAX_MESSAGE_BYTES as u64 };
    Ok(session.daemon.tasks().get(with_deadline(request)).await?.into_inner())
}

async fn list(session: &mut ClientSession, filters: TaskListArgs) -> Result<CommandOutcome, Error> {
    let TaskListArgs { states, graph, role, owner, labels, limit } = filters;
    let mut request = ListTasksRequest {
        states: states.into_iter().map(|state| proto_state(state).into()).collect(),
        graph: graph.unwrap_or_default(),
        role: role.unwrap_or_default(),
        owner: owner.unwrap_or_default(),
        labels: submit::label_map(labels),
        ..Default::default()
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut tasks: Vec<Task> = Vec::new();
    while tasks.len() < limit {
        let missing = u32::try_from(limit - tasks.len()).unwrap_or(MAX_PAGE_ITEMS);
        request.page_size = i32::try_from(missing.min(MAX_PAGE_ITEMS)).expect("the maximum fits");
        let page = session.daemon.tasks().list(with_deadline(request.clone())).await?.into_inner();
        tasks.extend(page.tasks);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    tasks.truncate(limit);
    if session.output.is_json() {
        tasks.iter().try_for_each(|task| session.output.object(&task.to_json()))?;
    } else {
        session.output.render(|out| render::list(&tasks, out))?;
    }
    Ok(CommandOutcome::Done)
}

async fn feedback(session: &mut ClientSession, feedback: FeedbackArgs) -> Result<CommandOutcome, Error> {
    let FeedbackArgs { id: task_id, role, step, comment } = feedback;
    let role = if role == "none" { String::new() } else { role };
    let request = FeedbackRequest { task_id, step_id: step.unwrap_or_default(), role, comment };
    session.daemon.tasks().feedback(with_deadline(request)).await?;
    session.output.show(&serde_json::json!({"stored": true}), |out| {
        out.push("feedback stored").newline();
    })?;
    Ok(CommandOutcome::Done)
}

async fn rate(session: &mut ClientSession, args: RateArgs) -> Result<CommandOutcome, Error> {
    let RateArgs { id: task_id, rating, step, correct, comment } = args;
    let correction = correct.map(|file| submit::read_file(&file)).transpose()?.unwrap_or_default();
    let is_corrected = !correction.is_empty();
    let rating = match rating {
        AnswerRatingArg::Good => AnswerRating::Good,
        AnswerRatingArg::Bad => AnswerRating::Bad,
    };
    let request =
        RateRequest { task_id, step_id: step.unwrap_or_default(), rating: rating.into(), correction, comment };
    let rated = session.daemon.tasks().rate(with_deadline(request)).await?.into_inner();
    session.output.show(&rated.to_json(), |out| {
        out.push(format_args!("rated the answer of {} in step {}", rated.role, rated.step_id)).newline();
        if !rated.trainable {
            let reason = match rating {
                AnswerRating::Bad if !is_corrected => {
                    "nothing can be learned from it without the answer that would have been right"
                }
                _ => "nothing can be learned from it: what the model read is not kept",
            };
            out.push_styled(DIM, reason).newline();
        }
    })?;
    Ok(CommandOutcome::Done)
}

fn proto_state(state: TaskStateFilter) -> TaskState {
    match state {
        TaskStateFilter::Queued => TaskState::Queued,
        TaskStateFilter::Running => TaskState::Running,
        TaskStateFilter::Waiting => TaskState::Waiting,
        TaskStateFilter::Completed => TaskState::Completed,
        TaskStateFilter::Failed => TaskState::Failed,
        TaskStateFilter::Cancelled => TaskState::Cancelled,
        TaskStateFilter::SetAside => TaskState::SetAside,
    }
}

async fn cancel(
    session: &mut ClientSession,
    id: String,
    step: Option<String>,
    reason: String,
) -> Result<CommandOutcome, Error> {
    let request = CancelRequest { task_id: id, reason, step_id: step.unwrap_or_default() };
    let task = session.daemon.tasks().cancel(with_deadline(request)).await?.into_inner();
    print_state(session, &task)
}

async fn resume(session: &mut ClientSession, task_id: String) -> Result<CommandOutcome, Error> {
    let task = session.daemon.tasks().resume(with_deadline(ResumeRequest { task_id })).await?.into_inner();
    print_state(session, &task)
}

async fn answer(session: &mut ClientSession, answer: AnswerArgs) -> Result<CommandOutcome, Error> {
    let AnswerArgs { id, step, value, text } = answer;
    let json = value.map(|value| answer_request::Answer::Json(to_proto(&value)));
    let answer = json.or(text.map(answer_request::Answer::Text));
    let request = AnswerRequest { task_id: id, step_id: step.unwrap_or_default(), answer };
    let task = session.daemon.tasks().answer(with_deadline(request)).await?.into_inner();
    print_state(session, &task)
}

async fn fork(session: &mut ClientSession, fork: ForkArgs) -> Result<CommandOutcome, Error> {
    let ForkArgs { id: task_id, from, current, labels, request_id } = fork;
    let request = ForkRequest {
        task_id,
        from_step_id: from.unwrap_or_default(),
        catalog: if current { ForkCatalog::Current } else { ForkCatalog::Pinned }.into(),
        request_id: request_id.unwrap_or_default(),
        labels: submit::label_map(labels),
    };
    let task = session.daemon.tasks().fork(with_deadline(request)).await?.into_inner();
    print_id(session, &task)
}
