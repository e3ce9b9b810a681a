//! The storm: many clients on two replicas under random faults of the database and of
//! the network before it. No acknowledged write is lost or applied twice, every
//! repeated request gets the same response, every watcher sees every change once, no
//! response is INTERNAL, and everything works again soon after the last fault.
//!
//! Environment variables:
//! - `VOICECALL_TEST_SECONDS`: how long it runs, 10 seconds by default;
//! - `VOICECALL_STORM_FAULTS`: a list of the faults to inject (see `support/faults.rs`),
//!   "none" for a quiet run, all by default;
//! - `VOICECALL_STORM_SEED`: the seed of all random choices, printed at the start.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    history::final_log,
    support::{
        faults::Faults,
        history::FinalLog,
        load::{CLIENTS, Load, TOO_LATE, busy_time},
        postgres::{Cluster, Durability},
        proxy::Proxy,
        server::Process,
        storm::{
            PATIENCE, Watchers, check_watched, checked, ledger_head, recover, repeat_requests, seed,
        },
        tally::Tally,
    },
};

/// The connection slots of the database: enough for two replicas, and soon taken.
const SLOTS: u32 = 100;
/// How soon everything must work again after the last fault.
const RECOVERY: Duration = Duration::from_secs(15);

/// One database, and two replicas that each reach it through a proxy.
struct Deployment {
    cluster: Cluster,
    database: String,
    proxies: [Arc<Proxy>; 2],
    replicas: [Process; 2],
}

impl Deployment {
    async fn start() -> Self {
        let settings = |_: &std::path::Path| vec![format!("max_connections={SLOTS}")];
        let cluster = Cluster::start_with(Durability::Durable, 5432, settings);
        let url = cluster.database().await;
        let database = url.rsplit_once("dbname=").expect("it is named").1;
        let proxies = [1, 2].map(|_| Arc::new(Proxy::start(&cluster)));
        let port = proxies[1].tcp_port();
        let urls = [
            proxies[0].url(database),
            format!("host=127.0.0.1 port={port} user=voicecall dbname={database}"),
        ];
        Self {
            database: database.to_owned(),
            replicas: urls.map(|url| Process::start(&[("DATABASE_URL", &url)])),
            cluster,
            proxies,
        }
    }

    fn endpoints(&self) -> [&str; 2] {
        [&self.replicas[0].endpoint, &self.replicas[1].endpoint]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_database_nothing_acknowledged_is_lost_or_done_twice() {
    let seed = seed();
    let tally = Arc::new(Tally::default());
    let mut deployment = Deployment::start().await;
    let watchers = Watchers::start(deployment.endpoints(), &tally);
    let load = Load::start(deployment.endpoints(), CLIENTS, seed, &tally);
    let faults = Faults::start(
        &deployment.cluster,
        &deployment.database,
        &deployment.proxies,
        seed,
        &tally,
    )
    .await;
    sleep(busy_time()).await;
    faults.stop().await;
    recover(deployment.endpoints(), RECOVERY, &tally).await;
    let observed = load.finish(PATIENCE).await;
    for replica in &mut deployment.replicas {
        let ended = replica.child.try_wait().expect("it is our child");
        if let Some(status) = ended {
            tally.violation("a replica that ended", || status.to_string());
        }
    }
    observed.check_revisions(&tally);
    let url = deployment.cluster.url(&deployment.database);
    let head = ledger_head(&url, observed.states(), &tally).await;
    repeat_requests(deployment.endpoints(), observed, &tally).await;
    let after = ledger_head(&url, Vec::new(), &tally).await;
    if head.is_some() && head != after {
        tally.violation("repeated requests that write", || {
            format!("{head:?}, {after:?}")
        });
    }
    let log = checked(&tally, "a wrong log", async move {
        FinalLog::new(final_log(&url).await)
    })
    .await;
    let watched = watchers.finish(log.as_ref().map(FinalLog::head)).await;
    if let Some(log) = &log {
        check_watched(log, &watched, &tally);
    }
    let too_late = tally.count(TOO_LATE);
    if too_late > 0 {
        tally.violation("a log that does not reach back", || too_late.to_string());
    }
    tally.assert_no_violation();
    println!("{tally}");
    let writes = tally.count("writes acknowledged");
    assert!(
        writes > 200,
        "too little happened to prove anything: {writes} writes"
    );
}
