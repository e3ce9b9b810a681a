//! Settings that an operator gives a role or a database: each session sets what
//! it relies on.

use std::time::Duration;

use tokio::time::{interval, timeout};
use tokio_postgres::Client as Database;
use voicecall::proto::VoiceCall;

use super::{PATIENCE, assert_first_requests, assert_passing, create_within, send, warm_clients};
use crate::support::{
    Server, create, eventually, inbound,
    ledger::check_ledger,
    postgres::{Cluster, connect, database_of, hold_commits, waiting_backend},
    reads::{assert_answered, every_read},
    server::settings,
    writes::{batch_of, delete_of, handle_of, purge_of, undelete_of, update_of},
};

/// Time enough for any session to be told of a settings change.
const A_FEW_SECONDS: Duration = Duration::from_secs(5);

/// A new database and a role with these settings; the role's connection string
/// and that of a user without any.
async fn role_with(settings: &[&str]) -> (String, String) {
    let plain = Cluster::shared().await.database().await;
    let role = format!("role_of_{}", database_of(&plain));
    let database = connect(&plain).await;
    let create = format!("CREATE ROLE {role} SUPERUSER LOGIN");
    database.batch_execute(&create).await.expect("it is new");
    for setting in settings {
        let sql = format!("ALTER ROLE {role} SET {setting}");
        database.batch_execute(&sql).await.expect(setting);
    }
    let url = plain.replace("user=voicecall", &format!("user={role}"));
    (url, plain)
}

/// A server of this role, which starts in spite of it.
async fn start(url: &str) -> Server {
    let (server, ready) = Server::launch(url, settings()).await;
    let ready = timeout(PATIENCE, ready).await;
    ready.expect("it starts in time").expect("it starts");
    server
}

#[tokio::test]
async fn writes_are_back_after_every_read_only_window_without_a_restart() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let name = database_of(&server.database_url);
    let mut acknowledged = vec![create(&mut client, inbound()).await];
    for window in 1..=3 {
        let sql = format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name LIKE 'voicecall %'"
        );
        database.batch_execute(&sql).await.expect("it is closed");
        // Each of the service's sessions is made anew meanwhile.
        let mut pause = interval(Duration::from_millis(10));
        for _ in 0..30 {
            pause.tick().await;
            let answer = create_within(&mut client, PATIENCE).await;
            assert_passing(&answer, "in the window");
            acknowledged.extend(answer);
        }
        let sql = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
        database.batch_execute(&sql).await.expect("it is open");
        let twenty_in_a_row = async {
            let mut in_a_row = 0;
            while in_a_row < 20 {
                pause.tick().await;
                let answer = create_within(&mut client, PATIENCE).await;
                assert_passing(&answer, "after the window");
                in_a_row = if answer.is_ok() { in_a_row + 1 } else { 0 };
                acknowledged.extend(answer);
            }
        };
        let back = timeout(A_FEW_SECONDS, twenty_in_a_row).await;
        assert!(back.is_ok(), "writes are refused after window {window}");
    }
    check_ledger(&database, &acknowledged).await;
}

#[tokio::test]
async fn a_server_outwaits_another_that_migrates_whatever_time_limits_its_role_has() {
    for limit in ["statement_timeout = '200ms'", "lock_timeout = '200ms'"] {
        let (url, plain) = role_with(&[limit]).await;
        let migrating = connect(&plain).await;
        let lock = "SELECT pg_advisory_lock(8642101, 2)";
        migrating.batch_execute(lock).await.expect("it is free");
        let (mut server, ready) = Server::launch(&url, settings()).await;
        let ended = timeout(Duration::from_secs(2), &mut server.running).await;
        assert!(ended.is_err(), "{limit} has ended it: {ended:?}");
        let unlock = "SELECT pg_advisory_unlock(8642101, 2)";
        migrating.batch_execute(unlock).await.expect("it is held");
        let ready = timeout(PATIENCE, ready).await;
        ready.expect("it starts in time").expect("it starts");
        create(&mut server.client(), inbound()).await;
    }
}

#[tokio::test]
async fn no_request_fails_because_its_session_was_idle() {
    let (url, plain) = role_with(&["idle_session_timeout = '200ms'"]).await;
    let server = start(&url).await;
    let (mut clients, call) = warm_clients(&server).await;
    let look = connect(&plain).await;
    for _ in 0..3 {
        let are_idle = async || {
            let sql = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name IN ('voicecall reader', \
                    'voicecall writer', 'voicecall lists', 'voicecall plain lists') \
                AND state_change > clock_timestamp() - interval '500 ms'";
            let row = look.query_one(sql, &[]).await.expect("it answers");
            row.get::<_, i64>(0) == 0
        };
        eventually("all sessions are idle or gone", are_idle).await;
        assert_first_requests(&mut clients, &call, "after a while").await;
    }
}

/// Ends the transaction, later than any of `SHORT_LIMITS` allows.
async fn hold_for_longer(holder: &Database) {
    let mut ticks = interval(Duration::from_millis(100));
    for _ in 0..7 {
        ticks.tick().await;
    }
    holder.batch_execute("COMMIT").await.expect("it ends");
}

const SHORT_LIMITS: [&str; 4] = [
    "statement_timeout = '200ms'",
    "lock_timeout = '200ms'",
    "idle_in_transaction_session_timeout = '200ms'",
    "deadlock_timeout = '10ms'",
];

#[tokio::test]
async fn a_write_waits_for_its_turn_whatever_time_limits_its_role_has() {
    let (url, plain) = role_with(&SHORT_LIMITS).await;
    let server = start(&url).await;
    let (holder, look) = (connect(&plain).await, connect(&plain).await);
    hold_commits(&holder).await;
    let mut client = server.client();
    let (created, ()) = tokio::join!(create_within(&mut client, PATIENCE), async {
        waiting_backend(&look).await;
        hold_for_longer(&holder).await;
    });
    created.expect("it has waited");
    assert_eq!(check_ledger(&look, &[]).await, 1);
}

#[tokio::test]
async fn reads_wait_for_a_lock_until_their_deadline_whatever_time_limits_their_role_has() {
    let (url, plain) = role_with(&SHORT_LIMITS).await;
    let server = start(&url).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    let (holder, look) = (connect(&plain).await, connect(&plain).await);
    let lock = "BEGIN; LOCK TABLE voice_calls, voice_call_changes IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.expect("it is free");
    let (answers, ()) = tokio::join!(every_read(&client, &call.uid), async {
        let wait = async || {
            let sql = "SELECT count(DISTINCT application_name) FROM pg_stat_activity \
                WHERE wait_event_type = 'Lock' AND datname = current_database() \
                AND application_name IN ('voicecall reader', 'voicecall lists', 'voicecall log')";
            let row = look.query_one(sql, &[]).await.expect("it answers");
            row.get::<_, i64>(0) == 3
        };
        eventually("reads of each kind wait", wait).await;
        hold_for_longer(&holder).await;
    });
    assert_answered(&answers, "after the lock");
}

/// None of these is the service's business.
const PECULIAR: [&str; 19] = [
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "client_encoding = 'LATIN1'",
    "client_min_messages = error",
    "extra_float_digits = -15",
    "bytea_output = escape",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "array_nulls = off",
    "row_security = off",
    "quote_all_identifiers = on",
    "check_function_bodies = off",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "default_transaction_isolation = serializable",
    "synchronous_commit = off",
    "idle_in_transaction_session_timeout = '1ms'",
    "lock_timeout = '1s'",
];

#[tokio::test]
async fn peculiar_settings_of_a_role_change_no_answer() {
    let (url, plain) = role_with(&PECULIAR).await;
    let server = start(&url).await;
    let mut client = server.client();
    let call = VoiceCall {
        staff_uid: Some("staff".into()),
        call_summary: Some("Zoë's \\ 'call' — 呼び出し".into()),
        duration: Some(61),
        ..inbound()
    };
    let first = create(&mut client, call.clone()).await;
    let second = create(&mut client, call.clone()).await;
    for write in [
        update_of(VoiceCall {
            duration: Some(62),
            ..first.clone()
        }),
        handle_of(&first.uid, "other"),
        delete_of(&first.uid, false),
        undelete_of(&first.uid),
        batch_of(vec![call.clone(), call]),
        purge_of(&second.uid),
    ] {
        let answer = send(&mut client, &write).await.expect("it is accepted");
        let again = send(&mut client, &write).await.expect("it is known");
        assert_eq!(again, answer, "a repeat");
    }
    let peculiar = every_read(&client, &first.uid).await;
    let ordinary = Server::start_on(&plain, settings()).await;
    let expected = every_read(&ordinary.client(), &first.uid).await;
    for ((kind, answer), (_, expected)) in peculiar.into_iter().zip(expected) {
        let answer = answer.unwrap_or_else(|status| panic!("{kind}: {status:?}"));
        assert_eq!(answer, expected.expect("an ordinary server"), "{kind}");
    }
    check_ledger(&connect(&plain).await, &[]).await;
}
