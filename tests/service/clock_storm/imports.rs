//! Imports with several records of one call and, between them, records that the database
//! refuses.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prost_types::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use voicecall::proto::{
    ErrorReason, GetVoiceCallRequest, ImportConflictPolicy, VoiceCall, VoiceCallStatus,
    import_voice_calls_response::Result as Answer,
};

use crate::support::{
    Client,
    import::import,
    inbound,
    load::{DEADLINE, unexpected},
    request_id,
    server::client,
    tally::Tally,
    writes::within,
};

/// More than one chunk of an import.
const RECORDS: i32 = 600;
/// Calls of which there are several records.
const CALLS: usize = 4;
const PAUSE: Duration = Duration::from_millis(700);
const IMPORT_TIME: Duration = Duration::from_secs(60);

/// Imports until it is stopped; returns the states that are in.
pub(super) async fn run(
    seed: u64,
    replicas: [String; 2],
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Vec<VoiceCall> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut states = Vec::new();
    let mut pause = interval(PAUSE);
    while !stop.is_cancelled() {
        pause.tick().await;
        let replica = random.random_range(0..2);
        let mut clients = [&replicas[replica], &replicas[1 - replica]].map(|url| client(url));
        let calls = records(&mut random);
        let policy = match random.random_bool(0.7) {
            true => ImportConflictPolicy::Replace,
            false => ImportConflictPolicy::ReplaceIfNewer,
        };
        let importing = import(&mut clients[0], policy, calls.clone());
        let Ok((answers, end)) = timeout(IMPORT_TIME, importing).await else {
            tally.violation("an import that does not end", || format!("{IMPORT_TIME:?}"));
            continue;
        };
        let code = end.as_ref().err().map_or(Code::Ok, tonic::Status::code);
        tally.answer("import with refused records", code);
        if let Err(status) = &end
            && !matches!(code, Code::Unavailable | Code::ResourceExhausted)
        {
            unexpected(&tally, "import with refused records", status);
        }
        let mut revisions = vec![None; calls.len()];
        for answer in answers {
            let place = usize::try_from(answer.sequence).expect("one of ours");
            let is_poison = is_poison(&calls[place]);
            match answer.result.expect("always set") {
                Answer::Success(_) if is_poison => {
                    tally.violation("a record against the rule", || format!("{place}"));
                }
                Answer::Success(success) => revisions[place] = Some(success.revision),
                Answer::Error(_) if is_poison => tally.add("records refused by the database", 1),
                Answer::Error(error) => match error.reason() {
                    ErrorReason::OutcomeUnknown | ErrorReason::DatabaseUnavailable => {
                        tally.add("import records not imported", 1);
                    }
                    ErrorReason::Internal => tally.violation("INTERNAL", || format!("{error:?}")),
                    _ => tally.violation("a good record is refused", || format!("{error:?}")),
                },
            }
        }
        let histories = histories(&calls, &revisions);
        for versions in histories.values().filter(|versions| versions.len() > 1) {
            check_order(&calls, versions, &mut clients[1], &tally).await;
        }
        let imported = calls.into_iter().zip(revisions);
        states.extend(imported.filter_map(|(call, revision)| {
            let revision = revision?;
            Some(VoiceCall { revision, ..call })
        }));
    }
    states
}

fn is_poison(call: &VoiceCall) -> bool {
    call.staff_uid.as_deref() == Some("poison")
}

fn records(random: &mut StdRng) -> Vec<VoiceCall> {
    let uids = [(); CALLS].map(|()| request_id());
    let record = |number| {
        let (uid, staff) = match random.random_range(0..20) {
            0 => (request_id(), Some("poison")),
            1..6 => (uids[random.random_range(0..CALLS)].clone(), None),
            _ => (request_id(), None),
        };
        VoiceCall {
            uid,
            duration: Some(number),
            status: VoiceCallStatus::Missed.into(),
            staff_uid: staff.map(Into::into),
            // The newer ones have the higher numbers.
            updated_at: Some(Timestamp {
                seconds: 1_600_000_000 + i64::from(number),
                nanos: 0,
            }),
            ..inbound()
        }
    };
    (0..RECORDS).map(record).collect()
}

/// The places of the good records of each call, with their revisions.
fn histories<'a>(
    calls: &'a [VoiceCall],
    revisions: &[Option<i64>],
) -> HashMap<&'a str, Vec<(usize, Option<i64>)>> {
    let mut histories: HashMap<_, Vec<_>> = HashMap::new();
    for (place, (call, revision)) in calls.iter().zip(revisions).enumerate() {
        if !is_poison(call) {
            let versions = histories.entry(call.uid.as_str()).or_default();
            versions.push((place, *revision));
        }
    }
    histories
}

/// The records of one call are in by their order, and the last of them is the call.
async fn check_order(
    calls: &[VoiceCall],
    versions: &[(usize, Option<i64>)],
    client: &mut Client,
    tally: &Tally,
) {
    let known: Vec<i64> = versions.iter().filter_map(|version| version.1).collect();
    if !known.is_sorted() {
        tally.violation("records of one call out of order", || {
            format!("{versions:?}")
        });
    }
    let Some((last, Some(revision))) = versions.last() else {
        return;
    };
    let last = &calls[*last];
    let request = GetVoiceCallRequest {
        uid: last.uid.clone(),
        min_revision: *revision,
    };
    // The other reads are held to the codes that there may be.
    let Ok(response) = client.get_voice_call(within(request, Some(DEADLINE))).await else {
        return;
    };
    let found = response.into_inner().voice_call.expect("it is answered");
    tally.add("calls with several imported records checked", 1);
    if found.duration != last.duration || found.revision != *revision {
        tally.violation("an older record is the last", || {
            format!("{found:?} instead of {last:?} at {revision}")
        });
    }
}
