//! The reads and imports of the clients of `load`, with their checks: a read after an
//! acknowledged write returns that write or a newer one, or fails with a status that
//! says to try later.

use std::time::Duration;

use futures_util::stream;
use rand::Rng;
use tokio::time::timeout;
use tonic::{Code, Status};
use voicecall::proto::{
    self, ErrorReason, ImportRecord, ImportSettings, ImportVoiceCallsRequest, VoiceCall,
    VoiceCallFilter, import_voice_calls_request::Message,
    import_voice_calls_response::Result as Answer,
};

use super::{
    load::{DEADLINE, Known, LoadClient, closed_call, reason, unexpected},
    tally::Tally,
    writes::within,
};

/// The deadline of an import.
const IMPORT_DEADLINE: Duration = Duration::from_secs(10);

/// The response, if there is one. A passed deadline and an unavailable database are
/// allowed; other errors are recorded as violations.
fn answer<T>(
    tally: &Tally,
    kind: &'static str,
    result: Result<tonic::Response<T>, Status>,
) -> Option<T> {
    let status = match result {
        Ok(response) => {
            tally.answer(kind, Code::Ok);
            return Some(response.into_inner());
        }
        Err(status) => status,
    };
    tally.answer(kind, status.code());
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {}
        Code::FailedPrecondition if reason(&status) == "REVISION_NOT_REACHED" => {}
        Code::NotFound => tally.violation("an acknowledged call is not found by a read", || {
            format!("{kind}: {status}")
        }),
        _ => unexpected(tally, kind, &status),
    }
    None
}

/// Records a read that is older than an acknowledged write.
fn check_age(tally: &Tally, kind: &str, known: &Known, read: i64) {
    if read < known.revision {
        tally.violation("a read older than an acknowledged write", || {
            format!("{kind}: {known:?} at revision {read}")
        });
    }
}

/// Chooses a replica, and the `min_revision`: mostly the given one, or none, which
/// must return the same with a single database.
fn choose(client: &mut LoadClient, revision: i64) -> (usize, i64) {
    let waits = client.random.random_bool(0.8);
    (
        client.random.random_range(0..2),
        if waits { revision } else { 0 },
    )
}

pub(super) async fn get(client: &mut LoadClient, known: Known) {
    let (replica, min_revision) = choose(client, known.revision);
    let request = proto::GetVoiceCallRequest {
        uid: known.uid.clone(),
        min_revision,
    };
    let result = client.replicas[replica].get_voice_call(within(request, Some(DEADLINE)));
    let Some(response) = answer(&client.tally, "get", result.await) else {
        return;
    };
    let call = response.voice_call.expect("it is answered");
    check_age(&client.tally, "get", &known, call.revision);
    client.learn(&call);
    client.observed.seen.push(call);
}

pub(super) async fn batch_get(client: &mut LoadClient) {
    let revision = client.own.iter().map(|own| own.revision).max().unwrap_or(0);
    let (replica, min_revision) = choose(client, revision);
    let own = client.own.clone();
    let request = proto::BatchGetVoiceCallsRequest {
        uids: own.iter().map(|own| own.uid.clone()).collect(),
        min_revision,
    };
    let result = client.replicas[replica].batch_get_voice_calls(within(request, Some(DEADLINE)));
    let Some(response) = answer(&client.tally, "batch get", result.await) else {
        return;
    };
    for uid in &response.missing_uids {
        client
            .tally
            .violation("an acknowledged call is not found by a read", || {
                format!("batch get: {uid}")
            });
    }
    for call in response.voice_calls {
        let known = own.iter().find(|own| own.uid == call.uid);
        let known = known.expect("it was asked for");
        check_age(&client.tally, "batch get", known, call.revision);
        client.learn(&call);
    }
}

pub(super) async fn list(client: &mut LoadClient, known: Known) {
    let (replica, min_revision) = choose(client, known.revision);
    // A page of everybody's calls, or this one call.
    let is_page = client.random.random_bool(0.5);
    let uids = (!is_page).then(|| known.uid.clone());
    let request = proto::ListVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            uids: uids.into_iter().collect(),
            show_deleted: true,
            ..Default::default()
        }),
        page_size: 20,
        min_revision,
        ..Default::default()
    };
    let result = client.replicas[replica].list_voice_calls(within(request, Some(DEADLINE)));
    let Some(response) = answer(&client.tally, "list", result.await) else {
        return;
    };
    check_age(&client.tally, "list", &known, response.revision);
    let newest = response.voice_calls.iter().map(|call| call.revision).max();
    if newest.is_some_and(|newest| newest > response.revision) {
        client
            .tally
            .violation("a page newer than its revision", || {
                format!("{newest:?} in a page at {}", response.revision)
            });
    }
    if !is_page {
        let revision = newest.unwrap_or(0);
        check_age(&client.tally, "list of one call", &known, revision);
    }
}

pub(super) async fn stats(client: &mut LoadClient) {
    let revision = client.own.iter().map(|own| own.revision).max().unwrap_or(0);
    let (replica, min_revision) = choose(client, revision);
    let request = proto::GetVoiceCallStatsRequest {
        filter: Some(VoiceCallFilter {
            uids: client.own.iter().map(|own| own.uid.clone()).collect(),
            show_deleted: true,
            ..Default::default()
        }),
        min_revision,
        ..Default::default()
    };
    let result = client.replicas[replica].get_voice_call_stats(within(request, Some(DEADLINE)));
    let Some(response) = answer(&client.tally, "stats", result.await) else {
        return;
    };
    let (counted, known) = (response.total_count, client.own.len());
    if usize::try_from(counted) != Ok(known) || response.revision < revision {
        client.tally.violation("statistics that miss calls", || {
            format!(
                "{counted} of {known} at {}, after {revision}",
                response.revision
            )
        });
    }
}

/// Imports this many new calls.
pub(super) async fn import(client: &mut LoadClient, count: usize) {
    let now = std::time::SystemTime::now();
    let calls: Vec<_> = (0..count)
        .map(|_| VoiceCall {
            uid: uuid::Uuid::from_u128(client.random.random()).to_string(),
            updated_at: Some(now.into()),
            ..closed_call(&mut client.random)
        })
        .collect();
    let settings = Message::Settings(ImportSettings::default());
    let records = (0..).zip(&calls).map(|(sequence, call)| {
        Message::Record(ImportRecord {
            sequence,
            voice_call: Some(call.clone()),
        })
    });
    let messages: Vec<_> = std::iter::once(settings)
        .chain(records)
        .map(|message| ImportVoiceCallsRequest {
            message: Some(message),
        })
        .collect();
    let replica = client.random.random_range(0..2);
    let mut stub = client.replicas[replica].clone();
    let mut acknowledged = Vec::new();
    let tally = &client.tally;
    let transfer = async {
        let request = within(stream::iter(messages), Some(IMPORT_DEADLINE));
        let answers = stub.import_voice_calls(request).await;
        let Some(mut answers) = answer(tally, "import", answers) else {
            return;
        };
        loop {
            match answers.message().await {
                Ok(Some(one)) => acknowledged.extend(imported(tally, &calls, one)),
                Ok(None) => return,
                Err(status) => {
                    let _: Option<()> = answer(tally, "import stream", Err(status));
                    return;
                }
            }
        }
    };
    if timeout(IMPORT_DEADLINE, transfer).await.is_err() {
        tally.answer("import stream", Code::DeadlineExceeded);
    }
    tally.add("imported records acknowledged", acknowledged.len() as u64);
    for call in &acknowledged {
        client.learn(call);
    }
    client.observed.seen.extend(acknowledged);
}

/// The call of an imported record; `None`: it was refused.
fn imported(
    tally: &Tally,
    calls: &[VoiceCall],
    answer: proto::ImportVoiceCallsResponse,
) -> Option<VoiceCall> {
    let place = usize::try_from(answer.sequence).expect("the number of a record that was sent");
    match answer.result.expect("always set") {
        Answer::Success(success) => Some(VoiceCall {
            revision: success.revision,
            ..calls[place].clone()
        }),
        Answer::Error(error) => {
            tally.add("import records not imported", 1);
            match error.reason() {
                ErrorReason::OutcomeUnknown | ErrorReason::DatabaseUnavailable => {}
                ErrorReason::Internal => tally.violation("INTERNAL", || format!("{error:?}")),
                _ => tally.violation("a new call is refused", || format!("{error:?}")),
            }
            None
        }
    }
}
