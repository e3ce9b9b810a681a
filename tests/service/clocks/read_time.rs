//! What a checkpoint says of the time stays true: nothing with an earlier `changed_at`
//! comes after it, on the replica that writes and on another one.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use voicecall::proto::{VoiceCall, watch_voice_calls_request::Start};

use super::{
    HOUR, Installation, MINUTE, NEAR, Wrong, YEAR, accepted, attempt, expect_creates, pause, start,
    true_time,
};
use crate::support::{
    clock::Clock,
    inbound, micros,
    postgres::{Cluster, connect},
    read_time::{Observer, Promise},
    server::{Process, client},
    watcher::live,
    writes::create_of,
};

const WRITERS: usize = 8;
const OBSERVERS: usize = 8;
/// Changes of a busy log, and how long it is written to at most.
const WRITES: i64 = 6_000;
const BUSY: Duration = Duration::from_secs(15);
/// How long a log is idle, in microseconds of its time.
const IDLE: i64 = 2_000_000;

/// Makes commits take four seconds that have a call of this staff.
const HELD: &str = "held";
const HOLD_COMMITS: &str = "
    CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(4);
        RETURN NULL;
    END;
    $$;
    CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON voice_calls
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.staff_uid = 'held')
        EXECUTE FUNCTION hold_commit();";

/// Two replicas over one database, and what watches each.
struct Watched {
    replicas: [Process; 2],
    observers: Vec<Observer>,
}

impl Watched {
    /// With so many observers of each replica.
    async fn start(replicas: [Process; 2], observers: usize) -> Self {
        let mut all = Vec::new();
        for replica in &replicas {
            for _ in 0..observers {
                all.push(Observer::start(&replica.endpoint, live()).await);
            }
        }
        Self {
            replicas,
            observers: all,
        }
    }

    /// Waits until all observers have been told a `read_time` that late.
    async fn all_come_to(&self, time: i64) {
        for observer in &self.observers {
            observer.comes_to(time).await;
        }
    }

    /// Waits until all observers have come to this revision, and holds what they saw to
    /// the promise; returns how many events there were.
    async fn check(self, revision: i64) -> usize {
        let mut promises = Vec::new();
        for observer in self.observers {
            promises.push(observer.until(revision).await);
        }
        Promise::check(&promises)
    }
}

fn two_replicas(url: &str) -> [Process; 2] {
    [(); 2].map(|()| start(&[("DATABASE_URL", url.to_owned())]))
}

async fn create_on(replica: &Process, call: VoiceCall) -> VoiceCall {
    let created = accepted(&replica.endpoint, create_of(call)).await;
    created.into_iter().next().expect("one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_on_a_busy_log() {
    let url = Cluster::shared().await.database().await;
    let watched = Watched::start(two_replicas(&url), OBSERVERS).await;
    let endpoint = watched.replicas[0].endpoint.clone();
    let end = Instant::now() + BUSY;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let mut client = client(&endpoint);
        writers.spawn(async move {
            let mut revision = 0;
            while Instant::now() < end && revision < WRITES {
                let created = attempt(&mut client, create_of(inbound())).await;
                revision = created.map_or(revision, |calls| calls[0].revision);
            }
            revision
        });
    }
    let last = writers.join_all().await.into_iter().max().expect("some");
    let events = watched.check(last).await;
    println!("{last} writes, {events} events");
    assert!(last > 500, "too little happened to prove anything: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_while_a_commit_takes_long() {
    let url = Cluster::shared().await.database().await;
    let watched = Watched::start(two_replicas(&url), 2).await;
    let database = connect(&url).await;
    database.batch_execute(HOLD_COMMITS).await.expect("new");
    create_on(&watched.replicas[0], inbound()).await;
    let mut waiting = JoinSet::new();
    for (replica, staff) in [(0, HELD), (0, "other"), (1, "other")] {
        let call = VoiceCall {
            staff_uid: Some(staff.into()),
            ..inbound()
        };
        let mut client = client(&watched.replicas[replica].endpoint);
        waiting.spawn(async move { attempt(&mut client, create_of(call)).await });
    }
    waiting.join_all().await;
    let last = create_on(&watched.replicas[1], inbound()).await;
    watched.all_come_to(micros(last.updated_at)).await;
    let after = create_on(&watched.replicas[0], inbound()).await;
    watched.check(after.revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_on_replicas_whose_clocks_are_10_minutes_off() {
    let (Some(slow), Some(fast)) = (Clock::new(), Clock::new()) else {
        return;
    };
    slow.set(-10 * MINUTE);
    fast.set(10 * MINUTE);
    let url = Cluster::shared().await.database().await;
    let replicas = [&slow, &fast].map(|clock| {
        let mut environment = clock.for_service();
        environment.push(("DATABASE_URL", url.clone()));
        start(&environment)
    });
    let watched = Watched::start(replicas, 2).await;
    let mut last = create_on(&watched.replicas[0], inbound()).await;
    for place in 0..100 {
        let created = create_on(&watched.replicas[place % 2], inbound()).await;
        let off = micros(created.updated_at) - true_time();
        assert!(off.abs() < NEAR, "changed {off} microseconds ahead");
        last = created;
    }
    watched.all_come_to(micros(last.updated_at)).await;
    for observer in &watched.observers {
        let ahead = observer.read_time() - true_time();
        assert!(ahead < NEAR, "read_time is {ahead} microseconds ahead");
    }
    let after = create_on(&watched.replicas[0], inbound()).await;
    watched.check(after.revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_after_the_databases_clock_went_back_on_an_idle_log() {
    read_time_is_true_after(Wrong::Database, &[-10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_after_the_clock_of_the_one_host_went_back_on_an_idle_log() {
    read_time_is_true_after(Wrong::Both, &[-10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_after_the_databases_clock_was_ahead_on_an_idle_log() {
    read_time_is_true_after(Wrong::Database, &[2, 0]).await;
    read_time_is_true_after(Wrong::Database, &[40 * HOUR, 0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_while_the_databases_clock_steps_under_writes() {
    let Some(installation) = Installation::start(Wrong::Database).await else {
        return;
    };
    let replicas = [installation.service(), installation.service()];
    let watched = Watched::start(replicas, 2).await;
    let steps_end = CancellationToken::new();
    let mut writers = JoinSet::new();
    for replica in &watched.replicas {
        for _ in 0..WRITERS / 2 {
            let (mut client, end) = (client(&replica.endpoint), steps_end.clone());
            writers.spawn(async move {
                let mut ticks = interval(Duration::from_millis(10));
                while !end.is_cancelled() {
                    ticks.tick().await;
                    attempt(&mut client, create_of(inbound())).await;
                }
            });
        }
    }
    for seconds_ahead in [-10, 0, 3, 0, 40 * HOUR, 0, -10 * YEAR, 0, 70 * YEAR] {
        installation.clock.set(seconds_ahead);
        pause(Duration::from_millis(500)).await;
    }
    installation.clock.set(0);
    steps_end.cancel();
    writers.join_all().await;
    let last = expect_creates(&watched.replicas[0].endpoint).await;
    let off = micros(last.updated_at) - true_time();
    assert!(off.abs() < NEAR, "times are {off} microseconds ahead");
    watched.all_come_to(micros(last.updated_at)).await;
    watched.check(last.revision).await;
}

/// The clock is so many seconds ahead, one after the other, while nothing is written; then
/// each replica writes.
async fn read_time_is_true_after(wrong: Wrong, seconds_ahead: &[i64]) {
    let Some(installation) = Installation::start(wrong).await else {
        return;
    };
    let replicas = [installation.service(), installation.service()];
    let watched = Watched::start(replicas, 1).await;
    let first = create_on(&watched.replicas[0], inbound()).await;
    watched.all_come_to(micros(first.updated_at) + IDLE).await;
    for seconds in seconds_ahead {
        installation.clock.set(*seconds);
        if *seconds > 0 {
            // Long enough for checkpoints, if there are any with such a clock.
            pause(Duration::from_secs(1)).await;
        }
    }
    create_on(&watched.replicas[1], inbound()).await;
    let last = create_on(&watched.replicas[0], inbound()).await;
    installation.clock.set(0);
    watched.all_come_to(true_time()).await;
    for observer in &watched.observers {
        let ahead = observer.read_time() - true_time();
        assert!(ahead < NEAR, "read_time is {ahead} microseconds ahead");
    }
    watched.check(last.revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_after_a_restart_with_a_clock_that_went_back() {
    let Some(installation) = Installation::start(Wrong::Both).await else {
        return;
    };
    let service = installation.service();
    let first = create_on(&service, inbound()).await;
    let observer = Observer::start(&service.endpoint, Start::AfterRevision(0)).await;
    observer.comes_to(micros(first.updated_at) + IDLE).await;
    let told = observer.read_time();
    drop((observer, service));
    // By more than a restart takes.
    installation.clock.set(-MINUTE);
    let service = installation.service();
    let after = create_on(&service, inbound()).await;
    assert_eq!(after.revision, first.revision + 1);
    let early = told - micros(after.updated_at);
    assert!(
        early <= 0,
        "changed {early} microseconds before a read_time that had been told"
    );
}
