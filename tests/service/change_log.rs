//! The change log: dense, complete, and able to tell the state before each
//! change.

use serde_json::{Map, Value};
use tokio_postgres::Row;
use uuid::Uuid;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, HandleVoiceCallRequest, VoiceCall,
};

use crate::support::{
    Server, create, delete, get, handle, inbound, ledger::check_ledger, postgres::connect,
    reference, request_id, undelete, update,
};

/// The state in a row as a JSON object, in the form that old_values have.
const STATE: &str = "jsonb_build_object( \
    'uid', uid, 'duration', duration, 'status', status, 'direction', direction, \
    'created_at', (extract(epoch FROM created_at) * 1000000)::bigint, \
    'updated_at', (extract(epoch FROM updated_at) * 1000000)::bigint, \
    'handled_at', (extract(epoch FROM handled_at) * 1000000)::bigint, \
    'deleted_at', (extract(epoch FROM deleted_at) * 1000000)::bigint, \
    'staff_uid', staff_uid, 'client_uid', client_uid, 'from_number', from_number, \
    'to_number', to_number, 'recording_url', recording_url, 'call_summary', call_summary, \
    'external_app_url', external_app_url, 'handled_by_staff_uid', handled_by_staff_uid, \
    'revision', revision)";

/// One entry of the log.
#[derive(Debug)]
struct Entry {
    revision: i64,
    kind: String,
    request_id: Option<Uuid>,
    transaction_end: bool,
    stamp: i64,
    actor: Option<String>,
    old_values: Option<Map<String, Value>>,
    state: Map<String, Value>,
}

impl Entry {
    fn new(row: &Row) -> Self {
        let object = |value: Value| match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        };
        let parse = |text: String| serde_json::from_str(&text).expect("JSON");
        Self {
            revision: row.get("revision"),
            kind: row.get("kind"),
            request_id: row
                .get::<_, Option<String>>("request_id")
                .map(|text| text.parse().expect("a UUID")),
            transaction_end: row.get("transaction_end"),
            stamp: row.get("stamp"),
            actor: row.get("actor"),
            old_values: row
                .get::<_, Option<String>>("old_values")
                .map(|text| object(parse(text))),
            state: object(parse(row.get("state"))),
        }
    }
}

/// The log, in order.
async fn log(server: &Server) -> Vec<Entry> {
    let database = connect(&server.database_url).await;
    let sql = format!(
        "SELECT revision, kind::text, request_id::text, transaction_end, stamp, actor, \
         old_values::text, {STATE}::text AS state FROM voice_call_changes ORDER BY revision"
    );
    let rows = database.query(&sql, &[]).await.expect("it is there");
    rows.iter().map(Entry::new).collect()
}

/// Each entry's old values give back the state before, and no more than that.
fn check_old_values(log: &[Entry]) {
    for (place, pair) in log.windows(2).enumerate() {
        let [before, after] = pair else {
            panic!("windows of two")
        };
        let old = after.old_values.as_ref().expect("there was a state before");
        // The old values, put back, give the state before ...
        let mut restored = after.state.clone();
        restored.extend(old.clone());
        assert_eq!(restored, before.state, "before change {}", place + 2);
        // ... and hold nothing that did not change.
        for (field, value) in old {
            assert_ne!(
                after.state[field],
                *value,
                "{field} in change {}",
                place + 2
            );
        }
    }
}

#[tokio::test]
async fn every_kind_of_change_is_logged_with_the_old_values_of_what_changed() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = create(&mut client, inbound()).await.uid;
    let everything = VoiceCall {
        uid: uid.clone(),
        handled_by_staff_uid: None,
        handled_at: None,
        ..reference()
    };
    update(&mut client, everything, &["*"]).await.expect("fine");
    handle(&mut client, &uid, "ann").await.expect("it is there");
    delete(&mut client, &uid).await.expect("it is there");
    undelete(&mut client, &uid).await.expect("it is deleted");
    let nothing = VoiceCall {
        uid: uid.clone(),
        status: 3,
        direction: 2,
        ..VoiceCall::default()
    };
    update(&mut client, nothing, &["*"]).await.expect("fine");

    let log = log(&server).await;
    let kinds: Vec<_> = log.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "created",
            "updated",
            "handled",
            "deleted",
            "undeleted",
            "updated"
        ]
    );
    assert_eq!(log[0].old_values, None);
    check_old_values(&log);
    for (place, entry) in log.iter().enumerate() {
        assert_eq!(entry.revision, i64::try_from(place).expect("small") + 1);
        assert_eq!((entry.transaction_end, &entry.actor), (true, &None));
        assert_ne!(entry.stamp, 0);
    }
    let stamps: std::collections::HashSet<_> = log.iter().map(|entry| entry.stamp).collect();
    assert_eq!(
        stamps.len(),
        log.len(),
        "each commit has a stamp of its own"
    );
}

#[tokio::test]
async fn the_request_id_and_the_end_of_the_transaction_are_in_the_log() {
    let server = Server::start().await;
    let mut client = server.client();
    let (first, second, third) = (request_id(), request_id(), request_id());
    let request = CreateVoiceCallRequest {
        voice_call: Some(reference()),
        request_id: first.clone(),
        ..Default::default()
    };
    client.create_voice_call(request).await.expect("it is new");
    let request = BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound(); 3],
        request_id: second.to_uppercase(),
    };
    client
        .batch_create_voice_calls(request)
        .await
        .expect("they are new");
    let request = HandleVoiceCallRequest {
        uid: create(&mut client, inbound()).await.uid,
        handled_by_staff_uid: "ann".into(),
        request_id: third.clone(),
        ..Default::default()
    };
    client
        .handle_voice_call(request)
        .await
        .expect("it is there");

    let log = log(&server).await;
    let seen: Vec<_> = log
        .iter()
        .map(|entry| {
            (
                entry.request_id.map(|id| id.to_string()),
                entry.transaction_end,
            )
        })
        .collect();
    let expected = [
        (Some(first), true),
        (Some(second.clone()), false),
        (Some(second.clone()), false),
        (Some(second), true),
        (None, true),
        (Some(third), true),
    ];
    assert_eq!(seen, expected);
    assert_eq!(log[1].stamp, log[3].stamp, "one commit, one stamp");
}

#[tokio::test]
async fn what_many_clients_do_at_once_folds_to_the_table() {
    let server = Server::start().await;
    let clients = (0..16).map(|number| {
        let mut client = server.client();
        tokio::spawn(async move {
            let mut told = Vec::new();
            for round in 0..12 {
                let shared = Uuid::from_u128(round % 4).to_string();
                let call = VoiceCall {
                    uid: shared.clone(),
                    duration: Some(number),
                    ..inbound()
                };
                let request = voicecall::proto::UpdateVoiceCallRequest {
                    voice_call: Some(call),
                    allow_missing: true,
                    ..Default::default()
                };
                let mut answers = vec![match round % 3 {
                    0 => client
                        .update_voice_call(request)
                        .await
                        .map(|r| r.into_inner().voice_call.expect("answered")),
                    1 => delete(&mut client, &shared).await,
                    _ => undelete(&mut client, &shared).await,
                }];
                answers.push(Ok(create(&mut client, inbound()).await));
                // What the state forbids is no matter here.
                told.extend(answers.into_iter().flatten());
            }
            told
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.expect("no panic"));
    }
    let database = connect(&server.database_url).await;
    let head = check_ledger(&database, &told).await;
    assert!(head >= 16 * 12);
    let mut folded = std::collections::HashMap::new();
    for entry in log(&server).await {
        folded.insert(entry.state["uid"].clone(), entry);
    }
    let mut client = server.client();
    for (uid, entry) in folded {
        let call = get(&mut client, uid.as_str().expect("text")).await;
        assert_eq!(call.expect("it is there").revision, entry.revision);
    }
}
