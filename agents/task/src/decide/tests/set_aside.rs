//! Resumes without progress are counted, and a task that is set aside does nothing until it is resumed.

use super::*;
use crate::event::ForkOrigin;
use crate::graph::AskNode;
use crate::state::{MAX_STALLED_RESUMES, ReplayError};

fn set_aside() -> EventKind {
    EventKind::SetAside { reason: "it stalls".to_owned() }
}

impl ScriptedRun {
    fn retry(&mut self, step: StepId, code: FailureCode, after: Duration) {
        let failure = Failure::new(code, "x");
        self.note(EventKind::StepFailed { step, failure, retry_after: Some(after), taken: Vec::new(), partial: None });
    }

    fn apply(&mut self, kind: EventKind) -> Result<(), ReplayError> {
        let event = Event { task: self.state.task, seq: self.state.last_seq.next(), at: self.now, kind };
        self.state.apply(&event)
    }
}

#[test]
fn resumes_count_until_the_next_progress() {
    let mut run = ScriptedRun::of(mentor());
    // It may have been killed before any step started.
    run.note(EventKind::Resumed);
    let mut running = run.advance();
    for expected in 2..=MAX_STALLED_RESUMES {
        run.note(EventKind::Resumed);
        running = run.advance();
        assert_eq!((run.state.stalled_resumes, running.len()), (expected, 1));
    }
    run.finish(&running[0], "an answer");
    assert_eq!(run.state.stalled_resumes, 0);
    let step = run.advance().remove(0);
    run.note(EventKind::Resumed);
    let again = run.advance().remove(0);
    assert_eq!((run.state.stalled_resumes, again.visit == step.visit), (1, true));
    run.retry(again, FailureCode::Timeout, Duration::ZERO);
    assert_eq!(run.state.stalled_resumes, 0, "a failure is bounded by the retries of its step");
}

#[test]
fn a_task_that_waits_for_a_person_or_for_a_retry_does_not_stall() {
    let question = AskNode { message: "Well?".to_owned(), schema: None, deadline: None, otherwise: None };
    let nodes = [("ask", Node::new(NodeKind::Ask(question), vec![to("done")]))];
    let mut asked = ScriptedRun::of(Graph::new(parts("ask", nodes)).unwrap());
    let step = asked.advance().remove(0);
    asked.note(EventKind::Waiting { step, question: "Well?".to_owned(), schema: None, deadline: None });
    let mut retried = ScriptedRun::of(mentor());
    let step = retried.advance().remove(0);
    retried.retry(step, FailureCode::Timeout, Duration::from_secs(60));
    for run in [&mut asked, &mut retried] {
        for _ in 0..2 * MAX_STALLED_RESUMES {
            run.note(EventKind::Resumed);
        }
        assert_eq!(run.state.stalled_resumes, 0);
    }
    retried.now = Timestamp(60_000);
    retried.note(EventKind::Resumed);
    assert_eq!(retried.state.stalled_resumes, 1, "the retry is due");
}

#[test]
fn a_task_that_is_set_aside_is_resumed_with_its_counts_anew_or_ends() {
    let mut run = ScriptedRun::of(mentor());
    let mut step = run.advance().remove(0);
    for interruptions in 1..=3 {
        run.retry(step.clone(), FailureCode::Interrupted, Duration::ZERO);
        assert_eq!(run.state.active_visit(&step.visit).unwrap().interruptions, interruptions);
        step = run.advance().remove(0);
    }
    run.note(set_aside());
    assert_eq!(run.state.phase, Phase::SetAside("it stalls".to_owned()));
    assert_eq!(decide(&run.graph, &run.state, run.now, run.now), []);
    assert_eq!(run.apply(set_aside()), Err(ReplayError::WhileSetAside(run.state.last_seq.0 + 1)));
    let mut cancelled = run.state.clone();
    let cancel = EventKind::Cancelled { reason: "enough".to_owned(), partial: Vec::new() };
    cancelled
        .apply(&Event { task: cancelled.task, seq: cancelled.last_seq.next(), at: run.now, kind: cancel })
        .unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled("enough".to_owned()));
    run.note(EventKind::Resumed);
    let active = run.state.active_visit(&step.visit).unwrap();
    assert_eq!((run.state.stalled_resumes, active.failures, active.interruptions), (0, 0, 0));
    run.all(|visit| visit.node.to_string());
    assert!(matches!(run.state.phase, Phase::Completed(_)), "{:?}", run.state.phase);
}

#[test]
fn the_time_that_a_task_is_set_aside_counts_against_no_limit() {
    let mut run = ScriptedRun::of(mentor());
    run.advance();
    run.now = Timestamp(1000);
    run.note(set_aside());
    run.now = Timestamp(9_000_000);
    run.note(EventKind::Resumed);
    assert_eq!(run.state.age(run.now), Duration::ZERO);
}

#[test]
fn a_fork_counts_its_own_resumes_only() {
    let mut old = ScriptedRun::of(mentor());
    old.advance();
    for _ in 1..MAX_STALLED_RESUMES {
        old.note(EventKind::Resumed);
        old.advance();
    }
    assert_eq!(old.state.stalled_resumes, MAX_STALLED_RESUMES - 1);
    let mut events = old.events.clone();
    let EventKind::Accepted(spec) = &mut events[0].kind else { panic!("the first event is `accepted`") };
    spec.forked_from = Some(ForkOrigin { task: old.state.task, step: None, copied: old.events.len() as u32 - 1 });
    let state = State::replay(&events, old.graph.start()).unwrap();
    let mut fork = ScriptedRun { events, state, ..old };
    assert_eq!(fork.state.stalled_resumes, 0);
    for expected in [0, 1, 2] {
        // The first is how it starts.
        fork.note(EventKind::Resumed);
        fork.advance();
        assert_eq!(fork.state.stalled_resumes, expected);
    }
}
