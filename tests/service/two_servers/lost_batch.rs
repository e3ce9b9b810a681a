//! Commits in progress when a standby without the last changes is promoted, and
//! another replica writes beyond the lost revisions before this one can find out the
//! commit outcome. Such a write is applied once or not at all.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_postgres::Client as Database;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};
use voicecall::proto::{CreateVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall};

use super::{
    blocking,
    load::{create_request, create_until_known, transient_error},
    lost_tail::{change_some, has_all, print_pause},
    pair::{Pair, WAITING_FOR_STANDBY, count, serve, set},
};
use crate::support::{
    Client, create, eventually, get, inbound, ledger::check_ledger, postgres::connect, request_id,
    server::Process, writes::Write,
};

/// How many changes the standby lacks.
const LOST: i64 = 20;
/// How long the service may take to find out a commit outcome.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_under_way_at_the_failover_takes_place_once_or_not_at_all() {
    let what = "the primary is lost with the last changes and a batch in progress";
    let mut lost = LostTail::start().await;
    let writes = lost.batch_waits(&lost.pair.first_url()).await;
    let last_write = Instant::now();
    blocking(|| lost.pair.first.kill());
    let writable = lost.pair.promote().await;
    let mut another = lost.overtake().await;
    lost.make_reachable();
    lost.check(writes, &mut another).await;
    print_pause(what, last_write, writable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_below_the_lost_head_is_found_and_not_run_again() {
    let what = "the primary is lost with the last changes, then a commit's connection";
    let mut lost = LostTail::start().await;
    let last_write = Instant::now();
    blocking(|| lost.pair.first.kill());
    let writable = lost.pair.promote().await;
    lost.make_reachable();
    create_until_known(&mut lost.service.client(), &create_request(request_id())).await;
    print_pause(what, last_write, writable);

    // The batch is committed, its connection breaks before the response, and the
    // service cannot connect anew to find out.
    let second = lost.pair.second().await;
    let mut writes = lost.batch_waits(&lost.pair.second_url()).await;
    set(&second, "synchronous_standby_names", "nobody").await;
    // It takes a moment until commits wait: this one does as soon as any does.
    let probe = lost.pair.second().await;
    let probing = tokio::spawn(async move {
        let wait = "SET synchronous_commit = on";
        probe.batch_execute(wait).await.expect("it may");
        let commit = "SELECT pg_logical_emit_message(true, 'probe', 'x'::text)";
        while probe.batch_execute(commit).await.is_ok() {}
    });
    eventually("commits wait", async || {
        count(&second, "pg_stat_activity WHERE wait_event = 'SyncRep'").await > 0
    })
    .await;
    writes.release().await;
    eventually("the batch is committed", async || {
        count(&second, WAITING_FOR_STANDBY).await > 0
    })
    .await;
    lost.make_unreachable();
    // This takes effect at the restart: after a reload the commit would no longer
    // wait.
    let reset = "ALTER SYSTEM RESET synchronous_standby_names";
    second.batch_execute(reset).await.expect("it may");
    blocking(|| {
        lost.pair.second.kill();
        lost.pair.second.restart();
    });
    probing.await.expect("its connection is lost");
    let mut another = lost.overtake().await;
    lost.make_reachable();
    lost.check(writes, &mut another).await;
}

/// A service that has seen changes that the second server lacks.
struct LostTail {
    pair: Pair,
    service: Process,
    /// The directory by which the service reaches the second server's socket, while
    /// it exists.
    second_host: PathBuf,
    /// A call that both histories have.
    edited: VoiceCall,
    /// The replica that writes beyond the lost revisions.
    another: Option<Process>,
}

/// Writes of one batch, none of which has been answered.
struct Writes {
    sent: Vec<Sent>,
    /// Holds the lock that the batch waits for.
    lock_holder: Option<Database>,
}

/// A write, and the response to it.
struct Sent {
    write: Write,
    /// It has a request id, so it is safe to send it again.
    may_repeat: bool,
    response: AbortOnDropHandle<Result<Vec<VoiceCall>, Status>>,
}

impl Writes {
    /// Releases the lock, so that the batch is committed.
    async fn release(&mut self) {
        let holder = self.lock_holder.take().expect("once");
        holder.batch_execute("COMMIT").await.expect("it ends");
    }
}

impl LostTail {
    async fn start() -> Self {
        let pair = Pair::asynchronous().await;
        let second_host = pair.second.dir().join("reachable");
        let service = serve(&pair.url_with_second_at(&second_host.display().to_string()));
        let mut client = service.client();
        let edited = create(&mut client, inbound()).await;
        has_all(&pair, 1).await;
        pair.disconnect_standby().await;
        for number in 0..LOST {
            let call = std::slice::from_ref(&edited);
            change_some(&mut client, call, &format!("lost {number}")).await;
        }
        Self {
            pair,
            service,
            second_host,
            edited,
            another: None,
        }
    }

    /// Lets the service connect to the second server.
    fn make_reachable(&self) {
        let socket_dir = self.pair.second.dir();
        std::os::unix::fs::symlink(socket_dir, &self.second_host).expect("it was unreachable");
    }

    /// Keeps the service from connecting to the second server.
    fn make_unreachable(&self) {
        std::fs::remove_file(&self.second_host).expect("it was reachable");
    }

    /// Starts another replica, which changes the same call until it is beyond the lost
    /// revisions.
    async fn overtake(&mut self) -> Client {
        let another = serve(&self.pair.second_url());
        let mut client = another.client();
        for number in 0..=2 * LOST {
            let call = std::slice::from_ref(&self.edited);
            change_some(&mut client, call, &format!("another's {number}")).await;
        }
        self.another = Some(another);
        client
    }

    /// Sends writes that become one batch, and makes its commit wait for the commit
    /// lock of this database.
    async fn batch_waits(&self, url: &str) -> Writes {
        let [database, before, holder] =
            [connect(url).await, connect(url).await, connect(url).await];
        let waits = async |for_lock: i64| {
            count(&database, "pg_stat_activity WHERE wait_event = 'advisory'").await == for_lock
        };
        let lock = "BEGIN; SELECT pg_advisory_xact_lock(8642101, 1)";
        before.batch_execute(lock).await.expect("nobody commits");
        let mut client = self.service.client();
        let mut opener = client.clone();
        let opener = tokio::spawn(async move {
            create_until_known(&mut opener, &create_request(request_id())).await
        });
        eventually("a commit waits", async || waits(1).await).await;
        // It is next in the queue for the lock, ahead of the batch.
        let holder = tokio::spawn(async move {
            holder.batch_execute(lock).await.expect("it is its turn");
            holder
        });
        eventually("so does the holder of the next", async || waits(2).await).await;

        let sent = self.writes().map(|(write, may_repeat)| {
            let mut client = client.clone();
            let first = write.clone();
            let response = async move {
                let response = timeout(PATIENCE, first.send(&mut client)).await;
                response.expect("every write is answered in time")
            };
            Sent {
                write,
                may_repeat,
                response: AbortOnDropHandle::new(tokio::spawn(response)),
            }
        });
        // When this is answered, the writes before it on the same connection have
        // arrived.
        get(&mut client, &self.edited.uid)
            .await
            .expect("it is there");
        before.batch_execute("COMMIT").await.expect("it ends");
        opener.await.expect("no panic");
        let holder = holder.await.expect("no panic");
        eventually("the batch waits", async || waits(1).await).await;
        Writes {
            sent: sent.into(),
            lock_holder: Some(holder),
        }
    }

    /// Writes that fail, or leave a trace, when they are applied twice; and whether
    /// each has a request id.
    fn writes(&self) -> [(Write, bool); 4] {
        let create = |request_id| {
            Write::Create(CreateVoiceCallRequest {
                voice_call: Some(VoiceCall {
                    uid: uuid::Uuid::new_v4().to_string(),
                    ..inbound()
                }),
                request_id,
                ..Default::default()
            })
        };
        let update = Write::Update(UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: self.edited.uid.clone(),
                staff_uid: Some("ours".into()),
                call_summary: Some("ours".into()),
                ..VoiceCall::default()
            }),
            ..Default::default()
        });
        [
            (create(request_id()), true),
            (create(String::new()), false),
            (create(request_id()), true),
            (update, false),
        ]
    }

    /// Checks that each response is true, and that each write was applied at most
    /// once.
    async fn check(&self, writes: Writes, another: &mut Client) {
        let by_another = get(another, &self.edited.uid).await.expect("it is there");
        let mut acknowledged = Vec::new();
        let mut refused = Vec::new();
        for sent in writes.sent {
            let Sent {
                write, may_repeat, ..
            } = sent;
            match sent.response.await.expect("no panic") {
                Ok(calls) => acknowledged.extend(calls),
                Err(status) if is_unknown(&status) => {}
                Err(status) => refused.push(format!("{write:?}: {status:?}")),
            }
            if may_repeat {
                let (first, second) = (write.clone(), write);
                let first = send_until_known(first, &mut self.service.client()).await;
                let second = send_until_known(second, another).await;
                assert_eq!(first, second, "a request is answered as before");
                acknowledged.extend(first);
            }
        }
        assert!(
            refused.is_empty(),
            "refused although nothing else stood in their way: {refused:#?}"
        );
        let second = self.pair.second().await;
        check_ledger(&second, &acknowledged).await;
        let changes = "voice_call_changes WHERE call_summary = 'ours'";
        let times = count(&second, changes).await;
        assert!(times <= 1, "the update took place {times} times");
        let now = get(another, &self.edited.uid).await.expect("it is there");
        let sql = "SELECT coalesce(max(revision), 0) FROM voice_call_changes \
            WHERE call_summary = 'ours'";
        let ours: i64 = second.query_one(sql, &[]).await.expect("it answers").get(0);
        assert!(
            now == by_another || ours > by_another.revision && acknowledged_at(&acknowledged, ours),
            "the update overwrites another's: {now:?}"
        );
    }
}

/// Whether a write was acknowledged at this revision.
fn acknowledged_at(calls: &[VoiceCall], revision: i64) -> bool {
    calls.iter().any(|call| call.revision == revision)
}

/// Whether the error says that the commit outcome is unknown.
fn is_unknown(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown)
        && !transient_error(status).is_empty()
}

async fn send_until_known(write: Write, client: &mut Client) -> Vec<VoiceCall> {
    let mut answer = None;
    eventually("it is answered", async || {
        match write.clone().send(client).await {
            Ok(calls) => answer = Some(calls),
            Err(status) => {
                transient_error(&status);
            }
        }
        answer.is_some()
    })
    .await;
    answer.expect("it was waited for")
}
