//! WatchVoiceCalls and ListVoiceCallChanges: what they send, how a stream starts and
//! ends, and what clients may do wrong, by mistake or on purpose.
//!
//! - `events`: what a change means to a filter, the same on every way to read it
//! - `starts`: live, snapshots, resume tokens, and starts that are refused
//! - `checkpoints`: how often they come, and what they promise
//! - `replicas`: writes of another replica, a drained one, a database that was set back
//! - `purges`: a purge reaches the watchers that may have seen the call, and erases what
//!   is queued for them
//! - `slow_feed`: what is committed while the feed's own connection stands still
//! - `slow_readers`: watchers that read slowly, or too slowly for the log
//! - `limits`: the size of a filter, the number of watches, and the memory of those that
//!   are never read or abandoned

mod checkpoints;
mod events;
mod limits;
mod purges;
mod replicas;
mod slow_feed;
mod slow_readers;
mod starts;

use voicecall::proto::{
    ListVoiceCallChangesRequest, PurgeVoiceCallRequest, VoiceCall, VoiceCallEvent, VoiceCallFilter,
    list_voice_call_changes_request,
};

use crate::support::{Client, inbound, request_id, writes::batch_of};

fn staff(name: &str) -> VoiceCall {
    VoiceCall {
        staff_uid: Some(name.into()),
        ..inbound()
    }
}

fn of_staff(name: &str) -> VoiceCallFilter {
    VoiceCallFilter {
        staff_uids: vec![name.into()],
        ..Default::default()
    }
}

/// Creates `count` calls of staff ada in one batch, each with a summary of `bytes` bytes,
/// and returns the last revision.
async fn create_many(client: &mut Client, count: usize, bytes: usize) -> i64 {
    let call = VoiceCall {
        staff_uid: Some("ada".into()),
        call_summary: Some("x".repeat(bytes)),
        ..inbound()
    };
    let created = batch_of(vec![call; count]).send(client).await;
    created.expect("good").last().expect("some").revision
}

/// Purges the call, and returns the revision of the purge.
async fn purge(client: &mut Client, uid: &str) -> i64 {
    let request = PurgeVoiceCallRequest {
        uid: uid.into(),
        request_id: request_id(),
    };
    let response = client.purge_voice_call(request).await.expect("it exists");
    response.into_inner().revision
}

/// All changes after `start` that the filter lets through, by pages of `page_size`.
async fn history(
    client: &mut Client,
    filter: VoiceCallFilter,
    page_size: i32,
) -> Vec<VoiceCallEvent> {
    let mut all = Vec::new();
    let mut start = None;
    loop {
        let request = ListVoiceCallChangesRequest {
            filter: Some(filter.clone()),
            start,
            page_size,
            ..Default::default()
        };
        let page = client
            .list_voice_call_changes(request)
            .await
            .expect("allowed");
        let page = page.into_inner();
        assert!(page.events.len() <= usize::try_from(page_size).expect("positive"));
        all.extend(page.events);
        if page.caught_up {
            return all;
        }
        start = Some(list_voice_call_changes_request::Start::ResumeToken(
            page.resume_token,
        ));
    }
}
