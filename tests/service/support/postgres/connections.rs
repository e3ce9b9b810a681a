//! What goes on in a database, seen from beside the service: what it holds, and which connections
//! the service has to it.

use std::process::Command;

use tokio_postgres::{Client, NoTls};

/// A plain connection, to look at the database behind the service's back.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("it is there");
    tokio::spawn(connection);
    client
}

/// How much a database holds: what must be the same before and after a request
/// that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) calls: i64,
    pub(crate) changes: i64,
    pub(crate) head: i64,
    pub(crate) records: i64,
}

/// What the database holds now.
pub(crate) async fn contents(database: &Client) -> Contents {
    let query = "SELECT (SELECT count(*) FROM voice_calls), \
        (SELECT count(*) FROM voice_call_changes), \
        (SELECT coalesce(max(revision), 0) FROM voice_call_changes), \
        (SELECT count(*) FROM idempotency_records)";
    let row = database.query_one(query, &[]).await.expect("it answers");
    Contents {
        calls: row.get(0),
        changes: row.get(1),
        head: row.get(2),
        records: row.get(3),
    }
}

/// How many statements of connections with this application_name run in the
/// database of `database`, waiting for a lock (true) or at all.
pub(crate) async fn running(database: &Client, application: &str, blocked: bool) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND application_name = $1 AND state = 'active' \
            AND (NOT $2 OR wait_event_type = 'Lock')";
    let row = database
        .query_one(query, &[&application, &blocked])
        .await
        .expect("it answers");
    row.get(0)
}

/// Keeps all commits waiting for as long as the transaction is open.
pub(crate) async fn hold_commits(database: &Client) {
    database
        .batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8642101, 1)")
        .await
        .expect("nobody commits now");
}

/// Waits until a commit waits, and returns the pid of its backend.
pub(crate) async fn waiting_backend(database: &Client) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity \
        WHERE wait_event = 'advisory' AND application_name = 'voicecall writer' \
        AND datname = current_database()";
    loop {
        if let Some(row) = database.query_opt(sql, &[]).await.expect("it answers") {
            return row.get(0);
        }
        tokio::task::yield_now().await;
    }
}

/// The backends of connections that follow the log.
pub(crate) async fn follower_backends(database: &Client) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name = 'voicecall follower' AND state = 'idle'";
    let rows = database.query(query, &[]).await.expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// A process that is stopped until this is dropped.
pub(crate) struct Stopped(i32);

impl Stopped {
    pub(crate) fn new(pid: i32) -> Self {
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(name: &str, pid: i32) {
    let mut kill = Command::new("kill");
    let status = kill.args([name, &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// The database that a connection string names.
pub(crate) fn database_of(url: &str) -> &str {
    url.rsplit_once("dbname=").expect("it is named").1
}
