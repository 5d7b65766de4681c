//! `Tasks.List`.

use artel_actors::Viewer;
use artel_journal::{DamagedTask, TaskFilter, TaskPage, TaskStatus, TaskSummary};
use artel_proto::v1;
use artel_task::{CallerName, GraphName, RoleName, TaskId};
use prost::Message as _;
use tonic::Status;

use super::parse;
use crate::page::{self, PageFilters};
use crate::size;
use crate::state::ServiceState;
use crate::status::Violations;
use crate::task_view::TaskFieldMask;
use crate::value::millis;

/// Tasks read from the journal at once.
const BATCH_TASKS: u32 = 100;

/// A page ends early at this size: the default limit of gRPC clients is 4 MiB, and one more task must fit.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The fields that a list omits by default.
const OMITTED_FIELDS: [&str; 3] = ["input", "result", "steps"];

pub(super) async fn list(
    state: &ServiceState,
    viewer: &Viewer,
    request: v1::ListTasksRequest,
) -> Result<v1::ListTasksResponse, Status> {
    let size = page::size(request.page_size)?;
    let mut violations = Violations::default();
    let mask = violations.check("read_mask", TaskFieldMask::parse(request.read_mask.as_ref(), &OMITTED_FIELDS));
    let mut filter = filter(&request, &mut violations);
    violations.finish()?;
    if let Some(own) = viewer.only() {
        if filter.owner.as_ref().is_some_and(|asked| asked != own) {
            // As if no other caller had tasks.
            return Ok(v1::ListTasksResponse::default());
        }
        filter.owner = Some(own.clone());
    }
    let filters = PageFilters::of(&(&filter, &request.states));
    let mut before = filters.after(&request.page_token, TaskId::parse)?;
    let (mut tasks, mut bytes) = (Vec::new(), 0);
    loop {
        let found = read(state, &filter, before).await?;
        let is_last_batch = found.len() < BATCH_TASKS as usize;
        for entry in found {
            let id = entry.as_ref().map_or_else(|damaged| damaged.task, |summary| summary.task);
            before = Some(id);
            let Some(task) = matching_task(state, &entry, &request.states).await? else { continue };
            let task = mask.as_ref().map_or_else(v1::Task::default, |mask| size::shortened(mask.apply(task)));
            bytes += task.encoded_len();
            tasks.push(task);
            if tasks.len() == size || bytes >= MAX_PAGE_BYTES {
                return Ok(v1::ListTasksResponse { tasks, next_page_token: filters.token(id) });
            }
        }
        if is_last_batch {
            return Ok(v1::ListTasksResponse { tasks, next_page_token: String::new() });
        }
    }
}

async fn read(
    state: &ServiceState,
    filter: &TaskFilter,
    before: Option<TaskId>,
) -> Result<Vec<Result<TaskSummary, DamagedTask>>, Status> {
    let page = TaskPage { before, size: BATCH_TASKS };
    state.runtime.list(filter.clone(), page).await.map_err(|e| state.status_of(e))
}

/// The task of an entry if it is in one of the states. The journal does not distinguish queued, running and waiting tasks, nor
/// those whose events are damaged.
async fn matching_task(
    state: &ServiceState,
    entry: &Result<TaskSummary, DamagedTask>,
    states: &[i32],
) -> Result<Option<v1::Task>, Status> {
    let task = state.task_of(entry).await?;
    Ok(task.filter(|task| states.is_empty() || states.contains(&task.state)))
}

fn filter(request: &v1::ListTasksRequest, violations: &mut Violations) -> TaskFilter {
    let mut statuses = Vec::new();
    for state in request.states() {
        match state {
            v1::TaskState::Unspecified => violations.add("states", "unknown state"),
            v1::TaskState::Queued | v1::TaskState::Running | v1::TaskState::Waiting => {
                statuses.push(TaskStatus::Running);
            }
            // A task whose events are damaged was running.
            v1::TaskState::SetAside => statuses.extend([TaskStatus::SetAside, TaskStatus::Running]),
            v1::TaskState::Completed => statuses.push(TaskStatus::Completed),
            v1::TaskState::Failed => statuses.push(TaskStatus::Failed),
            v1::TaskState::Cancelled => statuses.push(TaskStatus::Cancelled),
        }
    }
    let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let graph = name(&request.graph).and_then(|name| violations.check("graph", GraphName::parse(&name)));
    let role = name(&request.role).and_then(|name| violations.check("role", RoleName::parse(&name)));
    let owner = name(&request.owner).and_then(|name| violations.check("owner", CallerName::parse(&name)));
    let labels = violations.check("labels", parse::labels(request.labels.clone())).unwrap_or_default();
    let created_from = request.created_from.as_ref().map(millis);
    let created_before = request.created_before.as_ref().map(millis);
    TaskFilter { statuses, graph, role, owner, labels, created_from, created_before }
}
