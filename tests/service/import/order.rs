//! Records of one call are imported in their order, and other writes go on meanwhile.

use voicecall::proto::{ImportConflictPolicy as Policy, ImportOutcome as Outcome, VoiceCall};

use super::{import, outcomes, updated};
use crate::support::{
    Server, create, delete, get, inbound, ledger::check_ledger, postgres::connect, update,
};

#[tokio::test]
async fn records_of_one_call_are_imported_in_their_order() {
    let server = Server::start().await;
    let mut client = server.client();
    // Of two calls in turn, so that chunks end at a repeated uid and share others.
    let uids: Vec<_> = (0..40).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let calls: Vec<_> = (0..2_000_usize)
        .map(|place| VoiceCall {
            uid: uids[(place * place / 7) % uids.len()].clone(),
            duration: Some(i32::try_from(place).expect("small")),
            ..updated(1_600_000_000, "x")
        })
        .collect();
    let answers = import(&mut client, Policy::Replace, calls.clone()).await;
    assert_eq!(answers.len(), calls.len());
    for uid in &uids {
        let Some(last) = calls.iter().rfind(|call| call.uid == *uid) else {
            continue;
        };
        let read = get(&mut client, uid).await.expect("it is there");
        assert_eq!(read.duration, last.duration);
    }
}

#[tokio::test]
async fn imports_and_other_writes_keep_the_log_whole() {
    let server = Server::start().await;
    let calls: Vec<_> = (0..3_000)
        .map(|n| VoiceCall {
            uid: uuid::Uuid::new_v4().to_string(),
            duration: Some(n % 100),
            ..updated(1_600_000_000 + i64::from(n), "imported")
        })
        .collect();
    let mut acknowledged = Vec::new();
    let mut importing = server.client();
    let twice = async {
        import(&mut importing, Policy::ReplaceIfNewer, calls.clone()).await;
        import(&mut importing, Policy::ReplaceIfNewer, calls.clone()).await
    };
    let mut writing = server.client();
    let writes = async {
        for n in 0..200 {
            let created = create(&mut writing, inbound()).await;
            acknowledged.push(created.clone());
            let duration = Some(n);
            let changed = VoiceCall {
                duration,
                ..created
            };
            let changed = update(&mut writing, changed, &["duration"]).await;
            acknowledged.push(changed.expect("it is updated"));
            if let Some(call) = calls.get(usize::try_from(n).expect("small")) {
                // It may not be in yet.
                acknowledged.extend(delete(&mut writing, &call.uid).await.ok());
            }
        }
    };
    let (answers, ()) = tokio::join!(twice, writes);
    assert_eq!(answers.len(), calls.len());
    assert!(
        outcomes(&answers)
            .iter()
            .all(|outcome| !matches!(outcome, Outcome::Created))
    );
    let database = connect(&server.database_url).await;
    check_ledger(&database, &acknowledged).await;
}
