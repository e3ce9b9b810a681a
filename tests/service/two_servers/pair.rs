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
    /// How the service reaches the first.
    first_host: String,
}

impl Pair {
    /// A primary whose commits wait for its standby.
    pub(super) async fn synchronous() -> Self {
        let pair = Self::asynchronous().await;
        pair.commits_wait_for_standby().await;
        pair
    }

    /// A primary whose commits do not wait for its standby.
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

    /// A primary whose commits wait for its standby, and that both the standby and
    /// the service reach by a network that can be cut. `None`: this account cannot
    /// make networks.
    pub(super) async fn apart() -> Option<(Self, Link)> {
        unprivileged_account()?;
        let link = Link::new();
        let first = blocking(|| {
            Cluster::start_apart(PORT, |dir| {
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
            link.far
        );
        let second = blocking(|| Cluster::standby_of(&primary, PORT));
        let pair = Self {
            first,
            second,
            database,
            first_host: link.far.clone(),
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

    /// Both hosts, as operators name them to the service.
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

    /// The service, on both hosts.
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

    /// Promotes the second server; since when it is writable.
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

    /// Stops the second server from receiving anything; what it is.
    pub(super) async fn cut(&self) -> String {
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

    /// Lets the second server receive again from where it was cut off.
    pub(super) async fn mend(&self, primary: &str) {
        set(&self.second().await, "primary_conninfo", primary).await;
    }
}

fn database_name(url: &str) -> String {
    url.rsplit_once("dbname=").expect("it is named").1.into()
}

/// The service on this database.
pub(super) fn serve(url: &str) -> Process {
    blocking(|| Process::start(&[("DATABASE_URL", url)]))
}

/// Changes a setting of the server.
pub(super) async fn set(database: &Database, name: &str, value: &str) {
    let quoted = value.replace('\'', "''");
    let sql = format!("ALTER SYSTEM SET {name} = '{quoted}'");
    // Not in one transaction, which ALTER SYSTEM does not allow.
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

/// Commits of the service that wait for a standby.
pub(super) const WAITING_FOR_STANDBY: &str = "pg_stat_activity WHERE wait_event = 'SyncRep' \
    AND application_name LIKE 'voicecall%'";

/// The network between the test and a cluster that lives apart.
pub(super) struct Link {
    near: String,
    far: String,
    /// The cluster's process that holds its end.
    holder: OnceLock<u32>,
}

impl Link {
    fn new() -> Self {
        // Of this process alone, among all tests on the machine.
        let id = std::process::id();
        let net = format!("10.{}.{}", 200 + id / 256 % 50, id % 256);
        Self {
            near: format!("{net}.1"),
            far: format!("{net}.2"),
            holder: OnceLock::new(),
        }
    }

    fn attach(&self, cluster: &Cluster) {
        let holder = cluster.guardian_pid();
        self.holder.set(holder).expect("one cluster for each link");
        let id = std::process::id();
        let (near, far) = (format!("vc{id}a"), format!("vc{id}b"));
        let (near_net, far_net) = (format!("{}/30", self.near), format!("{}/30", self.far));
        ip(&format!(
            "link add {near} type veth peer name {far} netns {holder}"
        ));
        ip(&format!("address add {near_net} dev {near}"));
        ip(&format!("link set {near} up"));
        self.ip_there(&format!("address add {far_net} dev {far}"));
        self.ip_there(&format!("link set {far} up"));
    }

    /// From now on nothing that leaves the cluster arrives, and nobody is told.
    pub(super) fn swallow(&self) {
        self.ip_there(&format!("route add blackhole {}/32", self.near));
    }

    fn ip_there(&self, arguments: &str) {
        let holder = self.holder.get().expect("it is attached").to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &holder, "-n", "ip"]);
        run(command.args(arguments.split(' ')));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The namespace would take it along only when its last packet is given up.
        let near = format!("vc{}a", std::process::id());
        let mut delete = Command::new("ip");
        // It may not have been made.
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
