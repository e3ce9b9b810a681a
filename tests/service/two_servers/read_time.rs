//! What a checkpoint says of the time, while a commit waits for the standby.

use std::time::Duration;

use tokio::{task::JoinSet, time::interval};

use super::{
    blocking,
    pair::{Pair, WAITING_FOR_STANDBY, count},
};
use crate::support::{
    create, eventually, inbound, micros,
    read_time::{Observer, Promise},
    server::{Process, client},
    watcher::live,
};

/// How long the standby is frozen: less than the service waits for a commit.
const HELD: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_time_is_true_while_a_commit_waits_for_the_standby() {
    let pair = Pair::synchronous().await;
    let replicas = [pair.service(), pair.service()];
    // So that no writer begins with a commit of its own.
    write_at_once(&replicas, 64).join_all().await;
    let mut observers = Vec::new();
    for replica in &replicas {
        for _ in 0..2 {
            observers.push(Observer::start(&replica.endpoint, live()).await);
        }
    }
    let first = pair.first().await;
    blocking(|| pair.second.pause());
    let waiting = write_at_once(&replicas, 4);
    eventually("a commit waits", async || {
        count(&first, WAITING_FOR_STANDBY).await > 0
    })
    .await;
    let mut ticks = interval(HELD);
    ticks.tick().await;
    ticks.tick().await;
    blocking(|| pair.second.resume());
    waiting.join_all().await;
    let last = create(&mut replicas[1].client(), inbound()).await;
    let mut promises = Vec::new();
    for observer in observers {
        observer.comes_to(micros(last.updated_at)).await;
        promises.push(observer.until(last.revision).await);
    }
    Promise::check(&promises);
}

/// Creates so many calls at once on each replica.
fn write_at_once(replicas: &[Process], count: usize) -> JoinSet<()> {
    let mut writing = JoinSet::new();
    for replica in replicas {
        for _ in 0..count {
            let mut client = client(&replica.endpoint);
            writing.spawn(async move { drop(create(&mut client, inbound()).await) });
        }
    }
    writing
}
