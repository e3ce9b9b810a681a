//! Where the data may be, and whose.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use voicecall::postgres::Error;

use super::{
    helper::{Helper, Scratch, add_value, exists, is_root, postmaster, values},
    start, started,
};

const NOBODY: u32 = 65534;

#[tokio::test]
async fn runs_as_an_ordinary_user() {
    let scratch = Scratch::new("ordinary");
    let home = scratch.root().join("home");
    let user = is_root().then_some(NOBODY);
    fs::create_dir(&home).expect("made");
    if user.is_some() {
        chown(&home, user, user).expect("given");
    }
    let owner = fs::metadata(&home).expect("there").uid();
    let data_dir = home.join("data");
    for round in 1..=2 {
        let mut service = Helper::start(&data_dir, user);
        let url = service.says("ready ").await;
        add_value(&url, round).await;
        let server = postmaster(&data_dir).expect("a server runs");
        let process = fs::metadata(format!("/proc/{server}")).expect("it runs");
        assert_eq!(process.uid(), owner);
        service.finish().await;
        assert!(!exists(server), "it stopped with the service");
    }
    if is_root() {
        // Root runs it as its owner, rather than take it away from him.
        let postgres = started(&data_dir).await;
        assert_eq!(values(postgres.database_url()).await, ["1", "2"]);
        postgres.stop().await;
    }
}

#[tokio::test]
async fn manages_with_paths_that_a_socket_cannot_have() {
    let scratch = Scratch::new("paths");
    let long = "l".repeat(100);
    for (name, elsewhere) in [
        ("it's a \"quoted\" \\ place", false),
        ("a,b", true),
        (&long, true),
    ] {
        let data_dir = scratch.data().join(name);
        let postgres = started(&data_dir).await;
        let url = postgres.database_url().to_owned();
        add_value(&url, 1).await;
        assert_eq!(values(&url).await, ["1"], "{name}");
        assert_eq!(postgres.data_dir(), data_dir);
        postgres.stop().await;

        let outside = url.split('\'').nth(1).filter(|_| elsewhere);
        assert_eq!(url.contains("/voicecall-"), elsewhere, "{url}");
        if let Some(dir) = outside {
            let mode = fs::metadata(dir).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            fs::remove_dir(dir).expect("empty after a clean stop");
        }
    }
}

#[tokio::test]
async fn refuses_what_is_not_its_cluster() {
    let scratch = Scratch::new("foreign");
    let cluster = scratch.data().join("postgres");
    fs::create_dir_all(&cluster).expect("made");
    fs::write(cluster.join("letter.txt"), "dear").expect("written");
    if is_root() {
        let error = start(scratch.data()).await.expect_err("it is root's");
        assert!(
            matches!(error, Error::WrongOwner { owner: 0, .. }),
            "{error}"
        );
        chown(&cluster, Some(NOBODY), Some(NOBODY)).expect("given");
    }
    let error = start(scratch.data()).await.expect_err("no cluster");
    assert!(matches!(error, Error::NotACluster { .. }), "{error}");
    fs::write(cluster.join("PG_VERSION"), "99\n").expect("written");
    let error = start(scratch.data()).await.expect_err("of the future");
    let of_the_future = matches!(error, Error::WrongMajor { needed: 99, .. });
    assert!(of_the_future, "{error}");
    assert!(cluster.join("letter.txt").exists(), "left as it was");
}

/// Root's own directories are closed to the account that root runs PostgreSQL as.
#[tokio::test]
async fn names_the_directory_that_is_closed_to_its_account() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("closed");
    let closed = scratch.root().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("closed");
    let error = start(&closed.join("data")).await.expect_err("unreachable");
    let Error::Unreachable { component, .. } = &error else {
        panic!("refused for another reason: {error}");
    };
    assert_eq!(component, &closed);
    assert!(!closed.join("data").exists(), "left as it was");

    // Named itself, and empty: as good as made by us.
    started(&closed).await.stop().await;
}
