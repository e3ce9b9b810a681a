//! Everything that the service tells of a call, to find out whether a purge erased it.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;
use voicecall::proto::{
    ListVoiceCallChangesRequest, VoiceCallFilter, WatchVoiceCallsRequest,
    list_voice_call_changes_request, watch_voice_calls_request::Start,
    watch_voice_calls_response::Message,
};

use super::{
    Client,
    reads::every_read_within,
    watcher::{Watcher, from, live, snapshot},
};

/// How long a read may take whose replica cannot follow the log.
const READ_TIME: Duration = Duration::from_secs(2);

/// What a watch shows until its first checkpoint, its end, or the end of the time.
async fn watched(mut client: Client, start: Start, filter: Option<VoiceCallFilter>) -> String {
    let mut seen = String::new();
    let watch = async {
        let request = WatchVoiceCallsRequest {
            filter,
            ..from(start)
        };
        let mut watcher = match Watcher::start(&mut client, request).await {
            Ok(watcher) => watcher,
            Err(status) => {
                seen = format!("{status:?}");
                return;
            }
        };
        loop {
            let next = watcher.next().await;
            seen.push_str(&format!("{next:?}"));
            if matches!(next, Err(_) | Ok(Message::Checkpoint(_))) {
                return;
            }
        }
    };
    // What has been seen by then counts.
    let _ = timeout(READ_TIME, watch).await;
    seen
}

async fn changes(
    mut client: Client,
    uids: Vec<String>,
    start: Option<list_voice_call_changes_request::Start>,
) -> String {
    let request = ListVoiceCallChangesRequest {
        filter: Some(VoiceCallFilter {
            uids,
            ..Default::default()
        }),
        start,
        ..Default::default()
    };
    let read = client.list_voice_call_changes(request);
    format!("{:?}", timeout(READ_TIME, read).await)
}

/// Every way to read what became of the call, each with a name: after the point of this
/// token, and before it. Reads of all calls, or of all changes, have this filter.
pub(crate) async fn all_that_is_told(
    client: &Client,
    uid: &str,
    token: &str,
    all: Option<&VoiceCallFilter>,
) -> Vec<(String, String)> {
    use list_voice_call_changes_request::Start as From;
    let (client, token) = (|| client.clone(), || token.to_owned());
    let uids = || vec![uid.to_owned()];
    let reads: Vec<(&str, BoxFuture<'_, String>)> = vec![
        (
            "watch after 0",
            Box::pin(watched(client(), Start::AfterRevision(0), all.cloned())),
        ),
        (
            "watch of a token",
            Box::pin(watched(client(), Start::ResumeToken(token()), all.cloned())),
        ),
        (
            "watch of a snapshot",
            Box::pin(watched(client(), snapshot(), all.cloned())),
        ),
        (
            "live watch",
            Box::pin(watched(client(), live(), all.cloned())),
        ),
        ("changes", Box::pin(changes(client(), Vec::new(), None))),
        (
            "changes after 0",
            Box::pin(changes(client(), Vec::new(), Some(From::AfterRevision(0)))),
        ),
        (
            "changes of a token",
            Box::pin(changes(
                client(),
                Vec::new(),
                Some(From::ResumeToken(token())),
            )),
        ),
        (
            "history",
            Box::pin(changes(client(), uids(), Some(From::AfterRevision(0)))),
        ),
    ];
    let reads = reads
        .into_iter()
        .map(async |(name, read)| (name.to_owned(), read.await));
    let (told, own) = (join_all(reads), client());
    let (mut told, others) = tokio::join!(told, every_read_within(READ_TIME, &own, uid, all));
    let others = others.into_iter();
    told.extend(others.map(|(name, answer)| (name.to_owned(), format!("{answer:?}"))));
    told
}
