//! `Tasks.List`.

use artel_journal::{Filter, Page, Stage, Summary};
use artel_proto::v1;
use artel_task::{GraphName, RoleName, TaskId};
use prost::Message as _;
use tonic::Status;

use super::parse;
use crate::grpc::Served;
use crate::grpc::fold::{self, Mask};
use crate::grpc::page::{self, Filters};
use crate::grpc::size;
use crate::grpc::status::Violations;
use crate::grpc::value::millis;

/// Tasks read from the journal at once.
const READ: u32 = 100;

/// A page ends early when it has so many bytes: clients take 4 MiB at most unless they are told otherwise.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a list shows unless it is asked for something else.
const WITHOUT: [&str; 3] = ["input", "result", "steps"];

pub(super) async fn list(served: &Served, request: v1::ListTasksRequest) -> Result<v1::ListTasksResponse, Status> {
    let size = page::size(request.page_size)?;
    let mut violations = Violations::default();
    let mask = violations.take("read_mask", Mask::parse(request.read_mask.as_ref(), &WITHOUT));
    let filter = filter(&request, &mut violations);
    violations.finish()?;
    let filters = Filters::of(&(&filter, &request.states));
    let mut before = filters.after(&request.page_token, TaskId::parse)?;
    let (mut tasks, mut bytes) = (Vec::new(), 0);
    loop {
        let found = read(served, &filter, before).await?;
        let whole = found.len() < READ as usize;
        for summary in found {
            before = Some(summary.task);
            let Some(task) = of(served, &summary, &request.states).await? else { continue };
            let task = mask.as_ref().map_or_else(v1::Task::default, |mask| size::cut(mask.apply(task)));
            bytes += task.encoded_len();
            tasks.push(task);
            if tasks.len() == size || bytes >= MAX_BYTES {
                return Ok(v1::ListTasksResponse { tasks, next_page_token: filters.token(summary.task) });
            }
        }
        if whole {
            return Ok(v1::ListTasksResponse { tasks, next_page_token: String::new() });
        }
    }
}

async fn read(served: &Served, filter: &Filter, before: Option<TaskId>) -> Result<Vec<Summary>, Status> {
    let page = Page { before, size: READ };
    served.crew.list(filter.clone(), page).await.map_err(|e| served.refuse(e))
}

/// The task of a line of the list, if it is in one of the states; the journal knows queued and running as one.
async fn of(served: &Served, summary: &Summary, states: &[i32]) -> Result<Option<v1::Task>, Status> {
    let events = match served.crew.history(summary.task).await {
        Ok(events) => events,
        // It was deleted meanwhile.
        Err(artel_actors::Error::NoTask(_)) => return Ok(None),
        Err(error) => return Err(served.refuse(error)),
    };
    let task = fold::task(&events);
    Ok((states.is_empty() || states.contains(&task.state)).then_some(task))
}

fn filter(request: &v1::ListTasksRequest, violations: &mut Violations) -> Filter {
    let mut states = Vec::new();
    for state in request.states() {
        match state {
            v1::TaskState::Unspecified => violations.add("states", "there is no such state"),
            v1::TaskState::Queued | v1::TaskState::Running | v1::TaskState::Waiting => states.push(Stage::Running),
            v1::TaskState::Completed => states.push(Stage::Completed),
            v1::TaskState::Failed => states.push(Stage::Failed),
            v1::TaskState::Cancelled => states.push(Stage::Cancelled),
        }
    }
    let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let graph = name(&request.graph)
        .and_then(|name| violations.take("graph", GraphName::parse(&name).map_err(|e| e.to_string())));
    let role =
        name(&request.role).and_then(|name| violations.take("role", RoleName::parse(&name).map_err(|e| e.to_string())));
    let labels = violations.take("labels", parse::notes(request.labels.clone())).unwrap_or_default();
    let created_from = request.created_from.as_ref().map(millis);
    let created_before = request.created_before.as_ref().map(millis);
    Filter { states, graph, role, labels, created_from, created_before }
}
