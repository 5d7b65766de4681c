//! The daemon is killed with SIGKILL, at every commit in turn and at any moment: no task that it acknowledged is lost, and
//! every one ends as if nothing had happened.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_tests::rehearsal::{Outcome, TROUPE, plays, script};
use artel_tests::{Ask, Builder, Daemon, daemon};
use nix::sys::signal::Signal;
use tokio::sync::Semaphore;
use tonic::Status;

/// A daemon that was killed is gone within this time; one that is not has refused, which is no death.
const GONE: Duration = Duration::from_secs(20);

fn troupe() -> Builder {
    daemon().with_yaml(TROUPE).in_rehearsal(&script())
}

/// How each play ends when nobody is killed.
async fn premiere() -> Vec<Outcome> {
    let daemon = troupe().start().await;
    let mut outcomes = Vec::new();
    for play in plays() {
        let mut run = daemon.run(play).await;
        run.end().await;
        outcomes.push(Outcome::of(&daemon.task(&run.id).await));
    }
    outcomes
}

/// A task over any number of deaths.
struct Play {
    ask: Ask,
    /// Its id, once it was acknowledged.
    id: Option<String>,
    /// The numbers of the events that were heard, in the order in which they were.
    heard: Vec<u64>,
    over: bool,
}

impl Play {
    fn new(ask: Ask, key: &str) -> Self {
        Self { ask: ask.with_request_id(key), id: None, heard: Vec::new(), over: false }
    }

    /// Hands it in, again if need be, and follows it from where it was heard last; an error is a death.
    async fn go_on(&mut self, daemon: &Daemon, mut heard: impl FnMut()) -> Result<(), Status> {
        let id = daemon.submit(self.ask.clone()).await?.id;
        assert_eq!(self.id.get_or_insert_with(|| id.clone()), &id, "the same request is the same task");
        let mut run = daemon.try_watch(&id, self.heard.last().copied().unwrap_or(0)).await?;
        while run.next().await?.is_some() {
            let number = run.events.last().unwrap().seq;
            if number > 0 {
                self.heard.push(number);
                heard();
            }
        }
        self.over = true;
        Ok(())
    }

    /// What became of it.
    async fn check(&self, daemon: &Daemon, expected: &Outcome) {
        let task = daemon.task(self.id.as_ref().unwrap()).await;
        assert_eq!(&Outcome::of(&task), expected);
        assert_eq!(self.heard, (1..=task.last_seq).collect::<Vec<_>>(), "nothing is missing and nothing comes twice");
    }
}

/// Waits for the end of a daemon that was killed.
async fn buried(mut daemon: Daemon, said: &Status) -> Builder {
    let Ok(exit) = tokio::time::timeout(GONE, daemon.exit()).await else { panic!("it lives, and refused: {said:?}") };
    assert_eq!(exit.signal(), Some(Signal::SIGKILL as i32), "{said:?}");
    daemon.after_its_end().await
}

/// Plays all, one after the other, on a daemon that dies at a commit; says whether it did.
async fn dies_at(death: &str, premiere: &[Outcome]) -> bool {
    let mut died = false;
    let mut daemon = match troupe().that_dies(death).try_start().await {
        Ok(daemon) => daemon,
        Err(buried) => {
            died = true;
            buried.start().await
        }
    };
    let mut all: Vec<Play> = plays().into_iter().enumerate().map(|(n, ask)| Play::new(ask, &format!("{n}"))).collect();
    for play in &mut all {
        while let Err(status) = play.go_on(&daemon, || {}).await {
            assert!(!died, "it dies once: {status:?}");
            died = true;
            daemon = buried(daemon, &status).await.start().await;
        }
    }
    for (play, expected) in all.iter().zip(premiere) {
        play.check(&daemon, expected).await;
    }
    died
}

async fn dies_at_every_commit(moment: &str) {
    let premiere = premiere().await;
    let mut commit = 1;
    while dies_at(&format!("{moment}:{commit}"), &premiere).await {
        commit += 1;
    }
    // Each of the 16 steps that finish, and each of the 5 tasks that are accepted, is a commit.
    assert!(commit > 20, "{commit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_each_commit_in_turn_every_task_ends_as_it_should() {
    dies_at_every_commit("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_each_commit_in_turn_every_task_ends_as_it_should() {
    dies_at_every_commit("after").await;
}

/// A watcher that heard the last event just before the daemon died comes back to hear that there is no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_has_heard_everything_hears_nothing_twice() {
    let daemon = troupe().start().await;
    let mut play = Play::new(plays().swap_remove(0), "one");
    play.go_on(&daemon, || {}).await.unwrap();
    let heard = play.heard.clone();
    play.go_on(&daemon, || {}).await.unwrap();
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.again().await;
    play.go_on(&daemon, || {}).await.unwrap();
    assert_eq!(play.heard, heard);
}

/// A daemon that never lives longer than a few commits gets everything done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_still_gets_on() {
    let premiere = premiere().await;
    let mut stage = troupe();
    let mut all: Vec<Play> = plays().into_iter().enumerate().map(|(n, ask)| Play::new(ask, &format!("{n}"))).collect();
    let mut deaths = 0;
    let daemon = loop {
        // The catalog, what is due for deletion, a new task or one resumed, and one step more.
        let daemon = stage.that_dies("after:5").start().await;
        let mut said = None;
        for play in all.iter_mut().filter(|play| !play.over) {
            if let Err(status) = play.go_on(&daemon, || {}).await {
                said = Some(status);
                break;
            }
        }
        let Some(status) = said else { break daemon };
        deaths += 1;
        stage = buried(daemon, &status).await;
    };
    assert!(deaths >= 5, "{deaths}");
    for (play, expected) in all.iter().zip(&premiere) {
        play.check(&daemon, expected).await;
    }
}

/// Whole numbers from a seed; the same ones again for the same seed (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

const TASKS: usize = 200;
/// Tasks that are followed at once.
const AT_ONCE: usize = 8;
/// Events between one kill and the next, at most.
const PATIENCE: u64 = 80;

/// Follows all that have not ended, until all have or the daemon is killed: when so many events were heard.
async fn until_killed(daemon: Arc<Daemon>, all: Vec<Play>, patience: u64) -> (Vec<Play>, Option<Status>) {
    let (heard, places) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(AT_ONCE)));
    let follow = |mut play: Play| {
        let (daemon, heard, places) = (daemon.clone(), heard.clone(), places.clone());
        async move {
            let _place = places.acquire().await.unwrap();
            if play.over {
                return (play, None);
            }
            let count = || {
                if heard.fetch_add(1, Ordering::Relaxed) + 1 == patience {
                    daemon.signal(Signal::SIGKILL);
                }
            };
            let said = play.go_on(&daemon, count).await.err();
            (play, said)
        }
    };
    let followed: Vec<_> = all.into_iter().map(|play| tokio::spawn(follow(play))).collect();
    let (mut all, mut said) = (Vec::new(), None);
    for follower in followed {
        let (play, status) = follower.await.unwrap();
        all.push(play);
        said = said.or(status);
    }
    (all, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_two_hundred_tasks_end_as_they_should() {
    let premiere = premiere().await;
    let asks = plays();
    let mut all: Vec<Play> =
        (0..TASKS).map(|n| Play::new(asks[n % asks.len()].clone(), &format!("request-{n}"))).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut stage = troupe();
    let mut deaths = 0;
    let daemon = loop {
        let daemon = Arc::new(stage.start().await);
        let (plays, said) = until_killed(daemon.clone(), all, dice.roll(PATIENCE) + 1).await;
        all = plays;
        let daemon = Arc::into_inner(daemon).expect("nobody follows any more");
        let Some(status) = said else { break daemon };
        deaths += 1;
        stage = buried(daemon, &status).await;
    };
    assert!(deaths >= 8, "{deaths}");
    // It may have been killed just then, and what ended stays so either way.
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.again().await;
    for (n, play) in all.iter().enumerate() {
        play.check(&daemon, &premiere[n % premiere.len()]).await;
    }
}
