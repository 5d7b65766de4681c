//! Any run of events: what was accepted is read back as it was, and what cannot be is refused.

use artel_task::event::{
    FailureCode, Decision, Failure, Nested, NoMatch, CandidateScore, Signal, ResultSource, TakenEdge, Timestamp, Timings, Trigger, Usage,
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

/// Any characters, the zero byte and those beyond the basic plane too.
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
    (text(), json, prop::option::of(role())).prop_map(|(text, json, role)| Output { text, json, role })
}

fn decision(score: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Decision> {
    let signals = prop::collection::btree_map(prop::sample::select(Signal::ALL.to_vec()), score.clone(), 0..4);
    let one = (role(), score.clone(), signals.clone());
    let scores = prop::collection::vec(one.prop_map(|(role, score, signals)| CandidateScore { role, score, signals }), 0..4);
    let none = (score.clone(), signals).prop_map(|(score, signals)| NoMatch { score, signals });
    let chosen = (role(), prop::collection::vec(role(), 0..3), any::<bool>(), any::<bool>());
    let sure = (score.clone(), score);
    (chosen, sure, text(), scores, prop::option::of(none), duration(), any::<u32>()).prop_map(
        |((role, roles, graphs, otherwise), (confidence, margin), signal, scores, none, took, tokens)| Decision {
            role,
            roles,
            graphs,
            confidence,
            margin,
            otherwise,
            signal,
            scores,
            no_match: none,
            elapsed: took,
            tokens,
            warmup_tokens: tokens / 2,
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    let code = prop::sample::select(vec![FailureCode::Timeout, FailureCode::ContextOverflow, FailureCode::LimitTokens, FailureCode::Internal]);
    (code, text(), prop::option::of(step())).prop_map(|(code, message, step)| Failure { code, message, step })
}

fn finished() -> impl Strategy<Value = Kind> {
    let usage = (any::<u32>(), any::<u32>(), any::<u32>());
    let timings = (duration(), duration(), duration());
    let taken = (any::<u32>(), prop::option::of(name()), any::<bool>()).prop_map(|(edge, to, direct)| {
        let to = to.map(|name| NodeName::parse(&name).unwrap());
        TakenEdge { edge, to, direct }
    });
    (step(), output(), usage, timings, prop::collection::vec(taken, 0..3)).prop_map(
        |(step, output, (prompt, computed, out), (queue, prefill, decode), took)| EventKind::StepFinished {
            step,
            output,
            usage: Usage { prompt, computed, output: out, ..Usage::default() },
            timings: Timings { queue, prefill, decode, ..Timings::default() },
            taken: took,
            source: ResultSource::Run,
            write: None,
        },
    )
}

fn inner() -> impl Strategy<Value = Nested> {
    let names = (name(), name()).prop_map(|(g, n)| (GraphName::parse(&g).unwrap(), NodeName::parse(&n).unwrap()));
    prop_oneof![
        prop::collection::vec(json(), 0..4).prop_map(|items| Nested::Items(items.into())),
        (names, text()).prop_map(|((graph, start), input)| Nested::Graph { graph, start, input }),
    ]
}

/// Events in the middle of a task.
fn middle() -> impl Strategy<Value = Kind> {
    let trigger = prop::option::of(prop::sample::select(vec![Trigger::Direct, Trigger::Round]));
    prop_oneof![
        (step(), decision(finite())).prop_map(|(step, decision)| EventKind::Routed { step, decision }),
        (step(), trigger, prop::option::of(role()), prop::option::of(inner()))
            .prop_map(|(step, trigger, role, inner)| EventKind::StepStarted { step, trigger, role, nested: inner }),
        (step(), text(), prop::option::of(json()), prop::option::of(any::<u64>().prop_map(Timestamp))).prop_map(
            |(step, question, schema, deadline)| EventKind::Waiting {
                step,
                question,
                schema: schema.filter(|schema| !schema.is_null()),
                deadline
            }
        ),
        finished(),
        (step(), failure(), prop::option::of(duration())).prop_map(|(step, failure, retry_after)| EventKind::StepFailed {
            step,
            failure,
            retry_after,
            taken: Vec::new()
        }),
        Just(EventKind::Resumed),
    ]
}

fn last() -> impl Strategy<Value = Kind> {
    prop_oneof![
        output().prop_map(|output| EventKind::Completed { output, instead_of: None }),
        failure().prop_map(|failure| EventKind::Failed { failure }),
        text().prop_map(|reason| EventKind::Cancelled { reason }),
    ]
}

/// Events that JSON would change or could not give back.
fn unstorable() -> impl Strategy<Value = Kind> {
    let odd = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    let deep = (130..200usize).prop_map(|depth| (0..depth).fold(Value::Null, |inner, _| Value::from(vec![inner])));
    prop_oneof![
        (step(), decision(odd)).prop_map(|(step, decision)| EventKind::Routed { step, decision }),
        deep.prop_map(|json| EventKind::Completed { output: Output::json(json), instead_of: None }),
    ]
}

fn begin() -> impl Strategy<Value = Accepted> {
    let labels = prop::collection::btree_map(text(), text(), 0..4);
    let key = prop::option::of("[!-~]{1,128}");
    let class = prop::sample::select(vec![Class::Interactive, Class::Batch]);
    (name(), prop::option::of(role()), text(), "[0-9a-f]{64}", key, class, labels).prop_map(
        |(graph, role, input, catalog, key, class, labels)| Accepted {
            graph: GraphName::parse(&graph).unwrap(),
            role,
            input,
            catalog: CatalogVersion::new(catalog),
            request: key.and_then(|key| RequestId::parse(&key)),
            class,
            labels,
            forked: None,
            decision: None,
        },
    )
}

/// One task: how it begins, its events in the pieces in which they are appended, and perhaps its end.
#[derive(Debug, Clone)]
struct Run {
    begin: Accepted,
    pieces: Vec<Vec<Kind>>,
    odd: Kind,
    at: Vec<u64>,
    page: u32,
}

fn run() -> impl Strategy<Value = Run> {
    let pieces = prop::collection::vec(prop::collection::vec(middle(), 1..4), 0..5);
    let times = prop::collection::vec(0..=i64::MAX.unsigned_abs(), 20);
    (begin(), pieces, prop::option::of(last()), unstorable(), times, 1..6u32).prop_map(
        |(begin, mut pieces, last, odd, at, page)| {
            pieces.extend(last.map(|last| vec![last]));
            Run { begin, pieces, odd, at, page }
        },
    )
}

impl Run {
    fn event(&self, task: TaskId, seq: usize, kind: Kind) -> Event {
        Event { at: Timestamp(self.at[seq]), ..event(task, seq as u64, kind) }
    }

    /// Writes the task; gives the events that were acknowledged.
    async fn write(&self, journal: &Journal, task: TaskId) -> Vec<Event> {
        let mut written = vec![self.event(task, 1, EventKind::Accepted(self.begin.clone()))];
        assert_eq!(journal.accept(written[0].clone()).await.unwrap(), Acceptance::New);
        for piece in &self.pieces {
            let next = written.len() + 1;
            let events: Vec<Event> =
                piece.iter().zip(next..).map(|(kind, seq)| self.event(task, seq, kind.clone())).collect();
            // What cannot be stored takes the events before it along.
            let mut spoilt = events.clone();
            spoilt.pop();
            spoilt.push(self.event(task, next + spoilt.len(), self.odd.clone()));
            let refused = journal.append(spoilt).await;
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

/// Two tasks at once, each read back piece by piece, before and after the journal is opened again.
async fn check(runs: [Run; 2]) {
    let dir = temp();
    let journal = open(dir.path()).await;
    let [one, two] = &runs;
    let (first, second) = tokio::join!(one.write(&journal, id(1)), two.write(&journal, id(2)));
    assert_eq!((one.read(&journal, id(1)).await, two.read(&journal, id(2)).await), (first.clone(), second.clone()));
    journal.close().await;

    let journal = open(dir.path()).await;
    assert_eq!((one.read(&journal, id(1)).await, two.read(&journal, id(2)).await), (first.clone(), second.clone()));
    let list = journal.list(Filter { labels: one.begin.labels.clone(), ..Filter::default() }, ALL).await.unwrap();
    let summary = list.iter().find(|summary| summary.task == id(1)).expect("a task carries its own labels");
    let shown = (&summary.graph, &summary.role, &summary.catalog, &summary.request, &summary.labels);
    let Accepted { graph, role, catalog, request, labels, .. } = &one.begin;
    assert_eq!(shown, (graph, role, catalog, request, labels));
    assert_eq!(summary.last, first.last().unwrap().seq);
    assert_eq!(summary.stage, Stage::after(&first.last().unwrap().kind));
}

proptest! {
    // Each case syncs a disk some twenty times.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_accepted_is_read_back_identical(one in run(), two in run()) {
        prop_assume!(one.begin.request.is_none() || one.begin.request != two.begin.request);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check([one, two]));
    }
}
