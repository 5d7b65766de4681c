//! Random sequences of events: accepted events are read back identical, and unstorable ones are refused.

use artel_task::event::{
    CandidateScore, Decision, Failure, FailureCode, FinishReason, Nested, NoMatch, ResultSource, Signal, TakenEdge,
    Timestamp, Timings, ToolCall, Trigger, Usage,
};
use artel_task::{NodeName, Visit};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,12}"
}

fn role() -> impl Strategy<Value = RoleName> {
    name().prop_map(|name| RoleName::parse(&name).unwrap())
}

/// Any characters, including the zero byte and those outside the basic plane.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => ".{0,40}", 1 => "(?s)[\\x00-\\x20\"\\\\\u{2028}\u{10ffff}]{0,20}"]
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn step() -> impl Strategy<Value = StepId> {
    (name(), any::<u32>(), any::<u32>()).prop_map(|(node, number, attempt)| {
        let visit = Visit { parents: Vec::new(), node: NodeName::parse(&node).unwrap(), number, item: None };
        StepId { visit, attempt }
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        finite().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn finite() -> impl Strategy<Value = f64> + Clone {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn output() -> impl Strategy<Value = Output> {
    let json = prop::option::of(json());
    let finish = [FinishReason::Stop, FinishReason::StopText, FinishReason::Length, FinishReason::Calls];
    let finish = prop::option::of(prop::sample::select(finish.to_vec()));
    let call = (text(), text(), text()).prop_map(|(id, name, arguments)| ToolCall { id, name, arguments });
    let calls = prop::collection::vec(call, 0..3);
    let all = (text(), json, prop::option::of(role()), finish, calls, prop::option::of(text()));
    all.prop_map(|(text, json, role, finish, calls, reasoning)| Output {
        json,
        role,
        finish,
        calls,
        reasoning,
        alternatives: if finish.is_some() { vec![Output::text(text.clone())] } else { Vec::new() },
        ..Output::text(text)
    })
}

fn decision(score: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Decision> {
    let signals = prop::collection::btree_map(prop::sample::select(Signal::ALL.to_vec()), score.clone(), 0..4);
    let one = (role(), score.clone(), signals.clone());
    let scores =
        prop::collection::vec(one.prop_map(|(role, score, signals)| CandidateScore { role, score, signals }), 0..4);
    let no_match = (score.clone(), signals).prop_map(|(score, signals)| NoMatch { score, signals });
    let chosen = (role(), prop::collection::vec(role(), 0..3), any::<bool>(), any::<bool>());
    let certainty = (score.clone(), score);
    (chosen, certainty, text(), scores, prop::option::of(no_match), duration(), any::<u32>()).prop_map(
        |((role, roles, graphs, otherwise), (confidence, margin), signal, scores, no_match, elapsed, tokens)| {
            Decision {
                role,
                roles,
                graphs,
                confidence,
                margin,
                otherwise,
                signal,
                scores,
                no_match,
                elapsed,
                tokens,
                warmup_tokens: tokens / 2,
            }
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    let code = prop::sample::select(vec![
        FailureCode::Timeout,
        FailureCode::ContextOverflow,
        FailureCode::LimitTokens,
        FailureCode::Internal,
    ]);
    (code, text(), prop::option::of(step())).prop_map(|(code, message, step)| Failure { code, message, step })
}

fn finished() -> impl Strategy<Value = EventKind> {
    let usage = (any::<u32>(), any::<u32>(), any::<u32>());
    let timings = (duration(), duration(), duration());
    let taken = (any::<u32>(), prop::option::of(name()), any::<bool>()).prop_map(|(edge, to, direct)| {
        let to = to.map(|name| NodeName::parse(&name).unwrap());
        TakenEdge { edge, to, direct }
    });
    (step(), output(), usage, timings, prop::collection::vec(taken, 0..3)).prop_map(
        |(step, output, (prompt, computed, out), (queue, prefill, decode), taken)| EventKind::StepFinished {
            step,
            output,
            usage: Usage { prompt, computed, output: out, ..Usage::default() },
            timings: Timings { queue, prefill, decode, ..Timings::default() },
            taken,
            source: ResultSource::Run,
            write: None,
        },
    )
}

fn nested() -> impl Strategy<Value = Nested> {
    let names = (name(), name()).prop_map(|(g, n)| (GraphName::parse(&g).unwrap(), NodeName::parse(&n).unwrap()));
    prop_oneof![
        prop::collection::vec(json(), 0..4).prop_map(|items| Nested::Items(items.into())),
        (names, text()).prop_map(|((graph, start), input)| Nested::Graph { graph, start, input }),
    ]
}

/// Events between the first and the last one of a task.
fn middle() -> impl Strategy<Value = EventKind> {
    let trigger = prop::option::of(prop::sample::select(vec![Trigger::Direct, Trigger::Round]));
    prop_oneof![
        (step(), decision(finite())).prop_map(|(step, decision)| EventKind::Routed { step, decision }),
        (step(), trigger, prop::option::of(role()), prop::option::of(nested()))
            .prop_map(|(step, trigger, role, nested)| EventKind::StepStarted { step, trigger, role, nested }),
        (step(), text(), prop::option::of(json()), prop::option::of(any::<u64>().prop_map(Timestamp))).prop_map(
            |(step, question, schema, deadline)| EventKind::Waiting {
                step,
                question,
                schema: schema.filter(|schema| !schema.is_null()),
                deadline
            }
        ),
        finished(),
        (step(), failure(), prop::option::of(duration())).prop_map(|(step, failure, retry_after)| {
            EventKind::StepFailed { step, failure, retry_after, taken: Vec::new(), partial: None }
        }),
        Just(EventKind::Resumed),
        text().prop_map(|reason| EventKind::SetAside { reason }),
    ]
}

fn last() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        output().prop_map(|output| EventKind::Completed { output, instead_of: None }),
        failure().prop_map(|failure| EventKind::Failed { failure }),
        text().prop_map(|reason| EventKind::Cancelled { reason, partial: Vec::new() }),
    ]
}

/// Events that JSON would change or could not represent.
fn unstorable() -> impl Strategy<Value = EventKind> {
    let odd = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    let deep = (130..200usize).prop_map(|depth| (0..depth).fold(Value::Null, |inner, _| Value::from(vec![inner])));
    prop_oneof![
        (step(), decision(odd)).prop_map(|(step, decision)| EventKind::Routed { step, decision }),
        deep.prop_map(|json| EventKind::Completed { output: Output::json(json), instead_of: None }),
    ]
}

fn task_spec() -> impl Strategy<Value = TaskSpec> {
    let labels = prop::collection::btree_map(text(), text(), 0..4);
    let key = prop::option::of("[!-~]{1,128}");
    let priority = prop::sample::select(vec![TaskPriority::Interactive, TaskPriority::Batch]);
    let owner = prop::sample::select(vec!["owner", "alice"]);
    (name(), prop::option::of(role()), text(), "[0-9a-f]{64}", key, priority, labels, owner).prop_map(
        |(graph, role, input, catalog, key, priority, labels, owner)| TaskSpec {
            graph: GraphName::parse(&graph).unwrap(),
            role,
            input,
            catalog: CatalogVersion::new(catalog),
            request: key.and_then(|key| RequestId::parse(&key)),
            priority,
            labels,
            forked_from: None,
            decision: None,
            owner: CallerName::parse(owner).unwrap(),
            erased: None,
            trace: None,
            sampling: None,
            response: None,
            tools: None,
            reasoning: None,
            conversation: None,
        },
    )
}

/// A task: its specification, its events grouped by append with perhaps a last one, and an unstorable event.
#[derive(Debug, Clone)]
struct RandomTask {
    spec: TaskSpec,
    appends: Vec<Vec<EventKind>>,
    unstorable: EventKind,
    at: Vec<u64>,
    page: u32,
}

fn random_task() -> impl Strategy<Value = RandomTask> {
    let appends = prop::collection::vec(prop::collection::vec(middle(), 1..4), 0..5);
    let times = prop::collection::vec(0..=i64::MAX.unsigned_abs(), 20);
    (task_spec(), appends, prop::option::of(last()), unstorable(), times, 1..6u32).prop_map(
        |(spec, mut appends, last, unstorable, at, page)| {
            appends.extend(last.map(|last| vec![last]));
            RandomTask { spec, appends, unstorable, at, page }
        },
    )
}

impl RandomTask {
    fn event(&self, task: TaskId, seq: usize, kind: EventKind) -> Event {
        Event { at: Timestamp(self.at[seq]), ..event(task, seq as u64, kind) }
    }

    /// Writes the task; returns the acknowledged events.
    async fn write(&self, journal: &Journal, task: TaskId) -> Vec<Event> {
        let mut written = vec![self.event(task, 1, EventKind::Accepted(self.spec.clone()))];
        assert_eq!(journal.accept(written[0].clone()).await.unwrap(), Acceptance::New);
        for append in &self.appends {
            let next = written.len() + 1;
            let events: Vec<Event> =
                append.iter().zip(next..).map(|(kind, seq)| self.event(task, seq, kind.clone())).collect();
            // An unstorable event makes the events before it fail too.
            let mut invalid = events.clone();
            invalid.pop();
            invalid.push(self.event(task, next + invalid.len(), self.unstorable.clone()));
            let refused = journal.append(invalid).await;
            assert!(matches!(refused, Err(Error::Unstorable { .. })), "{refused:?}");
            journal.append(events.clone()).await.unwrap();
            written.extend(events);
        }
        written
    }

    async fn read(&self, journal: &Journal, task: TaskId) -> Vec<Event> {
        let mut read = Vec::new();
        loop {
            let page = journal.events(task, Seq(read.len() as u64), self.page).await.unwrap();
            if page.is_empty() {
                return read;
            }
            read.extend(page);
        }
    }
}

/// Writes two tasks concurrently and reads each back in pages, before and after the journal is opened again.
async fn check(tasks: [RandomTask; 2]) {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let [one, two] = &tasks;
    let (first, second) = tokio::join!(one.write(&journal, id(1)), two.write(&journal, id(2)));
    assert_eq!((one.read(&journal, id(1)).await, two.read(&journal, id(2)).await), (first.clone(), second.clone()));
    journal.close().await;

    let journal = open(dir.path()).await;
    assert_eq!((one.read(&journal, id(1)).await, two.read(&journal, id(2)).await), (first.clone(), second.clone()));
    let list =
        entries(&journal, TaskFilter { labels: one.spec.labels.clone(), ..TaskFilter::default() }, ALL_TASKS).await;
    let summary = list.iter().find(|summary| summary.task == id(1)).expect("a task carries its own labels");
    let shown = (&summary.graph, &summary.role, &summary.catalog, &summary.request, &summary.labels);
    let TaskSpec { graph, role, catalog, request, labels, .. } = &one.spec;
    assert_eq!(shown, (graph, role, catalog, request, labels));
    assert_eq!(summary.last_seq, first.last().unwrap().seq);
    assert_eq!(summary.status, TaskStatus::after(&first.last().unwrap().kind));
    check_erase(&journal, &tasks, &first, &second).await;
}

/// Erases one of two tasks: its events are those without text, and the other task is as it was. One that has not ended is refused.
async fn check_erase(journal: &Journal, [one, two]: &[RandomTask; 2], first: &[Event], second: &[Event]) {
    let erased = journal.erase(&[id(1)]).await;
    if first.last().unwrap().kind.is_last() {
        assert_eq!(erased.unwrap(), 1);
        journal.purge().await.unwrap();
        let read = one.read(journal, id(1)).await;
        let EventKind::Accepted(spec) = &read[0].kind else { panic!("{:?}", read[0]) };
        let at = spec.erased.unwrap();
        let without_text = |event: &Event| Event { kind: event.kind.clone().without_text(at), ..event.clone() };
        assert_eq!(read, first.iter().map(without_text).collect::<Vec<_>>());
    } else {
        assert!(matches!(erased, Err(Error::Unfinished { .. })), "{erased:?}");
        assert_eq!(one.read(journal, id(1)).await, first);
    }
    assert_eq!(two.read(journal, id(2)).await, second);
}

proptest! {
    // Each case syncs the disk some twenty times.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn accepted_events_are_read_back_identical(one in random_task(), two in random_task()) {
        let key = |task: &RandomTask| (task.spec.owner.clone(), task.spec.request.clone());
        prop_assume!(one.spec.request.is_none() || key(&one) != key(&two));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check([one, two]));
    }
}
