//! Every kind of read, and what it shows of one call.

use std::time::Duration;

use tonic::{Code, Request, Status};
use voicecall::proto::{
    BatchGetVoiceCallsRequest, ExportVoiceCallsRequest, GetVoiceCallRequest,
    GetVoiceCallStatsRequest, ListVoiceCallChangesRequest, ListVoiceCallsRequest, VoiceCall,
    VoiceCallFilter,
};

use crate::support::{Client, watcher::change};

/// Longer than a read waits for min_revision.
const READ_TIMEOUT: Duration = Duration::from_secs(8);

/// A kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Get,
    BatchGet,
    List,
    Stats,
    Changes,
    Export,
}

pub(super) const READS: [Read; 6] = [
    Read::Get,
    Read::BatchGet,
    Read::List,
    Read::Stats,
    Read::Changes,
    Read::Export,
];

impl Read {
    /// The revision of the call with this uid as this read returns it (stats: the
    /// revision at which it is counted); `None` if the read does not find the call.
    pub(super) async fn revision(
        self,
        client: &mut Client,
        uid: &str,
        min_revision: i64,
    ) -> Result<Option<i64>, Status> {
        let filter = Some(VoiceCallFilter {
            uids: vec![uid.to_owned()],
            ..Default::default()
        });
        let uids = vec![uid.to_owned()];
        let first = |calls: Vec<VoiceCall>| calls.first().map(|call| call.revision);
        Ok(match self {
            Self::Get => {
                let uid = uid.to_owned();
                let request = GetVoiceCallRequest { uid, min_revision };
                match client.get_voice_call(timed(request)).await {
                    Err(status) if status.code() == Code::NotFound => None,
                    response => first(response?.into_inner().voice_call.into_iter().collect()),
                }
            }
            Self::BatchGet => {
                let request = BatchGetVoiceCallsRequest { uids, min_revision };
                let response = client.batch_get_voice_calls(timed(request)).await?;
                first(response.into_inner().voice_calls)
            }
            Self::List => {
                let request = ListVoiceCallsRequest {
                    filter,
                    min_revision,
                    ..Default::default()
                };
                let response = client.list_voice_calls(timed(request)).await?;
                first(response.into_inner().voice_calls)
            }
            Self::Stats => {
                let request = GetVoiceCallStatsRequest {
                    filter,
                    min_revision,
                    ..Default::default()
                };
                let response = client.get_voice_call_stats(timed(request)).await?;
                let stats = response.into_inner();
                (stats.total_count == 1).then_some(stats.revision)
            }
            Self::Changes => last_change(client, filter, min_revision).await?,
            Self::Export => {
                let request = ExportVoiceCallsRequest {
                    filter,
                    min_revision,
                };
                let response = client.export_voice_calls(timed(request)).await?;
                let mut chunks = response.into_inner();
                let chunk = chunks.message().await?.expect("there is at least one");
                first(chunk.voice_calls)
            }
        })
    }
}

/// The revision of the last change of these calls.
async fn last_change(
    client: &mut Client,
    filter: Option<VoiceCallFilter>,
    min_revision: i64,
) -> Result<Option<i64>, Status> {
    let mut last = None;
    let mut start = None;
    loop {
        let request = ListVoiceCallChangesRequest {
            filter: filter.clone(),
            start,
            page_size: 0,
            min_revision,
        };
        let response = client.list_voice_call_changes(timed(request)).await?;
        let page = response.into_inner();
        last = page
            .events
            .last()
            .map(|event| change(event).revision)
            .or(last);
        if page.caught_up {
            return Ok(last);
        }
        use voicecall::proto::list_voice_call_changes_request::Start;
        start = Some(Start::ResumeToken(page.resume_token));
    }
}

/// Asserts that every kind of read returns this acknowledged call, with and without
/// min_revision.
pub(super) async fn assert_seen(client: &mut Client, call: &VoiceCall) {
    let mut stale = Vec::new();
    for read in READS {
        for min_revision in [0, call.revision] {
            let shown = read.revision(client, &call.uid, min_revision).await;
            match shown {
                Ok(shown) if shown >= Some(call.revision) => {}
                other => stale.push(format!("{read:?}, min_revision {min_revision}: {other:?}")),
            }
        }
    }
    assert!(
        stale.is_empty(),
        "a call that was acknowledged at revision {}, but reads return: {stale:#?}",
        call.revision
    );
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(READ_TIMEOUT);
    request
}
