//! What a purge erases: no answer tells the content afterwards, on any replica.

use tonic::Code;
use voicecall::proto::{
    DeleteVoiceCallRequest, ExportVoiceCallsRequest, HandleVoiceCallRequest,
    UpdateVoiceCallRequest, VoiceCall,
};

use crate::support::{
    Server, assert_refused, create, eventually, facts, get, handle, inbound,
    postgres::{Cluster, Durability, Stopped, connect, contents, follower_backends},
    request_id,
    server::{narrow_client, settings},
    told::all_that_is_told,
    watcher::{Watcher, from, live},
    writes::{Write, batch_of, delete_of, purge_of},
};

/// A text that is nowhere else.
fn secret() -> String {
    format!("secret-{}", request_id())
}

#[tokio::test]
async fn a_repeat_after_a_purge_does_not_tell_a_right_guess_of_the_content_from_a_wrong_one() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = create(&mut client, inbound()).await.uid;
    handle(&mut client, &uid, "ann").await.expect("it is there");
    let with_summary = |text: &str, request_id: &str| {
        let voice_call = VoiceCall {
            uid: uid.clone(),
            call_summary: Some(text.into()),
            ..VoiceCall::default()
        };
        Write::Update(UpdateVoiceCallRequest {
            voice_call: Some(voice_call),
            request_id: request_id.into(),
            ..Default::default()
        })
    };
    let handled_by = |staff: &str, request_id: &str| {
        Write::Handle(HandleVoiceCallRequest {
            uid: uid.clone(),
            handled_by_staff_uid: staff.into(),
            request_id: request_id.into(),
            ..Default::default()
        })
    };
    let ids = [(); 3].map(|()| request_id());
    // The first changes the call, the others change nothing.
    let right = [
        with_summary("right", &ids[0]),
        with_summary("right", &ids[1]),
        handled_by("ann", &ids[2]),
    ];
    let wrong = [
        with_summary("wrong", &ids[0]),
        with_summary("wrong", &ids[1]),
        handled_by("bob", &ids[2]),
    ];
    for write in right.clone() {
        write.send(&mut client).await.expect("it is there");
    }
    purge_of(&uid)
        .send(&mut client)
        .await
        .expect("it is purged");
    for (place, write) in right.into_iter().chain(wrong).enumerate() {
        let status = write.send(&mut client).await.expect_err("it is purged");
        let (_, reason, _) = facts(&status);
        assert_eq!(reason, "CALL_PURGED", "{place}: {status:?}");
    }
}

#[tokio::test]
async fn a_repeated_delete_of_a_call_that_may_be_missing_is_answered_the_same_after_a_purge() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let uid = request_id();
    let call = VoiceCall {
        uid: uid.clone(),
        ..inbound()
    };
    let before = delete_of(&uid, true);
    let nothing = before.clone().send(&mut client).await;
    assert_eq!(nothing.expect("it may be missing"), []);
    create(&mut client, call).await;
    let purge = purge_of(&uid).send(&mut client).await;
    purge.expect("it is there");
    let after = delete_of(&uid, true);
    let nothing = after.clone().send(&mut client).await;
    assert_eq!(nothing.expect("it may be missing"), []);
    let contents_before = contents(&database).await;
    for write in [&before, &after] {
        let repeat = write.clone().send(&mut client).await;
        assert_eq!(repeat.expect("the same"), []);
        // The same request id for another request.
        let Write::Delete(delete) = write.clone() else {
            unreachable!("it is a delete");
        };
        let other = Write::Delete(DeleteVoiceCallRequest {
            allow_missing: false,
            ..delete
        });
        let refused = other.send(&mut client).await;
        assert_refused(refused, Code::NotFound, "CALL_PURGED", &[]);
    }
    assert_eq!(contents(&database).await, contents_before);
}

#[tokio::test]
async fn a_replica_that_cannot_follow_the_log_does_not_tell_what_another_has_purged() {
    let cluster = Cluster::start(Durability::Fast);
    let url = cluster.database().await;
    let database = connect(&url).await;
    let first = Server::start_on(&url, settings()).await;
    create(&mut first.client(), inbound()).await;
    eventually("the first follows the log", async || {
        !follower_backends(&database).await.is_empty()
    })
    .await;
    let of_first = follower_backends(&database).await;
    let second = Server::start_on(&url, settings()).await;
    let mut follower = 0;
    eventually("the second follows the log", async || {
        let all = follower_backends(&database).await;
        let mut new = all.into_iter().filter(|pid| !of_first.contains(pid));
        follower = new.next().unwrap_or_default();
        follower != 0
    })
    .await;

    // The second has it in memory.
    let mut watcher = Watcher::start(&mut second.client(), from(live()))
        .await
        .expect("it starts");
    watcher.checkpoint().await;
    let token = watcher.token.clone();
    let secret = secret();
    let call = VoiceCall {
        call_summary: Some(secret.clone()),
        staff_uid: Some("staff".into()),
        ..inbound()
    };
    let call = create(&mut first.client(), call).await;
    watcher.until(call.revision).await;
    let (uid, client) = (call.uid, second.client());
    let told = all_that_is_told(&client, &uid, &token, None).await;
    let with_it = told.iter().filter(|(_, text)| text.contains(&secret));
    assert!(with_it.count() > 8, "{told:#?}");

    let stopped = Stopped::new(follower);
    purge_of(&uid)
        .send(&mut first.client())
        .await
        .expect("it is purged");
    for _ in 0..2 {
        let told = all_that_is_told(&client, &uid, &token, None).await;
        let with_it = told.iter().filter(|(_, text)| text.contains(&secret));
        let with_it: Vec<_> = with_it.map(|(name, _)| name).collect();
        assert!(
            with_it.is_empty(),
            "readable after the purge by {with_it:?}"
        );
    }
    drop(stopped);
    watcher.until(call.revision + 1).await;
    get(&mut second.client(), &uid)
        .await
        .expect_err("it is purged");
}

#[tokio::test]
async fn what_an_export_has_read_and_not_sent_is_not_told_after_the_purge() {
    let server = Server::start().await;
    let mut client = server.client();
    let secret = secret();
    let call = VoiceCall {
        call_summary: Some(secret.repeat(1000)),
        ..inbound()
    };
    let mut uids = Vec::new();
    for _ in 0..8 {
        let created = batch_of(vec![call.clone(); 30]).send(&mut client).await;
        uids.extend(created.expect("it fits").into_iter().map(|call| call.uid));
    }
    // What the connection itself has room for is the client's already.
    let mut reader = narrow_client(&server.endpoint);
    let export = reader
        .export_voice_calls(ExportVoiceCallsRequest::default())
        .await;
    let mut export = export.expect("it begins").into_inner();
    let first = export.message().await.expect("good").expect("calls");
    let sent = first.voice_calls.len();
    assert!(sent < uids.len(), "{sent}");
    for uid in &uids {
        purge_of(uid).send(&mut client).await.expect("it is there");
    }
    let mut told = sent;
    while let Some(chunk) = export.message().await.expect("good") {
        told += chunk.voice_calls.len();
    }
    // One more message was on its way.
    assert!(told <= 2 * sent, "{told} of {}", uids.len());
}
