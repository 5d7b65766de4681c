//! Events, one JSON object each.

use artel_proto::v1::{self, event};
use serde_json::{Map, Value};

use super::{EnumName as _, ToJson as _};

/// An event as one flat object: `task_id`, `seq`, `time`, `event` and the fields of its kind; the last event of a task, and
/// the one that sets it aside, also has `id`, `state` and `text`. `None` for a kind unknown to this program.
pub(crate) fn event(event: &v1::Event) -> Option<Value> {
    let end = rest_state(event.kind.as_ref()?);
    let Value::Object(fields) = event.to_json() else { return None };
    // Lines of several kinds go to one output; `event` says which these are.
    let rename = |(name, value)| (if name == "kind" { "event".to_owned() } else { name }, value);
    let mut object: Map<String, Value> = fields.into_iter().map(rename).collect();
    if let Some((state, text)) = end {
        object.insert("id".to_owned(), event.task_id.as_str().into());
        object.insert("state".to_owned(), state.enum_name().into());
        object.insert("text".to_owned(), text.into());
    }
    Some(Value::Object(object))
}

/// The state and the result, if the task does nothing more after this event.
fn rest_state(kind: &event::Kind) -> Option<(v1::TaskState, Option<&str>)> {
    match kind {
        event::Kind::Completed(v1::Completed { output, .. }) => {
            Some((v1::TaskState::Completed, Some(output.as_ref().map_or("", |output| &output.text))))
        }
        event::Kind::Failed(_) => Some((v1::TaskState::Failed, None)),
        event::Kind::Cancelled(_) => Some((v1::TaskState::Cancelled, None)),
        event::Kind::SetAside(_) => Some((v1::TaskState::SetAside, None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::event::Kind;
    use artel_proto::v1::{Event, SetAside};

    use crate::render::sample;

    #[test]
    fn a_run_is_an_object_per_event() {
        let lines: Vec<String> =
            sample::mentor().iter().filter_map(super::event).map(|value| value.to_string()).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_event_that_sets_a_task_aside_names_its_state() {
        let kind = Kind::SetAside(SetAside { reason: "it stalls".to_owned() });
        let event = Event { task_id: sample::TASK.to_owned(), seq: 7, kind: Some(kind), ..Default::default() };
        let line = super::event(&event).unwrap();
        assert_eq!((line["event"].as_str(), line["reason"].as_str()), (Some("set_aside"), Some("it stalls")), "{line}");
        assert_eq!((line["id"].as_str(), line["state"].as_str()), (Some(sample::TASK), Some("set_aside")), "{line}");
    }

    #[test]
    fn an_unknown_kind_is_skipped() {
        assert_eq!(super::event(&Event { seq: 7, ..Default::default() }), None);
    }
}
