//! The embedded PostgreSQL, with real servers, real kills and real accounts. This
//! file: its life when nothing kills it.

mod helper;
mod kills;
mod places;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process,
    time::{Duration, Instant},
};

use helper::{
    Helper, Scratch, add_value, command, eventually, exists, is_root, pids_in, postmaster, query,
    values,
};
use tokio_util::sync::CancellationToken;
use voicecall::postgres::{Error, Postgres, Settings};

async fn start(data_dir: &Path) -> Result<Postgres, Error> {
    Postgres::start(settings(data_dir), &CancellationToken::new()).await
}

fn settings(data_dir: &Path) -> Settings {
    Settings {
        data_dir: Some(data_dir.to_owned()),
        shared_buffers_mib: 16,
        ..Settings::default()
    }
}

async fn started(data_dir: &Path) -> Postgres {
    start(data_dir).await.expect("PostgreSQL starts")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn process_group(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("after the name");
    let group = rest.split(' ').nth(2).expect("state, parent, group");
    group.parse().expect("a number")
}

fn groups(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.expect("a line").trim().to_owned()
}

#[tokio::test]
async fn keeps_its_data() {
    let scratch = Scratch::new("keeps");
    let began = Instant::now();
    let postgres = started(scratch.data()).await;
    eprintln!("first start: {:?}", began.elapsed());
    add_value(postgres.database_url(), 1).await;

    let began = Instant::now();
    postgres.stop().await;
    eprintln!("stop: {:?}", began.elapsed());
    assert_eq!(postmaster(scratch.data()), None, "a clean stop");
    // PostgreSQL's logger ends a moment after the server, by the end of its input.
    let mut left: Vec<String> = pids_in(scratch.data()).into_iter().map(command).collect();
    left.retain(|command| !command.is_empty() && !command.contains("logger"));
    assert_eq!(left, [] as [String; 0]);

    let began = Instant::now();
    let postgres = started(scratch.data()).await;
    eprintln!("second start: {:?}", began.elapsed());
    assert_eq!(values(postgres.database_url()).await, ["1"]);
    postgres.stop().await;
}

#[tokio::test]
async fn is_durable_and_private() {
    let scratch = Scratch::new("private");
    let postgres = started(scratch.data()).await;
    for (setting, expected) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("listen_addresses", ""),
        ("jit", "off"),
        ("shared_buffers", "16MB"),
        ("logging_collector", "on"),
        ("TimeZone", "UTC"),
    ] {
        let shown = query(postgres.database_url(), &format!("SHOW {setting}")).await;
        assert_eq!(shown.expect("shown"), [expected], "{setting}");
    }
    for private in ["socket", "log", "postgres"] {
        assert_eq!(mode(&scratch.data().join(private)), 0o700, "{private}");
    }
    let server = postmaster(scratch.data()).expect("a server runs");
    assert_eq!(process_group(server), server, "Ctrl-C does not reach it");
    if is_root() {
        assert_eq!(groups(server), "", "root's groups are not kept");
    }
    postgres.stop().await;
}

#[tokio::test]
async fn refuses_a_second_instance_and_says_why() {
    let scratch = Scratch::new("second");
    let postgres = started(scratch.data()).await;
    let error = start(scratch.data()).await.expect_err("the first one runs");
    let Error::Locked { data_dir, holder } = &error else {
        panic!("refused for another reason: {error}");
    };
    assert_eq!(data_dir, scratch.data());
    assert_eq!(*holder, i32::try_from(process::id()).ok());
    let said = error.to_string();
    assert!(said.contains(&process::id().to_string()), "{said}");

    let mut other = Helper::start(scratch.data(), None);
    let refusal = other.says("refused ").await;
    assert!(refusal.contains("in use by another instance"), "{refusal}");

    assert_eq!(
        query(postgres.database_url(), "SELECT 1")
            .await
            .expect("unharmed"),
        ["1"]
    );
    postgres.stop().await;
    started(scratch.data()).await.stop().await;
}

#[tokio::test]
async fn stops_under_load() {
    let scratch = Scratch::new("load");
    let postgres = started(scratch.data()).await;
    let url = postgres.database_url().to_owned();
    let busy = query(&url, "SELECT pg_sleep(3600)");
    let stop = async {
        helper::sleeping_backend(&url).await;
        let began = Instant::now();
        postgres.stop().await;
        began.elapsed()
    };
    let (busy, took) = tokio::join!(busy, stop);
    assert!(busy.is_err(), "it was cut off");
    assert!(took < Duration::from_secs(20), "without patience: {took:?}");
    started(scratch.data()).await.stop().await;
}

#[tokio::test]
async fn a_dropped_one_stops_too() {
    let scratch = Scratch::new("dropped");
    let postgres = started(scratch.data()).await;
    let server = postmaster(scratch.data()).expect("a server runs");
    drop(postgres);
    eventually("the server is gone", async || !exists(server)).await;
    eventually("nothing is left", async || {
        pids_in(scratch.data()).is_empty()
    })
    .await;
}

#[tokio::test]
async fn reports_why_the_server_does_not_start() {
    let scratch = Scratch::new("why");
    started(scratch.data()).await.stop().await;
    let control = scratch.data().join("postgres/global/pg_control");
    fs::rename(&control, control.with_extension("away")).expect("moved");
    let began = Instant::now();
    let error = start(scratch.data()).await.expect_err("it cannot run");
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(error.to_string().contains("pg_control"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "without retries");
}

#[tokio::test]
async fn empties_a_log_that_has_grown_too_large() {
    let scratch = Scratch::new("log");
    started(scratch.data()).await.stop().await;
    let logs = fs::read_dir(scratch.data().join("log")).expect("a log directory");
    let log = logs.flatten().next().expect("a log").path();
    let file = fs::OpenOptions::new().write(true).open(&log);
    file.and_then(|file| file.set_len(64 << 20)).expect("grown");

    let postgres = started(scratch.data()).await;
    eventually("it is small again", async || {
        fs::metadata(&log).is_ok_and(|metadata| metadata.len() < 1 << 20)
    })
    .await;
    postgres.stop().await;
}
