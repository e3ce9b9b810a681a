//! Times: their precision, how far ahead they may be, and that the log's never
//! run backwards.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use tonic::Code;
use voicecall::proto::{CreateVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall};

use crate::support::{
    Server, assert_refused, create, delete, get, handle, inbound, micros,
    postgres::{connect, contents},
    request_id, update,
};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    Timestamp {
        seconds: i64::try_from(seconds).expect("in range"),
        nanos: 0,
    }
}

fn status_of(uid: &str, status: i32) -> VoiceCall {
    VoiceCall {
        uid: uid.into(),
        status,
        ..VoiceCall::default()
    }
}

#[tokio::test]
async fn a_call_is_created_at_most_5_minutes_ahead() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    for (ahead, accepted) in [(290, true), (310, false), (1_000_000, false)] {
        let mut time = now();
        time.seconds += ahead;
        let call = VoiceCall {
            uid: request_id(),
            created_at: Some(time),
            ..inbound()
        };
        let upsert = UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: request_id(),
                ..call.clone()
            }),
            allow_missing: true,
            ..Default::default()
        };
        let request = CreateVoiceCallRequest {
            voice_call: Some(call),
            ..Default::default()
        };
        let results = [
            client
                .create_voice_call(request)
                .await
                .map(|r| r.into_inner().voice_call),
            client
                .update_voice_call(upsert)
                .await
                .map(|r| r.into_inner().voice_call),
        ];
        for result in results {
            if accepted {
                let call = result.expect("it is near").expect("it is answered");
                assert_eq!(call.created_at, Some(time));
            } else {
                let paths = ["voice_call.created_at"];
                assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
            }
        }
    }
    assert_eq!(contents(&database).await.calls, 2);
}

#[tokio::test]
async fn times_are_kept_to_the_microsecond_and_truncated_also_before_1970() {
    let server = Server::start().await;
    let mut client = server.client();
    for (seconds, nanos, kept) in [
        (1_600_000_000, 123_456_999, 123_456_000),
        (1_600_000_000, 999, 0),
        (-1, 999_999_999, 999_999_000),
        (-1_000_000_000, 1, 0),
    ] {
        let time = Some(Timestamp { seconds, nanos });
        let call = VoiceCall {
            created_at: time,
            handled_at: time,
            ..inbound()
        };
        let created = create(&mut client, call).await;
        let expected = Some(Timestamp {
            seconds,
            nanos: kept,
        });
        assert_eq!(created.created_at, expected);
        assert_eq!(created.handled_at, expected);
        assert_eq!(
            get(&mut client, &created.uid).await.expect("there"),
            created
        );
    }
}

#[tokio::test]
async fn updated_at_and_changed_at_never_run_backwards_even_if_the_clock_does() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let created = create(&mut client, inbound()).await;
    // The clock stepped back by an hour: the log is an hour ahead of it.
    let sql = "UPDATE voice_call_changes SET changed_at = changed_at + interval '1 hour', \
            updated_at = updated_at + interval '1 hour'; \
        UPDATE voice_calls SET updated_at = updated_at + interval '1 hour'; \
        UPDATE voice_call_batches SET committed_at = committed_at + interval '1 hour'";
    database.batch_execute(sql).await.expect("it is done");
    let mut latest = micros(created.updated_at) + 3_600_000_000;
    let mut calls = vec![
        update(&mut client, status_of(&created.uid, 3), &[])
            .await
            .expect("fine"),
    ];
    calls.push(
        handle(&mut client, &created.uid, "ann")
            .await
            .expect("fine"),
    );
    calls.push(create(&mut client, inbound()).await);
    calls.push(delete(&mut client, &created.uid).await.expect("fine"));
    for call in calls {
        assert!(micros(call.updated_at) >= latest);
        latest = micros(call.updated_at);
    }
    let sql = "SELECT bool_and(changed_at >= earlier) FROM \
        (SELECT changed_at, lag(changed_at) OVER (ORDER BY revision) AS earlier \
         FROM voice_call_changes) c";
    let monotonic: bool = database.query_one(sql, &[]).await.expect("there").get(0);
    assert!(monotonic);
}
