//! Imports by the library.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
};

use futures_util::{TryStreamExt, stream};
use voicecall::{
    client::{Client, Code},
    proto::{
        ExportVoiceCallsRequest, ImportConflictPolicy, ImportRecord, ImportSettings, VoiceCall,
        import_voice_calls_response::Result as Answer,
    },
};

use crate::{
    support::{Server, server::Restartable},
    transfers::{call, client, uid},
};

/// The calls of the table, as they would be written to a file.
async fn table(client: &Client) -> BTreeMap<String, VoiceCall> {
    let calls = client.export(ExportVoiceCallsRequest::default());
    let by_uid = calls.map_ok(|call| {
        (
            call.uid.clone(),
            VoiceCall {
                revision: 0,
                ..call
            },
        )
    });
    by_uid.try_collect().await.expect("an export")
}

#[tokio::test]
async fn an_import_goes_on_through_kills_and_answers_each_record_once() {
    const CALLS: u128 = 6000;
    let mut service = Restartable::start().await;
    let client = service
        .client()
        .with_deadline(std::time::Duration::from_secs(60));
    // Each call comes twice, and the second record is not newer: it must be the
    // last one that is written, also when both are sent again.
    let last = |n: u128| VoiceCall {
        duration: Some(7),
        ..call(n)
    };
    let records = (0..CALLS).flat_map(|n| [call(n), last(n)]);
    let records = records.enumerate().map(|(sequence, call)| ImportRecord {
        sequence: i64::try_from(sequence).expect("small") * 10,
        voice_call: Some(call),
    });
    let settings = ImportSettings {
        conflict_policy: ImportConflictPolicy::Replace.into(),
    };
    let mut answers = pin!(client.import(settings, stream::iter(records)));
    let mut seen = HashSet::new();
    while let Some(answer) = answers.try_next().await.expect("it goes on") {
        assert!(
            matches!(answer.result, Some(Answer::Success(_))),
            "{answer:?}"
        );
        assert!(seen.insert(answer.sequence), "{} twice", answer.sequence);
        if [1, 1500, 7001].contains(&seen.len()) {
            service.kill();
            service.run();
        }
    }
    let all: HashSet<_> = (0..2 * i64::try_from(CALLS).expect("small"))
        .map(|n| n * 10)
        .collect();
    assert_eq!(seen, all);
    let table = table(&client).await;
    assert_eq!(table.len() as u128, CALLS);
    for n in 0..CALLS {
        assert_eq!(table[&uid(n)], last(n));
    }
}

#[tokio::test]
async fn an_import_that_is_refused_for_good_ends_with_the_reason() {
    let server = Server::start().await;
    let settings = ImportSettings {
        conflict_policy: 99,
    };
    let record = ImportRecord {
        sequence: 1,
        voice_call: Some(call(1)),
    };
    let client = client(&server);
    let answers = client.import(settings, stream::iter([record]));
    let error = answers.try_collect::<Vec<_>>().await.expect_err("refused");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(
        error.details.violations[0].field,
        "settings.conflict_policy"
    );
}
