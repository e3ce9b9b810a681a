//! The primary is killed and restarted while its standby, which is behind, accepts
//! connections.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::{
    blocking,
    load::{create_request, create_until_known},
    pair::{Pair, count},
    reads::{READS, assert_seen},
};
use crate::support::{create, eventually, inbound, request_id};

/// How long clients read while the primary is down.
const OUTAGE: Duration = Duration::from_secs(2);
/// Enough for each thread of the service to serve some of them.
const CONNECTIONS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_show_what_was_acknowledged_after_the_primary_was_restarted() {
    let what = "the primary is restarted beside its standby";
    let pair = Pair::asynchronous().await;
    let service = pair.service();
    let before = create(&mut service.client(), inbound()).await;
    let second = pair.second().await;
    eventually("the standby has the first call", async || {
        count(&second, "voice_calls").await == 1
    })
    .await;
    second
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .expect("it is a standby");

    let clients: Vec<_> = (0..CONNECTIONS).map(|_| service.client()).collect();
    let last_write = Instant::now();
    blocking(|| pair.first.kill());
    // Sessions that broke are replaced, possibly by sessions on the standby.
    let deadline = Instant::now() + OUTAGE;
    let mut looks = interval(Duration::from_millis(50));
    while Instant::now() < deadline {
        looks.tick().await;
        for client in &clients {
            for read in READS {
                let mut client = client.clone();
                // With the primary down, any response will do.
                let _ = read.revision(&mut client, &before.uid, 0).await;
            }
        }
    }
    blocking(|| pair.first.restart());
    let writable = Instant::now();

    let mut first_write = None;
    for mut client in clients {
        let request = create_request(request_id());
        let call = create_until_known(&mut client, &request).await;
        first_write.get_or_insert_with(Instant::now);
        assert_seen(&mut client, &call).await;
    }
    let first_write = first_write.expect("there was one");
    println!(
        "{what}: no writes for {:.2} s, of which {:.2} s with a writable server",
        (first_write - last_write).as_secs_f64(),
        (first_write - writable).as_secs_f64(),
    );
}
