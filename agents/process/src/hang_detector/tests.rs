//! Scripted time: an observation a second.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(20);

fn policy() -> HangPolicy {
    HangPolicy { timeout: TIMEOUT, is_cpu_only: true, rpc_servers: Vec::new() }
}

fn remote_policy() -> HangPolicy {
    HangPolicy { is_cpu_only: false, rpc_servers: vec!["box:1".to_owned()], ..policy() }
}

/// An engine as it is seen from outside.
struct ObservedEngine {
    detector: HangDetector,
    heartbeat: Heartbeat,
    process: ProcessSample,
    is_answering: bool,
}

impl ObservedEngine {
    fn new(policy: HangPolicy, activity: EngineActivity) -> Self {
        let heartbeat = Heartbeat { beats: 1, activity };
        let mut engine = Self {
            detector: HangDetector::new(policy),
            heartbeat,
            process: ProcessSample::default(),
            is_answering: true,
        };
        assert_eq!(engine.tick(), EngineCondition::Alive);
        engine
    }

    /// In a batch that is expected to take so long.
    fn in_batch(policy: HangPolicy, expected: Option<Duration>) -> Self {
        Self::new(policy, EngineActivity::Computes { expected })
    }

    fn tick(&mut self) -> EngineCondition {
        self.tick_after(SECOND)
    }

    fn tick_after(&mut self, elapsed: Duration) -> EngineCondition {
        let heartbeat = self.is_answering.then_some(self.heartbeat);
        let process = Some(self.process);
        self.detector.observe(&EngineObservation { elapsed, interval: SECOND, heartbeat, process })
    }

    /// Seconds until it counts as hung, or none within a day; `each` happens before each observation.
    fn seconds_to_hang(&mut self, each: impl Fn(&mut Self, u64)) -> Option<(u64, String)> {
        (1..=86_400).find_map(|second| {
            each(self, second);
            match self.tick() {
                EngineCondition::Hung(reason) => Some((second, reason.to_string())),
                _ => None,
            }
        })
    }

    fn stop(&mut self) {
        (self.is_answering, self.process.is_stopped) = (false, true);
    }
}

fn hung_after(seconds: u64, reason: &str) -> Option<(u64, String)> {
    Some((seconds, reason.to_owned()))
}

#[test]
fn an_engine_that_is_stopped_is_found_after_the_timeout_whatever_it_did() {
    for activity in [
        EngineActivity::Idle,
        EngineActivity::AwaitsCpu,
        EngineActivity::Computes { expected: None },
        EngineActivity::Computes { expected: Some(1000 * SECOND) },
    ] {
        for policy in [policy(), remote_policy()] {
            let mut engine = ObservedEngine::new(policy, activity);
            engine.stop();
            let (seconds, reason) = engine.seconds_to_hang(|_, _| {}).unwrap();
            assert_eq!(seconds, 20);
            assert!(reason.starts_with("hung: no progress for 20 s, its process was stopped"), "{reason}");
        }
    }
}

#[test]
fn a_thread_that_is_deadlocked_is_found_although_its_process_answers() {
    let mut engine = ObservedEngine::in_batch(policy(), Some(SECOND / 2));
    // Answering costs a little CPU time, and the thread that answers was running a moment ago.
    let answers = |engine: &mut ObservedEngine, _| {
        engine.process.cpu_time += Duration::from_millis(1);
        engine.process.is_main_thread_active = true;
    };
    let reason = "hung: no progress for 20 s, and its process did nothing; its batch was expected to take 0.5 s";
    assert_eq!(engine.seconds_to_hang(answers), hung_after(20, reason));
}

#[test]
fn a_livelock_is_found_in_the_end() {
    let spins = |engine: &mut ObservedEngine, _| engine.process.cpu_time += 2 * SECOND;
    let known = ObservedEngine::in_batch(policy(), Some(SECOND)).seconds_to_hang(spins);
    let reason = "hung: no progress for 200 s, although its process was busy; its batch was expected to take 1.0 s";
    assert_eq!(known, hung_after(200, reason));
    let unknown = ObservedEngine::in_batch(policy(), None).seconds_to_hang(spins);
    assert_eq!(unknown.unwrap().0, 3600);
}

#[test]
fn a_peer_that_stops_answering_is_named() {
    let reason = "hung: no progress for 20 s, and its process did nothing; its batch was expected to take 0.2 s; \
                  it may have waited for the RPC server box:1";
    let mut engine = ObservedEngine::in_batch(remote_policy(), Some(SECOND / 5));
    assert_eq!(engine.seconds_to_hang(|_, _| {}), hung_after(20, reason));
    // A batch that takes a minute on a slow server.
    let slow = ObservedEngine::in_batch(remote_policy(), Some(60 * SECOND)).seconds_to_hang(|_, _| {});
    assert_eq!(slow.unwrap().0, 1200);
    let first = ObservedEngine::in_batch(remote_policy(), None).seconds_to_hang(|_, _| {});
    assert_eq!(first.unwrap().0, 200);
}

#[test]
fn an_engine_that_is_slow_is_not_taken_for_a_dead_one() {
    type Slowness = fn(&mut ObservedEngine, u64);
    let slow: [(&str, Slowness); 5] = [
        ("a fiftieth of a core, without an answer", |engine, _| {
            engine.is_answering = false;
            engine.process.cpu_time += SECOND / 50;
        }),
        ("swapping", |engine, second| {
            engine.is_answering = false;
            engine.process.major_faults += second % 7;
        }),
        ("reading from a slow disk", |engine, _| engine.process.is_worker_active = true),
        ("a hog that lets it compute every fifteen seconds", |engine, second| {
            engine.process.is_worker_active = second % 15 == 0;
        }),
        ("too busy to answer", |engine, _| {
            engine.is_answering = false;
            engine.process.is_main_thread_active = true;
        }),
    ];
    for (what, each) in slow {
        // A first batch of an hour, and a later one of fifteen seconds that takes fifty minutes.
        for expected in [None, Some(15 * SECOND)] {
            let mut engine = ObservedEngine::in_batch(policy(), expected);
            let (hung, _) = engine.seconds_to_hang(each).unwrap();
            assert!(hung >= 3000, "{what}, expected {expected:?}: hung after {hung} s");
        }
    }
}

#[test]
fn an_engine_without_work_or_without_cores_is_alive() {
    for activity in [EngineActivity::Idle, EngineActivity::AwaitsCpu] {
        assert_eq!(ObservedEngine::new(policy(), activity).seconds_to_hang(|_, _| {}), None);
    }
}

#[test]
fn a_silent_engine_loses_its_lease_long_before_it_ends() {
    let mut engine = ObservedEngine::new(policy(), EngineActivity::Idle);
    engine.stop();
    let conditions: Vec<EngineCondition> = (0..19).map(|_| engine.tick()).collect();
    assert_eq!(conditions.iter().position(|condition| *condition == EngineCondition::Silent), Some(4));
    // It continues.
    (engine.is_answering, engine.process.is_stopped) = (true, false);
    assert_eq!(engine.tick(), EngineCondition::Alive);
}

#[test]
fn a_daemon_that_did_not_run_itself_blames_no_engine() {
    let mut engine = ObservedEngine::in_batch(policy(), Some(SECOND));
    engine.is_answering = false;
    assert_eq!(engine.tick_after(3600 * SECOND), EngineCondition::Alive);
}

#[test]
fn without_proc_an_answer_is_a_sign_of_life() {
    let mut detector = HangDetector::new(policy());
    let heartbeat = Heartbeat { beats: 1, activity: EngineActivity::Computes { expected: None } };
    let mut observe = |heartbeat| {
        let observation = EngineObservation { elapsed: SECOND, interval: SECOND, heartbeat, process: None };
        detector.observe(&observation)
    };
    assert!((0..1000).all(|_| observe(Some(heartbeat)) == EngineCondition::Alive));
    let found = (1..).find(|_| matches!(observe(None), EngineCondition::Hung(_)));
    assert_eq!(found, Some(20));
}

proptest! {
    /// What an engine did before does not matter: it is stopped, and found after the timeout, not before.
    #[test]
    fn a_stop_is_found_after_the_timeout(
        past in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..100), 0..50),
        expected in prop::option::of(0u64..1000),
    ) {
        let mut engine = ObservedEngine::in_batch(policy(), expected.map(Duration::from_secs));
        for (answers, beats, cpu_ms) in past {
            engine.is_answering = answers;
            engine.heartbeat.beats += u64::from(beats);
            engine.process.cpu_time += Duration::from_millis(cpu_ms);
            engine.tick();
        }
        // It was alive just before.
        engine.is_answering = true;
        engine.heartbeat.beats += 1;
        prop_assert_eq!(engine.tick(), EngineCondition::Alive);
        engine.stop();
        let (seconds, _) = engine.seconds_to_hang(|_, _| {}).unwrap();
        prop_assert_eq!(seconds, 20);
    }

    /// An engine whose thread begins or ends some work now and then is never found, whatever the kernel tells.
    #[test]
    fn progress_is_never_a_hang(
        pauses in prop::collection::vec(0u64..19, 1..200),
        expected in prop::option::of(0u64..1000),
    ) {
        let mut engine = ObservedEngine::in_batch(policy(), expected.map(Duration::from_secs));
        for pause in pauses {
            for _ in 0..pause {
                prop_assert!(!matches!(engine.tick(), EngineCondition::Hung(_)));
            }
            engine.heartbeat.beats += 1;
            prop_assert_eq!(engine.tick(), EngineCondition::Alive);
        }
    }
}
