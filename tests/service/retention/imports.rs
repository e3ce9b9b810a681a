//! The records of one call are written in their order, whatever the database refuses
//! between them.

use prost_types::Timestamp;
use voicecall::proto::{
    ImportConflictPolicy, ImportVoiceCallsResponse, VoiceCall,
    import_voice_calls_response::Result as Answer,
};

use crate::support::{
    Client, Server, get, import, inbound,
    ledger::check_ledger,
    postgres::{connect, hold_commits, waiting_backend},
    request_id,
};

/// Imports these calls, the first of which is number 0; returns the answers in that order.
pub(super) async fn import(
    client: &mut Client,
    policy: ImportConflictPolicy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> Vec<ImportVoiceCallsResponse> {
    let (mut answers, end) = import::import(client, policy, calls).await;
    end.expect("it ends well");
    answers.sort_by_key(|answer| answer.sequence);
    answers
}

/// Whether the record is in.
pub(super) fn is_success(answer: &ImportVoiceCallsResponse) -> bool {
    matches!(answer.result, Some(Answer::Success(_)))
}

fn revision(answer: &ImportVoiceCallsResponse) -> i64 {
    match &answer.result {
        Some(Answer::Success(success)) => success.revision,
        other => panic!("refused: {other:?}"),
    }
}

/// A record of a call; the older ones have the smaller numbers.
fn record(uid: &str, number: i32) -> VoiceCall {
    VoiceCall {
        uid: uid.into(),
        duration: Some(number),
        updated_at: Some(Timestamp {
            seconds: 1_600_000_000 + i64::from(number),
            nanos: 0,
        }),
        ..inbound()
    }
}

#[tokio::test]
async fn the_newer_record_wins_although_the_database_refuses_one_beside_the_older() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let rule = "ALTER TABLE voice_calls ADD CHECK (staff_uid <> 'poison')";
    database
        .batch_execute(rule)
        .await
        .expect("the table is empty");
    let hold = connect(&server.database_url).await;
    let mut client = server.client();
    let poison = || VoiceCall {
        staff_uid: Some("poison".into()),
        ..record(&request_id(), 0)
    };
    let mut wrong = Vec::new();
    for round in 0..5 {
        let uid = request_id();
        // No uid comes twice in what is written at once, so these are parts of three.
        let other = request_id();
        let calls = [
            record(&uid, 1),
            poison(),
            record(&uid, 2),
            record(&other, 1),
            record(&other, 2),
        ];
        // All of them wait when the first is refused.
        hold_commits(&hold).await;
        let mut importer = client.clone();
        let importing = tokio::spawn(async move {
            import(&mut importer, ImportConflictPolicy::Replace, calls).await
        });
        waiting_backend(&database).await;
        for _ in 0..20 {
            get(&mut client, &uid).await.expect_err("it is not in yet");
        }
        hold.batch_execute("COMMIT").await.expect("it is open");
        let answers = importing.await.expect("no panic");
        let successes: Vec<_> = answers.iter().map(is_success).collect();
        assert_eq!(successes, [true, false, true, true, true]);
        for (uid, places) in [(uid, [0, 2]), (other, [3, 4])] {
            let stored = get(&mut client, &uid).await.expect("it is there").duration;
            let revisions = places.map(|place| revision(&answers[place]));
            if stored != Some(2) || !revisions.is_sorted() {
                wrong.push(format!("round {round}: {stored:?} at {revisions:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    check_ledger(&database, &[]).await;
}

/// Errors that usually pass, raised by what one record does; the last looks like a missing
/// partition.
const OF_ONE_RECORD: [&str; 3] = ["54000", "40001", "23514"];

#[tokio::test]
async fn a_record_that_is_refused_for_a_reason_that_should_pass_stops_no_other() {
    for sqlstate in OF_ONE_RECORD {
        let server = Server::start().await;
        let database = connect(&server.database_url).await;
        let rule = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 RAISE EXCEPTION 'refused' USING ERRCODE = '{sqlstate}'; \
             END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON voice_calls FOR EACH ROW \
                 WHEN (NEW.staff_uid = 'poison') EXECUTE FUNCTION refuse()"
        );
        database.batch_execute(&rule).await.expect("it is ours");
        let staff = |place: usize| if place == 3 { "poison" } else { "ann" };
        let calls = (0..8).map(|place| VoiceCall {
            uid: request_id(),
            staff_uid: Some(staff(place).into()),
            ..inbound()
        });
        let mut client = server.client();
        let answers = import(&mut client, ImportConflictPolicy::Skip, calls).await;
        let refused: Vec<_> = answers
            .iter()
            .filter(|answer| !is_success(answer))
            .map(|answer| answer.sequence)
            .collect();
        assert_eq!(refused, [3], "{sqlstate}");
    }
}
