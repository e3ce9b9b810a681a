//! A primary and its standby, and what is done to them.

use std::{path::Path, process::Command, sync::OnceLock};

use tokio::time::Instant;
use tokio_postgres::Client as Database;

use super::blocking;
use crate::support::{
    eventually,
    postgres::{Cluster, Durability, NO_FSYNC, connect, unprivileged_account},
    server::Process,
};

const PORT: u16 = 5432;

/// Two servers, the first of which is the primary at the beginning.
pub(super) struct Pair {
    pub(super) first: Cluster,
    pub(super) second: Cluster,
    database: String,
    /// The host by which the service reaches the first server.
    first_host: String,
}

impl Pair {
    /// A primary and its standby with synchronous replication.
    pub(super) async fn synchronous() -> Self {
        let pair = Self::asynchronous().await;
        pair.commits_wait_for_standby().await;
        pair
    }

    /// A primary and its standby with asynchronous replication.
    pub(super) async fn asynchronous() -> Self {
        let settings = |_: &Path| vec![NO_FSYNC.to_owned()];
        let first = blocking(|| Cluster::start_with(Durability::Durable, PORT, settings));
        let database = database_name(&first.database().await);
        let second = blocking(|| first.standby());
        let first_host = first.dir().display().to_string();
        Self {
            first,
            second,
            database,
            first_host,
        }
    }

    /// A primary with synchronous replication in a network namespace of its own, so
    /// that its packets can be dropped. `None`: this account cannot make namespaces.
    pub(super) async fn in_namespace() -> Option<(Self, Link)> {
        unprivileged_account()?;
        let link = Link::new();
        let first = blocking(|| {
            Cluster::start_in_namespace(PORT, |dir| {
                let hba = dir.join("hba");
                let trust = "local all all trust\nlocal replication all trust\n\
                    host all all all trust\nhost replication all all trust\n";
                std::fs::write(&hba, trust).expect("it is ours");
                vec![
                    NO_FSYNC.into(),
                    "listen_addresses=*".into(),
                    format!("hba_file={}", hba.display()),
                ]
            })
        });
        link.attach(&first);
        let database = database_name(&first.database().await);
        let primary = format!(
            "host={} port={PORT} user=voicecall dbname=postgres",
            link.namespace_address
        );
        let second = blocking(|| Cluster::standby_of(&primary, PORT));
        let pair = Self {
            first,
            second,
            database,
            first_host: link.namespace_address.clone(),
        };
        pair.commits_wait_for_standby().await;
        Some((pair, link))
    }

    async fn commits_wait_for_standby(&self) {
        let first = self.first().await;
        set(&first, "synchronous_standby_names", "*").await;
        eventually("the standby is synchronous", async || {
            count(&first, "pg_stat_replication WHERE sync_state = 'sync'").await == 1
        })
        .await;
    }

    /// The connection string with both hosts.
    pub(super) fn url(&self) -> String {
        self.url_with_second_at(&self.second.dir().display().to_string())
    }

    /// The same with another path to the second host's socket.
    pub(super) fn url_with_second_at(&self, second: &str) -> String {
        format!(
            "host={},{second} port={PORT} user=voicecall dbname={}",
            self.first_host, self.database
        )
    }

    /// The first host alone.
    pub(super) fn first_url(&self) -> String {
        self.first.url(&self.database)
    }

    /// The second host alone.
    pub(super) fn second_url(&self) -> String {
        self.second.url(&self.database)
    }

    /// Starts the service with both hosts.
    pub(super) fn service(&self) -> Process {
        serve(&self.url())
    }

    /// A connection to the first server behind the service's back.
    pub(super) async fn first(&self) -> Database {
        connect(&self.first_url()).await
    }

    /// A connection to the second server behind the service's back.
    pub(super) async fn second(&self) -> Database {
        connect(&self.second_url()).await
    }

    /// Promotes the second server; returns when it became writable.
    pub(super) async fn promote(&self) -> Instant {
        let second = self.second().await;
        second
            .batch_execute("SELECT pg_promote(wait => false)")
            .await
            .expect("it is a standby");
        eventually("the second server is writable", async || {
            let row = second.query_one("SELECT pg_is_in_recovery()", &[]).await;
            !row.expect("it answers").get::<_, bool>(0)
        })
        .await;
        Instant::now()
    }

    /// Ends the replication to the second server; returns its primary_conninfo.
    pub(super) async fn disconnect_standby(&self) -> String {
        let second = self.second().await;
        let row = second.query_one("SHOW primary_conninfo", &[]).await;
        let primary = row.expect("it answers").get(0);
        set(&second, "primary_conninfo", "").await;
        eventually("the standby receives no more", async || {
            count(&second, "pg_stat_wal_receiver").await == 0
        })
        .await;
        let first = self.first().await;
        eventually("the primary has no standby", async || {
            count(&first, "pg_stat_replication").await == 0
        })
        .await;
        primary
    }

    /// Resumes the replication to the second server.
    pub(super) async fn reconnect_standby(&self, primary: &str) {
        set(&self.second().await, "primary_conninfo", primary).await;
    }
}

fn database_name(url: &str) -> String {
    url.rsplit_once("dbname=").expect("it is named").1.into()
}

/// Starts the service with this connection string.
pub(super) fn serve(url: &str) -> Process {
    blocking(|| Process::start(&[("DATABASE_URL", url)]))
}

/// Changes a setting of the server.
pub(super) async fn set(database: &Database, name: &str, value: &str) {
    let quoted = value.replace('\'', "''");
    let sql = format!("ALTER SYSTEM SET {name} = '{quoted}'");
    // One statement at a time: ALTER SYSTEM cannot run in a transaction block.
    for sql in [sql.as_str(), "SELECT pg_reload_conf()"] {
        database.batch_execute(sql).await.expect("it may");
    }
    eventually("the setting is in force", async || {
        let sql = "SELECT current_setting($1)";
        let row = database.query_one(sql, &[&name]).await.expect("it answers");
        row.get::<_, &str>(0) == value
    })
    .await;
}

/// How many rows there are.
pub(super) async fn count(database: &Database, rows: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {rows}");
    database
        .query_one(&sql, &[])
        .await
        .expect("it answers")
        .get(0)
}

/// The service's backends that wait for a standby to confirm their commit.
pub(super) const WAITING_FOR_STANDBY: &str = "pg_stat_activity WHERE wait_event = 'SyncRep' \
    AND application_name LIKE 'voicecall%'";

/// The network between the test and a cluster in a namespace of its own.
pub(super) struct Link {
    host_address: String,
    namespace_address: String,
    /// A process in the namespace.
    holder: OnceLock<u32>,
}

impl Link {
    fn new() -> Self {
        // Unique among the test processes of this machine.
        let id = std::process::id();
        let net = format!("10.{}.{}", 200 + id / 256 % 50, id % 256);
        Self {
            host_address: format!("{net}.1"),
            namespace_address: format!("{net}.2"),
            holder: OnceLock::new(),
        }
    }

    fn attach(&self, cluster: &Cluster) {
        let holder = cluster.guardian_pid();
        self.holder.set(holder).expect("one cluster for each link");
        let id = std::process::id();
        let (near, far) = (format!("vc{id}a"), format!("vc{id}b"));
        let (host_network, namespace_network) = (
            format!("{}/30", self.host_address),
            format!("{}/30", self.namespace_address),
        );
        ip(&format!(
            "link add {near} type veth peer name {far} netns {holder}"
        ));
        ip(&format!("address add {host_network} dev {near}"));
        ip(&format!("link set {near} up"));
        self.ip_in_namespace(&format!("address add {namespace_network} dev {far}"));
        self.ip_in_namespace(&format!("link set {far} up"));
    }

    /// Silently drops every packet that the cluster sends, from now on.
    pub(super) fn drop_packets(&self) {
        self.ip_in_namespace(&format!("route add blackhole {}/32", self.host_address));
    }

    fn ip_in_namespace(&self, arguments: &str) {
        let holder = self.holder.get().expect("it is attached").to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &holder, "-n", "ip"]);
        run(command.args(arguments.split(' ')));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The kernel keeps the namespace, and the link with it, until it gives up the
        // last unacknowledged packet.
        let near = format!("vc{}a", std::process::id());
        let mut delete = Command::new("ip");
        // It does not exist if the test failed early.
        let _ = delete.args(["link", "delete", &near]).status();
    }
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let status = command.status().expect("iproute2 is installed");
    assert!(status.success(), "{command:?}");
}
