//! A catalog on a scripted model: its tasks take milliseconds and end the same way in every run.

use std::collections::BTreeMap;

use artel_proto::v1;
use serde_json::{Value, json};

use crate::{DaemonBuilder, TaskRequest, daemon, task_request};

/// The replies of the scripted model: the critic asks for one revision, every other role repeats the message.
pub fn model_script() -> Value {
    json!({"replies": [
        {"when": ["You judge.", "again"], "say": "{\"verdict\": \"ship\"}"},
        {"when": ["You judge."], "say": "{\"verdict\": \"revise\"}"},
        {"when": ["You write.", "verdict"], "say": "again"},
        {"when": ["You fail."], "say": "this is no JSON"},
        {"say": "<{last}>"},
    ]})
}

/// Roles and graphs for [`model_script`]: a chain, a loop, a fan-out with a router, and a graph that fails.
pub const SCRIPTED_CATALOG: &str = "
model: talk
file: talk.script
sequences: 32
---
model: minilm
file: talk.script
use: embedding
---
role: writer
description: Writes about rivers.
examples: [Where does the river flow?]
model: talk
prompt: You write.
limits: {concurrency: 64, queue: 4096}
---
role: sailor
description: Sails boats at sea.
examples: [Which sail for a storm?]
model: talk
prompt: You sail.
limits: {concurrency: 64, queue: 4096}
---
role: critic
description: Judges.
model: talk
prompt: You judge.
output: {type: object, required: [verdict], properties: {verdict: {enum: [ship, revise]}}}
limits: {concurrency: 64, queue: 4096}
---
role: clown
description: Never gives what it should.
model: talk
prompt: You fail.
output: {type: object}
limits: {concurrency: 64, queue: 4096, retries: 0}
---
graph: line
description: Four in a row.
start: a
result: d
nodes:
  a: {role: writer, next: b}
  b: {role: sailor, next: c}
  c: {role: writer, next: d}
  d: {role: sailor, next: done}
---
graph: loop
description: Writes and judges.
start: write
result: write
nodes:
  write: {role: writer, next: check}
  check:
    role: critic
    next:
      - {to: write, when: 'output.verdict == \"revise\"', at_most: 1}
      - {to: done}
---
graph: fan
description: Two at once.
start: pick
result: both
nodes:
  pick: {router: {roles: [writer, sailor]}, next: [left, right]}
  left: {role: {from: pick}, next: both}
  right: {role: sailor, next: both}
  both: {role: sailor, join: all, message: '{{ nodes.left.text }} and {{ nodes.right.text }}', next: done}
---
graph: fall
description: Begins well and fails.
start: write
nodes:
  write: {role: writer, next: trip}
  trip: {role: clown, next: done}
";

/// A graph over any catalog: its task waits for a person.
const QUESTION_GRAPH: &str = "---
graph: question
description: Asks a person.
start: ask
nodes: {ask: {ask: {message: 'Which?', deadline: 1h}, next: done}}
";

/// A daemon with [`SCRIPTED_CATALOG`].
pub fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script())
}

/// A daemon with [`SCRIPTED_CATALOG`] and the graph `question`, whose tasks are open until a person answers.
pub fn asking_daemon() -> DaemonBuilder {
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{QUESTION_GRAPH}")).with_failpoints(&model_script())
}

/// A request for each graph of [`SCRIPTED_CATALOG`], and one for a single role.
pub fn scripted_requests() -> Vec<TaskRequest> {
    let graphs = ["line", "loop", "fan", "fall"].map(|graph| task_request("Which sail for a storm?").with_graph(graph));
    graphs.into_iter().chain([task_request("Where does the river flow?").with_role("writer")]).collect()
}

/// The final state of a task, without the fields that a restart may change: times, and how often a step was started.
#[derive(Debug, Clone, PartialEq)]
pub struct FinalState {
    state: v1::TaskState,
    result: String,
    failure: Option<(v1::FailureCode, String)>,
    /// The output of each visit of each node, and the nodes that it led to.
    steps: BTreeMap<(String, u32), (String, Vec<String>)>,
}

impl FinalState {
    /// The final state of a task that has ended.
    pub fn of(task: &v1::Task) -> Self {
        let text = |output: &Option<v1::Output>| output.as_ref().map(|output| output.text.clone()).unwrap_or_default();
        let finished = task.steps.iter().filter(|step| step.state() == v1::StepState::Finished);
        let steps: Vec<_> =
            finished.map(|step| ((step.node.clone(), step.visit), (text(&step.output), step.next.clone()))).collect();
        let count = steps.len();
        let steps = BTreeMap::from_iter(steps);
        assert_eq!(steps.len(), count, "exactly one attempt of a step wins: {task:?}");
        let failure = task.failure.as_ref().map(|failure| (failure.code(), failure.message.clone()));
        Self { state: task.state(), result: text(&task.result), failure, steps }
    }
}
