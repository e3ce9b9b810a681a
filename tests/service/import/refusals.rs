//! A bad record is refused by itself, and a message that is none ends the import.

use futures_util::stream;
use tokio::sync::mpsc;
use tonic::Code;
use voicecall::proto::{
    self, ErrorReason, ImportConflictPolicy as Policy, ImportOutcome as Outcome, ImportRecord,
    ImportSettings, ImportVoiceCallsRequest, VoiceCall, import_voice_calls_request::Message,
    import_voice_calls_response::Result as Answer,
};

use super::{outcomes, send, time};
use crate::support::{
    Server, assert_refused, create, get,
    import::{record, settings},
    inbound, reference,
};

#[tokio::test]
async fn a_bad_record_is_refused_by_itself_with_all_that_is_wrong() {
    let server = Server::start().await;
    let mut client = server.client();
    let purged = create(&mut client, inbound()).await;
    let request = proto::PurgeVoiceCallRequest {
        uid: purged.uid.clone(),
        ..Default::default()
    };
    client
        .purge_voice_call(request)
        .await
        .expect("it is purged");
    let bad = VoiceCall {
        uid: "x".into(),
        direction: 0,
        duration: Some(-1),
        status: 77,
        created_at: time(4_000_000_000),
        updated_at: time(4_000_000_000),
        deleted_at: time(4_000_000_000),
        recording_url: Some("recording.mp3".into()),
        ..inbound()
    };
    let nameless = inbound();
    let calls = [
        reference(),
        bad,
        VoiceCall {
            direction: 1,
            ..purged.clone()
        },
        nameless,
    ];
    let mut messages = vec![settings(Policy::Skip)];
    messages.extend(
        (10..)
            .zip(calls)
            .map(|(sequence, call)| record(sequence, call)),
    );
    messages.push(ImportVoiceCallsRequest {
        message: Some(Message::Record(ImportRecord {
            sequence: 14,
            voice_call: None,
        })),
    });
    messages.push(record(
        15,
        VoiceCall {
            uid: uuid::Uuid::new_v4().into(),
            ..inbound()
        },
    ));
    let answers = send(&mut client, messages).await.expect("a good import");
    let sequences: Vec<_> = answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequences, [10, 11, 12, 13, 14, 15]);
    let errors: Vec<_> = answers
        .iter()
        .map(|answer| match &answer.result {
            Some(Answer::Error(error)) => {
                let fields = error.field_violations.iter();
                let mut fields: Vec<_> = fields.map(|violation| violation.field.as_str()).collect();
                fields.sort_unstable();
                Some((error.reason(), fields.join(" ")))
            }
            _ => None,
        })
        .collect();
    let invalid = |fields: &str| Some((ErrorReason::InvalidField, fields.to_owned()));
    assert_eq!(
        errors,
        [
            None,
            invalid(
                "voice_call.created_at voice_call.deleted_at voice_call.direction \
                 voice_call.duration voice_call.recording_url voice_call.status \
                 voice_call.uid voice_call.updated_at"
            ),
            Some((ErrorReason::CallPurged, String::new())),
            invalid("voice_call.uid"),
            invalid("voice_call"),
            None,
        ]
    );
    assert_eq!(answers[2].uid, purged.uid);
    assert_eq!(answers[1].uid, "");
}

#[tokio::test]
async fn what_is_no_import_is_refused_and_what_came_before_is_answered() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut refused = async |messages, paths: &[&str]| {
        let answers = send(&mut client, messages).await;
        assert_refused(answers, Code::InvalidArgument, "INVALID_FIELD", paths);
    };
    let nothing = ImportVoiceCallsRequest { message: None };
    refused(vec![record(1, reference())], &["settings"]).await;
    refused(vec![nothing.clone()], &["message"]).await;
    refused(
        vec![settings(Policy::Skip), settings(Policy::Skip)],
        &["settings"],
    )
    .await;
    let unknown = ImportVoiceCallsRequest {
        message: Some(Message::Settings(ImportSettings { conflict_policy: 9 })),
    };
    refused(vec![unknown], &["settings.conflict_policy"]).await;
    assert_eq!(
        send(&mut client, Vec::new())
            .await
            .expect("an empty import"),
        []
    );

    // What is answered before the error is in.
    let (sender, mut receiver) = mpsc::channel(8);
    sender.send(settings(Policy::Skip)).await.expect("open");
    sender.send(record(7, reference())).await.expect("open");
    let answers = client
        .import_voice_calls(stream::poll_fn(move |task| receiver.poll_recv(task)))
        .await;
    let mut answers = answers.expect("it begins").into_inner();
    let first = answers
        .message()
        .await
        .expect("no error")
        .expect("an answer");
    assert_eq!(
        (first.sequence, outcomes(&[first])),
        (7, vec![Outcome::Created])
    );
    sender.send(nothing).await.expect("open");
    assert_refused(
        answers.message().await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &["message"],
    );
    get(&mut client, &reference().uid)
        .await
        .expect("it is there");
}
