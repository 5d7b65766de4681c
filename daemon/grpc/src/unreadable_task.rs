//! Tasks that the journal has and whose events cannot be read: what is left of them as a message. One that has not ended is set
//! aside by that, since no daemon can run it.

use artel_journal::{Damage, DamagedTask, TaskStatus, TaskSummary};
use artel_proto::v1;

use crate::value::timestamp;

/// The message of a task whose own row is damaged.
pub(crate) fn of_row(damaged: &DamagedTask) -> v1::Task {
    v1::Task {
        id: damaged.task.to_string(),
        state: v1::TaskState::SetAside.into(),
        set_aside_reason: damaged.damage.set_aside_reason(),
        ..v1::Task::default()
    }
}

/// The message of a task whose events are damaged.
pub(crate) fn of_events(summary: &TaskSummary, damage: &Damage) -> v1::Task {
    let role = summary.role.as_ref().map(ToString::to_string).unwrap_or_default();
    let (state, set_aside_reason) = match summary.status {
        TaskStatus::Running | TaskStatus::SetAside => (v1::TaskState::SetAside, damage.set_aside_reason()),
        TaskStatus::Completed => (v1::TaskState::Completed, String::new()),
        TaskStatus::Failed => (v1::TaskState::Failed, String::new()),
        TaskStatus::Cancelled => (v1::TaskState::Cancelled, String::new()),
    };
    v1::Task {
        id: summary.task.to_string(),
        graph: if role.is_empty() { summary.graph.to_string() } else { String::new() },
        role,
        state: state.into(),
        create_time: Some(timestamp(summary.created)),
        end_time: summary.ended.map(timestamp),
        last_seq: summary.last_seq.0,
        catalog_version: summary.catalog.as_str().to_owned(),
        labels: summary.labels.clone().into_iter().collect(),
        request_id: summary.request.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        set_aside_reason,
        owner: summary.owner.to_string(),
        ..v1::Task::default()
    }
}
