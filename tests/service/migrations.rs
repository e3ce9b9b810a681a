//! Migrations: reversible, run once, and a database that is newer, or from before the first
//! release, is refused.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tokio::time::timeout;
use tokio_postgres::Client as Database;
use voicecall::{
    proto::VoiceCall,
    store::{self, Connector, OpenError},
};

use crate::support::{
    Server, create, inbound,
    postgres::{Cluster, binaries, connect},
    reference,
    server::settings,
};

/// What is in the database besides the record of its migrations.
async fn objects(database: &Database) -> Vec<String> {
    let sql = "SELECT kind || ' ' || name FROM ( \
        SELECT 'relation' AS kind, relname::text AS name FROM pg_class \
            WHERE relnamespace = 'public'::regnamespace \
        UNION ALL SELECT 'type', typname FROM pg_type \
            WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd', 'r') \
        UNION ALL SELECT 'function', proname FROM pg_proc \
            WHERE pronamespace = 'public'::regnamespace \
        UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || pg_get_constraintdef(oid) \
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
        UNION ALL SELECT 'column', attrelid::regclass || ' ' || attname || ' ' || \
            format_type(atttypid, atttypmod) || ' ' || attnotnull \
            FROM pg_attribute JOIN pg_class c ON c.oid = attrelid \
            WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped \
        ) o WHERE name NOT LIKE '%diesel_schema_migrations%' ORDER BY 1";
    let rows = database.query(sql, &[]).await.expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The schema as `pg_dump` writes it.
fn dumped_schema(url: &str) -> String {
    let dump = Command::new(binaries().join("pg_dump"))
        .args(["--schema-only", url])
        .output()
        .expect("it can be run");
    assert!(dump.status.success(), "{dump:?}");
    let schema = String::from_utf8(dump.stdout).expect("UTF-8");
    // Newer releases begin and end with a token that is another in each dump.
    let is_schema =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    let lines: Vec<&str> = schema.lines().filter(is_schema).collect();
    lines.join("\n")
}

/// The migrations in the order in which they run: the version and the
/// directory.
fn migrations() -> Vec<(String, PathBuf)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut found: Vec<_> = fs::read_dir(root)
        .expect("it is there")
        .map(|entry| {
            let entry = entry.expect("it can be read");
            let name = entry.file_name().into_string().expect("ASCII");
            let version = name.split('_').next().unwrap_or_default().replace('-', "");
            (version, entry.path())
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn every_migration_can_be_undone_and_run_again() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let connector = Connector::new(&url).expect("valid");
    let before = dumped_schema(&url);
    assert!(
        before.contains("FUNCTION public.commit_batch_v1"),
        "{before}"
    );
    for (version, dir) in migrations().into_iter().rev() {
        let down = fs::read_to_string(dir.join("down.sql")).expect("it is there");
        database
            .batch_execute(&down)
            .await
            .unwrap_or_else(|error| panic!("{version}: {error:?}"));
        let sql = "DELETE FROM __diesel_schema_migrations WHERE version = $1";
        let gone = database
            .execute(sql, &[&version])
            .await
            .expect("it answers");
        assert_eq!(gone, 1, "{version} had run");
    }
    assert_eq!(objects(&database).await, Vec::<String>::new());
    let run = store::migrate(&connector).await.expect("they run again");
    assert_eq!(run, migrations().len());
    assert_eq!(dumped_schema(&url), before);
    assert_eq!(store::migrate(&connector).await.expect("nothing to do"), 0);
    let server = Server::start_on(&url, settings()).await;
    create(&mut server.client(), reference()).await;
}

#[tokio::test]
async fn a_database_that_is_newer_than_the_program_is_refused() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000001')";
    database.batch_execute(sql).await.expect("it is new");
    let connector = Connector::new(&url).expect("valid");
    let before = objects(&database).await;
    for result in [
        store::migrate(&connector).await.map(drop),
        store::check_migrations(&connector).await,
    ] {
        let error = result.expect_err("it is newer");
        assert!(
            matches!(&error, OpenError::NewerDatabase(version) if version == "99991231000001"),
            "{error}"
        );
    }
    let (server, ready) = Server::launch(&url, settings()).await;
    let ended = server.running.await.expect("no panic");
    assert!(
        ended
            .expect_err("it refuses")
            .to_string()
            .contains("99991231000001")
    );
    assert!(ready.await.is_err(), "it was never ready");
    assert_eq!(objects(&database).await, before);
}

#[tokio::test]
async fn a_database_from_before_the_first_release_is_refused_with_what_to_do() {
    let cluster = Cluster::shared().await;
    let name = format!("prerelease_{}", std::process::id());
    let postgres = connect(&cluster.url("postgres")).await;
    let sql = format!("CREATE DATABASE {name}");
    postgres.batch_execute(&sql).await.expect("the name is new");
    let url = cluster.url(&name);
    let database = connect(&url).await;
    // What such a program left: the versions of its migrations, and its tables.
    let sql = "CREATE TABLE __diesel_schema_migrations ( \
            version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now()); \
        INSERT INTO __diesel_schema_migrations (version) \
            VALUES ('20261125000010'), ('20261123000001'), ('20261127000011'); \
        CREATE TABLE voice_calls (uid uuid PRIMARY KEY)";
    database.batch_execute(sql).await.expect("it is new");
    let connector = Connector::new(&url).expect("valid");
    let before = objects(&database).await;
    for result in [
        store::migrate(&connector).await.map(drop),
        store::check_migrations(&connector).await,
    ] {
        let error = result.expect_err("it is from before the first release");
        assert!(
            matches!(&error, OpenError::PrereleaseDatabase(version) if version == "20261123000001"),
            "{error}"
        );
    }
    let (server, _ready) = Server::launch(&url, settings()).await;
    let ended = server.running.await.expect("no panic");
    let refusal = ended.expect_err("it refuses").to_string();
    for words in [
        "before the first release",
        "`voicecall export`",
        "new database",
        "`voicecall import`",
    ] {
        assert!(refusal.contains(words), "{refusal}");
    }
    assert_eq!(objects(&database).await, before);
}

#[tokio::test]
async fn without_migrate_a_database_that_lacks_migrations_is_refused() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let (version, dir) = migrations().pop().expect("there are some");
    let down = fs::read_to_string(dir.join("down.sql")).expect("it is there");
    database.batch_execute(&down).await.expect("it is undone");
    let sql = "DELETE FROM __diesel_schema_migrations WHERE version = $1";
    database
        .execute(sql, &[&version])
        .await
        .expect("it answers");
    let mut careful = settings();
    careful.migrate = false;
    let (server, _ready) = Server::launch(&url, careful).await;
    let ended = server.running.await.expect("no panic");
    assert!(
        ended
            .expect_err("it refuses")
            .to_string()
            .contains("1 migrations have not been run")
    );
    // With it, they run.
    let server = Server::start_on(&url, settings()).await;
    create(&mut server.client(), reference()).await;
}

/// How many calls of a member of staff the index finds.
async fn found_by_index(database: &Database) -> i64 {
    let sql = "SELECT count(*) FROM voice_calls \
        WHERE hashtextextended(staff_uid, 0) = hashtextextended('ann', 0)";
    let row = database.query_one(sql, &[]).await.expect("it answers");
    row.get(0)
}

#[tokio::test]
async fn indexes_that_another_postgresql_has_hashed_are_refused_or_built_anew() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let setup = "SET enable_seqscan = off; UPDATE pg_index SET indisready = false \
        WHERE indexrelid = 'voice_calls_by_staff'::regclass";
    database.batch_execute(setup).await.expect("we may");
    let server = Server::start_on(&url, settings()).await;
    let call = VoiceCall {
        staff_uid: Some("ann".into()),
        ..inbound()
    };
    create(&mut server.client(), call).await;
    server.stop().await;
    // As after an upgrade: what was hashed before is there, where nobody looks for it.
    let upgrade = "UPDATE pg_index SET indisready = true \
            WHERE indexrelid = 'voice_calls_by_staff'::regclass; \
        UPDATE text_key_sample SET text = 'hashed in another way'";
    database.batch_execute(upgrade).await.expect("we may");
    assert_eq!(found_by_index(&database).await, 0);

    let mut careful = settings();
    careful.migrate = false;
    let (server, _ready) = Server::launch(&url, careful).await;
    let ended = timeout(Duration::from_secs(20), server.running).await;
    let ended = ended.expect("it refuses").expect("no panic");
    let error = ended.expect_err("it refuses").to_string();
    let says = ["voice_calls_by_staff", "voicecall migrate"].map(|word| error.contains(word));
    assert_eq!(says, [true; 2], "{error}");
    assert_eq!(found_by_index(&database).await, 0);

    let connector = Connector::new(&url).expect("valid");
    store::migrate(&connector).await.expect("it builds them");
    assert_eq!(found_by_index(&database).await, 1);
    let server = Server::start_on(&url, careful).await;
    create(&mut server.client(), inbound()).await;
}

#[tokio::test]
async fn servers_that_start_together_on_an_empty_database_all_serve() {
    let cluster = Cluster::shared().await;
    let name = format!("empty_{}", std::process::id());
    let postgres = connect(&cluster.url("postgres")).await;
    let sql = format!("CREATE DATABASE {name}");
    postgres.batch_execute(&sql).await.expect("the name is new");
    let url = cluster.url(&name);
    let start = || Server::start_on(&url, settings());
    let servers = tokio::join!(start(), start(), start());
    for server in [servers.0, servers.1, servers.2] {
        let call = VoiceCall {
            uid: String::new(),
            ..reference()
        };
        create(&mut server.client(), call).await;
    }
}
