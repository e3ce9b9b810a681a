//! A database without transaction ids refuses writes until it has been vacuumed: so does the
//! service, which says so, and goes on to read.

use std::{
    fs::File,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
    time::Duration,
};

use tokio_postgres::Client as Database;
use tonic::Code;

use super::{PATIENCE, create_within, send};
use crate::support::{
    Server, create, eventually, facts, get, inbound,
    postgres::{Cluster, Durability, binaries, connect, unprivileged_account},
    server::settings,
    writes::{create_of, update_of},
};

/// PostgreSQL keeps the last ids before its oldest one for mending.
const KEPT: u32 = 3_000_000;
/// Ids in a file that says what became of them, and the file's length.
const IDS_IN_FILE: u32 = 1 << 20;
const FILE_LEN: u64 = 256 * 1024;

/// Ids that are left to begin with.
const LEFT: u32 = 50_000;

/// Each of these subtransactions takes one.
const USE_UP: &str = "CREATE TEMPORARY TABLE used (i integer); \
    DO $$ BEGIN LOOP \
        BEGIN INSERT INTO used VALUES (1); EXCEPTION WHEN division_by_zero THEN NULL; END; \
    END LOOP; END $$";

/// Has the cluster, which is shut down, go on where only a few ids are left.
fn use_up_ids(cluster: &Cluster, oldest: u32) {
    let data = cluster.dir().join("data");
    let next = oldest.wrapping_add(i32::MAX.unsigned_abs() - KEPT - LEFT);
    let file = data.join(format!("pg_xact/{:04X}", next / IDS_IN_FILE));
    let made = File::create(&file).and_then(|file| file.set_len(FILE_LEN));
    made.expect("it is ours");
    let mut reset = Command::new(binaries().join("pg_resetwal"));
    reset.args(["-f", "-x", &next.to_string(), "-D"]).arg(&data);
    reset.current_dir("/");
    if let Some((uid, gid)) = unprivileged_account() {
        chown(&file, Some(uid), Some(gid)).expect("root may");
        reset.uid(uid).gid(gid);
    }
    let output = reset.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

async fn oldest_id(database: &Database) -> u32 {
    let query = "SELECT oldest_xid::text FROM pg_control_checkpoint()";
    let row = database.query_one(query, &[]).await.expect("it answers");
    row.get::<_, String>(0).parse().expect("a number")
}

#[tokio::test]
async fn a_database_without_transaction_ids_is_unavailable_to_writes_until_it_is_vacuumed() {
    let cluster = Cluster::start_with(Durability::Fast, 5432, |_: &Path| {
        ["wal_level=logical", "autovacuum_naptime=1s"]
            .map(str::to_owned)
            .into()
    });
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    // Autovacuum would free ids at once.
    let before = connect(&url).await;
    let hold = "SELECT pg_create_logical_replication_slot('hold', 'pgoutput')";
    before.batch_execute(hold).await.expect("it is new");
    let oldest = oldest_id(&before).await;
    cluster.shut_down();
    use_up_ids(&cluster, oldest);
    cluster.restart();

    eventually("reads go on", async || {
        get(&mut client, &call.uid).await.is_ok()
    })
    .await;
    // A session that has committed, and one that is made when there are no ids.
    let database = connect(&url).await;
    eventually("writes go on", async || {
        create_within(&mut client, PATIENCE).await.is_ok()
    })
    .await;
    let used_up = database.batch_execute(USE_UP).await;
    let code = used_up.expect_err("they are few").code().cloned();
    assert_eq!(code.expect("it answers").code(), "54000");
    let mut refused = Vec::new();
    for write in [create_of(inbound()), update_of(call.clone())] {
        let write = send(&mut client, &write).await;
        refused.push(write.expect_err("there are no ids"));
    }
    for status in refused {
        let (code, reason, _) = facts(&status);
        let told = (code, reason.as_str());
        assert_eq!(
            told,
            (Code::Unavailable, "DATABASE_UNAVAILABLE"),
            "{status:?}"
        );
    }
    let in_time = Duration::from_secs(3);
    let status = create_within(&mut client, in_time).await;
    let status = status.expect_err("there are no ids");
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    get(&mut client, &call.uid).await.expect("reads go on");

    let release = "SELECT pg_drop_replication_slot('hold')";
    database.batch_execute(release).await.expect("it is there");
    eventually("writes go on", async || {
        create_within(&mut client, in_time).await.is_ok()
    })
    .await;
}
